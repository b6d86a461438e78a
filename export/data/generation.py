"""A run that makes data: requests and conversations, lane by lane, until each lane has what is wanted of it."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final, Literal

from pydantic import Field, model_validator

from dualtune_edge.export.data.assignments import Lane, lanes, requests_in, requests_wanted
from dualtune_edge.export.data.conversation import Desk, converse
from dualtune_edge.export.data.generation_journal import Entry, Journal
from dualtune_edge.export.data.teacher import Prices, Teacher, Usage
from dualtune_edge.runtime.agent.approval import PendingCall, Policy, ServerRules
from dualtune_edge.runtime.agent.config import ServerConfig
from dualtune_edge.runtime.agent.offer import LiveTool
from dualtune_edge.runtime.agent.sandbox import Sandbox
from dualtune_edge.runtime.agent.servers import Servers
from dualtune_edge.toolkit.errors import EngineError
from dualtune_edge.toolkit.frozen import Frozen

_BATCH: Final = 10  # requests that the teacher is asked for at once
_KNOWN: Final = 30  # of the requests that are there already, shown to it
Ended = Literal["complete", "limit", "exhausted"]  # exhausted: too few conversations of some tool could be used
OnProgress = Callable[[int, int, Usage], None]  # conversations kept, wanted, and what was used so far


class GenerationSettings(Frozen):
    """What a run is made from, besides the servers."""

    output: Path
    url: str  # of the teacher
    model: str
    sandbox: Path
    files: tuple[Path, ...] = ()  # folders that conversations begin with
    policy: Policy | None = None  # None: of servers that are started every call, of others what reads only
    per_tool: int = Field(50, ge=1)
    most_calls: int = Field(8, ge=1)
    temperature: float | None = Field(None, ge=0)
    seed: int = Field(0, ge=0)
    seeded: bool = True  # the seed is sent to the teacher
    limit_tokens: int | None = Field(None, ge=1)
    limit_cost: float | None = Field(None, gt=0)
    prices: Prices | None = None

    @model_validator(mode="after")
    def _counts_costs(self) -> GenerationSettings:
        if self.limit_cost is not None and self.prices is None:
            raise ValueError("prices with a limit of the cost")
        return self


class ToolYield(Frozen):
    """The conversations that were written for a tool, and how often it is called in all of them."""

    toolset: str
    tool: str
    conversations: int
    calls: int


class LeftOut(Frozen):
    """Conversations that teach nothing, by the reason."""

    why: str
    conversations: int


class Generated(Frozen):
    """What `data generate --json` prints, and the folder's `generation.json`."""

    folder: str
    model: str
    ended: Ended
    conversations: int
    wanted: int
    tools: tuple[ToolYield, ...]
    left_out: tuple[LeftOut, ...]
    repeated: int  # requests that were there already
    usage: Usage
    cost: float | None  # None: no prices were given
    warnings: tuple[str, ...]


@dataclass
class GenerationRun:
    """Conversations of every lane in turns, so that a run that is ended early has some of each.

    `listed`: what each server offers. `journal`: what an interrupted run has made already.
    """

    settings: GenerationSettings
    servers: Mapping[str, ServerConfig]
    listed: Mapping[str, tuple[LiveTool, ...]]
    teacher: Teacher
    sandbox: Sandbox
    journal: Journal
    usage: Usage = field(default_factory=Usage)  # of the parts that the lanes have come to
    repeated: int = 0
    lanes: list[Lane] = field(init=False)
    entries: list[Entry] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    _known: dict[str, list[str]] = field(default_factory=dict)  # lane → requests
    _seen: set[tuple[str, str]] = field(default_factory=set)  # (server, request without case and blanks)

    def __post_init__(self) -> None:
        rules = {name: ServerRules(default="allow") for name, config in self.servers.items() if config.command}
        policy = self.settings.policy or Policy(trusted=tuple(self.servers), servers=rules)
        self._policy = policy
        self._offered = {name: self._callable(name, tools) for name, tools in self.listed.items()}
        self.lanes = [
            lane
            for name, offered in self._offered.items()
            for lane in lanes(name, (live.tool for live in offered.values() if live.tool), self.settings.per_tool)
        ]

    def work(self, on_progress: OnProgress) -> Ended:
        """Go through the lanes in turns, until each has what is wanted of it."""
        wanted = sum(lane.wanted for lane in self.lanes)
        for turn in itertools.count():
            unfinished = [lane for lane in self.lanes if lane.kept < lane.wanted and turn < _turns(lane)]
            if not unfinished:
                full = all(lane.kept == lane.wanted for lane in self.lanes)
                return "complete" if full else "exhausted"
            for lane in unfinished:
                for part, request, start in self._requests(lane, turn):
                    if self._over_limit():
                        return "limit"
                    self._hold(lane, part, request, start)
                    on_progress(sum(lane.kept for lane in self.lanes), wanted, self.usage)
                if self._over_limit():
                    return "limit"
        raise AssertionError  # the count has no end

    def report(self, ended: Ended) -> Generated:
        """What was made."""
        lines = [entry for entry in self.entries if entry.line]
        calls = Counter(
            (entry.line["toolset"], message["tool_calls"][0]["function"]["name"])
            for entry in lines
            if entry.line
            for message in entry.line["messages"]
            if message.get("tool_calls") and message.get("weight") != 0
        )
        kept = Counter[tuple[str, str]]()
        for lane in self.lanes:
            kept[lane.server, lane.tool] += lane.kept
        why = Counter(entry.why for entry in self.entries if entry.why)
        prices = self.settings.prices
        return Generated(
            folder=str(self.settings.output),
            model=self.settings.model,
            ended=ended,
            conversations=len(lines),
            wanted=sum(lane.wanted for lane in self.lanes),
            tools=tuple(
                ToolYield(toolset=server, tool=tool, conversations=number, calls=calls[server, tool])
                for (server, tool), number in kept.items()
            ),
            left_out=tuple(LeftOut(why=text, conversations=count) for text, count in why.most_common()),
            repeated=self.repeated,
            usage=self.usage,
            cost=prices.cost(self.usage) if prices else None,
            warnings=tuple(self.warnings),
        )

    def _callable(self, server: str, tools: Sequence[LiveTool]) -> dict[str, LiveTool]:
        """The tools whose schemas can be read, and that the policy lets be called."""
        offered = {}
        for live in tools:
            rule, where = self._policy.rule(PendingCall(server, live.name, {}, live.read_only))
            if live.tool is None:
                self.warnings.append(f"{server}.{live.name}: its schema cannot be read: {live.unreadable}")
            elif rule != "allow":
                self.warnings.append(f"{server}.{live.name} is not called: {where}")
            else:
                offered[live.name] = live
        return offered

    def _requests(self, lane: Lane, turn: int) -> Iterator[tuple[str, str, int]]:
        """(part, request, number of the files) of a turn: those that are not there already."""
        part = f"{lane.name}/{turn}"
        draw = f"{self.settings.seed} {part}"
        start = Random(f"files {draw}").randrange(1 << 30)  # noqa: S311 - a draw, not a secret
        known, count = self._known.setdefault(lane.name, []), min(_BATCH, lane.wanted - lane.kept)
        entry = self.journal.entries.get(part)
        if entry is None:
            tools = [live.tool for live in self._offered[lane.server].values() if live.tool]
            messages = requests_wanted(
                lane, tools, self._place(lane.server, start), known[-_KNOWN:], count=count, draw=draw
            )
            reply = self.teacher.complete(messages, (), draw)
            entry = Entry(part=part, requests=tuple(requests_in(reply.content)[:count]), usage=reply.usage)
            self.journal.add(entry)
        self.usage += entry.usage
        for number, request in enumerate(entry.requests):
            key = lane.server, " ".join(request.casefold().split())
            if key in self._seen:
                self.repeated += 1
                continue
            self._seen.add(key)
            known.append(request)
            yield f"{part}/{number}", request, start

    def _hold(self, lane: Lane, part: str, request: str, start: int) -> None:
        entry = self.journal.entries.get(part)
        if entry is None:
            entry = self._talked(lane, part, request, start)
            self.journal.add(entry)
        self.usage += entry.usage
        self.entries.append(entry)
        lane.kept += entry.line is not None

    def _talked(self, lane: Lane, part: str, request: str, start: int) -> Entry:
        """Hold a conversation with a server that was just started."""
        server = lane.server
        self.sandbox.fill(start)
        with Servers({server: self.servers[server]}) as connected:
            if isinstance(why := connected.listed()[server], str):
                raise EngineError(server, found=why, expected="a server that answers", fix="The same command goes on.")
            desk = Desk(
                server,
                self._offered[server],
                self._policy,
                self.sandbox,
                lambda tool, arguments: connected.call(server, tool, arguments),
            )
            talk = converse(
                self.teacher,
                desk,
                request,
                lane.kind,
                place=self._place(server, start),
                most=self.settings.most_calls,
                draw=f"{self.settings.seed} {part}",
            )
        line = None if talk.why else {"toolset": server, "messages": list(talk.messages)}
        return Entry(part=part, line=line, calls=talk.calls, why=talk.why, usage=talk.usage)

    def _place(self, server: str, start: int) -> str:
        """The working folder in words; none for a server elsewhere."""
        if self.servers[server].command is None:
            return ""
        files = self.sandbox.listing(start)
        return f"The working folder is {self.sandbox.path}." + (f" In it are:\n{files}" if files else " It is empty.")

    def _over_limit(self) -> bool:
        settings = self.settings
        cost = settings.prices.cost(self.usage) if settings.prices else 0.0
        return (settings.limit_tokens is not None and self.usage.tokens >= settings.limit_tokens) or (
            settings.limit_cost is not None and cost >= settings.limit_cost
        )


def _turns(lane: Lane) -> int:
    """How often a lane's requests are asked for at most: twice as often as would do if none were left out."""
    return 2 * -(-lane.wanted // _BATCH) + 1
