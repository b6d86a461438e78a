# ruff: noqa: S311 - values drawn by seed, not secrets
"""What the base model is trained on: copying, made-up tool calls, and the routing of requests to toolsets."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Final

from dualtune_edge.export.demo import madeup, toolsets, values, words
from dualtune_edge.export.demo.madeup import MadeUpTool, Request
from dualtune_edge.export.demo.values import TRAIN
from dualtune_edge.toolkit.chat_template import ChatTemplate
from dualtune_edge.toolkit.messages import FunctionCall, Message, ToolCall, user
from dualtune_edge.toolkit.prompts import NO_TOOL, no_tool_entry
from dualtune_edge.toolkit.tools import Tool

CLOSINGS: Final = ("Done.", "Here it is.", "That is all.", "Finished.", "It worked.")


@dataclass(frozen=True)
class Templates:
    """The kit's three chat templates."""

    base: ChatTemplate
    selection: ChatTemplate
    arguments: ChatTemplate


def read_templates() -> Templates:
    """The kit's templates, as they are stored."""
    folder = toolsets.HERE / "templates"
    return Templates(*(ChatTemplate.read(folder / f"{name}.jinja") for name in ("base", "selection", "arguments")))


@dataclass(frozen=True)
class Turns:
    """A made-up conversation and the tools that were offered in it."""

    messages: tuple[Message, ...]
    tools: tuple[Tool, ...]


def documents(seed: int, templates: Templates, *, copying: float, echoing: float) -> Iterator[str]:
    """Endless training texts; ``copying`` is the share of plain copying, ``echoing`` its part that only repeats."""
    rng = Random(seed)
    while True:
        if rng.random() < copying:
            yield echo(rng) if rng.random() < echoing else recall(rng)
            continue
        task = rng.random()
        if task < 0.2:
            yield routing(rng, templates.base)
        else:
            yield tool_calling(rng, templates)


def routing(rng: Random, base: ChatTemplate) -> str:
    """A request and the toolset that it belongs to; now and then as a later turn."""
    text, chosen, tools = toolsets.routing(rng)
    messages = [user(text), called(FunctionCall(name=chosen))]
    if rng.random() < 0.2:
        earlier = conversation(rng).messages
        messages = [*earlier, *messages] if earlier[-1].content else messages
    return base.render(messages, tools, tool=None, generate=False)


def echo(rng: Random) -> str:
    """A request that is said again, word for word."""
    text = " ".join(_value(rng) if rng.random() < 0.3 else words.invented(rng) for _ in range(rng.randint(2, 9)))
    return f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n{text}<|im_end|>\n"


def recall(rng: Random) -> str:
    """Names and values in the request, the same as JSON in the answer: nothing but copying."""
    plain = rng.random() < 0.6  # short values first teach what copying is
    count = rng.randint(2, 8) if plain else rng.randint(2, 6)
    pairs = {
        words.invented(rng) if rng.random() < 0.7 else values.noun(rng, TRAIN): values.phrase(rng, TRAIN)
        if plain
        else _value(rng)
        for _ in range(count)
    }
    said = list(pairs.items())
    rng.shuffle(said)
    between = rng.choice((": ", "=", " ", " is "))
    joint = rng.choice((", ", "\n", " and ", "; "))
    text = joint.join(f"{name}{between}{madeup.written(rng, value, quoted=False)}" for name, value in said)
    asked = list(pairs) if rng.random() < 0.5 else rng.sample(list(pairs), rng.randint(1, len(pairs)))
    rng.shuffle(asked)
    schema = ", ".join(f"{name}: string" for name in asked)
    answer = json.dumps({name: pairs[name] for name in asked}, ensure_ascii=False)
    name = words.invented(rng)
    return (
        f"<|im_start|>system\n{name}({schema})\n<|im_end|>\n<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"
        f'<tool_call>{{"name": "{name}", "parameters": {answer}}}</tool_call><|im_end|>\n'
    )


def tool_calling(rng: Random, templates: Templates) -> str:
    """A conversation over made-up tools in one of the kit's three templates."""
    turns = conversation(rng)
    style = rng.random()
    if style < 0.25:
        last = turns.messages[-1]
        if not last.tool_calls:
            turns = Turns((*turns.messages[:-1], called(FunctionCall(name=NO_TOOL))), turns.tools)
        return templates.selection.render(turns.messages, (*turns.tools, no_tool_entry()), tool=None, generate=False)
    if style < 0.6:
        names = [call.function.name for message in turns.messages for call in message.tool_calls]
        if not names:
            return templates.base.render(turns.messages, turns.tools, tool=None, generate=False)
        cut = max(index for index, message in enumerate(turns.messages) if message.tool_calls)
        return templates.arguments.render(turns.messages[: cut + 1], turns.tools, tool=names[-1], generate=False)
    return templates.base.render(turns.messages, turns.tools, tool=None, generate=False)


def conversation(rng: Random) -> Turns:
    """One to three calls: asked one by one, in one breath, or about something in the last result."""
    made = tuple(madeup.make_tool(rng, TRAIN) for _ in range(rng.choice((1, 2, 3, 4, 5, 7, 12))))
    style = rng.random()
    if style < 0.6:
        messages = _single(rng, made)
    elif style < 0.75:
        messages = _in_one_breath(rng, made)
    else:
        messages = _follow_up(rng, made)
    return Turns(messages, tuple(each.tool for each in made))


def called(call: FunctionCall) -> Message:
    """An assistant's turn that makes a call."""
    return Message(role="assistant", tool_calls=(ToolCall(function=call),))


def _single(rng: Random, made: tuple[MadeUpTool, ...]) -> tuple[Message, ...]:
    request = madeup.make_request(rng, TRAIN, rng.choice(made))
    messages = (user(request.text), called(request.call))
    if rng.random() < 0.6:
        return messages
    return (*messages, _result(rng, _lines(rng)), _closing(rng))


def _in_one_breath(rng: Random, made: tuple[MadeUpTool, ...]) -> tuple[Message, ...]:
    first, second = (madeup.make_request(rng, TRAIN, rng.choice(made)) for _ in range(2))
    joint = rng.choice((" and then ", ", then ", ". After that ", ". Then "))
    text = f"{first.text.rstrip('.')}{joint}{second.text[:1].lower()}{second.text[1:]}"
    return (
        user(text),
        called(first.call),
        _result(rng, _lines(rng)),
        called(second.call),
        _result(rng, _lines(rng)),
        _closing(rng),
    )


def _follow_up(rng: Random, made: tuple[MadeUpTool, ...]) -> tuple[Message, ...]:
    first, second = (madeup.make_request(rng, TRAIN, rng.choice(made)) for _ in range(2))
    lines = _lines(rng)
    shown = [f"{line} {values.message(rng, TRAIN)}" for line in lines] if rng.random() < 0.4 else lines
    ordinal, chosen = rng.choice(
        [*zip(("first", "second", "third", "fourth"), lines, strict=False), ("last", lines[-1])]
    )
    pointed = _pointing(second, ordinal, chosen)
    return (
        user(first.text),
        called(first.call),
        Message(role="tool", content="\n".join(shown)),
        _closing(rng),
        user(pointed.text),
        called(pointed.call),
    )


def _pointing(request: Request, ordinal: str, chosen: str) -> Request:
    """The request with one of its values said as "the first one", if it has a plain text value."""
    for name, value in request.call.arguments.items():
        if isinstance(value, str) and request.text.count(value) == 1:
            arguments = {**request.call.arguments, name: chosen}
            return Request(
                request.text.replace(value, f"the {ordinal} one"),
                FunctionCall(name=request.call.name, arguments=arguments),
            )
    return request


def _lines(rng: Random) -> list[str]:
    make = rng.choice((values.file, values.relative, values.sha, values.branch, values.folder))
    return [make(rng, TRAIN) for _ in range(rng.randint(1, 4))]


def _result(rng: Random, lines: list[str]) -> Message:
    return Message(role="tool", content="\n".join(lines) if rng.random() < 0.8 else "ok")


def _closing(rng: Random) -> Message:
    return Message(role="assistant", content=rng.choice(CLOSINGS))


def _value(rng: Random) -> str:
    make = rng.choice(
        (
            values.file,
            values.file,
            values.folder,
            values.branch,
            values.revision,
            values.message,
            values.sentence,
            values.phrase,
            values.date,
            values.glob,
        )
    )
    return make(rng, TRAIN)
