"""Drafts of arguments: what the conversation suggests that the model will write next.

Argument values are mostly copied from what the user said: paths, names in quotes, numbers. Their names are those of the
schema, mostly in its order. A draft is only a guess at
the greedy answer. The model verifies all of its tokens in one forward, and its own tokens stand (`write_arguments`),
so nothing here can change an answer; it can only save forwards, or waste a little of one.

After prompt lookup decoding (Saxena, 2023), which continues the latest n-gram of the text where it last stood in the
prompt; here the place in the JSON is known, so a copy ends with its value, and one can be guessed before its first
token was written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

from dualtune_edge.runtime.decode.json_position import Position, position
from dualtune_edge.runtime.decode.sources import Sources
from dualtune_edge.toolkit.prompts.prompt_plan import Frame
from dualtune_edge.toolkit.tools.toolset import Tool

_LONGEST: Final = 200  # characters of a guess
_OVERLAP: Final = 2  # characters that must agree before the middle of a text is copied
# What values are copied from: between quotes or backticks, or a word with something that words do not have.
_QUOTED: Final = r"`([^`\n]+)`|\"([^\"\n]+)\"|“([^”\n]+)”|(?<!\w)'([^'\n]+)'(?!\w)"
_WORD: Final = r"((?<!\S)[^\s`\"'“]*[\w*][^\s`\"'”]*)"
_SPAN: Final = re.compile(f"{_QUOTED}|{_WORD}")
_NAME: Final = re.compile(r".*[/._\-*\d\\].*|.*[a-z][A-Z].*")
_NUMBER: Final = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?![\w.]*\w)")
_AROUND: Final = ".,;:!?()[]"


@dataclass(frozen=True)
class Drafter:
    """Guesses from the texts of one conversation, the latest first.

    `properties`: those of the tool with their schemas; the model is guessed to write them in this order. `required`:
    names of these.
    """

    sources: Sources
    properties: Mapping[str, Any] = field(default_factory=dict)
    required: frozenset[str] = frozenset()

    @classmethod
    def of(cls, sources: Sources, tool: Tool | None = None) -> Drafter:
        """From a conversation, for one tool."""
        schema = tool.parameters if tool else {}
        return cls(sources, schema.get("properties", {}), frozenset(schema.get("required", ())))

    @property
    def frame(self) -> Frame:
        """How the template writes JSON."""
        return self.sources.frame

    def guesses(self, written: str) -> Iterator[str]:
        """What may stand behind `written` (the frame's pending text, then JSON), the likeliest first."""
        if not written.startswith(self.frame.pending):
            return
        place = position(written[len(self.frame.pending) :])
        end = self._end(place, written)
        if place.kind == "key":
            yield from self._keys(place, written)
        elif place.kind == "after":
            yield from (f'{self.frame.item_separator}"{name}"{end}' for name in self._fresh(written) if end[0] == "]")
            yield end
        elif place.kind == "value":
            yield from self._bare(place, written, end)
        else:
            yield from self._string(place, written, end)

    def _end(self, place: Position, written: str) -> str:
        """What stands behind a value: the next required property, or what closes the arguments."""
        required = [name for name in self._left(written) if name in self.required]
        if required:
            return place.closing[:-1] + self.frame.item_separator + self._key(required[0])
        return place.closing + self.frame.tail

    def _keys(self, place: Position, written: str) -> Iterator[str]:
        """The properties that are left, each with the likeliest value behind it."""
        if place.closing != "}":  # properties of an inner object are not known here
            return
        for name in self._left(written):
            key = self._key(name)
            if key.startswith(place.text):
                begun = written[: len(written) - len(place.text)] + key
                yield key[len(place.text) :] + next(self._values(self.properties[name], begun), "")

    def _values(self, schema: Any, written: str) -> Iterator[str]:
        """Values of a type, behind a key."""
        kind = schema.get("type") if isinstance(schema, dict) else None
        place = Position("value", "", "}")
        if kind == "string":
            yield from self._string(place, written, self._end(place, written), quote='"')
        elif kind in {"number", "integer"}:
            yield from self._bare(place, written, self._end(place, written))
        elif kind == "boolean":
            yield "true" + self._end(place, written)

    def _left(self, written: str) -> list[str]:
        """Properties that are not written yet."""
        return [name for name in self.properties if self._key(name) not in written]

    def _key(self, name: str) -> str:
        return json.dumps(name, ensure_ascii=self.frame.ascii_only) + self.frame.key_separator

    def _bare(self, place: Position, written: str, end: str) -> Iterator[str]:
        """A number that was not used yet, or true. Behind what is written of one: its end."""
        if place.text:
            yield end
            return
        yield from (
            f"{number}{end}" for number in self._numbers if f"{self.frame.key_separator}{number}" not in written
        )
        yield f"true{end}"
        yield from self._string(place, written, end, quote='"')

    def _string(self, place: Position, written: str, end: str, quote: str = "") -> Iterator[str]:
        """The rest of a text that goes on like this one, or one that was not used yet."""
        if not place.text:
            fresh = self._fresh(written)
            for at, name in enumerate(fresh):
                more = f'"{self.frame.item_separator}"{fresh[at + 1]}' if end[0] == "]" and fresh[at + 1 :] else ""
                yield f'{quote}{name}{more}"{end}'
            return
        names = [name for name in self._names if name.startswith(place.text)]
        yield from (f'{name[len(place.text) :]}"{end}' for name in names)
        rest = self._rest(place.text)
        if rest is not None:
            yield f'{rest}"{end}'

    def _fresh(self, written: str) -> list[str]:
        """Names that are no value yet."""
        return [name for name in self._names if f'"{name}"' not in written]

    def _rest(self, begun: str) -> str | None:
        """How a text goes on behind `begun`, or behind as much of its end as any text has; up to its word's end."""
        starts = [0, *(match.end() for match in re.finditer(r"\W", begun))]
        for start in starts:
            part = begun[start:]
            if start and len(part) < _OVERLAP:
                return None
            for text in self.sources.escaped:
                at = text.find(part)
                if at >= 0:
                    rest = text[at + len(part) : at + len(part) + _LONGEST]
                    stop = r'["`\n]|\\[n"]' if " " in begun else r'["`\s]|\\[n"]'
                    return re.split(stop, rest, maxsplit=1)[0].rstrip(_AROUND)
        return None

    @cached_property
    def _names(self) -> tuple[str, ...]:
        """Spans that look like values, in the order of the latest text, then of earlier ones; as JSON writes them."""
        found: dict[str, None] = {}
        for text in self.sources.texts:
            for match in _SPAN.finditer(text):
                quoted = next((group for group in match.groups()[:-1] if group), None)
                word = (match.groups()[-1] or "").strip(_AROUND)
                if quoted or _NAME.fullmatch(word):
                    found[self.sources.escape(quoted or word)[:_LONGEST]] = None
        return tuple(sorted(found, key=lambda name: bool(_NUMBER.fullmatch(name))))  # numbers are seldom texts

    @cached_property
    def _numbers(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(number for text in self.sources.texts for number in _NUMBER.findall(text)))
