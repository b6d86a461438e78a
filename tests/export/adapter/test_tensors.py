"""Names of an adapter's tensors as trainers leave them: read as PEFT's, and said; or refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from dualtune_edge.export.adapter.merge import merge
from dualtune_edge.export.adapter.read import read_adapter
from dualtune_edge.export.adapter.tensors import peft_name
from dualtune_edge.export.base.checkpoint import Checkpoint
from dualtune_edge.export.reference.torch_engine import TorchEngine
from dualtune_edge.toolkit.bundle.adapters import Mode
from dualtune_edge.toolkit.errors import AdapterError

ROOT = "base_model.model."
TOKENS = (257, 72, 105, 40, 11, 99, 3, 258, 17)
Rename = Callable[[str], str]


def _in_layers(part: str) -> Rename:
    return lambda name: re.sub(r"(layers\.\d+\.)", rf"\1{part}.", name)


def _adapter_name(adapter: str) -> Rename:
    return lambda name: re.sub(r"(lora_[AB]|lora_embedding_[AB])", rf"\1.{adapter}", name)


SPELLINGS: dict[str, Rename] = {
    "compiled, the whole of it": lambda name: f"_orig_mod.{name}",
    "compiled inside PEFT": lambda name: name.replace(ROOT, f"{ROOT}_orig_mod."),
    "compiled below PEFT's root": lambda name: name.replace(ROOT, "base_model._orig_mod.model."),
    "compiled layer by layer": _in_layers("_orig_mod"),
    "distributed": lambda name: f"module.{name}",
    "distributed and compiled": lambda name: f"module._orig_mod.{name}",
    "FSDP": lambda name: _in_layers("_fsdp_wrapped_module")(f"_fsdp_wrapped_module.{name}"),
    "checkpointed activations": _in_layers("_checkpoint_wrapped_module"),
    "without PEFT's root": lambda name: name.removeprefix(ROOT),
    "without half of PEFT's root": lambda name: name.replace(ROOT, "base_model."),
    "of a base without a head": lambda name: name.replace(f"{ROOT}model.", ROOT),
    "with the adapter's name": _adapter_name("default"),
    "with another name of the adapter": _adapter_name("weather"),
    "compiled and without PEFT's root": lambda name: "_orig_mod." + name.removeprefix(ROOT),
}


def rename(folder: Path, spelled: Rename) -> None:
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    save_file({spelled(name): tensor for name, tensor in tensors.items()}, path, metadata={"format": "pt"})


@pytest.mark.parametrize("mode", ["external", "merged"])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_it_is_the_same_adapter_with_a_warning(
    spelling: str, mode: Mode, untied: Checkpoint, make_adapter: Any, tmp_path: Path
) -> None:
    folder = make_adapter(untied, target_modules=["q_proj", "up_proj", "embed_tokens", "lm_head"])
    before = read_adapter(folder, untied, mode)
    with TorchEngine(untied, {"a": folder}) as engine:
        engine.use("a")
        expected = engine.forward(TOKENS)
    rename(folder, SPELLINGS[spelling])
    after = read_adapter(folder, untied, mode)
    assert before.warnings == ()
    (warning,) = after.warnings
    assert "names that PEFT does not write" in warning
    assert after.pairs.keys() == before.pairs.keys()
    for path, pair in before.pairs.items():
        np.testing.assert_array_equal(after.pairs[path].a, pair.a)
        np.testing.assert_array_equal(after.pairs[path].b, pair.b)
    with TorchEngine(untied, {"a": folder}) as engine:
        engine.use("a")
        np.testing.assert_array_equal(engine.forward(TOKENS), expected)
    merge(untied, read_adapter(folder, untied, "merged"), tmp_path / "merged")  # it checks the outcome


@pytest.mark.parametrize(
    ("fields", "spelled"),
    [
        ({"use_dora": True}, lambda name: f"_orig_mod.{name}"),
        ({"use_dora": True}, lambda name: name.replace("magnitude_vector", "magnitude_vector.default.weight")),
        ({"modules_to_save": ["lm_head"]}, lambda name: f"_orig_mod.{name}"),
        ({"modules_to_save": ["lm_head"]}, lambda name: name.replace("lm_head.", "lm_head.modules_to_save.default.")),
        ({"bias": "lora_only"}, lambda name: name.removeprefix(ROOT)),
    ],
)
def test_so_are_tensors_that_are_no_pairs(
    fields: dict[str, Any], spelled: Rename, untied: Checkpoint, make_adapter: Any, tmp_path: Path
) -> None:
    folder = make_adapter(untied, **fields)
    one = merge(untied, read_adapter(folder, untied, "merged"), tmp_path / "one")
    rename(folder, spelled)
    other = merge(untied, read_adapter(folder, untied, "merged"), tmp_path / "other")
    for name in one.stored:
        assert torch.equal(one.read(name), other.read(name)), name


def test_a_tensor_in_two_spellings_is_refused(tiny: Checkpoint, make_adapter: Any) -> None:
    folder = make_adapter(tiny)
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    name = f"{ROOT}model.layers.0.self_attn.q_proj.lora_A.weight"
    save_file(tensors | {f"_orig_mod.{name}": tensors[name] + 1}, path)
    with pytest.raises(AdapterError, match=f"found a second tensor for {name}"):
        read_adapter(folder, tiny, "external")


@pytest.mark.parametrize("spelling", ["without PEFT's root", "compiled, the whole of it", "distributed"])
def test_layers_of_two_spellings_are_refused(spelling: str, tiny: Checkpoint, make_adapter: Any) -> None:
    """Half of one adapter, and half of another."""
    folder = make_adapter(tiny)
    spelled = SPELLINGS[spelling]
    rename(folder, lambda name: spelled(name) if "layers.1" in name else name)
    with pytest.raises(AdapterError, match="found names of two spellings"):
        read_adapter(folder, tiny, "external")


@pytest.mark.parametrize("name", ["transformer.h.0.attn.c_attn.lora_A.weight", "model.layers.0.x.lora_A.weight", "A"])
def test_a_name_of_no_module_stays_one(name: str, tiny: Checkpoint, make_adapter: Any) -> None:
    folder = make_adapter(tiny)
    path = folder / "adapter_model.safetensors"
    save_file(load_file(path) | {name: torch.ones(4, 64)}, path)
    with pytest.raises(AdapterError, match=r"two spellings|no place"):
        read_adapter(folder, tiny, "external")


def test_pefts_own_names_stay() -> None:
    for path in ("model.layers.11.mlp.down_proj.lora_B.weight", "lm_head.weight", "model.norm.weight"):
        assert peft_name(ROOT + path) == ROOT + path
