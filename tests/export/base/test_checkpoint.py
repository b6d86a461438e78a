"""A base model's folder: read whole, or refused before any work."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dualtune_edge_kit.random_checkpoint import Shape, write_checkpoint
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from dualtune_edge.export.base.checkpoint import Checkpoint, read_checkpoint
from dualtune_edge.export.base.models import load_model
from dualtune_edge.toolkit.errors import CheckpointError, EdgeError

NORM = "model.norm.weight"
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
TOKENS = (257, 72, 105, 40, 11)


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


def logits(model: PreTrainedModel) -> NDArray[np.float32]:
    with torch.no_grad():
        rows: NDArray[np.float32] = model(torch.tensor([TOKENS])).logits[0].numpy()
    return rows


def _other_head(folder: Path) -> None:
    head = torch.randn(288, 64, generator=torch.Generator().manual_seed(4)).mul_(0.1).to(torch.bfloat16)
    change(folder, **{HEAD: head})


def _head_of_one_other_bit(folder: Path) -> None:
    head = load_file(folder / "model.safetensors")[EMBEDDING].clone()
    head.view(torch.int16)[-1, -1] ^= 1
    change(folder, **{HEAD: head})


def _same_head(folder: Path) -> None:
    change(folder, **{HEAD: load_file(folder / "model.safetensors")[EMBEDDING].to(torch.float32)})


def _head_alone(folder: Path) -> None:
    change(folder, **{HEAD: load_file(folder / "model.safetensors")[EMBEDDING], EMBEDDING: None})


TIES: dict[str, tuple[Callable[[Path], None], bool]] = {
    "a head that differs": (_other_head, False),
    "a head that differs in a bit": (_head_of_one_other_bit, False),
    "a copy in another dtype": (_same_head, True),
    "the table under the head's name": (_head_alone, True),
}


@pytest.mark.parametrize("case", TIES)
def test_tables_are_tied_where_transformers_ties_them(case: str, base: Path) -> None:
    """config.json says tie_word_embeddings in every case."""
    spoil, tied = TIES[case]
    spoil(base)
    checkpoint, model = read_checkpoint(base), AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    assert checkpoint.tied == tied == torch.equal(model.lm_head.weight, model.model.embed_tokens.weight)
    assert checkpoint.config.tie_word_embeddings == tied
    assert ("tie_word_embeddings" in " ".join(checkpoint.warnings)) == (not tied)
    np.testing.assert_array_equal(logits(load_model(checkpoint)), logits(model))


def test_tied_tables_that_are_both_missing_are_refused(base: Path) -> None:
    change(base, **{EMBEDDING: None})
    with pytest.raises(CheckpointError, match=f"no weight {EMBEDDING}"):
        read_checkpoint(base)


@pytest.mark.parametrize(
    ("start", "layer"), [("_orig_mod.", ""), ("module.", ""), ("module._orig_mod.", ""), ("", "_orig_mod.")]
)
def test_names_of_a_compiled_or_distributed_model_are_read_and_said(
    start: str, layer: str, tiny: Checkpoint, base: Path
) -> None:
    path = base / "model.safetensors"
    tensors = load_file(path)
    save_file(
        {start + name.replace("self_attn", f"{layer}self_attn"): tensor for name, tensor in tensors.items()}, path
    )
    checkpoint = read_checkpoint(base)
    assert checkpoint.stored.keys() == tiny.stored.keys()
    assert "torch.compile" in checkpoint.warnings[0]
    np.testing.assert_array_equal(logits(load_model(checkpoint)), logits(load_model(tiny)))


@pytest.mark.parametrize("start", ["", "_orig_mod."])
def test_names_of_a_model_without_a_head_are_read_and_said(start: str, tiny: Checkpoint, base: Path) -> None:
    path = base / "model.safetensors"
    save_file({start + name.removeprefix("model."): tensor for name, tensor in load_file(path).items()}, path)
    checkpoint = read_checkpoint(base)
    assert checkpoint.stored.keys() == tiny.stored.keys()
    assert "no 'model.' before their names" in checkpoint.warnings[0]
    np.testing.assert_array_equal(logits(load_model(checkpoint)), logits(load_model(tiny)))


@pytest.mark.parametrize("kernel", ["flash_attention_2", "flash_attention_3", "sage_attention"])
def test_the_attention_that_a_trainer_used_need_not_be_installed(kernel: str, tiny: Checkpoint, base: Path) -> None:
    edit(base / "config.json", _attn_implementation=kernel, attn_implementation=kernel)
    np.testing.assert_array_equal(logits(load_model(read_checkpoint(base))), logits(load_model(tiny)))


def test_what_a_folder_holds_instead_of_a_model_is_named(base: Path, tmp_path: Path) -> None:
    shutil.copytree(base, tmp_path / "run" / "checkpoint-500")
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora" / "adapter_config.json").write_text("{}", encoding="utf-8")
    (tmp_path / "gguf").mkdir()
    (tmp_path / "gguf" / "small.gguf").write_bytes(b"GGUF")
    for folder, complaint in (
        ("run", "Name one of these: checkpoint-500"),
        ("lora", "an adapter"),
        ("gguf", "small.gguf"),
    ):
        with pytest.raises(CheckpointError, match=complaint):
            read_checkpoint(tmp_path / folder)


def test_two_weights_of_one_name_are_refused(base: Path) -> None:
    change(base, **{f"_orig_mod.{NORM}": torch.ones(64)})
    with pytest.raises(CheckpointError, match=f"found a second weight for {NORM}"):
        read_checkpoint(base)


NUMBERS = {
    "num_attention_heads": (0, -4, 10**9, 3, "4", 4.0, True, None),
    "num_key_value_heads": (0, -2, 3, 10**9),
    "num_hidden_layers": (0, -1, 10**9, 1.5),
    "hidden_size": (0, -64, 10**9),
    "intermediate_size": (0, 10**9),
    "vocab_size": (0, -288, 10**9),
    "max_position_embeddings": (0, -1, 10**9, "512"),
    "head_dim": (-16, 10**9, "16"),
}


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, values in NUMBERS.items() for value in values])
def test_a_number_that_no_model_has_is_refused_by_its_field(field: str, value: object, base: Path) -> None:
    edit(base / "config.json", **{field: value})
    with pytest.raises(CheckpointError, match=field):
        read_checkpoint(base)


HEADS = {
    8: Shape(112, 128, 2, 14, 2, 288, 512),
    24: Shape(96, 128, 2, 4, 2, 288, 512),
    20: Shape(64, 128, 2, 4, 2, 288, 512, settings={"head_dim": 20}),
}


@pytest.mark.parametrize("model_type", ["qwen2", "llama", "qwen3"])
@pytest.mark.parametrize("size", HEADS)
def test_heads_that_attention_does_not_take_are_refused(size: int, model_type: str, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "base", replace(HEADS[size], model_type=model_type))
    with pytest.raises(CheckpointError, match=f"head_dim: found {size}; expected a multiple of 16"):
        read_checkpoint(tmp_path / "base")


def test_heads_that_follow_from_two_fields_are_refused_by_both(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "base", HEADS[8])
    path = tmp_path / "base" / "config.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    del values["head_dim"]
    path.write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(CheckpointError, match="hidden_size / num_attention_heads: found 8; expected a multiple of 16"):
        read_checkpoint(tmp_path / "base")


@pytest.mark.parametrize(("head", "factor"), [(32, 0.75), (32, 0.25), (64, 0.375), (48, 0.5), (96, 0.75)])
def test_a_rotated_part_that_attention_does_not_take_is_refused(head: int, factor: float, tmp_path: Path) -> None:
    count = int(head * factor) // 2
    rope = {
        "rope_type": "longrope",
        "rope_theta": 1e4,
        "short_factor": [1.0] * count,
        "long_factor": [2.0] * count,
        "partial_rotary_factor": factor,
    }
    settings = {"rope_parameters": rope, "partial_rotary_factor": factor, "original_max_position_embeddings": 96}
    shape = Shape(4 * head, 128, 2, 4, 2, 288, 512, model_type="phi3", settings={"pad_token_id": 0} | settings)
    write_checkpoint(tmp_path / "base", shape)
    with pytest.raises(CheckpointError, match=f"partial_rotary_factor: found {2 * count} of {head} values"):
        read_checkpoint(tmp_path / "base")


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 16\n"
FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "generation_config.json")


@pytest.mark.parametrize("name", [*FILES, "chat_template.jinja"])
def test_a_pointer_of_lfs_is_called_one(name: str, base: Path) -> None:
    (base / name).write_bytes(POINTER)
    with pytest.raises(EdgeError, match=f"{name}: found a pointer of Git LFS.*git lfs pull"):
        read_checkpoint(base)


@pytest.mark.parametrize("name", [*FILES, "chat_template.jinja", "model.safetensors.index.json"])
def test_a_link_into_a_cache_that_is_gone_is_called_one(name: str, base: Path) -> None:
    """As in a snapshot of the hub's cache, whose blobs were deleted."""
    (base / name).unlink(missing_ok=True)
    if name.endswith("index.json"):
        (base / "model.safetensors").unlink()
    (base / name).symlink_to(Path("..", "..", "blobs", "4d7a"))
    with pytest.raises(EdgeError, match=rf"{name}: found a link to \.\./\.\./blobs/4d7a, where no file is"):
        read_checkpoint(base)


@pytest.mark.parametrize("spoil", ["pointer", "link"])
def test_so_is_one_shard_of_several(spoil: str, untied: Checkpoint, tmp_path: Path) -> None:
    base = Path(shutil.copytree(untied.folder, tmp_path / "base"))
    shard = max(base.glob("model-*.safetensors"))
    shard.unlink()
    shard.write_bytes(POINTER) if spoil == "pointer" else shard.symlink_to("gone")
    with pytest.raises(CheckpointError, match=f"{shard.name}: found a {spoil}"):
        read_checkpoint(base)


def test_a_missing_shard_is_refused(untied: Checkpoint, tmp_path: Path) -> None:
    base = Path(shutil.copytree(untied.folder, tmp_path / "base"))
    min(base.glob("model-*.safetensors")).unlink()
    with pytest.raises(CheckpointError, match=r"model-0*1-of-.*\.safetensors"):
        read_checkpoint(base)
