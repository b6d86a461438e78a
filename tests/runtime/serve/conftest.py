"""A real server on a loopback port, before an agent that answers by a script."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import nodejs
import pytest
import uvicorn
from tokenizers import Tokenizer

from dualtune_edge.runtime.agent.approval import Policy
from dualtune_edge.runtime.agent.toolbox import Toolbox
from dualtune_edge.runtime.bundle.folder import Bundle
from dualtune_edge.runtime.bundle.opening import open_bundle
from dualtune_edge.runtime.result import Alternative, AnswerTokens, CallResult, Timings, Tokens
from dualtune_edge.runtime.serve.agent_route import AgentRoute
from dualtune_edge.runtime.serve.app import Service
from dualtune_edge.runtime.serve.current_agent import CurrentAgent
from dualtune_edge.runtime.serve.guard import Guard
from dualtune_edge.runtime.serve.monitoring.log import CallLog
from dualtune_edge.toolkit.errors import RequestError, StoppedError

TOKENS = Tokens(prompt=40, reused=30, forced=3, decided=2, drafted=0, accepted=0, forwards=4)
TIMES = Timings(toolset=0, selection=1, arguments=1, total=2)


@dataclass
class ScriptedAgent:
    """Calls one of the offered tools until the conversation has `calls` results, then says its words."""

    bundle: Bundle
    words: tuple[str, ...] = ("It is ", "done.")
    calls: int = 1
    echo: bool = False  # it says what it is asked
    entered: threading.Event = field(default_factory=threading.Event)
    leave: threading.Event = field(default_factory=threading.Event)
    cancelled: threading.Event = field(default_factory=threading.Event)
    closed: threading.Event = field(default_factory=threading.Event)
    seen: list[Mapping[str, Any]] = field(default_factory=list)
    context_length: int = 512

    def __post_init__(self) -> None:
        self.leave.set()

    @property
    def tokenizer(self) -> Tokenizer:
        return self.bundle.tokenizer

    def call(
        self,
        messages: Sequence[Any],
        *,
        offered: Mapping[str, frozenset[str]],
        required: bool = False,
        max_argument_tokens: int = 0,
        cancel: threading.Event,
        deadline: float | None,
    ) -> CallResult:
        asked = {"offered": offered, "required": required, "deadline": deadline, "messages": messages}
        self.seen.append(asked | {"max_argument_tokens": max_argument_tokens})
        self._wait(cancel)
        toolset, names = next(iter(offered.items()))
        roles = [message["role"] if isinstance(message, dict) else message.role for message in messages]
        results = roles.count("tool")
        tool = None if results >= self.calls and not required else sorted(names)[results % len(names)]
        return CallResult(
            toolset=toolset,
            tool=tool,
            arguments={"path": "größe"} if tool else None,
            outcome="call" if tool else "no_tool",
            probability=0.75,
            alternatives=(Alternative(tool="summarize", probability=0.25),),
            timings_ms=TIMES,
            tokens=TOKENS,
        )

    def answer(
        self, messages: Sequence[Any], *, cancel: threading.Event, max_tokens: int = 1024, **settings: Any
    ) -> Generator[str, None, AnswerTokens]:
        settings["max_tokens"] = max_tokens
        self.seen.append({"messages": messages, **settings})
        if isinstance(messages[-1], dict) and messages[-1]["content"] == "fail":
            raise RequestError("prompt", found="9 tokens", expected="at most 8", fix="Shorten it.")
        if isinstance(messages[-1], dict) and messages[-1]["content"] == "late":
            raise StoppedError("call", found="its deadline is over", expected="an answer", fix="Ask for less.")
        for word in ("to ", messages[-1]["content"]) if self.echo else self.words:
            self._wait(cancel)
            yield word
        return AnswerTokens(prompt=12, reused=8, written=len(self.words), ended=max_tokens > len(self.words))

    def close(self) -> None:
        self.closed.set()

    def _wait(self, cancel: threading.Event) -> None:
        self.entered.set()
        while not self.leave.wait(0.01):
            if cancel.is_set():
                self.cancelled.set()
                raise RequestError("call", found="a cancelled call", expected="one that goes on", fix="Call again.")


@dataclass
class Running:
    """A server, and what it runs."""

    url: str
    agent: ScriptedAgent
    service: Service


@pytest.fixture(scope="session")
def opened(exported: Path) -> Bundle:
    return open_bundle(exported)


@pytest.fixture
def start(opened: Bundle) -> Iterator[Callable[..., Running]]:
    """`start(guard=…, waiting=…)` → a server, until the test ends."""
    servers: list[tuple[uvicorn.Server, threading.Thread, Any]] = []

    def begin(
        *,
        guard: Guard | None = None,
        waiting: int = 16,
        tools: Toolbox | None = None,
        policy: Policy | None = None,
        agent: Any = None,
        log: CallLog | None = None,
    ) -> Running:
        agent, log = agent or ScriptedAgent(opened), log or CallLog(quiet=True)
        agents = CurrentAgent(agent, opened.root)
        runs = AgentRoute(agents, tools, policy or Policy(), log) if tools else None
        service = Service(agents, guard or Guard(), runs, waiting, 60.0, log)
        config = uvicorn.Config(
            service.application(), port=0, log_config=None, access_log=False, timeout_graceful_shutdown=1
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        servers.append((server, thread, agent))
        _, port = server.servers[0].sockets[0].getsockname()
        return Running(f"http://127.0.0.1:{port}", agent, service)

    yield begin
    for server, thread, agent in servers:
        if isinstance(agent, ScriptedAgent):
            agent.leave.set()
        server.should_exit = True
        thread.join()


@pytest.fixture
def running(start: Callable[..., Running]) -> Running:
    return start()


@pytest.fixture
def node(tmp_path: Path) -> Callable[..., str]:
    """`node(script, *arguments)` → what it prints."""
    if nodejs.MISSING:
        pytest.skip(nodejs.MISSING)
    return partial(nodejs.run, tmp_path)
