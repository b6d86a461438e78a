"""What a model did at one prompt, where a schema leaves it nothing to decide or more to write than there is room."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dualtune_edge.export.base.checkpoint import Checkpoint
from dualtune_edge.export.compare.prompt import compare
from dualtune_edge.export.compare.record import Question, record
from dualtune_edge.runtime.engines.held_sequence import HeldSequence
from dualtune_edge.runtime.grammar.grammar import compile_grammar, open_tokenizer
from dualtune_edge.toolkit.errors import RequestError
from dualtune_edge.toolkit.prompts.prompt_plan import Frame
from dualtune_edge.toolkit.tools.toolset import Tool

PROMPT = (257, 72, 105)
FRAME = Frame(tokens=(5, 6), pending="", tail="", item_separator=", ", key_separator=": ", ascii_only=False)
LONG = "https://reports.example.org/" + "monthly/" * 20
ROOM = 24


class Seeded(HeldSequence):
    """An engine whose logits are drawn, by the tokens read so far; `width` tells two of them apart."""

    def __init__(self, vocab_size: int, context_length: int = 1000, scale: float = 1.0) -> None:
        super().__init__(vocab_size, context_length, lambda _: "seeded")
        self._scale = scale

    def forward(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        self._appendable(tokens)
        self._tokens = (*self._tokens, *tokens)
        drawn: NDArray[np.float32] = np.random.default_rng(self._tokens).standard_normal(self.vocab_size, np.float32)
        return drawn * np.float32(self._scale)

    def begin(self, prompt: Sequence[int]) -> None:
        """As `TorchEngine` has it."""

    def expect(self, tokens: Sequence[int]) -> None:
        """As `TorchEngine` has it."""


def question(checkpoint: Checkpoint, schema: dict[str, Any]) -> Question:
    text = (checkpoint.folder / "tokenizer.json").read_text(encoding="utf-8")
    tokenizer = open_tokenizer(text, vocab_size=checkpoint.vocab_size, end_of_turn=checkpoint.end_of_turn)
    tool = Tool(name="restart", parameters={"type": "object", "additionalProperties": False, **schema})
    return Question(PROMPT, {}, compile_grammar(tool, FRAME, tokenizer), room=ROOM)


def required(**properties: Any) -> dict[str, Any]:
    return {"properties": properties, "required": list(properties)}


FORCED = {
    "const": required(mode={"const": "soft"}),
    "enum of one": required(mode={"enum": ["soft"]}),
    "null": required(mode={"type": "null"}),
    "items: false": required(mode={"type": "array", "items": False}),
    "longer than the room": required(endpoint={"const": LONG}),
    "an object in it": required(
        mode=required(kind={"const": "soft"}) | {"type": "object", "additionalProperties": False}
    ),
}
BEYOND = {
    "a long key": required(**{LONG: {"type": "integer"}}),
}


@pytest.mark.parametrize("schema", FORCED.values(), ids=FORCED)
def test_arguments_without_a_choice_are_compared_after_the_frame(checkpoint: Checkpoint, schema: Any) -> None:
    asked, engine = question(checkpoint, schema), Seeded(checkpoint.vocab_size)
    found = record(engine, asked)
    assert found.finished
    assert list(found.logits) == [(*PROMPT, *FRAME.tokens)]
    assert asked.grammar is not None
    assert found.arguments is not None
    outcome = compare(asked, engine, Seeded(checkpoint.vocab_size, scale=2.0))  # type: ignore[arg-type]
    assert outcome.comparison.same
    assert len(outcome.comparison.distances) == 1
    assert outcome.comparison.distances[0].max_error > 0


@pytest.mark.parametrize("schema", BEYOND.values(), ids=BEYOND)
@pytest.mark.parametrize("context", [len(PROMPT) + len(FRAME.tokens) + 1, 1000])
def test_more_forced_text_than_the_room_is_unfinished(checkpoint: Checkpoint, schema: Any, context: int) -> None:
    asked, engine = question(checkpoint, schema), Seeded(checkpoint.vocab_size, context)
    found = record(engine, asked)
    assert not found.finished
    assert list(found.logits) == [(*PROMPT, *FRAME.tokens)]
    outcome = compare(asked, engine, Seeded(checkpoint.vocab_size, context))  # type: ignore[arg-type]
    assert (outcome.comparison.finished, len(outcome.comparison.distances)) == (False, 1)


def test_a_long_const_after_a_decision_is_unfinished(checkpoint: Checkpoint) -> None:
    """Two properties leave their order open; the model takes the long one first."""
    asked = question(checkpoint, required(endpoint={"const": LONG}, month={"type": "integer"}))
    found = record(Seeded(checkpoint.vocab_size), asked)
    assert not found.finished
    assert found.logits


def test_text_without_end_is_unfinished(checkpoint: Checkpoint) -> None:
    asked = question(checkpoint, required(path={"type": "string", "minLength": 100}))
    found = record(Seeded(checkpoint.vocab_size), asked)
    assert not found.finished
    assert 1 < len(found.logits) <= ROOM


@pytest.mark.parametrize("schema", [FORCED["const"], BEYOND["a long key"]])
def test_a_prompt_longer_than_the_context_is_refused(checkpoint: Checkpoint, schema: Any) -> None:
    asked = question(checkpoint, schema)
    with pytest.raises(RequestError, match="the model's context"):
        record(Seeded(checkpoint.vocab_size, len(PROMPT)), asked)


def test_a_text_is_compared_token_by_token_to_its_end_or_the_room(checkpoint: Checkpoint) -> None:
    """The most probable token each time; another scale writes the same, another context stops earlier."""
    engine = Seeded(checkpoint.vocab_size)
    whole = record(engine, Question(PROMPT, {}, None, ROOM, end=()))
    assert whole.text
    assert (len(whole.text.tokens), whole.text.ended, whole.finished) == (ROOM, False, False)
    assert [len(path) for path in whole.logits] == [len(PROMPT) + count for count in range(ROOM + 1)]
    assert whole.path == (*PROMPT, *whole.text.tokens)
    last = whole.text.tokens[5]
    ending = Question(PROMPT, {}, None, ROOM, end=(last,))
    ended = record(engine, ending)
    assert ended.text
    assert (ended.text.ended, ended.finished) == (True, True)
    assert ended.text.tokens == whole.text.tokens[: whole.text.tokens.index(last)]
    outcome = compare(ending, engine, Seeded(checkpoint.vocab_size, scale=2.0))  # type: ignore[arg-type]
    assert (outcome.comparison.text, outcome.comparison.same, outcome.comparison.sure) == (True, True, None)
    assert outcome.chosen == ""
    other = compare(ending, engine, Seeded(checkpoint.vocab_size, scale=-1.0))  # type: ignore[arg-type]
    assert not other.comparison.same
    assert len(other.comparison.distances) == len(ended.logits)


def test_a_text_that_ends_at_once_is_a_text(checkpoint: Checkpoint) -> None:
    engine = Seeded(checkpoint.vocab_size)
    first = record(engine, Question(PROMPT, {}, None, 1, end=())).text
    assert first
    empty = record(engine, Question(PROMPT, {}, None, ROOM, end=first.tokens))
    assert empty.text
    assert (empty.text.tokens, empty.finished, list(empty.logits)) == ((), True, [PROMPT])
