from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from dualtune_edge_kit.random_checkpoint import write_adapter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peft import LoraConfig, PeftModel
from peft.tuners.lora.variants import calculate_alora_offsets
from transformers import AutoModelForCausalLM

from dualtune_edge.export.base.checkpoint import Checkpoint
from dualtune_edge.export.reference import torch_engine
from dualtune_edge.export.reference.torch_engine import TorchEngine
from dualtune_edge.runtime.reuse.activation import base_part
from dualtune_edge.toolkit.errors import EngineError, RequestError
from dualtune_edge.toolkit.prompts.prompter import common_prefix

if TYPE_CHECKING:
    from numpy.typing import NDArray

TOKENS = (257, 72, 105, 40, 11, 99, 3, 258, 17)


def peft_logits(base: Path, adapter: Path | None, tokens: tuple[int, ...]) -> NDArray[np.float32]:
    """A fresh model's, in one pass without a cache."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if adapter:
        model = PeftModel.from_pretrained(model, adapter)
    with torch.no_grad():
        return model.eval()(torch.tensor([tokens])).logits[0, -1].numpy()


@pytest.mark.parametrize("order", [("a.wide", "a.narrow", None), ("a.narrow", None, "a.wide")])
@pytest.mark.parametrize("forget", [True, False])
def test_every_adapter_is_as_if_it_were_alone(
    adapters: dict[str, Path], reference: TorchEngine, order: tuple[str | None, ...], *, forget: bool
) -> None:
    for name in order:
        if forget:
            reference.forget_adapters()
        reference.use(name)
        expected = peft_logits(adapters["a.wide"].parent / "base", adapters.get(name or ""), TOKENS)
        np.testing.assert_allclose(reference.forward(TOKENS), expected, atol=1e-5)


def test_forgetting_gives_the_base_back_to_the_bit(reference: TorchEngine) -> None:
    before = reference.forward(TOKENS)
    reference.use("a.wide")
    assert np.abs(reference.forward(TOKENS) - before).max() > 1e-3
    reference.forget_adapters()
    assert reference.adapter is None
    np.testing.assert_array_equal(reference.forward(TOKENS), before)


def test_what_is_expected_is_read_in_one_forward(reference: TorchEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = []
    run = reference._run
    monkeypatch.setattr(reference, "_run", lambda wanted: runs.append(wanted) or run(wanted))
    reference.expect(TOKENS)
    for start, end in pairwise((0, 3, 4, 7, 9)):
        reference.forward(TOKENS[start:end])
    assert runs == [TOKENS[:3]]
    reference.rewind(4)
    reference.forward((12,))  # another way
    assert runs == [TOKENS[:3], (*TOKENS[:4], 12)]


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_walk_gives_the_logits_of_a_fresh_pass(reference: TorchEngine, data: st.DataObject) -> None:
    """Rewinds, other continuations and wrong expectations in any order."""
    token = st.integers(0, 287)
    held: tuple[int, ...] = ()
    reference.use(None)
    for _ in range(data.draw(st.integers(1, 5))):
        reference.rewind(data.draw(st.integers(0, len(held))))
        held = reference.tokens
        more = tuple(data.draw(st.lists(token, min_size=1, max_size=4)))
        if data.draw(st.booleans()):
            reference.expect((*held, *more, *data.draw(st.lists(token, max_size=3))))
        logits = reference.forward(more)
        held += more
        assert reference.tokens == held
        with torch.no_grad():
            expected = reference._model(torch.tensor([held])).logits[0, -1].numpy()
        np.testing.assert_allclose(logits, expected, atol=1e-5)


@pytest.mark.parametrize("chunk", [1, 2, 5])
def test_a_long_prompt_is_read_in_pieces(reference: TorchEngine, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    reference.use("a.wide")
    whole = reference.forward(TOKENS)
    reference.use("a.wide")
    monkeypatch.setattr(torch_engine, "CHUNK", chunk)
    lengths: list[int] = []
    append = reference._append
    monkeypatch.setattr(reference, "_append", lambda ids, keep: lengths.append(ids.shape[1]) or append(ids, keep))
    reference.expect((*TOKENS, 8, 9))
    np.testing.assert_allclose(reference.forward(TOKENS), whole, atol=1e-5)
    assert max(lengths) <= chunk + 3
    assert sum(lengths) == len(TOKENS) + 2
    reference.rewind(4)
    reference.forward((12,))
    assert lengths[-1] == 1


def test_snapshots_are_restored_under_their_adapter_only(reference: TorchEngine) -> None:
    before = reference.forward(TOKENS)
    snapshot = reference.snapshot()
    reference.rewind(2)
    reference.restore(snapshot)
    assert reference.tokens == TOKENS
    reference.rewind(len(TOKENS) - 1)
    np.testing.assert_allclose(reference.forward(TOKENS[-1:]), before, atol=1e-6)
    reference.use("a.wide")
    with pytest.raises(EngineError):
        reference.restore(snapshot)


def test_no_more_than_the_context(reference: TorchEngine) -> None:
    with pytest.raises(RequestError):
        reference.forward([1] * (reference.context_length + 1))
    assert reference.tokens == ()


INVOCATION = (11, 99)


@pytest.fixture(scope="module")
def activated(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("activated") / "a"
    config = LoraConfig(
        r=4, target_modules=["q_proj", "up_proj"], task_type="CAUSAL_LM", alora_invocation_tokens=list(INVOCATION)
    )
    write_adapter(folder, checkpoint.folder, config, seed=4)
    return folder


_PIECES = st.lists(st.sampled_from(((11, 99), (11,), (99,), (3, 4), (257,))), min_size=1, max_size=6)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(prompts=st.lists(_PIECES, min_size=1, max_size=4), chunk=st.sampled_from((2, 4096)))
def test_prompts_of_an_activated_adapter_one_after_another_are_what_peft_computes(
    checkpoint: Checkpoint, activated: Path, prompts: list[list[tuple[int, ...]]], chunk: int
) -> None:
    """Read in pieces and with an answer expected behind them; KV state of an earlier prompt may be the base's."""
    with TorchEngine(checkpoint, {"a": activated}) as engine, pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch_engine, "CHUNK", chunk)
        engine.use("a")
        for pieces in prompts:
            prompt = tuple(token for piece in pieces for token in piece)
            engine.begin(prompt)
            engine.rewind(len(common_prefix([engine.tokens, prompt[:-1]])))
            engine.expect((*prompt, 5, 6))
            logits = engine.forward(prompt[len(engine.tokens) :])
            np.testing.assert_allclose(logits, peft_logits(checkpoint.folder, activated, prompt), atol=1e-5)


@given(tokens=st.lists(st.integers(0, 3), max_size=12), invocation=st.lists(st.integers(0, 3), min_size=1, max_size=3))
def test_the_device_and_peft_find_the_same_invocation(tokens: list[int], invocation: list[int]) -> None:
    config = {"a": LoraConfig(task_type="CAUSAL_LM", alora_invocation_tokens=invocation)}
    (offset,) = calculate_alora_offsets(config, "a", torch.tensor([tokens], dtype=torch.long))
    expected = len(tokens) if offset is None else len(tokens) - offset
    assert base_part(tokens, tuple(invocation)) == expected
