"""What started this process asks for by environment variables: `accelerate launch`, torchrun or MPI."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

from accelerate.utils.environment import get_cpu_distributed_information, parse_flag_from_env

from dualtune_edge.toolkit.errors import SpecError

_NUMBERS: Final = {"WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE"}


@dataclass(frozen=True)
class _Request:
    """A variable of Accelerate's launcher. `accepted`: its values that are done, or that change nothing here."""

    accepted: tuple[str, ...]  # in lower case; the first one is meant where the variable is not set
    fix: str


_NO: Final = ("false", "no", "0", "")
_OF_ANY_RUN: Final = {
    "ACCELERATE_MIXED_PRECISION": _Request(("no", ""), "Leave out --mixed_precision, and give finetune --autocast."),
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": _Request(
        ("1", ""), "Leave it out: --batch-size is of a whole step, and --micro-batch of what is held at once."
    ),
    "ACCELERATE_DYNAMO_BACKEND": _Request(("no", ""), "Leave out --dynamo_backend."),
    "ACCELERATE_USE_DEEPSPEED": _Request(_NO, "Shard the base by --use_fsdp --fsdp_version 2."),
    "ACCELERATE_USE_MEGATRON_LM": _Request(_NO, "Shard the base by --use_fsdp --fsdp_version 2."),
    "ACCELERATE_USE_PARALLELISM_CONFIG": _Request(_NO, "Shard the base by --use_fsdp --fsdp_version 2."),
}
# Without a row: what version 2 passes over, how a checkpoint is saved (the adapter alone is), and how the base is read.
_OF_FSDP: Final = {
    "FSDP_VERSION": _Request(("2",), "Add --fsdp_version 2."),
    "FSDP_RESHARD_AFTER_FORWARD": _Request(("true", "full_shard", ""), "Leave it out: each layer is freed behind it."),
    "FSDP_SHARDING_STRATEGY": _Request(("full_shard", "1", ""), "Leave it out: all processes share one base."),
    "FSDP_OFFLOAD_PARAMS": _Request(_NO, "Leave it out, and share the base among more processes."),
    "FSDP_AUTO_WRAP_POLICY": _Request(("transformer_based_wrap", ""), "Leave it out: each layer is a unit."),
    "FSDP_TRANSFORMER_CLS_TO_WRAP": _Request(("",), "Leave it out: each layer is a unit."),
    "FSDP_IGNORED_MODULES": _Request(("",), "Leave it out: the whole base is shared."),
    "FSDP_FORWARD_PREFETCH": _Request(_NO, "Leave it out."),
    "FSDP_ACTIVATION_CHECKPOINTING": _Request(_NO, "Leave it out, and give finetune --gradient-checkpointing."),
    "FSDP_ACTIVATION_CHECKPOINTING_OFFLOAD": _Request(_NO, "Leave it out."),
}


def rank() -> int:
    """The number of this process, by what started it: 0 is the first one, or the only one."""
    return int(get_cpu_distributed_information().rank)


def started() -> int:
    """How many processes were started together.

    Raises:
        SpecError: there is the address of a first one, and no number: `accelerate launch` with `--cpu` or without a GPU
            starts one process, whatever its `--num_processes`.

    """
    count = int(get_cpu_distributed_information().world_size)
    if count == 1 and "MASTER_ADDR" in os.environ and not _NUMBERS & os.environ.keys():
        raise SpecError(
            "MASTER_ADDR",
            found="the address of a first process, and no number of processes",
            expected="the number too, as torchrun and mpirun set it",
            fix="Start them by torchrun --nproc-per-node N -m dualtune_edge finetune …, or unset the variable for one.",
        )
    return count


def on_cpu() -> bool:
    """Whether CPUs are meant on machines that have GPUs too."""
    return bool(parse_flag_from_env("ACCELERATE_USE_CPU"))


def shards_base() -> bool:
    """Whether the processes are to share one base, by FSDP.

    Raises:
        SpecError: something else is asked for, which would be passed over.

    """
    _refuse_others(_OF_ANY_RUN)
    if not parse_flag_from_env("ACCELERATE_USE_FSDP"):
        return False
    _refuse_others(_OF_FSDP)
    return True


def _refuse_others(requests: dict[str, _Request]) -> None:
    for name, request in requests.items():
        value = os.environ.get(name, request.accepted[0])
        if value.lower() not in request.accepted:
            raise SpecError(
                name,
                found=f"{value!r}, as the launcher set it",
                expected=f"{request.accepted[0]!r}: finetune does nothing else",
                fix=request.fix,
            )
