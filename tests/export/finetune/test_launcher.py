"""What a launcher asks for by environment variables is done or refused."""

from __future__ import annotations

import os

import pytest

from dualtune_edge.export.finetune import launcher
from dualtune_edge.export.finetune.processes import Processes
from dualtune_edge.toolkit.errors import SpecError

DEFAULTS = {  # as `accelerate launch` sets them where nothing is asked for
    "ACCELERATE_MIXED_PRECISION": "no",
    "ACCELERATE_DYNAMO_BACKEND": "NO",
    "ACCELERATE_DYNAMO_MODE": "default",
    "ACCELERATE_DYNAMO_USE_FULLGRAPH": "False",
    "ACCELERATE_DYNAMO_USE_DYNAMIC": "False",
    "ACCELERATE_DYNAMO_USE_REGIONAL_COMPILATION": "False",
}
OF_FSDP = {  # as `accelerate launch --use_fsdp --fsdp_version 2` sets them
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_SHARDING_STRATEGY": "FULL_SHARD",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_OFFLOAD_PARAMS": "false",
    "FSDP_MIN_NUM_PARAMS": "100000000",
    "FSDP_FORWARD_PREFETCH": "false",
    "FSDP_USE_ORIG_PARAMS": "true",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "true",
    "FSDP_SYNC_MODULE_STATES": "true",
    "FSDP_ACTIVATION_CHECKPOINTING": "false",
    "FSDP_ACTIVATION_CHECKPOINTING_OFFLOAD": "false",
}


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    ranks = ("RANK", "WORLD_SIZE", "MASTER_ADDR")
    for name in list(os.environ):
        if name in ranks or name.startswith(("ACCELERATE_", "FSDP_", "OMPI_", "PMI_", "MV2_")):
            monkeypatch.delenv(name)


def environment(monkeypatch: pytest.MonkeyPatch, values: dict[str, str]) -> None:
    for name, value in values.items():
        monkeypatch.setenv(name, value)


def test_the_launcher_s_defaults_ask_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not launcher.shards_base()
    environment(monkeypatch, DEFAULTS)
    assert not launcher.shards_base()
    environment(monkeypatch, OF_FSDP)
    assert launcher.shards_base()
    monkeypatch.setenv("FSDP_AUTO_WRAP_POLICY", "TRANSFORMER_BASED_WRAP")
    assert launcher.shards_base()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ACCELERATE_MIXED_PRECISION", "bf16"),
        ("ACCELERATE_MIXED_PRECISION", "fp8"),
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4"),
        ("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR"),
        ("ACCELERATE_USE_DEEPSPEED", "true"),
        ("ACCELERATE_USE_MEGATRON_LM", "true"),
        ("ACCELERATE_USE_PARALLELISM_CONFIG", "true"),
        ("FSDP_VERSION", "1"),
        ("FSDP_OFFLOAD_PARAMS", "true"),
        ("FSDP_RESHARD_AFTER_FORWARD", "false"),
        ("FSDP_SHARDING_STRATEGY", "HYBRID_SHARD"),
        ("FSDP_AUTO_WRAP_POLICY", "SIZE_BASED_WRAP"),
        ("FSDP_TRANSFORMER_CLS_TO_WRAP", "Qwen2MLP"),
        ("FSDP_FORWARD_PREFETCH", "true"),
        ("FSDP_IGNORED_MODULES", "lm_head"),
        ("FSDP_ACTIVATION_CHECKPOINTING", "true"),
        ("FSDP_ACTIVATION_CHECKPOINTING_OFFLOAD", "true"),
    ],
)
def test_what_is_not_done_is_refused_by_name(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    environment(monkeypatch, DEFAULTS | OF_FSDP | {name: value})
    with pytest.raises(SpecError, match=f"{name}: found '{value}'"):
        Processes()


def test_fsdp_s_first_version_is_what_its_launcher_means_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bare `--use_fsdp` sets 1; nothing set at all is this project's own use, and means 2."""
    environment(monkeypatch, {"ACCELERATE_USE_FSDP": "true"})
    assert launcher.shards_base()
    monkeypatch.setenv("FSDP_VERSION", "1")
    with pytest.raises(SpecError, match="--fsdp_version 2"):
        launcher.shards_base()


def test_one_process_shares_its_base_with_none(monkeypatch: pytest.MonkeyPatch) -> None:
    environment(monkeypatch, OF_FSDP)
    with pytest.raises(SpecError, match="ACCELERATE_USE_FSDP: found one process"):
        Processes()


@pytest.mark.parametrize(
    ("rank", "size"),
    [("RANK", "WORLD_SIZE"), ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"), ("PMI_RANK", "PMI_SIZE")],
)
def test_processes_are_those_of_torch_and_of_mpi(rank: str, size: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (launcher.rank(), launcher.started()) == (0, 1)
    environment(monkeypatch, {rank: "3", size: "4"})
    assert (launcher.rank(), launcher.started()) == (3, 4)


def test_a_launcher_that_says_several_and_starts_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """`accelerate launch --cpu --num_processes 2` starts one process, with the address of a first one."""
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    with pytest.raises(SpecError, match="torchrun"):
        Processes()
