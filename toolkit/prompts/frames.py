"""What a template writes around a call's arguments: what the device forces, and what it lets the model write between.

Every text here is a difference between two renders of the template.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from dualtune_edge.toolkit.errors import TemplateError
from dualtune_edge.toolkit.prompts.messages import Message, call
from dualtune_edge.toolkit.prompts.prompt_plan import STYLES, Frame, JsonStyle
from dualtune_edge.toolkit.prompts.prompter import CONTEXT, Prompter, common_prefix


@dataclass(frozen=True)
class Wrapping:
    """The text before and behind the arguments in a call, to the end of what the template writes."""

    head: str
    tail: str
    style: JsonStyle


def wrapping_of(prompter: Prompter) -> Wrapping:
    """What the template writes around the arguments of the prompter's tool, read off renders with several arguments.

    Raises:
        TemplateError: the template does not write the arguments as one JSON object.

    """
    probes = _argument_probes(prompter)
    written = [prompter.completion_text(CONTEXT, answer)[1] for answer in probes]
    arguments = [answer.tool_calls[0].function.arguments for answer in probes]
    for style in STYLES:
        for head, tail in _cuts(written[0], style.dumps(arguments[0])):
            if written == [head + style.dumps(probe) + tail for probe in arguments]:
                return Wrapping(head, tail, style)
    raise TemplateError(
        prompter.template.where,
        found=f"arguments of {prompter.tool!r} rendered as {written[0]!r}",
        expected="the arguments once, as one JSON object (Jinja's tojson)",
        fix="Write them with `tool_call.function.arguments | tojson`.",
    )


def frame_of(prompter: Prompter) -> Frame:
    """What surrounds the arguments of the prompter's tool, in tokens as far as these are the same for all arguments.

    Raises:
        TemplateError: as for `wrapping_of` and `Prompter.complete`.

    """
    wrapping = wrapping_of(prompter)
    completions = [prompter.complete(CONTEXT, answer) for answer in _argument_probes(prompter)]
    stable = common_prefix([completion.tokens for completion in completions])
    first = completions[0]
    border, offsets = len(first.prompt) + len(wrapping.head), first.encoding.offsets[first.start :]
    keep = len(stable)
    while keep and offsets[keep - 1][1] > border:
        keep -= 1
    reached = offsets[keep - 1][1] if keep else len(first.prompt)
    style = wrapping.style
    return Frame(
        tokens=stable[:keep],
        pending=(first.prompt + wrapping.head)[reached:],
        tail=_before_special(prompter, wrapping.tail),
        item_separator=style.item_separator,
        key_separator=style.key_separator,
        ascii_only=style.ascii_only,
    )


def _argument_probes(prompter: Prompter) -> list[Message]:
    """Calls of the tool with arguments that begin in ways which merge differently with the text before them."""
    if prompter.tool is None:
        raise ValueError("a frame needs the tool whose arguments it surrounds")
    schemas = (tool.parameters for tool in prompter.tools if tool.name == prompter.tool)
    declared = next(schemas, {}).get("properties", {})
    names = {name[:1]: name for name in (*declared, "a")}
    probes: list[dict[str, Any]] = [{"é": [1, {"b": "ü"}], "c": 2.5}, {}, *({name: "x"} for name in names.values())]
    return [call(prompter.tool, probe) for probe in probes]


def _before_special(prompter: Prompter, text: str) -> str:
    """The text up to its first special token: what is left of the turn to be forced."""
    encoding = prompter.encode(text)
    tokens = zip(encoding.ids, encoding.offsets, strict=True)
    starts = (offsets[0] for token, offsets in tokens if token in prompter.special_tokens)
    return text[: next(starts, len(text))]


def _cuts(text: str, arguments: str) -> Iterator[tuple[str, str]]:
    """(before, behind) the arguments, at each place of the text where they could stand."""
    at = text.find(arguments)
    while at >= 0:
        yield text[:at], text[at + len(arguments) :]
        at = text.find(arguments, at + 1)
