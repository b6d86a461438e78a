# ruff: noqa: S311 - values drawn by seed, not secrets
"""The training texts of the base model: copying, made-up tool calls, and the routing of requests to toolsets."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Final

from dualtune_edge.toolkit.prompts.chat_template import ChatTemplate
from dualtune_edge.toolkit.prompts.messages import FunctionCall, Message, user
from dualtune_edge.toolkit.prompts.no_tool import NO_TOOL, no_tool_entry
from dualtune_edge.toolkit.tools.toolset import Tool
from dualtune_edge_kit import FOLDER
from dualtune_edge_kit.training.data import madeup, toolsets, trajectories, values, words
from dualtune_edge_kit.training.data.madeup import MadeUpTool, Request, called
from dualtune_edge_kit.training.data.values import TRAIN

CLOSINGS: Final = ("Done.", "Here it is.", "That is all.", "Finished.", "It worked.")


@dataclass(frozen=True)
class Templates:
    """The kit's chat templates; activated adapters of all stages have the shared one."""

    base: ChatTemplate
    selection: ChatTemplate
    arguments: ChatTemplate
    shared: ChatTemplate


def read_templates() -> Templates:
    """The kit's templates."""
    folder, names = FOLDER / "templates", ("base", "selection", "arguments", "activated")
    return Templates(*(ChatTemplate.read(folder / f"{name}.jinja") for name in names))


@dataclass(frozen=True)
class Document:
    """A training text. Assistant's turns of ``text`` are learnt; ``context`` comes before it and is not."""

    text: str
    context: str = ""
    calls: bool = False  # of the turns, only calls are learnt

    @classmethod
    def of_last_turn(cls, text: str) -> "Document":
        """A document of which only the last turn is learnt: the others answer another prompt."""
        context, opening, turn = text.rpartition("<|im_start|>assistant\n")
        return cls(opening + turn, context)


@dataclass(frozen=True)
class Turns:
    """A made-up conversation and the tools that were offered in it."""

    messages: tuple[Message, ...]
    tools: tuple[Tool, ...]


def documents(seed: int | str, templates: Templates, *, copying: float, echoing: float) -> Iterator[Document]:
    """Endless training texts; ``copying`` is the share of plain copying, ``echoing`` that of mere repetition in it."""
    rng = Random(seed)
    while True:
        if rng.random() < copying:
            yield Document(echo(rng) if rng.random() < echoing else recall(rng))
            continue
        task = rng.random()
        if task < 0.1:
            yield routing(rng, templates.base)
        elif task < 0.2:
            yield routing_on(rng, templates.base)
        else:
            yield tool_calling(rng, templates)


def routing(rng: Random, base: ChatTemplate) -> Document:
    """A request and its toolset, sometimes as a later turn."""
    text, chosen, tools = toolsets.routing(rng)
    messages = [user(text), called(FunctionCall(name=chosen))]
    if rng.random() < 0.2:
        earlier = conversation(rng, 3).messages
        messages = [*earlier, *messages] if earlier[-1].content else messages
    return Document.of_last_turn(base.render(messages, tools, tool=None, generate=False))


def routing_on(rng: Random, base: ChatTemplate) -> Document:
    """The start of a conversation with one of the kit's toolsets, and that toolset."""
    name = rng.choice(toolsets.NAMES)
    tool = rng.choice(toolsets.load(name).toolset.tools).name
    messages = trajectories.conversation(rng, name, tool, "train")
    turns = [index for index, message in enumerate(messages) if message.role == "assistant"]
    so_far = (*messages[: rng.choice(turns)], called(FunctionCall(name=name)))
    return Document.of_last_turn(base.render(so_far, toolsets.offered(rng), tool=None, generate=False))


def echo(rng: Random) -> str:
    """A request that is repeated word for word."""
    text = " ".join(_value(rng) if rng.random() < 0.3 else words.invented(rng) for _ in range(rng.randint(2, 9)))
    return f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n{text}<|im_end|>\n"


def recall(rng: Random) -> str:
    """Names and values in the request, and the same in JSON in the answer: only copying."""
    plain = rng.random() < 0.6  # short values teach copying first
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


def tool_calling(rng: Random, templates: Templates) -> Document:
    """A conversation over made-up tools in one of the kit's three templates."""
    style = rng.random()
    if style < 0.45:
        return arguments(rng, templates.arguments)
    if style < 0.75:
        turns = conversation(rng, rng.choice((2, 3, 4, 5, 7, 12)))
        last = turns.messages[-1]
        if not last.tool_calls:
            turns = Turns((*turns.messages[:-1], called(FunctionCall(name=NO_TOOL))), turns.tools)
        tools = (*turns.tools, no_tool_entry())
        return Document(templates.selection.render(turns.messages, tools, tool=None, generate=False))
    turns = conversation(rng, rng.choice((1, 2, 3, 4, 5, 10)))
    return Document(templates.base.render(turns.messages, turns.tools, tool=None, generate=False))


def arguments(rng: Random, template: ChatTemplate) -> Document:
    """A conversation up to a call; only its tool is shown."""
    turns = conversation(rng, rng.choice((1, 1, 1, 3)))
    cut = max(index for index, message in enumerate(turns.messages) if message.tool_calls)
    messages = turns.messages[: cut + 1]
    names = {call.function.name for message in messages for call in message.tool_calls}
    tool = messages[-1].tool_calls[0].function.name
    text = template.render(messages, turns.tools, tool=tool, generate=False)
    return Document(text) if names == {tool} else Document.of_last_turn(text)


def conversation(rng: Random, tools: int) -> Turns:
    """One to four calls: requested one by one, in one sentence, or about something in the last result."""
    made = tuple(madeup.make_tool(rng, TRAIN) for _ in range(tools))
    style = rng.random()
    if style < 0.6:
        messages = _single(rng, made)
    elif style < 0.75:
        messages = _in_one_breath(rng, made)
    else:
        messages = _follow_up(rng, made)
    return Turns(messages, tuple(tool.tool for tool in made))


def _single(rng: Random, made: tuple[MadeUpTool, ...]) -> tuple[Message, ...]:
    """Requests that do not depend on one another."""
    messages: list[Message] = []
    for _ in range(rng.choice((1, 2, 3, 4))):
        request = madeup.make_request(rng, TRAIN, rng.choice(made))
        result = Message(role="tool", content=rng.choice(("ok", "", values.noun(rng, TRAIN))))
        messages += [user(request.text), called(request.call), result, _closing(rng)]
    return tuple(messages[:-2] if rng.random() < 0.5 else messages)


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
    """The request with one of its values replaced by "the first one" or the like, if it has a plain text value."""
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
