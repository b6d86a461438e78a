"""One conversation: a request, the teacher's calls, the server's results, the teacher's answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from dualtune_edge.export.data.assignments import Kind, functions, instruction
from dualtune_edge.export.data.teacher import Reply, Teacher, Usage, WantedCall
from dualtune_edge.runtime.agent.approval import PendingCall, Policy
from dualtune_edge.runtime.agent.offer import LiveTool
from dualtune_edge.runtime.agent.outcome import ToolOutcome
from dualtune_edge.runtime.agent.sandbox import Sandbox
from dualtune_edge.toolkit import strict_json
from dualtune_edge.toolkit.errors import RequestError

_RESULT: Final = 20_000  # characters; a longer one fits no small model's context
Json = dict[str, Any]


@dataclass(frozen=True)
class Conversation:
    """What was said, with the calls that worked; or why there is nothing to learn from it."""

    messages: tuple[Json, ...]
    calls: int  # that worked
    why: str
    usage: Usage


@dataclass(frozen=True)
class Desk:
    """What the calls of a conversation are checked by, and what runs them."""

    server: str
    tools: Mapping[str, LiveTool]  # whose schemas can be read
    policy: Policy
    sandbox: Sandbox
    run: Callable[[str, Json], ToolOutcome]

    def call(self, name: str, arguments: Json) -> ToolOutcome:
        """Run a call that fits its tool's schema, is allowed, and names no path out of the sandbox."""
        live = self.tools.get(name)
        if live is None or live.tool is None:
            return ToolOutcome(f"error: there is no tool {name!r}", error=True)
        if fault := live.tool.reading.fault(arguments):
            return ToolOutcome(f"error: {fault}", error=True)
        rule, where = self.policy.rule(PendingCall(self.server, name, arguments, live.read_only))
        if rule != "allow":
            return ToolOutcome(f"error: the call is not allowed: {where}", error=True)
        if path := self.sandbox.outside(arguments):
            return ToolOutcome(f"error: {path!r} is outside {self.sandbox.path}", error=True)
        return self.run(name, arguments)


def converse(
    teacher: Teacher, desk: Desk, request: str, kind: Kind, *, place: str, most: int, draw: str
) -> Conversation:
    """Hold a conversation to its end.

    A call that failed, and one that was not run, has weight 0: it is context of what follows, and is not learnt.

    Args:
        teacher: who answers.
        desk: what runs the calls.
        request: of the user.
        kind: what calls it was written for.
        place: the working folder and its files, in words.
        most: calls.
        draw: the seed and the part's name.

    Raises:
        EngineError: the teacher cannot be reached.

    """
    talk = _Talk(desk, request, instruction(place))
    offered = functions(live.tool for live in desk.tools.values() if live.tool)
    why = ""
    while not why and talk.answer is None:
        try:
            reply = teacher.complete(talk.sent, offered, f"{draw} {len(talk.sent)}")
        except RequestError as error:
            why = f"the teacher refused it: {error.found}"
        else:
            why = talk.hear(reply, most)
    why = why or _unfit(kind, talk.made, talk.worked)
    return Conversation(tuple(talk.said), talk.worked, why, talk.usage)


def _unfit(kind: Kind, made: int, worked: int) -> str:
    """Why an answered conversation teaches nothing of its kind."""
    if kind == "none":
        return "a call, where none was wanted" if made else ""
    return "" if worked else "no call that worked"


class _Talk:
    """A conversation as it goes on: as the teacher is sent it, and as the data holds it."""

    def __init__(self, desk: Desk, request: str, system: Json) -> None:
        self._desk = desk
        first = {"role": "user", "content": request}
        self.sent: list[Json] = [system, first]
        self.said: list[Json] = [first]
        self.made, self.worked, self.usage = 0, 0, Usage()
        self.answer: str | None = None

    def hear(self, reply: Reply, most: int) -> str:
        """Take a reply, and run its calls one after the other. Why the conversation is of no use; empty: it is."""
        self.usage += reply.usage
        if not reply.calls:
            self.answer = reply.content.strip()
            self.said.append({"role": "assistant", "content": self.answer})
            return "" if self.answer else "an empty answer"
        for call in reply.calls:
            if self.made == most:
                return f"more than {most} calls"
            if why := self._call(call):
                return why
        return ""

    def _call(self, call: WantedCall) -> str:
        arguments = _object(call.arguments)
        if arguments is None:
            return "arguments that are no JSON object"
        self.made += 1
        outcome = self._desk.call(call.name, arguments)
        if len(outcome.text) > _RESULT:
            return f"a result of more than {_RESULT:,} characters"
        self.worked += not outcome.error
        function = {"name": call.name, "arguments": arguments}
        weight = {"weight": 0} if outcome.error else {}
        self.said += [
            {"role": "assistant", "tool_calls": [{"type": "function", "function": function}]} | weight,
            {"role": "tool", "name": call.name, "content": outcome.text},
        ]
        written = {"name": call.name, "arguments": json.dumps(arguments, ensure_ascii=False)}
        self.sent += [
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{"id": call.id, "type": "function", "function": written}],
            },
            {"role": "tool", "tool_call_id": call.id, "content": outcome.text},
        ]
        return ""


def _object(text: str) -> Json | None:
    try:
        value = strict_json.loads(text) if text.strip() else {}
    except strict_json.JsonError:
        return None
    return value if isinstance(value, dict) else None
