"""Records what a model does at one prompt: the logits of every forward, and the answer by the device's code."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dualtune_edge.runtime.decode.arguments import write_arguments
from dualtune_edge.runtime.decode.choice import Choice, choose
from dualtune_edge.runtime.decode.text import write_tokens
from dualtune_edge.runtime.engines.engine import Engine
from dualtune_edge.runtime.engines.held_sequence import HeldSequence
from dualtune_edge.runtime.grammar.grammar import Grammar
from dualtune_edge.runtime.reuse.activation import base_part
from dualtune_edge.toolkit.errors import RequestError
from dualtune_edge.toolkit.prompts.prompter import common_prefix

Logits: TypeAlias = NDArray[np.float32]  # (vocabulary,)
Path: TypeAlias = tuple[int, ...]  # tokens from the first on


class PartedError(Exception):
    """The engine would read other tokens than the first one: the answers differ."""


@dataclass(frozen=True)
class Activated:
    """An activated adapter."""

    name: str
    invocation: Path


@dataclass(frozen=True)
class Question:
    """One prompt, and what it asks for: a choice among `completions`, arguments under `grammar`, or a text.

    `room`: the most tokens of arguments or text; an untrained model may write without end. `activated`: the adapter
    that answers, where it is an activated one, with its invocation. `end`: the tokens that end a text; None: no text is
    asked for.
    """

    tokens: Path
    completions: Mapping[str, Path]
    grammar: Grammar | None
    room: int
    activated: Activated | None = None
    end: tuple[int, ...] | None = None

    @property
    def given(self) -> Path:
        """The prompt, and the frame of the arguments behind it."""
        return (*self.tokens, *self.grammar.frame.tokens) if self.grammar else self.tokens


@dataclass(frozen=True)
class Text:
    """A text in tokens, and whether the model ended it."""

    tokens: Path
    ended: bool


@dataclass(frozen=True)
class Record:
    """`logits` by the tokens that they come after, and the answer: a choice, arguments, or a text.

    Where nothing was decided, there are the logits after the frame alone. Arguments are None where they did not end
    within the room, or their schema refused them.
    """

    logits: Mapping[Path, Logits]
    choice: Choice | None
    arguments: dict[str, Any] | None
    text: Text | None = None

    @property
    def path(self) -> Path:
        """The longest token sequence that was read."""
        return max(self.logits, key=len)

    @property
    def answer(self) -> object:
        """The winner, the text, or the arguments and the tokens that spell them: equal where answers are equal."""
        return self.choice.winner if self.choice else self.text or (self.arguments, self.path)

    @property
    def finished(self) -> bool:
        """Whether there is an answer."""
        return self.text.ended if self.text else self.choice is not None or self.arguments is not None


def begin(engine: Engine, question: Question) -> None:
    """Let the base read the prompt up to the invocation of an activated adapter, and put that in force behind it.

    Any other adapter is in use already.
    """
    if question.activated is None:
        return
    border = base_part(question.given, question.activated.invocation)
    base = question.given[:border]
    engine.switch(None)
    engine.rewind(len(common_prefix([engine.tokens, base])))
    if border == len(question.given):
        return
    if rest := base[len(engine.tokens) :]:
        engine.forward(rest)
    engine.switch(question.activated.name)


def record(engine: Engine, question: Question, *, along: Collection[Path] | None = None) -> Record:
    """Answer on an engine that has begun the question. Tokens that it holds are not computed again.

    Args:
        engine: holds the prompt, or more, afterwards.
        question: the prompt.
        along: for arguments and texts, the token sequences that may be read; None: any.

    Raises:
        PartedError: another token sequence would be read.
        RequestError: the prompt is longer than the context.

    """
    rest = _rewound(engine, question.given)
    if question.end is not None:
        return _record_text(engine, rest, question, along)
    if question.grammar is None:
        choosing = _Recorder(engine, engine.context_length)
        choice = choose(choosing, choosing.forward(rest), question.completions)
        return Record(choosing.seen, choice, None)
    end = len(question.given) + question.room
    writing = _Recorder(engine, min(engine.context_length, end), along)
    try:
        arguments = write_arguments(writing, rest, question.grammar).value
    except RequestError:
        arguments = None
    if not writing.seen:  # the schema forces everything, or more than the room
        writing.forward(rest)
    return Record(writing.seen, None, arguments)


def _record_text(engine: Engine, rest: Path, question: Question, along: Collection[Path] | None) -> Record:
    most = min(engine.context_length, len(question.given) + question.room)
    writing, tokens = _Recorder(engine, most, along), list[int]()
    written = write_tokens(writing, rest, end=question.end or (), max_tokens=question.room)
    while True:
        try:
            tokens.append(next(written))
        except StopIteration as stopped:
            return Record(writing.seen, None, None, Text(tuple(tokens), stopped.value.ended))


def logits_after(engine: Engine, path: Path) -> Logits:
    """The logits after exactly these tokens, under the adapter in use."""
    return engine.forward(_rewound(engine, path))


def _rewound(engine: Engine, tokens: Path) -> Path:
    """Rewind to the tokens that the engine holds, at most all but the last; the remaining tokens."""
    engine.rewind(len(common_prefix([engine.tokens, tokens[:-1]])))
    return tokens[len(engine.tokens) :]


class _Recorder(HeldSequence):
    """An engine that keeps the logits of every forward of another engine; its context may be shorter."""

    def __init__(self, engine: Engine, context_length: int, along: Collection[Path] | None = None) -> None:
        super().__init__(engine.vocab_size, context_length, lambda _: engine.identity)
        self._engine, self._along = engine, along
        self._adapter, self._tokens = engine.adapter, engine.tokens
        self.seen: dict[Path, Logits] = {}

    def forward(self, tokens: Sequence[int]) -> Logits:
        self._appendable(tokens)
        path = (*self.tokens, *tokens)
        if self._along is not None and path not in self._along:
            raise PartedError
        self.seen[path] = logits_after(self._engine, path)
        self._tokens = path
        return self.seen[path]
