"""The pseudo-tool that stands for “no tool” in a selection, and whether a template lists it by itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Final

from tokenizers import Tokenizer

from dualtune_edge.toolkit.errors import TemplateError
from dualtune_edge.toolkit.prompts.all_toolsets import AllToolsets
from dualtune_edge.toolkit.prompts.chat_template import ChatTemplate
from dualtune_edge.toolkit.prompts.messages import user
from dualtune_edge.toolkit.prompts.prompter import Prompter
from dualtune_edge.toolkit.tools.toolset import Tool

NO_TOOL: Final = "summarize"  # DualTune's pseudo-tool: the turn answers in words
# Two tools whose names nobody gives a tool, to see how a template lists one behind the other.
_PROBES: Final = (Tool(name="qzone_alpha", description="x"), Tool(name="qztwo_omega", description="y"))


def no_tool_entry(name: str = NO_TOOL) -> Tool:
    """The pseudo-tool that a selection offers beside the toolset's own tools.

    Where a bundle's prompt shows all toolsets, the device makes it: its words are a part of the format.
    """
    closed = {"type": "object", "properties": {}, "additionalProperties": False}
    return Tool(name=name, description="Answer the user without calling a tool", parameters=closed)


def selection_prompter(
    template: ChatTemplate,
    tokenizer: Tokenizer,
    tools: tuple[Tool, ...],
    name: str,
    *,
    all_toolsets: AllToolsets | None = None,
    toolset: str | None = None,
) -> Prompter:
    """A prompter for a choice among tools and none; the template is given an entry for none unless it lists one.

    Args:
        template: of the stage.
        tokenizer: of the base.
        tools: to choose among.
        name: of the entry for none.
        all_toolsets: all toolsets, of a template that shows them: it lists the entry that is given with them.
        toolset: whose tools these are.

    Raises:
        TemplateError: it shows all toolsets, and no entry for none.

    """
    if all_toolsets:
        if name not in template.render([user("x")], tools, tool=None, generate=True, all_toolsets=all_toolsets):
            raise TemplateError(
                template.where,
                found=f"all toolsets, and no entry for {name!r}",
                expected="the entry that stands for calling no tool among them",
                fix="Write `no_tool.function | tojson` beside the toolsets.",
            )
        return Prompter(template, tokenizer, tools, unlisted=(name,), all_toolsets=all_toolsets, toolset=toolset)
    if lists_entry(template, name):
        return Prompter(template, tokenizer, tools, unlisted=(name,))
    return Prompter(template, tokenizer, (*tools, no_tool_entry(name)))


def lists_entry(template: ChatTemplate, name: str) -> bool:
    """Whether the template lists an entry of this name beside the tools that it is given.

    As JSON, the entry stands right before or behind a tool's; as text, in a line that begins as the tools' lines do.
    """
    try:
        text = template.render([user("x")], _PROBES, tool=None, generate=True)
    except TemplateError:
        return False  # it is refused with the tools that it is for
    return _in_json(text, name) or _in_lines(text, name)


def _in_json(text: str, name: str) -> bool:
    entries = [(_name(value), start, end) for value, start, end in _objects(text)]
    probes = {tool.name for tool in _PROBES}
    return any(
        (one in probes and other == name) or (one == name and other in probes)
        for (one, _, end), (other, start, _) in pairwise(entries)
        if not text[end:start].strip(" \t\r\n,;")
    )


def _objects(text: str) -> Iterator[tuple[dict[str, Any], int, int]]:
    """Every outermost JSON object in a text, and where it begins and ends."""
    decoder, at = json.JSONDecoder(), text.find("{")
    while at >= 0:
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            end = at + 1
        else:
            yield value, at, end
        at = text.find("{", end)


def _name(entry: dict[str, Any]) -> object:
    function = entry.get("function")
    return (function if isinstance(function, dict) else entry).get("name")


def _in_lines(text: str, name: str) -> bool:
    lines = [line for line in text.splitlines() if line.strip()]
    places = [next((at for at, line in enumerate(lines) if tool.name in line), None) for tool in _PROBES]
    first, last = places
    if first is None or last is None or first == last:
        return False
    lead = lines[last].partition(_PROBES[1].name)[0]
    if lines[first].partition(_PROBES[0].name)[0] != lead:
        return False
    beside = [lines[at] for at in (first - 1, last + 1) if 0 <= at < len(lines)]
    return any(_begins(line, lead + name) for line in (lines if lead.strip() else beside))


def _begins(line: str, start: str) -> bool:
    """Whether a line begins with a name, and not with a longer one."""
    return line.startswith(start) and not (line[len(start) :][:1].isalnum() or line[len(start) :][:1] in ("_", "-"))
