"""One prompt on exported graphs and on PEFT: what is right passes, and each thing that is wrong shows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
from bare_adapter import bare_adapter

from dualtune_edge.export.adapter.read import read_adapter
from dualtune_edge.export.base.checkpoint import Checkpoint
from dualtune_edge.export.compare.prompt import compare, compare_before
from dualtune_edge.export.compare.record import Question, record
from dualtune_edge.export.graph.adapter_file import write_adapter
from dualtune_edge.export.graph.build import build_graph
from dualtune_edge.export.graph.slots import add_slots
from dualtune_edge.export.reference.torch_engine import TorchEngine
from dualtune_edge.profiles.schema import SessionSettings
from dualtune_edge.runtime.bundle.model_source import ModelSource
from dualtune_edge.runtime.engines.engine import Engine, open_engine
from dualtune_edge.runtime.grammar.grammar import compile_grammar, open_tokenizer
from dualtune_edge.toolkit.bundle.quantization import Quantization
from dualtune_edge.toolkit.errors import RequestError
from dualtune_edge.toolkit.prompts.prompt_plan import Frame
from dualtune_edge.toolkit.tools.toolset import Tool

_BITS: tuple[Literal[4, 32], ...] = (4, 32)
PROMPT = (257, 72, 105, 40, 11, 99, 3, 258, 17)
COMPLETIONS = {"one": (10, 20, 258), "other": (10, 21, 258), "third": (30, 258)}
READ = Tool(
    name="read", parameters={"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]}
)
FRAME = Frame(
    tokens=(5, 6), pending="", tail="", item_separator=", ", key_separator=": ", ascii_only=False
)  # fmt: skip


@pytest.fixture(scope="session")
def graphs(
    checkpoint: Checkpoint, adapters: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[int, ModelSource]:
    """bits → the graph, with both adapters, and with `wrong`: `wide` at twice its scale."""
    return {bits: _export(checkpoint, adapters, tmp_path_factory.mktemp(f"bits{bits}"), bits) for bits in _BITS}


def _export(checkpoint: Checkpoint, folders: dict[str, Path], folder: Path, bits: Literal[4, 32]) -> ModelSource:
    build_graph(checkpoint, folder / "model", Quantization(bits=bits))
    slots = add_slots(folder / "model")
    adapters = []
    for name, path in (*folders.items(), ("wrong", folders["a.wide"])):
        weights = read_adapter(path, checkpoint, "external")
        if name == "wrong":
            pairs = {module: replace(pair, scale=2 * pair.scale) for module, pair in weights.pairs.items()}
            weights = replace(weights, pairs=pairs)
        write_adapter(weights, slots, folder / f"{name}.onnx_adapter")
        adapters.append(bare_adapter(name, folder / f"{name}.onnx_adapter", f"{name} {weights.sha256}"))
    return ModelSource(
        folder / "model", checkpoint.fingerprint, checkpoint.cache, checkpoint.vocab_size, checkpoint.context_length,
        tuple(adapters),
    )  # fmt: skip


@pytest.fixture(params=[4, 32])
def bundle(graphs: dict[int, ModelSource], request: pytest.FixtureRequest) -> Iterator[Engine]:
    with open_engine(graphs[request.param], SessionSettings(1)) as engine:
        yield engine


@pytest.fixture
def before(graphs: dict[int, ModelSource]) -> Iterator[Engine]:
    with open_engine(graphs[32], SessionSettings(1)) as engine:
        yield engine


@pytest.fixture(scope="session")
def writing(checkpoint: Checkpoint) -> Question:
    text = (checkpoint.folder / "tokenizer.json").read_text(encoding="utf-8")
    tokenizer = open_tokenizer(text, vocab_size=checkpoint.vocab_size, end_of_turn=checkpoint.end_of_turn)
    return Question(PROMPT, {}, compile_grammar(READ, FRAME, tokenizer), room=24)


CHOOSING = Question(PROMPT, COMPLETIONS, None, room=24)


@pytest.mark.parametrize("adapter", [None, "a.wide", "a.narrow"])
def test_float32_is_exact_for_base_and_adapters(
    adapter: str | None, before: Engine, reference: TorchEngine, writing: Question
) -> None:
    for engine in (before, reference):
        engine.use(adapter)
    for question in (CHOOSING, writing):
        outcome = compare(question, before, reference)
        found = outcome.comparison
        for other in (None, reference):  # what the reference read, or it reads it again
            error = compare_before(outcome, before, other).before
            assert error is not None
            assert error < 1e-4
        assert max(distance.max_error for distance in found.distances) < 1e-4
        assert all(distance.same_top for distance in found.distances)
        assert found.same


def test_a_wrong_scale_shows_before_quantization(bundle: Engine, before: Engine, reference: TorchEngine) -> None:
    bundle.use("a.wide")
    before.use("wrong")
    reference.use("a.wide")
    outcome = compare(CHOOSING, bundle, reference)
    for other in (None, reference):
        error = compare_before(outcome, before, other).before
        assert error is not None
        assert error > 1e-2


def test_a_choice_is_told_with_the_references_probability(before: Engine, reference: TorchEngine) -> None:
    outcome = compare(CHOOSING, before, reference)
    found = outcome.comparison
    own = record(reference, CHOOSING).choice
    assert own is not None
    assert (outcome.chosen, found.sure, found.before, found.finished) == (own.winner, own.probability, None, True)
    assert len(found.distances) == own.forwards + 1


def test_answers_are_the_references_own_or_not_the_same(
    bundle: Engine, reference: TorchEngine, writing: Question
) -> None:
    """`same` without letting the reference write to its end is what letting it write would show."""
    for adapter in ("a.wide", "a.narrow"):
        bundle.use(adapter)
        reference.use(adapter)
        found = compare(writing, bundle, reference).comparison
        exported, own = record(bundle, writing), record(reference, writing)
        assert found.same == (exported.arguments == own.arguments and exported.path == own.path)


def test_arguments_end_with_the_room(before: Engine, writing: Question) -> None:
    """A random model writes a string on and on."""
    found = record(before, writing)
    assert found.arguments is None
    assert len(found.path) <= len(PROMPT) + len(FRAME.tokens) + writing.room


def test_the_next_prompt_begins_with_what_is_held(before: Engine, reference: TorchEngine) -> None:
    compare(CHOOSING, before, reference)
    longer = replace(CHOOSING, tokens=(*PROMPT[:5], 1, 2, 3))
    warm = compare(longer, before, reference).comparison
    for engine in (before, reference):
        engine.use(None)
    cold = compare(longer, before, reference).comparison
    assert warm.same == cold.same
    assert [distance.kl for distance in warm.distances] == pytest.approx(
        [distance.kl for distance in cold.distances], abs=1e-6
    )


def test_a_prompt_longer_than_the_context_is_refused(before: Engine, reference: TorchEngine, writing: Question) -> None:
    long = (1,) * (before.context_length + 1)
    for question in (CHOOSING, writing):
        with pytest.raises(RequestError):
            compare(replace(question, tokens=long), before, reference)
