"""An answerer that follows a script, and requests to it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dualtune_edge.runtime.bench.requests import Request
from dualtune_edge.runtime.result import CallResult, Timings, Tokens
from dualtune_edge.toolkit.errors import EdgeError
from dualtune_edge.toolkit.prompts.messages import FunctionCall, Message, user


def result(toolset: str, tool: str | None, arguments: dict[str, Any] | None = None, **shares: float) -> CallResult:
    return CallResult(
        toolset=toolset,
        tool=tool,
        arguments=arguments,
        outcome="call" if tool else "no_tool",
        probability=shares.get("probability", 1.0),
        toolset_probability=shares.get("toolset_probability"),
        arguments_probability=shares.get("arguments_probability"),
        alternatives=(),
        timings_ms=Timings(toolset=0, selection=1, arguments=1, total=2),
        tokens=Tokens(prompt=1, reused=0, forced=0, decided=1, drafted=0, accepted=0, forwards=1),
    )


def request(toolset: str, tool: str | None, arguments: dict[str, Any] | None = None, said: str = "please") -> Request:
    call = FunctionCall(name=tool, arguments=arguments or {}) if tool else None
    return Request("heldout.jsonl:1, message 2", (user(said),), toolset, call)


@dataclass
class Scripted:
    """Answers every call with the next of these."""

    results: list[CallResult | EdgeError]
    toolsets: list[str | None] = field(default_factory=list)
    offered: list[Mapping[str, Collection[str]] | None] = field(default_factory=list)

    def call(
        self,
        request: Sequence[Message],
        *,
        toolset: str | None = None,
        offered: Mapping[str, Collection[str]] | None = None,
    ) -> CallResult:
        assert request
        assert toolset is None or offered is None
        self.toolsets.append(toolset)
        self.offered.append(offered)
        answer = self.results.pop(0)
        if isinstance(answer, EdgeError):
            raise answer
        return answer
