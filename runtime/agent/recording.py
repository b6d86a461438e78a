"""Runs on disk: a line a toolset, as `finetune` reads trajectories; and a recorded run in the place of the servers.

Each line holds the whole conversation. A call of another toolset, one that was denied and one that failed has weight 0
in it, as OpenAI's fine-tuning files mark what is not learnt: it stays in the context of what follows. `offered` holds
what each call was chosen from, so that a replay chooses from the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dualtune_edge.runtime.agent.events import ArgumentsEvent, Event, ResultEvent
from dualtune_edge.runtime.agent.offer import Offer
from dualtune_edge.runtime.agent.outcome import ToolOutcome
from dualtune_edge.runtime.agent.toolbox import Cancellation, Toolbox
from dualtune_edge.runtime.agent.transcript import extended
from dualtune_edge.toolkit.bundle.manifest import Manifest
from dualtune_edge.toolkit.errors import DataError
from dualtune_edge.toolkit.files import unwritable
from dualtune_edge.toolkit.prompts.messages import Message
from dualtune_edge.toolkit.prompts.trajectories import Trajectory, read_trajectories
from dualtune_edge.toolkit.tools.toolset import Toolset


@dataclass
class Recorder:
    """Appends runs to a file."""

    path: Path
    _messages: tuple[Message, ...] = ()
    _calls: dict[int, tuple[str, bool]] = field(default_factory=dict)  # message's index → toolset, whether it worked
    _offered: list[dict[str, list[str]]] = field(default_factory=list)

    def begin(self, messages: Iterable[Message], tools: Toolbox) -> Toolbox:
        """Begin a run behind a conversation; returns `tools` with their offers noted, for the run to use."""
        self._messages, self._calls, self._offered = tuple(messages), {}, []
        return _Noted(tools, self._offered)

    def add(self, event: Event) -> None:
        """What happened next."""
        if isinstance(event, ArgumentsEvent):
            self._calls[len(self._messages)] = event.toolset, False
        elif isinstance(event, ResultEvent):
            self._calls[len(self._messages) - 1] = event.toolset, not event.error
        self._messages = extended(self._messages, event)

    def write(self) -> None:
        """Append a line for each toolset that was called.

        Raises:
            OutputError: the file cannot be written.

        """
        toolsets = dict.fromkeys(toolset for toolset, _ in self._calls.values())
        lines = [
            json.dumps(
                {"messages": self._weighted(toolset), "toolset": toolset, "offered": self._offered}, ensure_ascii=False
            )
            + "\n"
            for toolset in toolsets
        ]
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.writelines(lines)
        except OSError as error:
            raise unwritable(self.path, error) from None

    def _weighted(self, toolset: str) -> list[dict[str, Any]]:
        """The messages, with weight 0 for calls that a toolset's adapters are not to learn."""
        learnt = (toolset, True)
        return [
            message.for_template() | ({"weight": 0} if self._calls.get(index, learnt) != learnt else {})
            for index, message in enumerate(self._messages)
        ]


@dataclass(frozen=True)
class _Noted:
    """Tools whose offers are noted."""

    tools: Toolbox
    offered: list[dict[str, list[str]]]

    def offer(self, manifest: Manifest, *, cancel: Cancellation | None = None) -> Offer:
        offer = self.tools.offer(manifest, cancel=cancel)
        self.offered.append({toolset: sorted(names) for toolset, names in offer.tools.items()})
        return offer

    def call(
        self, server: str, tool: str, arguments: dict[str, Any], *, cancel: Cancellation | None = None
    ) -> ToolOutcome:
        return self.tools.call(server, tool, arguments, cancel=cancel)


@dataclass
class Replay:
    """A recorded run as a toolbox: it answers the recorded calls in their order, and refuses any other."""

    calls: Sequence[tuple[str, dict[str, Any], ToolOutcome]]  # tool, arguments, result
    task: tuple[Message, ...]
    offered: Sequence[Mapping[str, frozenset[str]]]  # for each call; the last one for all that follow
    _next: int = 0

    @classmethod
    def read(cls, path: Path, manifest: Manifest) -> Replay:
        """The first run of a file that `Recorder` wrote.

        Raises:
            DataError: no such file, or no recorded run in it.

        """
        trajectories = read_trajectories(path)
        if not trajectories:
            raise DataError(str(path), found="no run", expected="a file that `agent --record` wrote", fix="Record one.")
        first = trajectories[0]
        lines = [line for line in trajectories if _plain(line) == _plain(first)]
        offered = first.offered or ({entry.toolset.name: _names(entry.toolset) for entry in manifest.toolsets},)
        tools = [{toolset: frozenset(names) for toolset, names in offer.items()} for offer in offered]
        begun = next((index for index, message in enumerate(first.messages) if message.tool_calls), len(first.messages))
        return cls(tuple(_calls(first, lines)), first.messages[:begun], tools)

    def offer(self, manifest: Manifest, *, cancel: Cancellation | None = None) -> Offer:  # noqa: ARG002 - all is here
        """What was on offer for the next call; every tool of the bundle, where the file does not say."""
        return Offer(self.offered[min(self._next, len(self.offered) - 1)], frozenset(), ())

    def call(
        self,
        server: str,
        tool: str,
        arguments: dict[str, Any],
        *,
        cancel: Cancellation | None = None,  # noqa: ARG002 - nothing is waited for
    ) -> ToolOutcome:
        """The recorded result.

        Raises:
            DataError: the recorded run made another call here, or none.

        """
        recorded = self.calls[self._next] if self._next < len(self.calls) else None
        if recorded is None or recorded[:2] != (tool, arguments):
            raise DataError(
                f"replay, step {self._next + 1}",
                found=f"{server}.{tool}({json.dumps(arguments, ensure_ascii=False)})",
                expected=f"{recorded[0]}({json.dumps(recorded[1], ensure_ascii=False)})" if recorded else "no call",
                fix="The bundle answers differently from the one that was recorded; record the run again.",
            )
        self._next += 1
        return recorded[2]


def _names(toolset: Toolset) -> tuple[str, ...]:
    return tuple(tool.name for tool in toolset.tools)


def _plain(line: Trajectory) -> tuple[Message, ...]:
    return tuple(message.model_copy(update={"weight": None}) for message in line.messages)


def _calls(first: Trajectory, lines: Sequence[Trajectory]) -> Iterable[tuple[str, dict[str, Any], ToolOutcome]]:
    """Each call with its result; one that no line learns from had failed."""
    for index, message in enumerate(first.messages):
        if not message.tool_calls:
            continue
        function, result = message.tool_calls[0].function, first.messages[index + 1]
        error = all(line.messages[index].weight == 0 for line in lines)
        yield function.name, function.arguments, ToolOutcome(result.content, error)
