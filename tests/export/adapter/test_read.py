"""What an adapter says, exactly or not at all: a matrix of refusals, and what the hash covers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
import torch
from peft import LoraConfig
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import BPE

from dualtune_edge.export.adapter.read import read_adapter
from dualtune_edge.export.adapter.training_files import BASE_FINGERPRINT
from dualtune_edge.export.base.chat_template import TemplateText
from dualtune_edge.export.base.checkpoint import Checkpoint
from dualtune_edge.toolkit.bundle.adapters import Mode
from dualtune_edge.toolkit.errors import AdapterError, EdgeError

MakeAdapter: TypeAlias = Callable[..., Path]
Q = "base_model.model.model.layers.0.self_attn.q_proj"


@pytest.fixture(scope="module")
def written(tiny: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from dualtune_edge_kit.random_checkpoint import write_adapter
    from peft import LoraConfig

    folder = tmp_path_factory.mktemp("written")
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "up_proj"], task_type="CAUSAL_LM")
    write_adapter(folder, tiny.folder, config)
    return folder


@pytest.fixture
def adapter(written: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(written, tmp_path / "adapter"))


def edit(folder: Path, **fields: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | fields), encoding="utf-8")


def change(folder: Path, **tensors: torch.Tensor | None) -> None:
    path = folder / "adapter_model.safetensors"
    kept = {name: tensor for name, tensor in (load_file(path) | tensors).items() if tensor is not None}
    save_file(kept, path)


def test_reads_pairs_rank_scale_and_what_lies_beside(tiny: Checkpoint, adapter: Path) -> None:
    (adapter / "chat_template.jinja").write_text("{{ messages }}", encoding="utf-8")
    (adapter / BASE_FINGERPRINT).write_text(tiny.fingerprint + "\n", encoding="utf-8")
    weights = read_adapter(adapter, tiny, "external")
    assert (weights.rank, weights.scale) == (4, 2.0)
    assert weights.chat_template == TemplateText(str(adapter / "chat_template.jinja"), "{{ messages }}")
    assert weights.base_model == "base"
    assert set(weights.pairs) == {
        f"model.layers.{layer}.{module}" for layer in (0, 1) for module in ("self_attn.q_proj", "mlp.up_proj")
    }
    pair = weights.pairs["model.layers.1.mlp.up_proj"]
    assert (pair.a.shape, pair.b.shape, pair.a.dtype, pair.scale) == ((4, 64), (128, 4), np.float32, 2.0)


def test_what_trainers_save_beside_an_adapter_is_read(tiny: Checkpoint, adapter: Path) -> None:
    """A tokenizer that was written again, and the template in its config, as transformers saved it before 4.51."""
    tiny.tokenizer.save(str(adapter / "tokenizer.json"), pretty=False)
    (adapter / "tokenizer_config.json").write_text('{"chat_template": "own"}', encoding="utf-8")
    template = read_adapter(adapter, tiny, "external").chat_template
    assert template == TemplateText(f"{adapter / 'tokenizer_config.json'}, chat_template", "own")


def test_rslora_divides_by_the_root_of_the_rank(tiny: Checkpoint, adapter: Path) -> None:
    edit(adapter, use_rslora=True)
    weights = read_adapter(adapter, tiny, "external")
    assert weights.scale == 4.0
    assert {pair.scale for pair in weights.pairs.values()} == {4.0}


FIELDS: dict[str, Any] = {  # each changes the mathematics, or may
    "use_dora": True,
    "bias": "all",
    "modules_to_save": ["lm_head"],
    "layer_replication": [[0, 2]],
    "trainable_token_indices": [1, 2],
    "target_parameters": ["mlp.experts"],
    "use_qalora": True,
    "use_bdlora": {"nblocks": 2},
    "arrow_config": {"top_k": 2},
    "kasa_config": {"beta": 0.1},
    "monteclora_config": {"num_samples": 2},
    "velora_config": {"rank": 2},
    "megatron_config": {"x": 1},
    "loftq_config": {"loftq_bits": 4},
    "corda_config": {"corda_method": "ipm"},
    "init_lora_weights": "pissa",
    "peft_type": "IA3",
    "task_type": "SEQ_CLS",
    "a_field_of_next_year": "on",
}
MERGEABLE = {
    "use_dora",
    "bias",
    "modules_to_save",
    "trainable_token_indices",
    "target_parameters",
    "use_bdlora",
    "kasa_config",
    "monteclora_config",
    "velora_config",
    "init_lora_weights",
}


@pytest.mark.parametrize("field", FIELDS)
def test_a_field_that_changes_the_mathematics_is_refused_by_name(field: str, tiny: Checkpoint, adapter: Path) -> None:
    edit(adapter, **{field: FIELDS[field]})
    with pytest.raises(AdapterError, match=f"adapter_config.json, {field}: ") as caught:
        read_adapter(adapter, tiny, "external")
    assert ("mode: merged" in caught.value.fix) == (field in MERGEABLE)


@pytest.mark.parametrize("field", sorted(FIELDS.keys() - MERGEABLE))
def test_what_peft_does_not_merge_is_refused_there_too(field: str, tiny: Checkpoint, adapter: Path) -> None:
    edit(adapter, **{field: FIELDS[field]})
    with pytest.raises(AdapterError, match=f"adapter_config.json, {field}: "):
        read_adapter(adapter, tiny, "merged")


@pytest.mark.parametrize("mode", ["external", "merged"])
@pytest.mark.parametrize("value", [None, False, 0, 0.0, "", [], {}])
def test_a_field_of_next_year_that_asks_for_nothing_is_read(
    value: object, mode: Mode, tiny: Checkpoint, adapter: Path
) -> None:
    edit(adapter, a_field_of_next_year=value)
    assert read_adapter(adapter, tiny, mode).warnings == ()


@pytest.mark.parametrize("value", [32, -1, 0.5])
def test_a_number_in_a_field_of_next_year_is_read_and_said(value: float, tiny: Checkpoint, adapter: Path) -> None:
    """It is a setting of something that another field switches on: PEFT passes over it."""
    before = read_adapter(adapter, tiny, "external")
    edit(adapter, a_field_of_next_year=value)
    after = read_adapter(adapter, tiny, "external")
    assert after.sha256 == before.sha256
    (warning,) = after.warnings
    assert f"a_field_of_next_year is {value}" in warning


@pytest.mark.parametrize("value", [True, "on", [1], {"a": 1}])
def test_what_may_switch_something_on_is_refused_in_a_field_of_next_year(
    value: object, tiny: Checkpoint, adapter: Path
) -> None:
    edit(adapter, a_field_of_next_year=value)
    with pytest.raises(AdapterError, match=r"a_field_of_next_year: .* remove it from adapter_config\.json"):
        read_adapter(adapter, tiny, "merged")


@pytest.mark.parametrize("mode", ["external", "merged"])
def test_every_field_of_peft_may_stand_at_its_default_or_be_empty(mode: Mode, tiny: Checkpoint, adapter: Path) -> None:
    before = read_adapter(adapter, tiny, mode).sha256
    given = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    defaults = {name: value for name, value in LoraConfig().to_dict().items() if name not in {"r", "lora_alpha"}}
    edit(adapter, **{name: value for name, value in defaults.items() if name not in given or given[name] == value})
    assert read_adapter(adapter, tiny, mode).sha256 == before
    edit(
        adapter, trainable_token_indices=[], target_parameters=[], layer_replication=[], arrow_config={}, use_dora=None
    )
    assert read_adapter(adapter, tiny, mode).sha256 == before


@pytest.mark.parametrize("mode", ["external", "merged"])
def test_ensure_weight_tying_is_read_where_it_does_nothing(
    mode: Mode, tiny: Checkpoint, untied: Checkpoint, adapter: Path, make_adapter: MakeAdapter
) -> None:
    before = read_adapter(adapter, tiny, mode).sha256
    edit(adapter, ensure_weight_tying=True)
    assert read_adapter(adapter, tiny, mode).sha256 == before
    on_head = make_adapter(untied, target_modules=["q_proj", "lm_head"])
    edit(on_head, ensure_weight_tying=True)
    read_adapter(on_head, untied, mode)


@pytest.mark.parametrize(
    "fields",
    [
        {"target_modules": ["q_proj", "lm_head"]},
        {"target_modules": ["q_proj", "embed_tokens"]},
        {"modules_to_save": ["embed_tokens"]},
        {"trainable_token_indices": [1]},
    ],
)
def test_ensure_weight_tying_is_refused_where_it_ties_changes(
    fields: dict[str, Any], tiny: Checkpoint, make_adapter: MakeAdapter
) -> None:
    folder = make_adapter(tiny, **fields)
    edit(folder, ensure_weight_tying=True)
    with pytest.raises(AdapterError, match="ensure_weight_tying: found True"):
        read_adapter(folder, tiny, "merged")


KINDS = {
    **dict.fromkeys(("IA3", "LOHA", "LOKR", "OFT", "BOFT", "VERA"), "merge_and_unload"),
    **dict.fromkeys(("PREFIX_TUNING", "PROMPT_TUNING", "P_TUNING"), "Train a LoRA adapter.$"),  # nothing to merge
    None: "Save the adapter with PEFT",  # of mlx-lm and others
}


@pytest.mark.parametrize("kind", KINDS)
def test_another_kind_of_adapter_is_called_by_its_name(kind: str | None, tiny: Checkpoint, adapter: Path) -> None:
    """Its config has other fields than LoRA's: no other is looked at."""
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps({"peft_type": kind, "base_model_name_or_path": "base", "alpha": 8}), encoding="utf-8")
    with pytest.raises(AdapterError, match=rf"(?s)peft_type: found {kind!r}.*{KINDS[kind]}"):
        read_adapter(adapter, tiny, "merged")


def test_the_checkpoints_that_a_trainer_left_are_named(tiny: Checkpoint, adapter: Path, tmp_path: Path) -> None:
    for step in (500, 1000):
        shutil.copytree(adapter, tmp_path / "run" / f"checkpoint-{step}")
    with pytest.raises(AdapterError, match="Name the folder of one adapter: checkpoint-1000, checkpoint-500"):
        read_adapter(tmp_path / "run", tiny, "external")


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 16\n"
FILES = ("adapter_model.safetensors", "adapter_config.json", "tokenizer.json", "tokenizer_config.json")


@pytest.mark.parametrize("name", [*FILES, "chat_template.jinja"])
def test_a_pointer_of_lfs_is_called_one(name: str, tiny: Checkpoint, adapter: Path) -> None:
    (adapter / name).write_bytes(POINTER)
    with pytest.raises(EdgeError, match=f"{name}: found a pointer of Git LFS.*git lfs pull"):
        read_adapter(adapter, tiny, "external")


@pytest.mark.parametrize("name", [*FILES, "chat_template.jinja"])
def test_a_link_whose_target_is_gone_is_called_one(name: str, tiny: Checkpoint, adapter: Path) -> None:
    (adapter / name).unlink(missing_ok=True)
    (adapter / name).symlink_to(Path("..", "blobs", "4d7a"))
    with pytest.raises(EdgeError, match=rf"{name}: found a link to \.\./blobs/4d7a, where no file is"):
        read_adapter(adapter, tiny, "external")


def test_an_adapter_says_which_slots_it_needs_besides(tiny: Checkpoint, make_adapter: MakeAdapter) -> None:
    for fields, extras in (
        ({}, set()),
        ({"target_modules": ["q_proj", "lm_head"]}, {"head"}),
        ({"target_modules": ["embed_tokens", "lm_head"]}, {"embedding", "head"}),
        ({"lora_bias": True}, {"bias"}),
    ):
        read = read_adapter(make_adapter(tiny, **fields), tiny, "external")
        assert read.extras == extras
        assert read.plain


def test_a_bias_is_merged_only_into_a_bias(tiny: Checkpoint, make_adapter: MakeAdapter) -> None:
    folder = make_adapter(tiny, target_modules=["q_proj", "up_proj"], lora_bias=True)
    with pytest.raises(AdapterError, match=r"lora_bias: .*up_proj.*mode: external"):
        read_adapter(folder, tiny, "merged")
    read_adapter(folder, tiny, "external")


def test_a_copy_of_the_bases_table_is_read_and_another_table_merged_only(
    tiny: Checkpoint, make_adapter: MakeAdapter
) -> None:
    folder = make_adapter(tiny, target_modules=["q_proj", "lm_head"])
    table = load_file(tiny.folder / "model.safetensors")["model.embed_tokens.weight"]
    name = "base_model.model.lm_head.base_layer.weight"  # as PEFT saves it
    change(folder, **{name: table})
    assert read_adapter(folder, tiny, "external").plain
    change(folder, **{name: table + 1})
    with pytest.raises(AdapterError, match=r"another table than the base's.*mode: merged"):
        read_adapter(folder, tiny, "external")
    merged = read_adapter(folder, tiny, "merged")
    assert merged.tables == {"model.embed_tokens.weight", "lm_head.weight"}  # one table in this base
    assert not merged.plain


def _pickle(folder: Path) -> None:
    (folder / "adapter_model.safetensors").replace(folder / "adapter_model.bin")


def _cut(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-8])


def _stem(folder: Path) -> None:
    (folder / "adapter_config.json").write_text('{"r": 4, "r": 8}', encoding="utf-8")


def _tokenizer(folder: Path, vocabulary: dict[str, int]) -> None:
    Tokenizer(BPE(vocabulary, [])).save(str(folder / "tokenizer.json"))


def _without(folder: Path, field: str) -> None:
    path = folder / "adapter_config.json"
    fields = json.loads(path.read_text(encoding="utf-8"))
    del fields[field]
    path.write_text(json.dumps(fields), encoding="utf-8")


def _zero(folder: Path) -> None:
    tensors = load_file(folder / "adapter_model.safetensors")
    change(folder, **{name: torch.zeros_like(tensor) for name, tensor in tensors.items() if "lora_B" in name})


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (shutil.rmtree, "adapter_config.json: found no such file"),
    "no config": (lambda folder: (folder / "adapter_config.json").unlink(), "adapter_config.json: found no such file"),
    "no weights": (
        lambda folder: (folder / "adapter_model.safetensors").unlink(),
        "found no adapter_model.safetensors",
    ),
    "pickle": (_pickle, "adapter_model.bin, which is a pickle"),
    "cut short": (_cut, "adapter_model.safetensors"),
    "a key twice": (_stem, "the key 'r' twice"),
    "config is a list": (lambda f: (f / "adapter_config.json").write_text("[]"), "no JSON object"),
    "rank 0": (lambda folder: edit(folder, r=0), "r"),
    "no such module": (lambda folder: edit(folder, target_modules=["c_attn"]), "c_attn"),
    "another rank": (lambda folder: edit(folder, r=8), r"found F32 \[4, 64\]; expected .*\[8, 64\]"),
    "a module more": (lambda f: edit(f, target_modules=["q_proj", "up_proj", "k_proj"]), "no .*k_proj"),
    "a module less": (lambda folder: edit(folder, target_modules=["q_proj"]), "up_proj.*no place"),
    "a tensor missing": (lambda folder: change(folder, **{f"{Q}.lora_B.weight": None}), f"no {Q}.lora_B.weight"),
    "a tensor more": (lambda folder: change(folder, **{"base_model.model.x": torch.ones(1)}), "base_model.model.x"),
    "transposed": (lambda f: change(f, **{f"{Q}.lora_A.weight": torch.ones(64, 4)}), r"found F32 \[64, 4\]"),
    "integers": (
        lambda f: change(f, **{f"{Q}.lora_A.weight": torch.ones(4, 64, dtype=torch.int8)}),
        r"found I8 \[4, 64\]",
    ),
    "NaN": (lambda f: change(f, **{f"{Q}.lora_A.weight": torch.full((4, 64), torch.nan)}), "q_proj.*infinity or NaN"),
    "infinity": (
        lambda f: change(f, **{f"{Q}.lora_B.weight": torch.full((64, 4), -torch.inf, dtype=torch.bfloat16)}),
        "q_proj.*infinity or NaN",
    ),
    "untrained": (_zero, "A, B or the scale zero in every module"),
    "no scale": (lambda folder: edit(folder, lora_alpha=0), "A, B or the scale zero in every module"),
    "alpha as text": (lambda folder: edit(folder, lora_alpha="8"), "lora_alpha: found '8'; expected int or float"),
    "text for true": (lambda folder: edit(folder, use_rslora="false"), "use_rslora: found 'false'; expected bool"),
    "modules as text": (lambda folder: edit(folder, modules_to_save="lm_head"), "modules_to_save: found 'lm_head'"),
    "no peft_type": (lambda folder: _without(folder, "peft_type"), "peft_type: found None"),
    "no alpha": (lambda folder: _without(folder, "lora_alpha"), "lora_alpha: found nothing"),
    "other token numbers": (
        lambda f: _tokenizer(f, {"a": 97, "b": 98}),
        r"tokenizer\.json: found 2 tokens .*'a', 'b'",
    ),
    "no tokenizer": (lambda f: (f / "tokenizer.json").write_text("{}"), r"tokenizer\.json"),
    "another base": (lambda f: (f / BASE_FINGERPRINT).write_text("0" * 64), "an adapter of the base 000000000000"),
}


@pytest.mark.parametrize("mode", ["external", "merged"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_refused(damage: str, mode: Mode, tiny: Checkpoint, adapter: Path) -> None:
    spoil, said = DAMAGE[damage]
    spoil(adapter)
    with pytest.raises(AdapterError, match=said):
        read_adapter(adapter, tiny, mode)


def test_another_base_of_other_shapes_is_refused(untied: Checkpoint, tiny: Checkpoint, adapter: Path) -> None:
    read_adapter(adapter, untied, "external")  # of the same shapes: nothing tells them apart without a fingerprint
    (adapter / BASE_FINGERPRINT).write_text(tiny.fingerprint, encoding="utf-8")
    with pytest.raises(AdapterError, match="an adapter of the base"):
        read_adapter(adapter, untied, "external")


@pytest.mark.parametrize("tokens_fewer", [1, 0, -1])
def test_a_width_near_the_vocabularys_is_no_resized_table(tokens_fewer: int, tiny: Checkpoint, adapter: Path) -> None:
    known = max(tiny.tokenizer.get_vocab(with_added_tokens=True).values()) + 1
    for width in (known, tiny.vocab_size - tokens_fewer):
        change(adapter, **{f"{Q}.lora_A.weight": torch.ones(4, width)})
        for mode in ("external", "merged"):
            with pytest.raises(AdapterError, match=rf"lora_A.*found F32 \[4, {width}\]"):
                read_adapter(adapter, tiny, mode)


def test_the_hash_covers_tensors_and_mathematics_and_nothing_else(tiny: Checkpoint, adapter: Path) -> None:
    before = read_adapter(adapter, tiny, "external").sha256
    edit(adapter, base_model_name_or_path="elsewhere", lora_dropout=0.5, target_modules=["up_proj", "q_proj"])
    assert read_adapter(adapter, tiny, "external").sha256 == before
    edit(adapter, lora_alpha=9)
    scaled = read_adapter(adapter, tiny, "external").sha256
    name = f"{Q}.lora_A.weight"
    change(adapter, **{name: load_file(adapter / "adapter_model.safetensors")[name] + 1e-6})
    assert len({before, scaled, read_adapter(adapter, tiny, "external").sha256}) == 3


def test_rows_of_a_shared_table_are_not_merged_with_another_change_of_it(
    tiny: Checkpoint, untied: Checkpoint, make_adapter: MakeAdapter
) -> None:
    fields = {"target_modules": ["q_proj", "lm_head"], "trainable_token_indices": [1, 2]}
    with pytest.raises(AdapterError, match="trainable_token_indices: found rows of the table"):
        read_adapter(make_adapter(tiny, **fields), tiny, "merged")
    read_adapter(make_adapter(untied, **fields), untied, "merged")


def test_an_activated_adapter_is_read_with_its_invocation(tiny: Checkpoint, adapter: Path) -> None:
    plain = read_adapter(adapter, tiny, "external")
    edit(adapter, alora_invocation_tokens=[257, 40])
    activated = read_adapter(adapter, tiny, "external")
    assert (plain.invocation, activated.invocation) == (None, (257, 40))
    assert activated.plain
    assert activated.pairs.keys() == plain.pairs.keys()
    assert activated.sha256 != plain.sha256, "KV state of one is wrong under the other"
    edit(adapter, alora_invocation_tokens=[257, 41])
    assert read_adapter(adapter, tiny, "external").sha256 != activated.sha256


@pytest.mark.parametrize("nothing", [None, []])
def test_an_empty_invocation_is_none_as_in_peft(nothing: list[int] | None, tiny: Checkpoint, adapter: Path) -> None:
    plain = read_adapter(adapter, tiny, "external")
    edit(adapter, alora_invocation_tokens=nothing)
    for mode in ("external", "merged"):
        weights = read_adapter(adapter, tiny, mode)
        assert (weights.invocation, weights.sha256) == (None, plain.sha256)


def test_an_activated_adapter_is_not_merged(tiny: Checkpoint, adapter: Path) -> None:
    edit(adapter, alora_invocation_tokens=[257, 40])
    with pytest.raises(AdapterError, match=r"adapter_config\.json, alora_invocation_tokens: ") as caught:
        read_adapter(adapter, tiny, "merged")
    assert "mode: external" in caught.value.fix


@pytest.mark.parametrize("tokens", [[-1], [288], [1, 10**9], ["<|im_start|>"], [True], [1.0], "12", 7, [None], [[1]]])
def test_an_invocation_that_no_prompt_can_hold_is_refused(tokens: Any, tiny: Checkpoint, adapter: Path) -> None:
    edit(adapter, alora_invocation_tokens=tokens)
    for mode in ("external", "merged"):
        with pytest.raises(AdapterError, match=r"adapter_config\.json, alora_invocation_tokens"):
            read_adapter(adapter, tiny, mode)


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), SafetensorError("incomplete")])
def test_a_file_that_ends_while_it_is_read_is_named(
    error: Exception, tiny: Checkpoint, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise error

    monkeypatch.setattr("dualtune_edge.export.adapter.read.digest", broken)
    with pytest.raises(AdapterError, match=r"adapter_model\.safetensors: found .*(Input|incomplete)"):
        read_adapter(adapter, tiny, "external")


def test_an_untrained_activated_adapter_is_refused(tiny: Checkpoint, adapter: Path) -> None:
    edit(adapter, alora_invocation_tokens=[257])
    tensors = load_file(adapter / "adapter_model.safetensors")
    zeros = {name: tensor.zero_() if "lora_B" in name else tensor for name, tensor in tensors.items()}
    save_file(zeros, adapter / "adapter_model.safetensors")
    with pytest.raises(AdapterError, match="changes nothing"):
        read_adapter(adapter, tiny, "external")
