"""The loop, with an agent that decides by a script and a toolbox that answers by one."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from dualtune_edge.runtime.agent.approval import Approval, PendingCall, Policy, PolicyApprover, ServerRules
from dualtune_edge.runtime.agent.events import (
    ApprovalEvent,
    ArgumentsEvent,
    DoneEvent,
    Event,
    ResultEvent,
    TextEvent,
    ToolEvent,
    ToolsetEvent,
)
from dualtune_edge.runtime.agent.loop import RunLimits, run, run_async
from dualtune_edge.runtime.agent.offer import Offer
from dualtune_edge.runtime.agent.outcome import ToolOutcome
from dualtune_edge.runtime.result import CallResult, Timings, Tokens
from dualtune_edge.toolkit.errors import EdgeError, EngineError, RequestError
from dualtune_edge.toolkit.prompts.messages import Message

ALLOW = PolicyApprover(Policy(default="allow"))
OFFER = Offer({"git": frozenset({"log", "push"})}, frozenset({("git", "log")}), ())
Call = tuple[str, dict[str, Any]]


@dataclass
class ScriptedAgent:
    """Wants these calls one after the other, then none."""

    calls: list[Call | EdgeError]
    words: tuple[str, ...] = ("Two ", "commits.")
    seen: list[tuple[Message, ...]] = field(default_factory=list)
    context_length: int = 400
    bundle: Any = field(default_factory=lambda: type("Bundle", (), {"manifest": None}))
    tokenizer: Tokenizer = field(init=False)

    def __post_init__(self) -> None:
        self.tokenizer = Tokenizer(WordLevel({"[UNK]": 0}, unk_token="[UNK]"))  # noqa: S106 - no password
        self.tokenizer.pre_tokenizer = Whitespace()

    def call(self, messages: Sequence[Message], *, offered: Mapping[str, frozenset[str]], **_: Any) -> CallResult:
        self.seen.append(tuple(messages))
        assert offered == OFFER.tools
        wanted = self.calls.pop(0) if self.calls else None
        if isinstance(wanted, EdgeError):
            raise wanted
        return CallResult(
            toolset="git",
            tool=wanted[0] if wanted else None,
            arguments=wanted[1] if wanted else None,
            outcome="call" if wanted else "no_tool",
            probability=0.9,
            alternatives=(),
            timings_ms=Timings(toolset=0, selection=1, arguments=1, total=2),
            tokens=Tokens(prompt=1, reused=0, forced=0, decided=1, drafted=0, accepted=0, forwards=1),
        )

    def answer(self, messages: Sequence[Message], **_: Any) -> Iterator[str]:
        self.seen.append(tuple(messages))
        yield from self.words


@dataclass
class ScriptedTools:
    """Answers every call with the next of these results, the last one for good."""

    results: list[ToolOutcome]
    called: list[Call] = field(default_factory=list)
    during: Callable[[], None] = lambda: None
    listing: Callable[[], None] = lambda: None
    stopped: list[bool] = field(default_factory=list)  # what each call's `cancel` says at its end

    def offer(self, _manifest: object, *, cancel: object = None) -> Offer:  # noqa: ARG002
        self.listing()
        return OFFER

    def call(self, server: str, tool: str, arguments: dict[str, Any], *, cancel: Any = None) -> ToolOutcome:
        assert (server, cancel.is_set()) == ("git", False)
        self.called.append((tool, arguments))
        self.during()
        self.stopped.append(cancel.is_set())
        return self.results.pop(0) if len(self.results) > 1 else self.results[0]


def events(agent: ScriptedAgent, tools: ScriptedTools, approver: Any = ALLOW, **settings: Any) -> list[Event]:
    return list(run(agent, "how many commits?", tools, approver, **settings))  # type: ignore[arg-type]


def log(count: int = 2) -> Call:
    return "log", {"count": count}


def test_a_task_of_two_calls_and_an_answer() -> None:
    agent, tools = ScriptedAgent([log(), ("push", {})]), ScriptedTools([ToolOutcome("a\nb"), ToolOutcome("pushed")])
    found = events(agent, tools)
    step = [ToolsetEvent, ToolEvent, ArgumentsEvent, ApprovalEvent, ResultEvent]
    assert [type(event) for event in found] == [*step, *step, ToolsetEvent, ToolEvent, TextEvent, TextEvent, DoneEvent]
    assert tools.called == [log(), ("push", {})]
    done = found[-1]
    assert isinstance(done, DoneEvent)
    assert (done.outcome, done.answer, done.steps) == ("answered", "Two commits.", 2)
    roles = [message.role for message in agent.seen[-1]]
    assert roles == ["user", "assistant", "tool", "assistant", "tool"]
    assert agent.seen[-1][2].content == "a\nb"
    assert agent.seen[-1][1].tool_calls[0].id == agent.seen[-1][2].tool_call_id


def test_a_denied_call_is_not_made_and_the_model_reads_why() -> None:
    agent, tools = ScriptedAgent([("push", {})]), ScriptedTools([ToolOutcome("pushed")])
    found = events(agent, tools, PolicyApprover(Policy(default="deny")))
    assert tools.called == []
    assert [event.decision for event in found if isinstance(event, ApprovalEvent)] == ["deny"]
    (result,) = [event for event in found if isinstance(event, ResultEvent)]
    assert result.error
    assert agent.seen[-1][2].content == result.text == "error: the call was not made: the policy's default"


def test_the_user_is_asked_after_the_question_was_told_and_sees_what_will_be_sent() -> None:
    asked: list[PendingCall] = []

    class Person(PolicyApprover):
        def ask(self, call: PendingCall) -> Approval:
            asked.append(call)
            return Approval(allowed=True, reason="yes")

    stream = run(ScriptedAgent([log()]), "x", ScriptedTools([ToolOutcome("")]), Person(Policy()))  # type: ignore[arg-type]
    for event in stream:
        if isinstance(event, ApprovalEvent) and event.decision == "ask":
            assert asked == []
    assert asked == [PendingCall("git", "log", {"count": 2}, read_only=True)]


def test_read_only_is_allowed_where_the_server_is_trusted() -> None:
    agent, tools = ScriptedAgent([log(), ("push", {})]), ScriptedTools([ToolOutcome("")])
    events(agent, tools, PolicyApprover(Policy(trusted=("git",), servers={"git": ServerRules(tools={"push": "deny"})})))
    assert tools.called == [log()]


def test_a_failed_call_goes_into_the_conversation_and_the_run_goes_on() -> None:
    agent = ScriptedAgent([log(), log(3)])
    found = events(agent, ScriptedTools([ToolOutcome("error: gone", error=True), ToolOutcome("ok")]))
    assert [event.error for event in found if isinstance(event, ResultEvent)] == [True, False]
    assert agent.seen[1][2].content == "error: gone"


def test_equal_calls_with_equal_results_end_the_run() -> None:
    agent, tools = ScriptedAgent([log()] * 9), ScriptedTools([ToolOutcome("same")])
    done = events(agent, tools, limits=RunLimits(repeats=3))[-1]
    assert isinstance(done, DoneEvent)
    assert (done.outcome, len(tools.called)) == ("repeated", 3)


def test_equal_calls_with_other_results_do_not() -> None:
    results = [ToolOutcome(str(number)) for number in range(9)]
    done = events(ScriptedAgent([log()] * 5), ScriptedTools(results), limits=RunLimits(repeats=3))[-1]
    assert isinstance(done, DoneEvent)
    assert done.outcome == "answered"


def test_no_call_is_made_beyond_the_most_steps() -> None:
    tools = ScriptedTools([ToolOutcome("")])
    done = events(ScriptedAgent([log(number) for number in range(9)]), tools, limits=RunLimits(steps=2))[-1]
    assert isinstance(done, DoneEvent)
    assert (done.outcome, done.steps, len(tools.called)) == ("steps", 2, 2)


def test_a_cancelled_run_ends_where_it_is() -> None:
    cancel = threading.Event()
    tools = ScriptedTools([ToolOutcome("")], during=cancel.set)
    done = events(ScriptedAgent([log(), log(3)]), tools, cancel=cancel)[-1]
    assert isinstance(done, DoneEvent)
    assert (done.outcome, len(tools.called)) == ("cancelled", 1)


def test_what_waits_for_a_server_sees_that_the_run_is_cancelled() -> None:
    cancel = threading.Event()
    tools = ScriptedTools([ToolOutcome("")], during=cancel.set)
    events(ScriptedAgent([log()]), tools, cancel=cancel)
    assert tools.stopped == [True]


def test_what_waits_for_a_server_sees_that_the_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [time.monotonic()]
    monkeypatch.setattr("dualtune_edge.runtime.agent.loop.time.monotonic", lambda: now[0])
    tools = ScriptedTools([ToolOutcome("")], during=lambda: now.append(now.pop() + 9))
    done = events(ScriptedAgent([log()]), tools, limits=RunLimits(seconds=5.0))[-1]
    assert tools.stopped == [True]
    assert isinstance(done, DoneEvent)
    assert done.outcome == "deadline"


def test_a_run_that_is_stopped_while_the_user_is_asked_makes_no_call() -> None:
    cancel, tools = threading.Event(), ScriptedTools([ToolOutcome("")])

    class Person(PolicyApprover):
        def ask(self, call: PendingCall) -> Approval:
            del call
            cancel.set()
            return Approval(allowed=True, reason="yes")

    found = events(ScriptedAgent([log()]), tools, Person(Policy()), cancel=cancel)
    assert tools.called == []
    (result,) = [event for event in found if isinstance(event, ResultEvent)]
    assert result.text == "error: the call was not made: it was cancelled"
    assert isinstance(found[-1], DoneEvent)
    assert found[-1].outcome == "cancelled"


def test_a_run_that_is_stopped_while_servers_list_their_tools_decides_nothing() -> None:
    cancel, agent = threading.Event(), ScriptedAgent([log()])
    (done,) = events(agent, ScriptedTools([ToolOutcome("")], listing=cancel.set), cancel=cancel)
    assert isinstance(done, DoneEvent)
    assert (done.outcome, agent.seen) == ("cancelled", [])


def test_a_run_out_of_time_ends() -> None:
    done = events(ScriptedAgent([log()]), ScriptedTools([ToolOutcome("")]), limits=RunLimits(seconds=0.0))[-1]
    assert isinstance(done, DoneEvent)
    assert done.outcome == "deadline"


def test_an_error_of_the_model_is_the_runs_end_and_nothing_is_lost() -> None:
    failing = EngineError("engine", found="x", expected="y", fix="z")
    found = events(ScriptedAgent([log(), failing]), ScriptedTools([ToolOutcome("")]))
    done = found[-1]
    assert isinstance(done, DoneEvent)
    assert (done.outcome, done.steps) == ("failed", 1)
    assert "found x" in done.reason


def test_a_malformed_task_raises_at_once() -> None:
    with pytest.raises(RequestError):
        run(ScriptedAgent([]), [], ScriptedTools([]), ALLOW)  # type: ignore[arg-type]


def test_a_long_result_is_shortened_by_the_rule_and_says_so() -> None:
    agent = ScriptedAgent([log()])
    text = " ".join(f"w{number}" for number in range(1000))
    found = events(agent, ScriptedTools([ToolOutcome(text)]))
    (result,) = [event for event in found if isinstance(event, ResultEvent)]
    assert result.shortened > 0
    assert result.text.startswith("w0 w1 ")
    assert result.text.endswith(" w999")
    assert f"{result.shortened} of {len(text)} characters are left out here" in result.text
    assert len(agent.tokenizer.encode(result.text).ids) <= agent.context_length // 4 + 20


def test_asyncio_gets_the_same_events() -> None:
    async def collect() -> list[Event]:
        stream = run(ScriptedAgent([log()]), "x", ScriptedTools([ToolOutcome("ok")]), ALLOW)  # type: ignore[arg-type]
        return [event async for event in run_async(stream)]

    found = asyncio.run(collect())
    assert [event.event for event in found][-3:] == ["text", "text", "done"]
