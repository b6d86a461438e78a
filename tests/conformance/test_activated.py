"""Activated adapters on onnxruntime: what PEFT computes, and one KV cache for the base and all of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest
from bare_adapter import bare_adapter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dualtune_edge.profiles.schema import SessionSettings
from dualtune_edge.runtime.bundle.model_source import ModelSource
from dualtune_edge.runtime.engines import ort_engine
from dualtune_edge.runtime.engines.engine import Snapshot, open_engine
from dualtune_edge.runtime.engines.ort_engine import OrtEngine
from dualtune_edge.runtime.reuse.activation import base_part
from dualtune_edge.toolkit.errors import EngineError

SETTINGS = SessionSettings(intra_op_threads=1)
INVOCATIONS = {"wide": (7, 8, 9), "narrow": (7, 8)}
TALK = tuple(int(token) for token in np.random.default_rng(5).integers(10, 288, 40))
Logits: TypeAlias = NDArray[np.float32]

PROMPTS = {
    "none": TALK,
    "one": (*TALK, 7, 8, 9),
    "in the middle": (*TALK[:20], 7, 8, 9, *TALK[20:]),
    "several": (*TALK[:10], 7, 8, 9, *TALK[10:30], 7, 8, 9, *TALK[30:]),
    "a part of it at the end": (*TALK[:30], 7, 8, 9, *TALK[30:], 7),
    "at the beginning": (7, 8, 9, *TALK),
    "nothing else": (7, 8, 9),
}


@pytest.fixture(scope="module")
def source(fp32: ModelSource) -> ModelSource:
    """The adapters of `fp32` once more, activated."""
    activated = [
        bare_adapter(f"activated {name}", fp32.adapter(name).path, f"{name} from {invocation}", invocation=invocation)
        for name, invocation in INVOCATIONS.items()
    ]
    return replace(fp32, adapters=(*fp32.adapters, *activated))


@pytest.fixture(scope="module")
def opened(source: ModelSource) -> Iterator[OrtEngine]:
    with OrtEngine(source, SETTINGS) as engine:
        yield engine


@pytest.fixture
def engine(opened: OrtEngine) -> OrtEngine:
    opened.use(None)
    return opened


@pytest.fixture(scope="module")
def folders(root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The adapters as PEFT has them."""
    folder, made = tmp_path_factory.mktemp("activated"), {}
    for name, invocation in INVOCATIONS.items():
        made[name] = Path(shutil.copytree(root / name, folder / name))
        config = json.loads((made[name] / "adapter_config.json").read_text("utf-8"))
        config["alora_invocation_tokens"] = list(invocation)
        (made[name] / "adapter_config.json").write_text(json.dumps(config), "utf-8")
    return made


def by_peft(root: Path, folder: Path, prompt: Sequence[int], answer: Sequence[int]) -> list[Logits]:
    """The logits after a prompt and after each token of an answer that `generate` is made to write."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(root / "base", dtype=torch.float32).eval()
    model = PeftModel.from_pretrained(base, folder)
    written = model.generate(
        input_ids=torch.tensor([prompt]),
        max_new_tokens=len(answer) + 1,
        eos_token_id=-1,
        do_sample=False,
        prefix_allowed_tokens_fn=lambda _, read: [(*answer, 0)[len(read) - len(prompt)]],
        output_logits=True,
        return_dict_in_generate=True,
    )
    assert tuple(written.sequences[0].tolist()) == (*prompt, *answer, 0)
    return [logits[0].numpy() for logits in written.logits]


def by_engine(engine: OrtEngine, name: str, prompt: tuple[int, ...], answer: Sequence[int]) -> list[Logits]:
    """The same on the graph; the base reads as far as it goes."""
    border = base_part(prompt, INVOCATIONS[name])
    engine.use(None)
    logits = engine.forward(prompt[:border]) if border else None
    if border < len(prompt):
        engine.switch(f"activated {name}")
        logits = engine.forward(prompt[border:])
    assert logits is not None
    return [logits, *(engine.forward([token]) for token in answer)]


@pytest.mark.parametrize("name", INVOCATIONS)
@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
def test_an_activated_adapter_computes_what_peft_does(
    engine: OrtEngine, root: Path, folders: dict[str, Path], name: str, prompt: tuple[int, ...]
) -> None:
    answer = (5, 6, *INVOCATIONS[name], 4)  # what is written later activates nothing
    found = by_engine(engine, name, prompt, answer)
    np.testing.assert_allclose(found, by_peft(root, folders[name], prompt, answer), atol=1e-3, rtol=0)


@pytest.mark.parametrize("chunk", [1, 2, 3, 41])
def test_an_invocation_may_lie_across_the_pieces_of_a_prompt(
    engine: OrtEngine, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    expected = by_engine(engine, "wide", PROMPTS["several"], (5,))
    monkeypatch.setattr(ort_engine, "CHUNK", chunk)
    np.testing.assert_allclose(by_engine(engine, "wide", PROMPTS["several"], (5,)), expected, atol=1e-4, rtol=0)


def test_it_is_neither_the_base_nor_the_plain_adapter(engine: OrtEngine) -> None:
    """So that the comparisons above mean something."""
    prompt = PROMPTS["in the middle"]
    activated = by_engine(engine, "wide", prompt, ())[-1]
    for other in (None, "wide"):
        engine.use(other)
        assert np.abs(engine.forward(prompt) - activated).max() > 0.05, other


def test_a_plain_adapter_is_not_switched_to(engine: OrtEngine) -> None:
    engine.forward(TALK)
    with pytest.raises(EngineError, match="plain adapter"):
        engine.switch("narrow")
    with pytest.raises(EngineError, match="none of that name"):
        engine.switch("none of that name")
    assert (engine.adapter, engine.tokens) == (None, TALK)


def test_nothing_of_a_plain_adapter_is_kept(engine: OrtEngine) -> None:
    for adapter in (None, "activated wide"):
        engine.use("narrow")
        engine.forward(TALK)
        engine.switch(adapter)
        assert (engine.adapter, engine.tokens) == (adapter, ())


def test_a_state_serves_the_adapter_and_the_border_that_it_was_taken_under(engine: OrtEngine) -> None:
    states = {}
    for border in (10, 20):
        engine.use(None)
        engine.forward(TALK[:border])
        engine.switch("activated wide")
        engine.forward(TALK[border:])
        states[border] = engine.snapshot()
    engine.rewind(25)
    engine.restore(states[20])
    assert engine.tokens == TALK
    with pytest.raises(EngineError, match="KV state of"):
        engine.restore(states[10])
    engine.rewind(19)  # the border moves along
    with pytest.raises(EngineError, match="KV state of"):
        engine.restore(states[20])
    engine.switch(None)
    with pytest.raises(EngineError, match="KV state of"):
        engine.restore(states[20])


def test_genai_refuses_activated_adapters_by_name(source: ModelSource) -> None:
    with pytest.raises(EngineError, match="activated wide"), open_engine(source, SETTINGS, "genai"):
        pass


@dataclass
class Step:
    """A forward: how many tokens it appended, and how many are held still."""

    adapter: str | None
    tokens: tuple[int, ...]
    kept: int


@dataclass
class History:
    """The forwards that what is held was computed by, so that another engine can repeat them."""

    steps: list[Step] = field(default_factory=list)

    def keep(self, length: int) -> None:
        steps, held = list[Step](), 0
        for step in self.steps:
            kept = min(step.kept, length - held)
            if kept > 0:
                steps.append(replace(step, kept=kept))
            held += max(kept, 0)
        self.steps = steps

    def base(self) -> int:
        """Tokens that the base computed before any adapter."""
        return sum(step.kept for step in self.steps if step.adapter is None)

    def repeat(self, engine: OrtEngine) -> None:
        engine.use(None)
        held = 0
        for step in self.steps:
            if engine.adapter != step.adapter:
                engine.switch(step.adapter) if held else engine.use(step.adapter)
            engine.forward(step.tokens)
            held += step.kept
            engine.rewind(held)


ADAPTERS = (None, "narrow", "activated wide", "activated narrow")
_OPERATIONS = st.one_of(
    st.tuples(st.just("forward"), st.lists(st.integers(0, 287), min_size=1, max_size=5)),
    st.tuples(st.just("adapter"), st.sampled_from(ADAPTERS)),
    st.tuples(st.just("rewind"), st.floats(0, 1)),
    st.tuples(st.just("save"), st.none()),
    st.tuples(st.just("restore"), st.integers(0, 3)),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(operations=st.lists(_OPERATIONS, min_size=3, max_size=14))
def test_whatever_came_before_the_logits_are_those_of_a_fresh_session_to_the_bit(
    engine: OrtEngine, fresh: OrtEngine, operations: list[tuple[str, object]]
) -> None:
    """Branches, switches, rewinds and restored states; the other engine repeats only the forwards that count."""
    engine.use(None)
    history, saved = History(), list[tuple[Snapshot, list[Step]]]()
    for kind, value in operations:
        match kind, value:
            case "forward", list():
                engine.forward(value)
                history.steps.append(Step(engine.adapter, tuple(value), len(value)))
            case "adapter", "narrow":
                engine.use("narrow")
                history.keep(0)
            case "adapter", name:
                history.keep(history.base())
                engine.switch(name)  # type: ignore[arg-type]
            case "rewind", float():
                length = int(value * len(engine.tokens))
                engine.rewind(length)
                history.keep(length)
            case "save", _:
                saved.append((engine.snapshot(), list(history.steps)))
            case "restore", int() if value < len(saved):
                snapshot, steps = saved[value]
                try:
                    engine.restore(snapshot)
                except EngineError:
                    continue  # of another adapter or border: nothing has changed
                history.steps = list(steps)
            case _:
                continue
        assert len(engine.tokens) == sum(step.kept for step in history.steps)
    logits = engine.forward([3])
    adapter = engine.adapter
    history.repeat(fresh)
    if fresh.adapter != adapter:
        fresh.switch(adapter) if history.steps else fresh.use(adapter)
    np.testing.assert_array_equal(fresh.forward([3]), logits)


@pytest.fixture(scope="module")
def fresh(source: ModelSource) -> Iterator[OrtEngine]:
    with OrtEngine(source, SETTINGS) as engine:
        yield engine
