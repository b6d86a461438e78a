"""Made-up servers that do what the kit's two do: every tool has another name and description, most arguments too.

A base that learns from them knows what people ask of files and repositories, and has to read which tool is on offer.
"""

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, Final

from dualtune_edge.toolkit.prompts.messages import FunctionCall, Message
from dualtune_edge.toolkit.tools.toolset import Tool
from dualtune_edge_kit.training.data import toolsets
from dualtune_edge_kit.training.data.madeup import called

_FILE: Final = Path(__file__).resolve().parent / "wordings" / "kin.toml"


@dataclass(frozen=True)
class Words:
    """What made-up servers call one tool, and how they describe it."""

    names: tuple[str, ...]
    said: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """The words for every tool of the real servers, and the names of their arguments."""

    tools: dict[tuple[str, str], Words]  # by toolset and tool
    properties: dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class Kin:
    """A made-up server: its tools by the names of the real one's, and the names of their arguments."""

    tools: dict[str, Tool]
    properties: dict[str, str]

    def renamed(self, messages: tuple[Message, ...]) -> tuple[Message, ...]:
        """A conversation with the real server as one with this server; it calls no tool of another one."""
        return tuple(self._renamed(message) for message in messages)

    def _renamed(self, message: Message) -> Message:
        if message.tool_calls:
            (call,) = message.tool_calls
            return called(self._call(call.function))
        if message.role != "user":
            return message
        return message.model_copy(update={"content": _spoken().sub(self._name, str(message.content))})

    def _call(self, call: FunctionCall) -> FunctionCall:
        given = {self.properties[name]: value for name, value in call.arguments.items()}
        return FunctionCall(name=self.tools[call.name].name, arguments=given)

    def _name(self, found: re.Match[str]) -> str:
        tool = self.tools.get(found[0])
        return tool.name if tool else found[0]


def make(rng: Random, toolset: str) -> Kin:
    """A server like the one of ``toolset``, its tools in any order."""
    words, known = table(), list(toolsets.load(toolset).toolset.tools)
    prefix = rng.choice(("", "", "", f"{toolset}_", "fs_" if toolset == "filesystem" else "vcs_", "my_"))
    while True:
        properties = {name: rng.choice(names) for name, names in words.properties.items()}
        if all(len({properties[name] for name in _properties(tool)}) == len(_properties(tool)) for tool in known):
            break
    rng.shuffle(known)
    tools = {tool.name: _tool(rng, tool, words.tools[toolset, tool.name], prefix, properties) for tool in known}
    return Kin(tools, properties)


@cache
def table() -> Table:
    """The names and words that made-up servers have."""
    read = tomllib.loads(_FILE.read_text(encoding="utf-8"))
    tools = {
        (toolset, tool): Words(tuple(words["names"]), tuple(words["said"]))
        for toolset in toolsets.NAMES
        for tool, words in read[toolset].items()
    }
    return Table(tools, {name: tuple(names) for name, names in read["properties"].items()})


def _tool(rng: Random, real: Tool, words: Words, prefix: str, properties: dict[str, str]) -> Tool:
    name = rng.choice([spoken for word in words.names if not _spoken().fullmatch(spoken := prefix + word)])
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {properties[name]: schema for name, schema in _properties(real).items()},
        "required": [properties[name] for name in real.parameters.get("required", ())],
    }
    return Tool(name=name, description=rng.choice(words.said), parameters=schema)


def _properties(tool: Tool) -> dict[str, Any]:
    properties: dict[str, Any] = tool.parameters.get("properties", {})
    return properties


@cache
def _spoken() -> re.Pattern[str]:
    """The real tools' names, where a request says them."""
    names = [tool.name for name in toolsets.NAMES for tool in toolsets.load(name).toolset.tools]
    return re.compile(rf"\b(?:{'|'.join(sorted(names, key=len, reverse=True))})\b")
