"""The texts of a conversation: what values are copied from, and whether a value stands in one of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from dualtune_edge.toolkit.prompts.messages import Message
from dualtune_edge.toolkit.prompts.prompt_plan import Frame


@dataclass(frozen=True)
class Sources:
    """What messages say, the latest first; the arguments of earlier calls as JSON. `frame` says how JSON is written."""

    texts: tuple[str, ...]
    frame: Frame

    @classmethod
    def of(cls, messages: Sequence[Message], frame: Frame) -> Sources:
        """Of a conversation."""
        texts: list[str] = []
        for message in reversed(messages):
            texts += [message.content] if message.content else []
            texts += [frame.dumps(call.function.arguments) for call in message.tool_calls]
        return cls(tuple(texts), frame)

    def hold(self, value: str) -> bool:
        """Whether a text holds the value; that of an earlier call holds it as JSON."""
        escaped = self.escape(value)
        return any(value in text or escaped in text for text in self.texts)

    def hold_written(self, text: str) -> bool:
        """The same for what is written as JSON."""
        return any(text in source for source in (*self.escaped, *self.texts))

    def escape(self, text: str) -> str:
        """The text as it stands between the quotes of a JSON string."""
        return self.frame.dumps({"": text})[len(f'{{""{self.frame.key_separator}"') : -len('"}')]

    @cached_property
    def escaped(self) -> tuple[str, ...]:
        """The texts, escaped."""
        return tuple(map(self.escape, self.texts))


def not_in_conversation(arguments: dict[str, Any], schema: dict[str, Any], sources: Sources) -> tuple[str, ...]:
    """Where arguments hold a text that neither the conversation nor the schema has, as `edits[0].newText`.

    Of the schema count the texts in `enum`, `const`, `default` and `examples`.
    """
    known = set(_listed(schema))
    return tuple(place for place, text in texts_in(arguments) if text not in known and not sources.hold(text))


def texts_in(value: Any, place: str = "", *, numbered: bool = True) -> Iterator[tuple[str, str]]:
    """Each text that is a value, and where it stands: `edits[0].newText`, or `edits[].newText` if not `numbered`."""
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from texts_in(item, f"{place}.{name}" if place else name, numbered=numbered)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from texts_in(item, f"{place}[{index if numbered else ''}]", numbered=numbered)


def _listed(schema: Any) -> Iterator[str]:
    """Texts that a schema lists as values."""
    stack = [(schema, False)]
    while stack:
        part, listed = stack.pop()
        if isinstance(part, dict):
            stack += [(item, listed or key in {"const", "default", "enum", "examples"}) for key, item in part.items()]
        elif isinstance(part, list):
            stack += [(item, listed) for item in part]
        elif listed and isinstance(part, str):
            yield part
