"""A base model's folder: read whole, or refused before any work."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from dualtune_edge.export.base.checkpoint import Checkpoint, read_checkpoint
from dualtune_edge.toolkit.errors import CheckpointError

NORM = "model.norm.weight"


@pytest.fixture
def base(tiny: Checkpoint, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(tiny.folder, tmp_path / "base"))


def edit(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | fields), encoding="utf-8")


def change(folder: Path, **tensors: torch.Tensor | None) -> None:
    path = folder / "model.safetensors"
    kept = {name: tensor for name, tensor in (load_file(path) | tensors).items() if tensor is not None}
    save_file(kept, path)


def test_reads_what_the_folder_says(tiny: Checkpoint) -> None:
    assert (tiny.architecture.name, tiny.model_class, tiny.task) == (
        "Qwen2ForCausalLM",
        "Qwen2ForCausalLM",
        "text-generation",
    )
    assert (tiny.context_length, tiny.vocab_size, tiny.end_of_turn, tiny.tied) == (512, 288, (258,), True)
    assert (tiny.bos, tiny.eos) == ("", "<|im_end|>")
    assert (tiny.cache.layers, tiny.cache.heads, tiny.cache.head_dim) == (2, 2, 16)
    assert tiny.tokenizer.encode("a<|im_end|>").ids == [64, 258]
    assert tiny.chat_template is None


def test_the_generation_configs_ends_are_added_to_the_tokenizers(base: Path) -> None:
    edit(base / "generation_config.json", eos_token_id=[256, 258])
    assert read_checkpoint(base).end_of_turn == (258, 256)


def test_shards_give_the_same_fingerprint_as_one_file(untied: Checkpoint, tmp_path: Path) -> None:
    assert len(list(untied.folder.glob("model-*.safetensors"))) > 1
    whole = Path(shutil.copytree(untied.folder, tmp_path / "base", ignore=shutil.ignore_patterns("model*")))
    tensors = {}
    for path in untied.folder.glob("model-*.safetensors"):
        tensors |= load_file(path)
    save_file(tensors, whole / "model.safetensors")
    assert read_checkpoint(whole).fingerprint == untied.fingerprint


def test_the_fingerprint_covers_every_bit_and_the_config(tiny: Checkpoint, base: Path) -> None:
    edit(base / "config.json", transformers_version="0", _name_or_path="x")
    assert read_checkpoint(base).fingerprint == tiny.fingerprint
    data = bytearray((base / "model.safetensors").read_bytes())
    data[-4] ^= 1
    (base / "model.safetensors").write_bytes(data)
    flipped = read_checkpoint(base).fingerprint
    edit(base / "config.json", rms_norm_eps=2e-6)
    assert len({tiny.fingerprint, flipped, read_checkpoint(base).fingerprint}) == 3


def _pickle(folder: Path) -> None:
    (folder / "model.safetensors").replace(folder / "pytorch_model.bin")


def _cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-8])


def _outside(folder: Path) -> None:
    (folder / "model.safetensors").replace(folder.parent / "model.safetensors")
    index = {"weight_map": {NORM: "../model.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (shutil.rmtree, "config.json: found no such file"),
    "no JSON": (lambda f: (f / "config.json").write_text("{"), "config.json"),
    "config with NaN": (lambda f: (f / "config.json").write_text('{"rms_norm_eps": NaN}'), "config.json: found NaN"),
    "unknown architecture": (
        lambda f: edit(f / "config.json", architectures=["BertForMaskedLM"]),
        "BertForMaskedLM.*Qwen2ForCausalLM",
    ),
    "no architecture": (lambda f: edit(f / "config.json", architectures=None), "architectures: found None"),
    "sizes that do not fit": (lambda f: edit(f / "config.json", hidden_size=72), "expected .*72"),
    "quantized": (
        lambda f: edit(f / "config.json", quantization_config={"quant_method": "gptq", "bits": 4, "group_size": 128}),
        "quantization_config: found weights quantized by 'gptq'; expected unquantized weights",
    ),
    "another rope": (
        lambda f: edit(
            f / "config.json",
            rope_parameters={
                "rope_type": "yarn",
                "factor": 4.0,
                "rope_theta": 1e6,
                "original_max_position_embeddings": 128,
            },
        ),
        "rope_type: found 'yarn'",
    ),
    "an activation that the builder approximates": (
        lambda f: edit(f / "config.json", hidden_act="gelu_new"),
        "hidden_act: found 'gelu_new'",
    ),
    "an unknown parameter of rope": (
        lambda f: edit(
            f / "config.json", rope_parameters={"rope_type": "default", "rope_theta": 1e6, "mrope_section": [4, 2, 2]}
        ),
        "mrope_section",
    ),
    "pickle": (_pickle, "pytorch_model.bin, which is a pickle"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "found no model.safetensors"),
    "cut short": (_cut, "model.safetensors"),
    "a shard outside": (_outside, "weight_map"),
    "a weight missing": (lambda f: change(f, **{NORM: None}), f"no weight {NORM}"),
    "a weight more": (lambda f: change(f, **{"model.extra": torch.ones(2)}), "model.extra: found a weight"),
    "another shape": (lambda f: change(f, **{NORM: torch.ones(63)}), r"found F32 \[63\]; expected .*\[64\]"),
    "integers": (lambda f: change(f, **{NORM: torch.ones(64, dtype=torch.int8)}), r"found I8 \[64\]"),
    "NaN": (lambda f: change(f, **{NORM: torch.full((64,), torch.nan)}), f"{NORM}: found an infinity or NaN"),
    "infinity in half": (
        lambda f: change(f, **{NORM: torch.full((64,), torch.inf, dtype=torch.float16)}),
        f"{NORM}: found an infinity or NaN",
    ),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "tokenizer.json: found no such file"),
    "no tokenizer in it": (lambda f: (f / "tokenizer.json").write_text("{}"), "tokenizer.json"),
    "a vocabulary too small": (
        lambda f: (
            edit(f / "config.json", vocab_size=200),
            change(f, **{"model.embed_tokens.weight": torch.ones(200, 64)}),
        ),
        "ids up to 258; expected ids below the model's vocab_size 200",
    ),
    "an end outside": (lambda f: edit(f / "generation_config.json", eos_token_id=999), r"tokens \[258, 999\]"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_refused(damage: str, base: Path) -> None:
    spoil, said = DAMAGE[damage]
    spoil(base)
    with pytest.raises(CheckpointError, match=said):
        read_checkpoint(base)


def test_a_missing_shard_is_refused(untied: Checkpoint, tmp_path: Path) -> None:
    base = Path(shutil.copytree(untied.folder, tmp_path / "base"))
    min(base.glob("model-*.safetensors")).unlink()
    with pytest.raises(CheckpointError, match=r"model-0*1-of-.*\.safetensors"):
        read_checkpoint(base)
