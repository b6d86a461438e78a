"""Arguments as greedy JSON under a tool's schema: the model decides only where the schema leaves a choice.

The grammar is the frame's `pending` text, the schema's JSON as the template would write it, and the frame's `tail`;
tokens may straddle these borders. What the grammar forces is never computed by itself: it rides along in the next
forward. What the grammar cannot hold of a schema (`Grammar.unenforced`) is checked when the arguments are written.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

import jsonschema
import numpy as np
from llguidance import LLMatcher, LLTokenizer
from numpy.typing import NDArray
from referencing import Registry
from referencing.exceptions import Unresolvable

from dualtune_edge.runtime.draft_tokens import FIRST_DRAFT, LONGEST_DRAFT, NO_DRAFT, Draft, continuation, follow
from dualtune_edge.runtime.drafts import Drafter
from dualtune_edge.runtime.engine import Engine, RowsEngine
from dualtune_edge.toolkit import limits, strict_json
from dualtune_edge.toolkit.errors import CheckpointError, EngineError, RequestError, ToolsError
from dualtune_edge.toolkit.prompts import Frame
from dualtune_edge.toolkit.tools import Tool

_MESSAGE: Final = 200  # characters of a fault that are told
_GRAMMAR: Final = "\n   1 | "  # llguidance quotes the whole grammar behind its reason
_STATE: Final = "\n<state>"  # or this


@dataclass(frozen=True)
class Arguments:
    """What was written. `decided` tokens were the model's choice among several, `forced` ones had no alternative."""

    value: dict[str, Any]
    decided: int
    forced: int
    forwards: int  # runs of the model
    drafted: int = 0  # tokens that a drafter proposed
    accepted: int = 0  # of these, those that the model decided


@dataclass(frozen=True)
class Grammar:
    """The constraint on one tool's arguments. `unenforced`: what of the schema is left to the check afterwards."""

    tool: Tool
    frame: Frame
    tokenizer: LLTokenizer
    source: str  # llguidance's form
    unenforced: tuple[str, ...] = ()

    def matcher(self) -> LLMatcher:
        """A matcher before the first character."""
        return LLMatcher(self.tokenizer, self.source, log_level=0)

    def parse(self, text: str) -> dict[str, Any]:
        """The arguments in a whole text (pending + JSON + tail).

        Raises:
            RequestError: no JSON object as RFC 8259 has it, or not one that fits the schema.

        """
        written = text.removeprefix(self.frame.pending).removesuffix(self.frame.tail)
        try:
            value = strict_json.loads(written)
        except strict_json.JsonError as error:
            raise self._refusal(str(error)) from None
        if not isinstance(value, dict):
            raise self._refusal(f"{type(value).__name__} {written[:80]!r}")
        fault = _fault(value, self.tool)
        if fault:
            raise self._refusal(fault)
        return value

    def _refusal(self, found: str) -> RequestError:
        return RequestError(
            f"arguments of {self.tool.name!r}",
            found=found,
            expected="a JSON object that fits the tool's schema",
            fix="Say more plainly what the values are; if it comes again, train the tool's adapter further.",
        )


def open_tokenizer(tokenizer_json: str, *, vocab_size: int, end_of_turn: Sequence[int]) -> LLTokenizer:
    """A tokenizer as llguidance sees it; a second's work for 150,000 tokens.

    Args:
        tokenizer_json: the text of tokenizer.json.
        vocab_size: width of the logits, which may exceed the tokenizer's own vocabulary.
        end_of_turn: tokens that end the assistant's turn.

    Raises:
        CheckpointError: llguidance cannot read it.

    """
    try:
        return LLTokenizer(tokenizer_json, n_vocab=vocab_size, eos_token=list(end_of_turn))
    except ValueError as error:
        raise CheckpointError(
            "tokenizer.json",
            found=str(error),
            expected="a byte-level or byte-fallback tokenizer with an end-of-turn token",
            fix="Take a base whose tokenizer is one.",
        ) from None


def compile_grammar(tool: Tool, frame: Frame, tokenizer: LLTokenizer) -> Grammar:
    """The constraint for one tool; milliseconds for ordinary schemas.

    Raises:
        ToolsError: the schema cannot be made a constraint: contradictory, too large, or a pattern with look-around.

    """
    source, unenforced = _source(tool, frame, lenient=False), list[str]()
    failed, messages = LLMatcher.validate_grammar_with_warnings(source, tokenizer)
    if failed:
        source = _source(tool, frame, lenient=True)  # leaves out what it does not implement, and says so
        failed, messages = LLMatcher.validate_grammar_with_warnings(source, tokenizer)
        unenforced = messages
    if not failed:
        grammar = Grammar(tool, frame, tokenizer, source, tuple(map(_reason, unenforced)))
        matcher = grammar.matcher()
        matcher.consume_tokens(matcher.compute_ff_tokens())  # finds a schema that requires itself
        if not matcher.is_error():
            return grammar
        messages = [matcher.get_error()]
    raise ToolsError(
        f"schema of {tool.name!r}",
        found=_reason(messages[0]),
        expected="a schema that can be enforced while the arguments are written",
        fix="Simplify it; docs/limits.md lists what can be enforced.",
    )


def write_arguments(
    engine: Engine,
    pending: Sequence[int],
    grammar: Grammar,
    drafter: Drafter | None = None,
    *,
    ride: bool = True,
) -> Arguments:
    """Append `pending` to what the engine holds, then let the model write the arguments.

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
        _consume(matcher, forced, grammar)
        queue += forced
        written += forced
        if matcher.is_accepting():  # only at the very end: an object is never complete before its brace
            break
        _refuse_endless(engine, queue, written, grammar)
        if not ride:
            queue = _one_by_one(engine, queue, len(forced), count)
        draft = NO_DRAFT
        if drafter and isinstance(engine, RowsEngine):
            room = min(_room(engine, queue, written), count.longest)
            draft = _draft(drafter, matcher, written, grammar, room=room)
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
        _consume(matcher, [token], grammar)
        added = [*draft.tokens[:row], token]
        count.decided += 1
        whole = index + 1 == len(draft.rows)
        if whole or draft.tokens[row] != token:
            engine.rewind(start + row)
            count.longest = min(2 * count.longest, LONGEST_DRAFT) if whole else FIRST_DRAFT
            break
        count.accepted += 1
        _consume(matcher, list(draft.tokens[row + 1 : draft.rows[index + 1]]), grammar)  # forced behind it
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


def _draft(drafter: Drafter, matcher: LLMatcher, written: Sequence[int], grammar: Grammar, *, room: int) -> Draft:
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
        draft = follow(matcher.deep_copy(), tokens, room)
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


def _consume(matcher: LLMatcher, tokens: list[int], grammar: Grammar) -> None:
    if not matcher.consume_tokens(tokens) or matcher.is_error():
        raise ToolsError(
            f"schema of {grammar.tool.name!r}",
            found=_reason(matcher.get_error()) or "no token that the constraint allows",
            expected="a schema that can be followed token by token",
            fix="Simplify the schema: shorter patterns, fewer alternatives.",
        )


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


def _source(tool: Tool, frame: Frame, *, lenient: bool) -> str:
    guidance = {
        "whitespace_flexible": False,
        "item_separator": frame.item_separator,  # a regex to llguidance; the dialects' separators mean themselves
        "key_separator": frame.key_separator,
        "json_allow_general_unicode_escapes": frame.ascii_only,
        "lenient": lenient,
    }
    schema = json.dumps({**tool.parameters, "x-guidance": guidance})
    pending, tail = json.dumps(frame.pending), json.dumps(frame.tail)
    source: str = LLMatcher.grammar_from_lark(f"start: {pending} arguments {tail}\narguments: %json {schema}\n")
    return source


def _fault(value: dict[str, Any], tool: Tool) -> str | None:
    """Why the schema refuses the value; None if it does not."""
    schema = tool.parameters
    validator_class = jsonschema.validators.validator_for(schema, jsonschema.Draft202012Validator)
    exact = jsonschema.validators.extend(validator_class, {"multipleOf": _multiple_of})  # type: ignore[no-untyped-call]
    validator = exact(schema, registry=Registry())  # an empty registry: nothing is fetched
    try:
        error = jsonschema.exceptions.best_match(validator.iter_errors(value))
    except Unresolvable as unresolvable:
        return f"a reference that leads nowhere: {unresolvable}"
    if error is None:
        return None
    message = error.message if len(error.message) <= _MESSAGE else f"{error.message[:_MESSAGE]}…"  # it holds the value
    return f"{message} (at {error.json_path})"


def _multiple_of(
    validator: Any,
    factor: float,
    value: object,
    schema: object,  # noqa: ARG001 - jsonschema passes it
) -> Iterator[jsonschema.ValidationError]:
    """In decimals, as both are written: jsonschema divides floats, by which 19.99 is no multiple of 0.01."""
    if validator.is_type(value, "number") and Fraction(repr(value)) % Fraction(repr(factor)):
        yield jsonschema.ValidationError(f"{value!r} is not a multiple of {factor!r}")


def _reason(message: str) -> str:
    """The reason that llguidance gives, without the place in our grammar and the copy of it."""
    reason = message.partition(_GRAMMAR)[0].partition(_STATE)[0].rpartition("JSON schema: ")[2]
    return " ".join(reason.split())
