"""What the patterns and formats of one schema may cost, counted in characters of patterns."""

from __future__ import annotations

from typing import Any, Final

from dualtune_edge.toolkit import limits
from dualtune_edge.toolkit.ecma import conditions
from dualtune_edge.toolkit.errors import ToolsError
from dualtune_edge.toolkit.patterns import PatternError, compile_pattern
from dualtune_edge.toolkit.tools.assertions import FORMATS

_LEAST: Final = 64  # characters that a pattern counts as: so long takes what each has
_LEAST_OF_UNICODE: Final = 200  # one with classes of Unicode, and a format
_UNICODE: Final = (r"\p", r"\P")
_OF_A_TEXT: Final = ("pattern", "format", "minLength", "maxLength")


def text_cost(schema: dict[str, Any]) -> int:
    """What a schema's own pattern and format count as, in characters."""
    pattern, text_format = schema.get("pattern"), schema.get("format")
    cost = _LEAST_OF_UNICODE if isinstance(text_format, str) and text_format in FORMATS else 0
    return cost + (_pattern_cost(pattern) if isinstance(pattern, str) else 0)


class PatternBudget:
    """Counts the patterns and formats of one schema: those of equal texts once, as they are compiled once."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._texts: set[str] = set()
        self._patterns: dict[str, None] = {}
        self._characters = self._names = 0

    def add(self, schema: dict[str, Any], beside: int = 0) -> None:
        """Count what one schema says of a text, and of its properties' names.

        Args:
            schema: what was not counted yet.
            beside: the cost of others that hold for the same value: they are compiled together with it.

        Raises:
            ToolsError: too much with what was counted before.

        """
        names = list(schema["patternProperties"]) if isinstance(schema.get("patternProperties"), dict) else []
        if around := next((name for name in names if conditions(name).looks_around), None):
            found = f"look-around in {around!r}, a pattern of property names"
            raise self._refusal(found, "a pattern without it", "Simplify the pattern.")
        if len({conditions(name).core for name in names}) < len(names):
            found = "patterns of property names that are one, spelled differently"
            raise self._refusal(found, "each once", "Leave one of them.")
        self._names += len(names)
        if self._names > limits.PATTERN_PROPERTIES:
            found = f"over {limits.PATTERN_PROPERTIES} patterns of property names"
            raise self._refusal(found, "fewer", "Simplify the schema.")
        if names and "unevaluatedProperties" in schema:
            found = "`patternProperties` beside `unevaluatedProperties`"
            raise self._refusal(found, "one of the two", "Use `additionalProperties`.")
        text = repr([schema.get(key) for key in _OF_A_TEXT])
        own = 0 if text in self._texts else text_cost(schema)
        self._texts.add(text)
        self._count(own + beside + sum(map(_pattern_cost, names)))
        self._patterns |= dict.fromkeys(text for text in (*names, schema.get("pattern")) if isinstance(text, str))

    def compile(self) -> None:
        """Compile what was counted: each takes as long as all the counting.

        Raises:
            ToolsError: one is no regular expression, or looks around elsewhere than at its ends.

        """
        for pattern in self._patterns:
            try:
                compile_pattern(pattern)
            except PatternError as error:
                expected = "a regular expression without back-references, and look-around at its ends only"
                raise self._refusal(str(error), expected, "Simplify the pattern.") from None

    def _count(self, characters: int) -> None:
        self._characters += characters
        if self._characters > limits.PATTERN_CHARS:
            raise self._refusal(
                f"patterns and formats that count as over {limits.PATTERN_CHARS} characters",
                f"fewer or shorter ones: a pattern counts as {_LEAST} at least, a format and a pattern with `\\p` as "
                f"{_LEAST_OF_UNICODE} at least, and equal ones once",
                "Give the properties equal patterns, formats and lengths; or split the tool.",
            )

    def _refusal(self, found: str, expected: str, fix: str) -> ToolsError:
        return ToolsError(self._where, found=found, expected=expected, fix=fix)


def _pattern_cost(pattern: str) -> int:
    return max(len(pattern), _LEAST_OF_UNICODE if any(escape in pattern for escape in _UNICODE) else _LEAST)
