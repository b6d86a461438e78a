"""What the teacher is asked to write: requests of people for one tool, and how it is to do what they ask."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Final, Literal, TypeAlias

from dualtune_edge.toolkit.tools.toolset import Tool

Kind: TypeAlias = Literal["one", "several", "none"]
_SHARES: Final[dict[Kind, float]] = {"several": 0.2, "none": 0.1}  # of a tool's conversations; the rest: one call
_WANTED: Final[dict[Kind, str]] = {
    "one": "that need the tool {tool} once and nothing else",
    "several": "that need the tool {tool} and then one to three more calls of these tools",
    "none": "that come up beside such work and need no tool: thanks, small talk, questions that the assistant answers "
    "by itself. None of them asks for anything that {tool} does",
}
_COMPLETE: Final = "A request says every value that its calls need, and names no tool."
_STYLES: Final = (
    "Write as a colleague would, in whole sentences.",
    "Write briefly: few words, no greeting.",
    "Write as people type in a hurry: lower case, abbreviations, a typing error here and there.",
    "Write politely, each with the reason for the request.",
    "Write questions rather than orders.",
    "Write curtly, as somebody who is annoyed.",
    "Describe what is wanted in other words than the tools' descriptions.",
)
_MARK: Final = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s+")  # of a list that nobody asked for
_QUOTED: Final = re.compile(r'^"(.*)"$|^“(.*)”$')


@dataclass
class Lane:
    """The conversations of one tool and kind."""

    server: str
    tool: str
    kind: Kind
    wanted: int
    kept: int = 0

    @property
    def name(self) -> str:
        """As parts of the journal begin."""
        return f"{self.server}/{self.tool}/{self.kind}"


def lanes(server: str, tools: Iterable[Tool], count: int) -> list[Lane]:
    """The lanes of a server's tools, with so many conversations for each tool."""
    made = []
    for tool in tools:
        rest = {kind: round(count * share) for kind, share in _SHARES.items()}
        wanted: dict[Kind, int] = {"one": count - sum(rest.values()), **rest}
        made += [Lane(server, tool.name, kind, number) for kind, number in wanted.items() if number]
    return made


def functions(tools: Iterable[Tool]) -> list[dict[str, Any]]:
    """The tools as the API takes them."""
    return [
        {
            "type": "function",
            "function": {"name": tool.name, "description": tool.description, "parameters": tool.parameters},
        }
        for tool in tools
    ]


def requests_wanted(
    lane: Lane, tools: Sequence[Tool], place: str, known: Sequence[str], *, count: int, draw: str
) -> list[dict[str, Any]]:
    """The messages that ask for requests; the style is drawn.

    Args:
        lane: which ones.
        tools: all of the server.
        place: the working folder and its files, in words.
        known: requests that are there already.
        count: how many are wanted.
        draw: the seed and the part's name.

    """
    listed = "\n".join(f"- {tool.name}: {tool.description} {json.dumps(tool.parameters)}" for tool in tools)
    style = Random(draw).choice(_STYLES)  # noqa: S311 - a style, not a secret
    wanted = f"Write {count} different requests {_WANTED[lane.kind].format(tool=lane.tool)}. {style} {_COMPLETE}"
    parts = [f"The assistant has these tools:\n{listed}", place, wanted]
    if known:
        parts.append("These are there already:\n" + "\n".join(known))
    system = "You write what people ask an assistant. One request a line, and nothing else: no numbers, no headings."
    return [
        {"role": "system", "content": system},
        {"role": "user", "content": "\n\n".join(part for part in parts if part)},
    ]


def requests_in(text: str) -> list[str]:
    """The requests of a reply, a line each, without the marks of a list and quotation marks."""
    lines = (_MARK.sub("", line).strip() for line in text.splitlines())
    return [_QUOTED.sub(lambda quoted: quoted[1] or quoted[2] or "", line) for line in lines if line]


def instruction(place: str) -> dict[str, Any]:
    """The system message of a conversation, which is not part of the data."""
    text = (
        "You do what the user asks, by the tools. Call one tool at a time, with the values as the user writes them, "
        "and read its result before you go on. Where no tool is needed, call none. Do not ask back. At the end say in "
        "a sentence or two what was done or found."
    )
    return {"role": "system", "content": f"{text}\n\n{place}".strip()}
