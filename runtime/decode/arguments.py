"""Arguments as greedy JSON under a tool's schema: the model decides only where the schema leaves a choice.

What the grammar forces is never computed by itself: it rides along in the next forward. What the grammar cannot hold of
a schema (`Grammar.unenforced`) is checked when the arguments are written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from llguidance import LLMatcher
from numpy.typing import NDArray

from dualtune_edge.runtime.decode.draft_tokens import FIRST_DRAFT, LONGEST_DRAFT, NO_DRAFT, Draft, continuation, follow
from dualtune_edge.runtime.decode.drafts import Drafter
from dualtune_edge.runtime.engines.engine import Engine, RowsEngine
from dualtune_edge.runtime.grammar.grammar import Grammar
from dualtune_edge.toolkit import limits
from dualtune_edge.toolkit.errors import EngineError, RequestError


@dataclass(frozen=True)
class Arguments:
    """What was written. `decided` tokens were the model's choice among several, `forced` ones had no alternative."""

    value: dict[str, Any]
    decided: int
    forced: int
    forwards: int  # runs of the model
    drafted: int = 0  # tokens that a drafter proposed
    accepted: int = 0  # of these, those that the model decided


def write_arguments(
    engine: Engine,
    pending: Sequence[int],
    grammar: Grammar,
    drafter: Drafter | None = None,
    *,
    ride: bool = True,
) -> Arguments:
    """Append `pending` to what the engine holds, then let the model write the arguments.

    Where the grammar leaves nothing to decide the model is not run, and the engine holds what it held.

    Args:
        engine: holds the prompt so far under the right adapter.
        pending: the rest of the prompt and the frame's tokens.
        grammar: the constraint.
        drafter: proposes what may be written next; an engine that is no `RowsEngine` verifies no drafts.
        ride: whether forced tokens ride along with the next decision; otherwise each is a forward of its own.

    Raises:
        RequestError: no end within the context or `limits.ARGUMENT_TOKENS`, or values that the schema refuses.
        EngineError: the model's logits are not finite.

    """
    matcher, queue, written = grammar.matcher(), list(pending), list[int]()
    count = _Count()
    while True:
        forced = matcher.compute_ff_tokens()
        grammar.consume(matcher, forced)
        queue += forced
        written += forced
        if matcher.is_accepting():  # only at the very end: an object is never complete before its brace
            break
        _refuse_endless(engine, queue, written, grammar)
        if not ride:
            queue = _one_by_one(engine, queue, len(forced), count)
        draft = NO_DRAFT
        if drafter and isinstance(engine, RowsEngine):
            room = _room(engine, queue, written)
            draft = _draft(drafter, matcher, written, grammar, room=room, longest=count.longest)
        added = _decide(engine, queue, draft, matcher, grammar=grammar, count=count)
        written += added
        queue = [added[-1]]
    text = grammar.tokenizer.decode_bytes(written).decode()
    return Arguments(
        grammar.parse(text),
        decided=count.decided,
        forced=len(written) - count.decided,
        forwards=count.forwards,
        drafted=count.drafted,
        accepted=count.accepted,
    )


@dataclass
class _Count:
    decided: int = 0
    forwards: int = 0
    drafted: int = 0
    accepted: int = 0
    longest: int = FIRST_DRAFT  # tokens that the next draft may have


def _decide(
    engine: Engine, queue: list[int], draft: Draft, matcher: LLMatcher, *, grammar: Grammar, count: _Count
) -> list[int]:
    """Let the model decide the next token, and those of the draft as far as it agrees; the engine lacks the last."""
    start, added = len(engine.tokens) + len(queue), list[int]()
    if draft.tokens and isinstance(engine, RowsEngine):
        rows = [len(queue) - 1 + each for each in draft.rows]
        logits = engine.forward_rows([*queue, *draft.tokens], rows)
    else:
        logits = engine.forward(queue)[np.newaxis]
    count.forwards += 1
    count.drafted += len(draft.rows) - 1
    for index, row in enumerate(draft.rows):
        token = _greedy(logits[index], matcher)
        grammar.consume(matcher, [token])
        added = [*draft.tokens[:row], token]
        count.decided += 1
        whole = index + 1 == len(draft.rows)
        if whole or draft.tokens[row] != token:
            engine.rewind(start + row)
            count.longest = min(2 * count.longest, LONGEST_DRAFT) if whole else FIRST_DRAFT
            break
        count.accepted += 1
        grammar.consume(matcher, list(draft.tokens[row + 1 : draft.rows[index + 1]]))  # forced behind it
    return added


def _one_by_one(engine: Engine, queue: list[int], forced: int, count: _Count) -> list[int]:
    """Append the queue, its `forced` last tokens each by a forward of its own; what is left for the decision's."""
    if not forced:
        return queue
    split = len(queue) - forced
    for piece in (queue[:split], *([token] for token in queue[split:-1])):
        if piece:
            engine.forward(piece)
            count.forwards += 1
    return queue[-1:]


def _room(engine: Engine, queue: Sequence[int], written: Sequence[int]) -> int:
    """The most tokens that a draft may have: where a decision alone would be refused, so it must be with drafts."""
    context = engine.context_length - len(engine.tokens) - len(queue)
    return min(context, limits.ARGUMENT_TOKENS - len(written))


def _draft(
    drafter: Drafter, matcher: LLMatcher, written: Sequence[int], grammar: Grammar, *, room: int, longest: int
) -> Draft:
    """The first guess that begins with a token which the grammar allows.

    Bytes may be forced where a token is not, as a quote that can be one with what follows: a guess is made behind them.
    """
    forced = matcher.compute_ff_bytes()
    try:
        text = (grammar.tokenizer.decode_bytes(list(written)) + forced).decode()
    except UnicodeDecodeError:  # in the middle of a character
        return NO_DRAFT
    for guess in drafter.guesses(text):
        tokens = continuation(grammar.tokenizer, written, forced + guess.encode())
        draft = follow(matcher.deep_copy(), tokens, room=room, longest=longest)
        if draft.tokens:
            return draft
    return NO_DRAFT


def _greedy(logits: NDArray[np.float32], matcher: LLMatcher) -> int:
    """The allowed token of the largest logit."""
    if not np.isfinite(logits).all():
        raise EngineError(
            "arguments", found="logits that are not finite", expected="numbers", fix="Check the bundle with `inspect`."
        )
    bits = np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8)
    top = int(logits.argmax())
    if bits[top >> 3] >> (top & 7) & 1:  # allowed, and so the largest of those: most decisions end here
        return top
    allowed = np.unpackbits(bits, count=len(logits), bitorder="little").astype(np.bool_)  # (vocabulary,)
    return int(np.where(allowed, logits, -np.inf).argmax())


def _refuse_endless(engine: Engine, queue: Sequence[int], written: Sequence[int], grammar: Grammar) -> None:
    """Where a forward would go beyond the context once arguments were begun, say that it is they that do not end."""
    if len(written) <= limits.ARGUMENT_TOKENS:
        room = engine.context_length - len(engine.tokens)
        if len(queue) <= room or not written:
            return
    raise RequestError(
        f"arguments of {grammar.tool.name!r}",
        found=f"no end after {len(written):,} tokens",
        expected=f"an end within {limits.ARGUMENT_TOKENS:,} tokens and the model's context",
        fix="Ask for shorter values, or shorten the conversation.",
    )
