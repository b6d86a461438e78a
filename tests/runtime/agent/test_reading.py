"""What a run of several steps reads: in no stage a token that this stage has read before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from dualtune_edge.profiles.schema import SessionSettings
from dualtune_edge.runtime.agent import Policy, PolicyApprover, run
from dualtune_edge.runtime.agent.events import DoneEvent
from dualtune_edge.runtime.agent.offer import Offer
from dualtune_edge.runtime.agent.outcome import ToolOutcome
from dualtune_edge.runtime.bench.requests import Request
from dualtune_edge.runtime.bench.scripts import ScriptWriter
from dualtune_edge.runtime.bench.watched import Watched, watch
from dualtune_edge.runtime.bundle.opening import open_bundle
from dualtune_edge.runtime.engines.engine import open_engine
from dualtune_edge.runtime.levers import NAIVE, Levers
from dualtune_edge.runtime.pipeline import Agent
from dualtune_edge.runtime.result import CallResult
from dualtune_edge.toolkit.bundle.manifest import Manifest
from dualtune_edge.toolkit.prompts.messages import FunctionCall, Message

STEPS: tuple[tuple[str, str | None, dict[str, Any]], ...] = (  # toolset, tool and arguments of each step
    ("git", "log", {"count": 3}),
    ("files", "read", {"path": "a.txt"}),
    ("files", "read", {"path": "b.txt", "lines": 7}),
    ("git", "log", {"count": 4}),
    ("git", None, {}),
)


class Tools:
    """Every tool of the bundle, each with the same result."""

    def offer(self, manifest: Manifest, *, cancel: object = None) -> Offer:  # noqa: ARG002
        toolsets = (entry.toolset for entry in manifest.toolsets)
        return Offer(
            {toolset.name: frozenset(tool.name for tool in toolset.tools) for toolset in toolsets}, frozenset(), ()
        )

    def call(self, server: str, tool: str, arguments: dict[str, Any], *, cancel: object = None) -> ToolOutcome:
        del server, tool, arguments, cancel
        return ToolOutcome("a line\nand another")


class Forced:
    """An agent that is made to decide as STEPS has it, by an engine that is watched."""

    def __init__(self, bundle: Path, levers: Levers) -> None:
        opened = open_bundle(bundle)
        self.engine: Watched = watch(open_engine(opened.model, SessionSettings(intra_op_threads=1)))
        self._agent, self._writer, self._steps = Agent(opened, self.engine, levers), ScriptWriter(opened), iter(STEPS)
        self.bundle, self.tokenizer = opened, self._agent.tokenizer
        self.context_length = self._agent.context_length

    def call(self, messages: Sequence[Message], *, offered: Mapping[str, frozenset[str]], **_: Any) -> CallResult:
        toolset, tool, arguments = next(self._steps)
        gold = FunctionCall(name=tool, arguments=arguments) if tool else None
        self.engine.record.scripts = self._writer.scripts(Request("test", tuple(messages), toolset, gold))
        result = self._agent.call(messages, offered=offered)
        self.engine.record.scripts = ()
        assert (result.toolset, result.tool, result.arguments or {}) == (toolset, tool, arguments)
        return result

    def answer(self, messages: Sequence[Message], **_: Any) -> Iterator[str]:
        yield from self._agent.answer(messages, max_tokens=8)


def tokens_read(bundle: Path, levers: Levers) -> tuple[int, int]:
    """(tokens that all forwards of a run have read, those of them that the same stage had read before)."""
    agent = Forced(bundle, levers)
    with agent.engine:
        *_, done = run(agent, "what is new?", Tools(), PolicyApprover(Policy(default="allow")))  # type: ignore[arg-type]
    assert isinstance(done, DoneEvent)
    assert (done.outcome, done.steps) == ("answered", 4), done.reason
    known: set[tuple[str | None, tuple[int, ...]]] = set()
    count = again = 0
    for event in agent.engine.record.events:
        if event.kind == "forward":
            behind = range(len(event.held) - event.appended, len(event.held))
            read = [(event.adapter, event.held[: index + 1]) for index in behind]  # a token, and all before it
            count += len(read)
            again += sum(token in known for token in read)
            known.update(read)
    return count, again


def test_no_token_is_read_again_in_a_stage_that_has_read_it(exported: Path) -> None:
    count, again = tokens_read(exported, Levers())
    assert count > 0
    assert again == 0


@pytest.mark.parametrize("levers", [Levers(reuse=False), NAIVE])
def test_without_reuse_they_are(exported: Path, levers: Levers) -> None:
    count, again = tokens_read(exported, levers)
    assert again > count / 3
