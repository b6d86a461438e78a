"""Arguments as greedy JSON under a tool's schema: the model decides only where the schema leaves a choice.

What the grammar forces is never computed by itself: it rides along in the next forward. What the grammar cannot hold of
a schema (`Grammar.unenforced`) is checked when the arguments are written.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from llguidance import LLMatcher
from numpy.typing import NDArray

from dualtune_edge.runtime.decode.draft_tokens import FIRST_DRAFT, LONGEST_DRAFT, NO_DRAFT, Draft, continuation, follow
from dualtune_edge.runtime.decode.drafts import Drafter
from dualtune_edge.runtime.decode.repetition import repetition
from dualtune_edge.runtime.decode.sources import Sources
from dualtune_edge.runtime.engines.engine import Engine, RowsEngine
from dualtune_edge.runtime.grammar.grammar import Grammar
from dualtune_edge.toolkit import limits
from dualtune_edge.toolkit.errors import EdgeError, EngineError, Reached, RequestError

_FAR: Final = 30.0  # below the largest logit: 150,000 such tokens have a share of 1e-8 together
_QUOTED: Final = 80  # characters of the arguments in a message


@dataclass(frozen=True)
class Arguments:
    """What was written. `decided` tokens were the model's choice among several, `forced` ones had no alternative.

    `probability` is the product over the decided tokens of each one's share among the tokens that the grammar allowed:
    how often sampling under the same constraint would write just these tokens.
    """

    value: dict[str, Any]
    decided: int
    forced: int
    forwards: int  # runs of the model
    drafted: int = 0  # tokens that a drafter proposed
    accepted: int = 0  # of these, those that the model decided
    probability: float = 1.0


def write_arguments(
    engine: Engine,
    pending: Sequence[int],
    grammar: Grammar,
    drafter: Drafter | None = None,
    *,
    ride: bool = True,
    most: int = limits.ARGUMENT_TOKENS,
    sources: Sources | None = None,
) -> Arguments:
    """Append `pending` to what the engine holds, then let the model write the arguments.

    Where the grammar leaves nothing to decide the model is not run, and the engine holds what it held.

    Args:
        engine: holds the prompt so far under the right adapter.
        pending: the rest of the prompt and the frame's tokens.
        grammar: the constraint.
        drafter: proposes what may be written next; an engine that is no `RowsEngine` verifies no drafts.
        ride: whether forced tokens ride along with the next decision; if not, each is one forward.
        most: the most tokens that are written.
        sources: the conversation; what it repeats may be repeated.

    Raises:
        RequestError: no end within the context or `most` tokens, the same piece over and over (`repetition`), or values
            that the schema refuses.
        EngineError: the model's logits are not finite.
        StoppedError: the engine was interrupted. Of all these, `reached` has the arguments so far.

    """
    writer = _Writer(engine, grammar, list(pending), drafter, ride, most, sources)
    try:
        return writer.write()
    except EdgeError as error:
        error.reached = Reached(tool=grammar.tool.name, arguments=writer.json)
        raise


@dataclass
class _Writer:
    """Writes the arguments of one call."""

    engine: Engine
    grammar: Grammar
    queue: list[int]  # tokens that the engine lacks
    drafter: Drafter | None
    ride: bool
    most: int
    sources: Sources | None
    written: list[int] = field(default_factory=list)
    decided: int = 0
    forwards: int = 0
    drafted: int = 0
    accepted: int = 0
    cost: float = 0.0  # -log of the probability
    longest: int = FIRST_DRAFT  # tokens that the next draft may have

    def write(self) -> Arguments:
        matcher = self.grammar.matcher()
        while True:
            forced = matcher.compute_ff_tokens()
            self.grammar.consume(matcher, forced)
            self.queue += forced
            self.written += forced
            if matcher.is_accepting():  # only at the very end: an object is never complete before its brace
                break
            self._refuse_endless()
            if not self.ride:
                self._forward_forced(len(forced))
            added = self._decide(matcher, self._draft(matcher))
            self.written += added
            self.queue = [added[-1]]
        self._refuse_long()
        return Arguments(
            self.grammar.parse(self._text),
            decided=self.decided,
            forced=len(self.written) - self.decided,
            forwards=self.forwards,
            drafted=self.drafted,
            accepted=self.accepted,
            probability=math.exp(-self.cost),
        )

    @property
    def json(self) -> str:
        """The arguments so far."""
        return self._text.removeprefix(self.grammar.frame.pending)

    @property
    def _text(self) -> str:
        text: str = self.grammar.tokenizer.decode_bytes(self.written).decode(errors="ignore")
        return text

    def _decide(self, matcher: LLMatcher, draft: Draft) -> list[int]:
        """The token that the model decides, and those of the draft as far as it agrees; the engine lacks the last."""
        engine, queue, added = self.engine, self.queue, list[int]()
        start = len(engine.tokens) + len(queue)
        if draft.tokens and isinstance(engine, RowsEngine):
            rows = [len(queue) - 1 + row for row in draft.rows]
            logits = engine.forward_rows([*queue, *draft.tokens], rows)
        else:
            logits = engine.forward(queue)[np.newaxis]
        self.forwards += 1
        self.drafted += len(draft.rows) - 1
        for index, row in enumerate(draft.rows):
            token, cost = _greedy(logits[index], matcher)
            self.grammar.consume(matcher, [token])
            added = [*draft.tokens[:row], token]
            self.decided += 1
            self.cost += cost
            self._refuse_repetition(added)
            whole = index + 1 == len(draft.rows)
            if whole or draft.tokens[row] != token:
                engine.rewind(start + row)
                self.longest = min(2 * self.longest, LONGEST_DRAFT) if whole else FIRST_DRAFT
                break
            self.accepted += 1
            self.grammar.consume(matcher, list(draft.tokens[row + 1 : draft.rows[index + 1]]))  # forced behind it
        return added

    def _forward_forced(self, count: int) -> None:
        """Append the queue, its `count` forced tokens each by one forward, but for the decision's."""
        if not count:
            return
        split = len(self.queue) - count
        for piece in (self.queue[:split], *([token] for token in self.queue[split:-1])):
            if piece:
                self.engine.forward(piece)
                self.forwards += 1
        self.queue = self.queue[-1:]

    def _draft(self, matcher: LLMatcher) -> Draft:
        """The first guess that begins with a token which the grammar allows.

        Bytes may be forced where a token is not, as a quote that can be one with what follows: a guess is made behind
        them.
        """
        if self.drafter is None or not isinstance(self.engine, RowsEngine):
            return NO_DRAFT
        tokenizer, forced = self.grammar.tokenizer, matcher.compute_ff_bytes()
        try:
            text = (tokenizer.decode_bytes(self.written) + forced).decode()
        except UnicodeDecodeError:  # in the middle of a character
            return NO_DRAFT
        for guess in self.drafter.guesses(text):
            tokens = continuation(tokenizer, self.written, forced + guess.encode())
            draft = follow(matcher.deep_copy(), tokens, room=self._room, longest=self.longest)
            if draft.tokens:
                return draft
        return NO_DRAFT

    @property
    def _room(self) -> int:
        """The most tokens that a draft may have: where a decision alone would be refused, so must it be with drafts."""
        context = self.engine.context_length - len(self.engine.tokens) - len(self.queue)
        return min(context, self.most - len(self.written))

    def _refuse_endless(self) -> None:
        """A forward beyond the context, once arguments were begun, is the fault of arguments that do not end."""
        self._refuse_long()
        if self.written and len(self.queue) > self.engine.context_length - len(self.engine.tokens):
            raise self._refusal(f"no end after {len(self.written):,} tokens, where the model's context ends")

    def _refuse_long(self) -> None:
        if len(self.written) > self.most:
            raise self._refusal(f"more than {self.most:,} tokens")

    def _refuse_repetition(self, added: Sequence[int]) -> None:
        grammar = self.grammar
        found = repetition([*self.written, *added], grammar.frame.pending, grammar.tokenizer, self.sources)
        if found:
            self.written += added
            raise RequestError(
                self._where,
                found=f"{shortened(found.piece)!r} over and over, {found.times} times: {shortened(self.json)}",
                expected="arguments that end",
                fix="Say more plainly what the values are; if it comes again, train the tool's adapter further.",
            )

    def _refusal(self, found: str) -> RequestError:
        return RequestError(
            self._where,
            found=f"{found}: {shortened(self.json)}",
            expected=f"an end within {self.most:,} tokens and the model's context",
            fix="Ask for shorter values, or shorten the conversation.",
        )

    @property
    def _where(self) -> str:
        return f"arguments of {self.grammar.tool.name!r}"


def shortened(text: str) -> str:
    """The beginning and the end of a text, for a message."""
    return text if len(text) <= 2 * _QUOTED else f"{text[:_QUOTED]} … {text[-_QUOTED // 2 :]}"


def _greedy(logits: NDArray[np.float32], matcher: LLMatcher) -> tuple[int, float]:
    """The allowed token of the largest logit, and -log of its share among the allowed ones."""
    if not np.isfinite(logits).all():
        raise EngineError(
            "arguments", found="logits that are not finite", expected="numbers", fix="Check the bundle with `inspect`."
        )
    bits = np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8)  # of the vocabulary, in whole words
    logits = logits[: 8 * len(bits)]  # rows behind it are of no token
    top = int(logits.argmax())
    if not bits[top >> 3] >> (top & 7) & 1:  # most decisions want what is allowed
        allowed = np.unpackbits(bits, count=len(logits), bitorder="little").astype(np.bool_)  # (vocabulary,)
        top = int(np.where(allowed, logits, -np.inf).argmax())
    near = np.flatnonzero(logits > logits[top] - _FAR)
    near = near[bits[near >> 3] >> (near & 7) & 1 == 1]
    return top, float(np.log(np.exp(logits[near].astype(np.float64) - float(logits[top])).sum()))
