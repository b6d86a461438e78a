# ruff: noqa: S311 - values drawn by seed, not secrets
"""A fifth of the second course's texts: pointing at lists, several calls a request, synonyms, typed requests, no tool.

Tools are made up, as in the first course. Most texts list all tools, as `templates/activated.jinja` does, so that the
base understands a request before the assistant's turn.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Final, Literal, TypeAlias

from dualtune_edge.toolkit.prompts.messages import FunctionCall, Message, user
from dualtune_edge.toolkit.prompts.no_tool import NO_TOOL, no_tool_entry
from dualtune_edge.toolkit.tools.toolset import Tool
from dualtune_edge_kit.training.data import everyday, lists, madeup, values
from dualtune_edge_kit.training.data.everyday import EverydayTool
from dualtune_edge_kit.training.data.lists import Listing
from dualtune_edge_kit.training.data.madeup import MadeUpTool, Request, called
from dualtune_edge_kit.training.data.typed import conversations as typed
from dualtune_edge_kit.training.data.typed.requests import Part, chat, roughened
from dualtune_edge_kit.training.data.values import TRAIN
from dualtune_edge_kit.training.pretraining import texts
from dualtune_edge_kit.training.pretraining.texts import Document, Templates

Made: TypeAlias = EverydayTool | MadeUpTool
Layout: TypeAlias = Literal["shared", "arguments", "selection", "base"]
Kind: TypeAlias = Literal["plain", "pointing", "second", "no tool"]

_LAYOUTS: Final[dict[Layout, float]] = {"shared": 0.45, "arguments": 0.25, "selection": 0.18, "base": 0.12}
_KINDS: Final[dict[Kind, float]] = {"plain": 0.34, "pointing": 0.34, "second": 0.32}
_CLOSINGS: Final = (*texts.CLOSINGS, "OK.", "There you go.", "")


@dataclass(frozen=True)
class Lengths:
    """How long the texts are: lines of the lists that requests point at, tools of a set, requests one by one."""

    lines: tuple[int, ...]
    tools: tuple[int, ...]
    requests: tuple[int, ...]


def documents(seed: str, templates: Templates, lengths: Lengths) -> Iterator[Document]:
    """Endless texts."""
    rng = Random(seed)
    while True:
        style = rng.random()
        if style < 0.06:
            yield Document(texts.echo(rng) if rng.random() < 0.15 else texts.recall(rng))
        elif style < 0.14:
            yield Document(drill(rng, lengths))
        elif style < 0.2:
            yield texts.routing(rng, templates.base)
        elif style < 0.26:
            yield texts.routing_on(rng, templates.base)
        else:
            kind = rng.choices(list(_KINDS), list(_KINDS.values()))[0]
            layout = rng.choices(list(_LAYOUTS), list(_LAYOUTS.values()))[0]
            made = tools(rng, 1 if layout == "arguments" else rng.choice(lengths.tools))
            offered = tuple(tool.tool for tool in made)
            yield rendered(conversation(rng, made, kind, lengths, "train"), offered, layout, templates)


def drill(rng: Random, lengths: Lengths) -> str:
    """A list, and one of its lines that the request points at: only pointing."""
    shown = lists.listing(rng, rng.choice(lists.POINTABLE), rng.choice(lengths.lines))
    turns = ""
    for index in range(rng.choice((1, 2, 3))):
        words, item = lists.pointed(rng, shown)
        asked = f"{shown.text}\n{words}" if index == 0 else words
        turns += (
            f"<|im_start|>user\n{asked}<|im_end|>\n<|im_start|>assistant\n"
            f'<tool_call>{{"name": "pick", "parameters": {{"it": {json.dumps(item, ensure_ascii=False)}}}}}</tool_call>'
            "<|im_end|>\n"
        )
    return turns


def tools(rng: Random, count: int) -> tuple[Made, ...]:
    """Made-up tools: most sets are everyday ones, whose requests use other words than their descriptions."""
    if rng.random() < 0.7:
        return everyday.make_tools(rng, count)
    made = [madeup.make_tool(rng, TRAIN) for _ in range(count)]
    return tuple({tool.tool.name: tool for tool in made}.values())


def conversation(rng: Random, made: Sequence[Made], kind: Kind, lengths: Lengths, part: Part) -> tuple[Message, ...]:
    """A conversation of one kind, cut behind one of its calls or behind the answer in words that follows them."""
    makers: dict[Kind, Callable[[], list[Message]]] = {
        "plain": lambda: _plain(rng, made, rng.choice(lengths.requests), part),
        "pointing": lambda: _pointing(rng, made, lengths),
        "second": lambda: _several(rng, made, lengths, part),
        "no tool": lambda: [*(_plain(rng, made, 1, part) if rng.random() < 0.5 else ()), *_talk(rng, part)],
    }
    messages = makers[kind]()
    if messages[-1].tool_calls:
        return tuple(messages)
    return tuple(messages if rng.random() < 0.6 or not any(turn.tool_calls for turn in messages) else _cut(messages))


def rendered(messages: Sequence[Message], offered: tuple[Tool, ...], layout: Layout, templates: Templates) -> Document:
    """The conversation in one of the kit's layouts, as its stage learns it."""
    if layout == "base":
        return Document(templates.base.render(messages, offered, tool=None, generate=False))
    if layout == "arguments":
        return _of_one_tool(messages, offered, templates)
    if not messages[-1].tool_calls:
        messages = (*messages[:-1], called(FunctionCall(name=NO_TOOL)))
    if layout == "shared":
        return Document(templates.shared.render(messages, offered, tool=None, generate=False), calls=True)
    text = templates.selection.render(messages, (*offered, no_tool_entry()), tool=None, generate=False)
    return Document(text, calls=True)


def _of_one_tool(messages: Sequence[Message], offered: tuple[Tool, ...], templates: Templates) -> Document:
    """The conversation up to its last call, whose tool alone is shown."""
    turns = [index for index, message in enumerate(messages) if message.tool_calls]
    if not turns:
        return Document(templates.base.render(messages, offered, tool=None, generate=False))
    until = messages[: turns[-1] + 1]
    tool = until[-1].tool_calls[0].function.name
    text = templates.arguments.render(until, offered, tool=tool, generate=False)
    same = all(call.function.name == tool for message in until for call in message.tool_calls)
    return Document(text, calls=True) if same else Document.of_last_turn(text)


def _plain(rng: Random, made: Sequence[Made], count: int, part: Part) -> list[Message]:
    """Requests one by one, with small talk between them."""
    messages: list[Message] = []
    for _ in range(count):
        if rng.random() < 0.12:
            messages += _talk(rng, part)
        asked = _request(rng, rng.choice(made))
        messages += [user(asked.text), called(asked.call), _result(rng), _closing(rng)]
    return [*messages, *_talk(rng, part)] if rng.random() < 0.15 else messages


def _several(rng: Random, made: Sequence[Made], lengths: Lengths, part: Part) -> list[Message]:
    """Two or three requests in one message; in some the second points at what the first one's result shows."""
    asked = [_request(rng, rng.choice(made)) for _ in range(2 if rng.random() < 0.75 else 3)]
    results = [_result(rng) for _ in asked]
    if rng.random() < 0.25 and (pointing := _second(rng, made, lengths)):
        shown, second = pointing
        asked, results = [asked[0], second], [Message(role="tool", content=shown.text), _result(rng)]
    messages = [user(typed.joined_words(rng, asked, part))]
    for request, result in zip(asked, results, strict=True):
        messages += [called(request.call), result]
    return [*messages, _closing(rng)]


def _pointing(rng: Random, made: Sequence[Made], lengths: Lengths) -> list[Message]:
    """A call, then one or two requests about lines of its result."""
    first = _request(rng, rng.choice(made))
    following = _second(rng, made, lengths)
    if following is None:
        return [user(first.text), called(first.call), _result(rng), _closing(rng)]
    shown, second = following
    messages = [user(first.text), called(first.call), Message(role="tool", content=shown.text)]
    messages += [*([] if rng.random() < 0.1 else [_closing(rng)]), user(second.text), called(second.call)]
    if rng.random() < 0.4 and (another := _about(rng, made, shown)):
        messages += [_result(rng), _closing(rng), user(another.text), called(another.call)]
    return [*messages, _result(rng), _closing(rng)] if rng.random() < 0.3 else messages


def _second(rng: Random, made: Sequence[Made], lengths: Lengths) -> tuple[Listing, Request] | None:
    """A list, and a request that points at one of its lines; None where no tool takes what lists hold."""
    makes = [make for tool in made for make in _pointable(tool)]
    if not makes:
        return None
    shown = lists.listing(rng, rng.choice(makes), rng.choice(lengths.lines))
    request = _about(rng, made, shown)
    return (shown, request) if request else None


def _about(rng: Random, made: Sequence[Made], shown: Listing) -> Request | None:
    """A request for a tool that takes a value such as the list's, which it points at instead of saying it."""
    fitting = [tool for tool in made if shown.make in _pointable(tool)]
    for _ in range(4):
        tool = rng.choice(fitting)
        request = _request(rng, tool)
        for name in (property_.name for property_ in tool.properties if property_.kind.make is shown.make):
            value = request.call.arguments.get(name)
            if isinstance(value, str) and request.text.count(value) == 1:
                words, item = lists.pointed(rng, shown)
                given: dict[str, Any] = {**request.call.arguments, name: item}
                return Request(
                    _unquoted(request.text, value, words), FunctionCall(name=tool.tool.name, arguments=given)
                )
    return None


def _unquoted(text: str, value: str, words: str) -> str:
    """``text`` with ``words`` in place of ``value`` and of the marks around it."""
    for mark in "'\"`":
        text = text.replace(f"{mark}{value}{mark}", value)
    return text.replace(value, words)


def _pointable(tool: Made) -> list[lists.Make]:
    return [make for property_ in tool.properties for make in lists.POINTABLE if property_.kind.make is make]


def _request(rng: Random, tool: Made) -> Request:
    if isinstance(tool, EverydayTool):
        return everyday.make_request(rng, tool)
    return madeup.make_request(rng, TRAIN, tool)


def _talk(rng: Random, part: Part) -> list[Message]:
    return [user(roughened(rng, rng.choice(chat(part)))), _closing(rng)]


def _result(rng: Random) -> Message:
    style = rng.random()
    if style < 0.35:
        return Message(role="tool", content=rng.choice(("ok", "", "done", "Success")))
    if style < 0.6:
        return Message(role="tool", content=values.sentence(rng, TRAIN))
    make = rng.choice(lists.POINTABLE)
    return Message(role="tool", content=lists.listing(rng, make, rng.choice((1, 1, 2, 3))).text)


def _closing(rng: Random) -> Message:
    return Message(role="assistant", content=rng.choice(_CLOSINGS))


def _cut(messages: list[Message]) -> list[Message]:
    """The conversation up to its last call."""
    turns = [index for index, message in enumerate(messages) if message.tool_calls]
    return messages[: turns[-1] + 1]
