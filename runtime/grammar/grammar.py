"""A tool's schema as a grammar of what may be written, token by token.

The grammar is the frame's `pending` text, the schema's JSON as the template would write it, and the frame's `tail`;
tokens may straddle these borders.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

from llguidance import LLMatcher, LLTokenizer
from tokenizers import Tokenizer

from dualtune_edge.runtime.grammar.finite_numbers import with_finite_numbers
from dualtune_edge.runtime.grammar.object_rules import ObjectRules
from dualtune_edge.runtime.grammar.pieces import Piece
from dualtune_edge.runtime.grammar.shared_texts import with_shared_texts
from dualtune_edge.runtime.grammar.shared_tokenizer import share_tokenizer
from dualtune_edge.toolkit import strict_json
from dualtune_edge.toolkit.errors import CheckpointError, RequestError, ToolsError
from dualtune_edge.toolkit.native import PanicError, catch_panics
from dualtune_edge.toolkit.prompts.prompt_plan import Frame
from dualtune_edge.toolkit.tools.toolset import Tool

_GRAMMAR: Final = "\n   1 | "  # llguidance quotes the whole grammar behind its reason
_STATE: Final = "\n<state>"  # or this


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
        return self._matcher.deep_copy()

    @cached_property
    def _matcher(self) -> LLMatcher:
        return LLMatcher(self.tokenizer, self.source, log_level=0)

    def consume(self, matcher: LLMatcher, tokens: list[int]) -> None:
        """Advance a matcher of this grammar.

        Raises:
            ToolsError: it does not follow: the schema is too much for it.

        """
        if not matcher.consume_tokens(tokens) or matcher.is_error():
            raise ToolsError(
                f"schema of {self.tool.name!r}",
                found=_reason(matcher.get_error()) or "no token that the constraint allows",
                expected="a schema that can be followed token by token",
                fix="Simplify the schema: shorter patterns, fewer alternatives.",
            )

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
        if refused := self.tool.reading.fault(value):
            raise self._refusal(refused)
        return value

    def _refusal(self, found: str) -> RequestError:
        return RequestError(
            f"arguments of {self.tool.name!r}",
            found=found,
            expected="a JSON object that fits the tool's schema",
            fix="Say more plainly what the values are; if it comes again, train the tool's adapter further.",
        )


def open_tokenizer(
    tokenizer_json: str, *, vocab_size: int, end_of_turn: Sequence[int], shared: Tokenizer | None = None
) -> LLTokenizer:
    """A tokenizer as llguidance sees it; a second's work for 150,000 tokens.

    Args:
        tokenizer_json: the text of tokenizer.json.
        vocab_size: width of the logits, which may exceed the tokenizer's own vocabulary.
        end_of_turn: tokens that end the assistant's turn.
        shared: the same, read before; a byte-level one is not read a second time.

    Raises:
        CheckpointError: llguidance cannot read it.

    """
    try:
        with catch_panics():
            if shared and (found := share_tokenizer(shared, vocab_size=vocab_size, end_of_turn=end_of_turn)):
                return found
            return LLTokenizer(tokenizer_json, n_vocab=vocab_size, eos_token=list(end_of_turn))
    except (PanicError, OverflowError, ValueError) as error:
        raise CheckpointError(
            "tokenizer.json",
            found=str(error),
            expected="a byte-level or byte-fallback tokenizer with an end-of-turn token",
            fix="Take a base whose tokenizer is one.",
        ) from None


def compile_grammar(tool: Tool, frame: Frame, tokenizer: LLTokenizer) -> Grammar:
    """The constraint for one tool; milliseconds for ordinary schemas.

    Properties come in any order where `object_rules` has rules for the schema, and in the schema's order elsewhere.
    llguidance's own rule is compiled in either case: it alone shows a schema that requires itself, and what is left
    unenforced.

    Raises:
        ToolsError: the schema cannot be made a constraint: contradictory, too large, or a pattern with look-around.

    """
    style = Style(tool, frame, lenient=False)
    grammar = Grammar(tool, frame, tokenizer, style.source(), tool.reading.constraint.left)
    if grammar.matcher().is_error():
        style = Style(tool, frame, lenient=True)  # leaves out what it does not implement, and says so
        failed, messages = LLMatcher.validate_grammar_with_warnings(style.source(), tokenizer)
        warnings = () if failed else map(_reason, messages)
        grammar = replace(grammar, source=style.source(), unenforced=(*grammar.unenforced, *warnings))
    matcher = grammar.matcher()
    if not matcher.is_error():
        matcher.consume_tokens(matcher.compute_ff_tokens())  # an error where a schema requires itself
    if not matcher.is_error():
        return _in_any_order(style, grammar) or grammar
    raise ToolsError(
        f"schema of {tool.name!r}",
        found=_reason(matcher.get_error()),
        expected="a schema that can be enforced while the arguments are written",
        fix="Simplify it; docs/limits.md lists what can be enforced.",
    )


def impossible_properties(tool: Tool, frame: Frame, tokenizer: LLTokenizer) -> tuple[str, ...]:
    """Names of the optional properties that no value fits: a call never holds them.

    Those of objects for which there are rules (`object_rules`) are found, and others are not.
    """
    rules = Style(tool, frame, lenient=True).rules(lambda source: not LLMatcher.validate_grammar(source, tokenizer))
    rules.source()
    return tuple(dict.fromkeys(rules.impossible))


@dataclass(frozen=True)
class Style:
    """How one tool's arguments are written. `lenient`: without what llguidance does not implement."""

    tool: Tool
    frame: Frame
    lenient: bool

    def source(self, rules: str = "") -> str:
        """A grammar for llguidance: the frame around `rules`; by default around its own rule for the whole schema."""
        if not rules:
            schema = with_shared_texts(with_finite_numbers(self._schema))
            rules = f"arguments: %json {json.dumps({**schema, 'x-guidance': self._guidance})}\n"
        pending, tail = json.dumps(self.frame.pending), json.dumps(self.frame.tail)
        source: str = LLMatcher.grammar_from_lark(f"start: {pending} arguments {tail}\n{rules}")
        return source

    def rules(
        self, possible: Callable[[str], bool] | None = None, copied: Mapping[str, Piece] | None = None
    ) -> ObjectRules:
        """Rules in which properties come in any order, and the texts of `copied` are pieces of a conversation."""
        return ObjectRules(self._schema, self.frame, self._guidance, possible, copied or {})

    @property
    def _schema(self) -> dict[str, Any]:
        return self.tool.reading.constraint.schema

    @property
    def _guidance(self) -> dict[str, object]:
        return {
            "whitespace_flexible": False,
            "item_separator": self.frame.item_separator,  # a regex to llguidance; the dialects' mean themselves
            "key_separator": self.frame.key_separator,
            "json_allow_general_unicode_escapes": self.frame.ascii_only,
            "lenient": self.lenient,
        }


def _in_any_order(style: Style, plain: Grammar) -> Grammar | None:
    """The constraint with properties in any order; None where there is none."""

    def is_possible(source: str) -> bool:
        return not LLMatcher.validate_grammar(source, plain.tokenizer)

    for possible in (None, is_possible):  # asked only where rules for all properties are refused
        rules = style.rules(possible).source()
        if rules is None:
            return None
        grammar = replace(plain, source=style.source(rules))
        if not grammar.matcher().is_error():
            return grammar
    return None


def _reason(message: str) -> str:
    """The reason that llguidance gives, without the place in our grammar and the copy of it."""
    reason = message.partition(_GRAMMAR)[0].partition(_STATE)[0].rpartition("JSON schema: ")[2]
    return " ".join(reason.split())
