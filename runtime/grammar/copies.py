"""The grammar of a tool whose copied properties are held to one conversation.

Its rules are made once. A conversation adds its pieces: a terminal for each border.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from llguidance import LLMatcher, LLTokenizer

from dualtune_edge.runtime.grammar.grammar import Grammar, Style
from dualtune_edge.runtime.grammar.pieces import LONGEST, Piece, size, terminal
from dualtune_edge.toolkit.bundle.manifest import CopiedProperty
from dualtune_edge.toolkit.prompts.prompt_plan import Frame
from dualtune_edge.toolkit.tools.defaults import default_texts
from dualtune_edge.toolkit.tools.toolset import Tool

_SAMPLE = ("a",)  # a conversation


class NotHeldError(Exception):
    """Copied properties cannot be held to this conversation."""


@dataclass(frozen=True)
class Copies:
    """The rules of one tool. `properties`: those that are held, which are not all where a schema says too much."""

    style: Style
    rules: str
    properties: tuple[CopiedProperty, ...]

    def grammar(self, plain: Grammar, texts: Sequence[str]) -> Grammar:
        """The constraint for one conversation; one without any text leaves the plain grammar.

        Raises:
            NotHeldError: the conversation is longer than `LONGEST`, or too much for llguidance.

        """
        if not texts:
            return plain
        characters = size(texts, self.style.frame)
        if characters > LONGEST:
            raise NotHeldError(f"the conversation has {characters:,} characters, and {LONGEST:,} are the most")
        held = replace(plain, source=self.source(texts))
        matcher = held.matcher()
        matcher.compute_ff_tokens()
        if matcher.is_error():
            raise NotHeldError("the conversation is too much for the grammar")
        return held

    def source(self, texts: Sequence[str]) -> str:
        """The grammar of a conversation, in llguidance's form."""
        frame, kinds = self.style.frame, dict.fromkeys(copied.border for copied in self.properties)
        return self.style.source(self.rules + "".join(terminal(texts, border, frame) for border in kinds))


def compile_copies(tool: Tool, frame: Frame, tokenizer: LLTokenizer, copied: Sequence[CopiedProperty]) -> Copies | None:
    """The rules for one tool, of those of the properties that can be held; None: of none."""
    pieces = {entry.name: Piece(entry.border, default_texts(tool.parameters, entry.name)) for entry in copied}
    for lenient in (False, True):
        style = Style(tool, frame, lenient)
        for possible in (None, lambda source: not LLMatcher.validate_grammar(source, tokenizer)):
            rules = style.rules(possible, pieces)
            text = rules.source()
            properties = tuple(entry for entry in copied if entry.name in rules.held)
            if text is None or not properties:
                return None
            copies = Copies(style, text, properties)
            if not LLMatcher.validate_grammar(copies.source(_SAMPLE), tokenizer):
                return copies
    return None
