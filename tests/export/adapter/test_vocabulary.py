"""Adapters whose trainer added tokens, or resized the tables: merged with their tables, the tokenizer with them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from dualtune_edge.export.adapter.merge import merge
from dualtune_edge.export.adapter.read import read_adapter
from dualtune_edge.export.adapter.vocabulary import with_added_tokens
from dualtune_edge.export.base.checkpoint import Checkpoint
from dualtune_edge.export.base.models import load_model
from dualtune_edge.export.reference.torch_engine import TorchEngine
from dualtune_edge.toolkit.bundle.adapters import Mode
from dualtune_edge.toolkit.errors import AdapterError

TOKENS = (257, 72, 105, 40, 11, 99, 3, 258, 17)
ROWS = 259  # of the tokenizer's tokens: the base's tables have 288
Write = Callable[..., Path]


def trained(
    base: Checkpoint,
    folder: Path,
    *,
    tokens: tuple[str, ...],
    special: bool = True,
    rows: int | None = None,
    **fields: Any,
) -> PeftModel:
    """An adapter as a trainer leaves it, trained on the base with tokens added and tables resized; its model."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(base.folder)
    tokenizer.add_tokens([AddedToken(token, special=special) for token in tokens], special_tokens=special)
    model = AutoModelForCausalLM.from_pretrained(base.folder, dtype=torch.float32)
    torch.manual_seed(5)
    if rows:
        model.resize_token_embeddings(rows)
    config = LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"} | fields)
    adapted = get_peft_model(model, config)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name or "modules_to_save" in name or "trainable_tokens" in name:
                parameter.add_(torch.empty_like(parameter).normal_(0.0, 0.1))
    adapted.save_pretrained(folder, save_embedding_layers=rows is not None)
    tokenizer.save_pretrained(folder)
    return adapted.eval()


def logits(model: Any, tokens: tuple[int, ...] = TOKENS) -> NDArray[np.float32]:
    with torch.no_grad():
        row: NDArray[np.float32] = model(torch.tensor([tokens])).logits[0, -1].numpy()
    return row


KINDS: dict[str, dict[str, Any]] = {
    "tables that were resized alone": {},
    "tables that were trained": {"modules_to_save": ["embed_tokens", "lm_head"]},
    "a head that was trained": {"modules_to_save": ["lm_head"]},
    "rows that were trained": {"trainable_token_indices": [72, ROWS]},
    "LoRA on the tables": {"target_modules": ["q_proj", "embed_tokens", "lm_head"]},
}


@pytest.mark.parametrize("rows", [ROWS + 2, 290, 320])
@pytest.mark.parametrize("base", ["tiny", "untied"])
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_merged_with_its_rows(
    kind: str, base: str, rows: int, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """With rows for the tokens alone, which are fewer than the base's, or for more than these."""
    plain: Checkpoint = request.getfixturevalue(base)
    adapted = trained(plain, tmp_path / "a", tokens=("<weather>", "<home>"), rows=rows, **KINDS[kind])
    checkpoint = with_added_tokens(plain, [tmp_path / "a"])
    assert checkpoint.vocab_size == max(rows, plain.vocab_size)
    assert checkpoint.tokenizer.token_to_id("<home>") == ROWS + 1
    assert checkpoint.added_tokens == {"<weather>": ROWS, "<home>": ROWS + 1}
    assert "tokenizer is the bundle's" in checkpoint.warnings[0]
    weights = read_adapter(tmp_path / "a", checkpoint, "merged")
    assert weights.knows_added_tokens
    said = (*TOKENS, ROWS + 1, 5)
    expected = logits(adapted, said)
    with TorchEngine(checkpoint, {"a": tmp_path / "a"}) as engine:
        before = engine.forward(TOKENS)
        engine.use("a")
        np.testing.assert_allclose(engine.forward(said)[:rows], expected, atol=1e-5)
        engine.use(None)
        np.testing.assert_array_equal(engine.forward(TOKENS), before)
    merged = merge(checkpoint, weights, tmp_path / "merged")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    np.testing.assert_allclose(logits(model, said)[:rows], expected, atol=1e-4)
    assert merged.read("lm_head.weight").shape[0] == checkpoint.vocab_size


def test_the_base_gets_rows_of_zeros(tiny: Checkpoint, tmp_path: Path) -> None:
    trained(tiny, tmp_path / "a", tokens=("<weather>",), rows=300)
    checkpoint = with_added_tokens(tiny, [tmp_path / "a"])
    before, after = logits(load_model(tiny)), logits(load_model(checkpoint))
    np.testing.assert_array_equal(after, [*before, *[0.0] * 12])


@pytest.mark.parametrize("mode", ["external", "merged"])
def test_tokens_in_spare_rows_need_no_table(mode: Mode, tiny: Checkpoint, tmp_path: Path) -> None:
    """Qwen's tables have hundreds of rows more than its tokenizer has tokens."""
    adapted = trained(tiny, tmp_path / "a", tokens=("<weather>",))
    checkpoint = with_added_tokens(tiny, [tmp_path / "a"])
    assert checkpoint.vocab_size == tiny.vocab_size
    read_adapter(tmp_path / "a", checkpoint, mode)
    with TorchEngine(checkpoint, {"a": tmp_path / "a"}) as engine:
        engine.use("a")
        np.testing.assert_allclose(engine.forward((*TOKENS, ROWS)), logits(adapted, (*TOKENS, ROWS)), atol=1e-5)


def test_another_adapter_of_the_bundle_stays_exact(tiny: Checkpoint, make_adapter: Any, tmp_path: Path) -> None:
    """Also one with LoRA on the tables, whose rows are fewer than the bundle's."""
    trained(tiny, tmp_path / "a", tokens=("<weather>",), rows=320)
    other = make_adapter(tiny, target_modules=["q_proj", "embed_tokens", "lm_head"])
    checkpoint = with_added_tokens(tiny, [tmp_path / "a", other])
    before, after = (read_adapter(other, base, "external") for base in (tiny, checkpoint))
    assert not after.knows_added_tokens
    assert after.pairs["lm_head"].b.shape == (320, 4)
    np.testing.assert_array_equal(after.pairs["lm_head"].b[:288], before.pairs["lm_head"].b)
    with TorchEngine(checkpoint, {"other": other}) as engine, TorchEngine(tiny, {"other": other}) as alone:
        for tested in (engine, alone):
            tested.use("other")
        np.testing.assert_array_equal(engine.forward(TOKENS)[:288], alone.forward(TOKENS))


def test_tables_of_its_own_are_refused_in_external_mode(tiny: Checkpoint, tmp_path: Path) -> None:
    trained(tiny, tmp_path / "a", tokens=("<weather>",), rows=300)
    checkpoint = with_added_tokens(tiny, [tmp_path / "a"])
    with pytest.raises(AdapterError, match=r"another table than the base's.*mode: merged"):
        read_adapter(tmp_path / "a", checkpoint, "external")


def test_two_adapters_that_number_their_tokens_differently_are_refused(tiny: Checkpoint, tmp_path: Path) -> None:
    trained(tiny, tmp_path / "a", tokens=("<weather>", "<home>"))
    trained(tiny, tmp_path / "b", tokens=("<music>",))
    checkpoint = with_added_tokens(tiny, [tmp_path / "b", tmp_path / "a"])
    read_adapter(tmp_path / "a", checkpoint, "merged")
    with pytest.raises(AdapterError, match=rf"b/tokenizer\.json: found 1 tokens that {tmp_path}/a lacks.*'<music>'"):
        read_adapter(tmp_path / "b", checkpoint, "merged")


def test_a_token_without_a_row_is_refused(tiny: Checkpoint, tmp_path: Path) -> None:
    trained(tiny, tmp_path / "a", tokens=tuple(f"<{number}>" for number in range(40)))
    with pytest.raises(AdapterError, match=r"tokenizer\.json: found the token '<39>' with the number 298"):
        with_added_tokens(tiny, [tmp_path / "a"])


def test_tables_too_small_for_the_tokens_are_refused(tiny: Checkpoint, tmp_path: Path) -> None:
    trained(tiny, tmp_path / "a", tokens=("<weather>", "<home>"), rows=ROWS + 2)
    path = tmp_path / "a" / "adapter_model.safetensors"
    tensors = load_file(path)
    name = "base_model.model.model.embed_tokens.weight"
    save_file(tensors | {name: tensors[name][:ROWS]}, path)
    checkpoint = with_added_tokens(tiny, [tmp_path / "a"])
    with pytest.raises(AdapterError, match=r"embed_tokens.*found F32 \[259, 64\]; expected .*\[288, 64\]"):
        read_adapter(tmp_path / "a", checkpoint, "merged")


def test_tied_tables_that_differ_are_refused(tiny: Checkpoint, tmp_path: Path) -> None:
    trained(tiny, tmp_path / "a", tokens=("<weather>",), rows=300)
    path = tmp_path / "a" / "adapter_model.safetensors"
    tensors = load_file(path)
    table = tensors["base_model.model.model.embed_tokens.weight"]
    save_file(tensors | {"base_model.model.lm_head.weight": table + 1}, path)
    with pytest.raises(AdapterError, match=r"another table than base_model.model.model.embed_tokens"):
        read_adapter(tmp_path / "a", with_added_tokens(tiny, [tmp_path / "a"]), "merged")


def test_without_new_tokens_the_base_stays_the_base(tiny: Checkpoint, make_adapter: Any, tmp_path: Path) -> None:
    trained(tiny, tmp_path / "a", tokens=())
    assert with_added_tokens(tiny, [tmp_path / "a", make_adapter(tiny)]) is tiny
    assert with_added_tokens(tiny, []) is tiny


def test_what_cannot_be_read_is_left_to_its_own_refusal(tiny: Checkpoint, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "tokenizer.json").write_text("{}", encoding="utf-8")
    assert with_added_tokens(tiny, [tmp_path / "a"]) is tiny


def test_another_table_without_new_tokens_is_merged_too(untied: Checkpoint, make_adapter: Any, tmp_path: Path) -> None:
    """PEFT writes it into the base."""
    folder = make_adapter(untied, target_modules=["q_proj", "lm_head"])
    path = folder / "adapter_model.safetensors"
    table = load_model(untied).get_parameter("model.embed_tokens.weight") + 0.1
    save_file(load_file(path) | {"base_model.model.model.embed_tokens.weight": table}, path)
    model = AutoModelForCausalLM.from_pretrained(untied.folder, dtype=torch.float32)
    expected = logits(PeftModel.from_pretrained(model, folder).eval())
    merge(untied, read_adapter(folder, untied, "merged"), tmp_path / "merged")
    found = logits(AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32))
    np.testing.assert_allclose(found, expected, atol=1e-4)
    with TorchEngine(untied, {"a": folder}) as engine:
        engine.use("a")
        np.testing.assert_allclose(engine.forward(TOKENS), expected, atol=1e-5)


def test_the_config_names_the_field_of_a_tokenizers_special_tokens(tiny: Checkpoint, tmp_path: Path) -> None:
    trained(tiny, tmp_path / "a", tokens=("<end>",))
    path = tmp_path / "a" / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8")) | {"eos_token": "<end>"}
    path.write_text(json.dumps(settings), encoding="utf-8")
    checkpoint = with_added_tokens(tiny, [tmp_path / "a"])
    assert checkpoint.eos == "<end>"
    assert checkpoint.end_of_turn == (ROWS, *tiny.end_of_turn)
