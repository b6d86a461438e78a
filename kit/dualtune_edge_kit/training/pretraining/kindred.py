# ruff: noqa: S311 - texts drawn by seed, not secrets
"""Texts about made-up servers that do what the kit's two do, in the words of the adapters' training data."""

from collections.abc import Callable, Iterator
from random import Random
from typing import Final

from dualtune_edge.toolkit.prompts.messages import FunctionCall, Message, user
from dualtune_edge.toolkit.prompts.no_tool import NO_TOOL
from dualtune_edge.toolkit.tools.toolset import Tool
from dualtune_edge_kit.training.data import kin, toolsets, trajectories
from dualtune_edge_kit.training.data.kin import Kin
from dualtune_edge_kit.training.data.madeup import called
from dualtune_edge_kit.training.data.typed import conversations as typed
from dualtune_edge_kit.training.data.typed import requests
from dualtune_edge_kit.training.pretraining import second
from dualtune_edge_kit.training.pretraining.second import Layout, Lengths
from dualtune_edge_kit.training.pretraining.texts import Document, Templates

_LAYOUTS: Final[dict[Layout, float]] = {"shared": 0.2, "selection": 0.2, "arguments": 0.5, "base": 0.1}
_DRILLS: Final[dict[Layout, float]] = {"shared": 0.35, "selection": 0.65}
_NONE: Final = called(FunctionCall(name=NO_TOOL))


def documents(seed: str, templates: Templates, lengths: Lengths) -> Iterator[Document]:
    """Endless texts: drills and conversations about made-up servers, and a fifth of `second`."""
    rng = Random(f"kindred {seed}")
    others = second.documents(seed, templates, lengths)
    while True:
        style = rng.random()
        if style < 0.5:
            yield drill(rng, templates, lengths)
        elif style < 0.8:
            yield document(rng, templates, lengths)
        else:
            yield next(others)


def drill(rng: Random, templates: Templates, lengths: Lengths) -> Document:
    """Some of a server's tools, and request after request with nothing but its calls: a choice every few tokens."""
    toolset = rng.choice(toolsets.NAMES)
    layout = rng.choices(list(_DRILLS), list(_DRILLS.values()))[0]
    server = kin.make(rng, toolset)
    shown = rng.sample(list(server.tools), min(len(server.tools), rng.choice(lengths.tools)))
    asked = rng.randint(4, 7) if layout == "selection" else rng.randint(2, 4)
    messages = server.renamed(tuple(message for _ in range(asked) for message in _called(rng, toolset, shown)))
    closed = tuple(_NONE if message.role == "assistant" and not message.tool_calls else message for message in messages)
    return second.rendered(closed, offered(rng, server, messages, len(shown)), layout, templates)


def document(rng: Random, templates: Templates, lengths: Lengths) -> Document:
    """A conversation with a made-up server in one of the kit's layouts."""
    toolset = rng.choice(toolsets.NAMES)
    layout = rng.choices(list(_LAYOUTS), list(_LAYOUTS.values()))[0]
    server = kin.make(rng, toolset)
    if layout == "arguments":
        messages = _with_one_tool(rng, toolset) if rng.random() < 0.5 else _cut(rng, _one(rng, toolset))
        return second.rendered(server.renamed(messages), tuple(server.tools.values()), layout, templates)
    talk = tuple(message for _ in range(rng.choice(lengths.requests)) for message in _one(rng, toolset))
    messages = server.renamed(talk)
    return second.rendered(messages, offered(rng, server, messages, rng.choice(lengths.tools)), layout, templates)


def _one(rng: Random, toolset: str) -> tuple[Message, ...]:
    """A conversation with one server."""
    style = rng.random()
    if style < 0.1:
        return trajectories.follow_up(rng, toolset, "train")
    tool = rng.choice(toolsets.load(toolset).toolset.tools).name
    if style < 0.3:
        return trajectories.conversation(rng, toolset, tool, "train")
    if style < 0.5:
        return of_toolset(toolset, lambda: typed.joined(rng, tool, "train"))
    return of_toolset(toolset, lambda: typed.conversation(rng, tool, "train"))


def of_toolset(toolset: str, draw: Callable[[], tuple[Message, ...]]) -> tuple[Message, ...]:
    """The first drawn conversation that calls tools of ``toolset`` alone."""
    while True:
        messages = draw()
        if all(requests.toolset_of(call.function.name) == toolset for one in messages for call in one.tool_calls):
            return messages


def _called(rng: Random, toolset: str, shown: list[str]) -> tuple[Message, ...]:
    """A request and its call; of two requests in one message both calls, with the first one's result."""
    tool, style = rng.choice(shown), rng.random()
    if style < 0.05:
        return _one(rng, toolset)
    if style < 0.4:
        return of_toolset(toolset, lambda: typed.joined(rng, tool, "train"))
    if style < 0.55:
        asked = toolsets.request(rng, toolset, tool, "train")
        return (user(asked.text), called(asked.call))
    return typed.single(rng, tool, "train")[:2]


def _with_one_tool(rng: Random, toolset: str) -> tuple[Message, ...]:
    """Requests for one tool, one by one."""
    tool = rng.choice([tool.name for tool in toolsets.load(toolset).toolset.tools if tool.takes_arguments])
    return tuple(message for _ in range(rng.choice((2, 3, 4))) for message in typed.single(rng, tool, "train"))


def _cut(rng: Random, messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """The conversation up to one of its calls, if it has any; most often the last."""
    calls = [index for index, message in enumerate(messages) if message.tool_calls]
    return messages[: rng.choice((*calls, calls[-1])) + 1] if calls else messages


def offered(rng: Random, server: Kin, messages: tuple[Message, ...], count: int) -> tuple[Tool, ...]:
    """About ``count`` of the server's tools, and all that are called."""
    needed = {call.function.name for message in messages for call in message.tool_calls}
    others = [name for name in server.tools if server.tools[name].name not in needed]
    left_out = rng.sample(others, min(len(others), max(0, len(server.tools) - count)))
    return tuple(tool for name, tool in server.tools.items() if name not in left_out)
