"""What a bench found, as values: `bench --json` prints a `BenchReport`."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from dualtune_edge.runtime.bench.machine import Memory
from dualtune_edge.runtime.bench.scripts import StageName
from dualtune_edge.runtime.bench.watched import EventKind
from dualtune_edge.runtime.result import Placement
from dualtune_edge.toolkit.frozen import Frozen


class Span(Frozen):
    """Something that the engine did in a call: when it began after the call's start, and how long it took, in ms."""

    kind: EventKind
    start_ms: float
    ms: float
    tokens: int  # appended by a forward


class StageRun(Frozen):
    """One stage of one call.

    Of the prompt's tokens, `reused` were not computed. The answer's are `decided` or `forced`. `drafted` tokens were
    tried ahead. `roofline_ms`: the least that its `forwards` can take here.
    """

    stage: StageName
    adapter: str | None
    ms: float
    prompt: int
    reused: int
    forced: int
    drafted: int
    decided: int
    forwards: int
    roofline_ms: float
    spans: tuple[Span, ...]


class CallRun(Frozen):
    """One call. `naive_ms`: the naive path's, which uses none of our levers; `same`: it gave the same answer."""

    request: str
    toolset: str
    tool: str | None
    arguments: dict[str, Any] | None
    right: bool  # the gold call, whole
    ms: float
    naive_ms: float
    same: bool
    notes: tuple[str, ...]  # what of the bundle could not be used, and why
    stages: tuple[StageRun, ...]

    @property
    def roofline_ms(self) -> float:
        """Of all stages."""
        return sum(stage.roofline_ms for stage in self.stages)


class Spread(Frozen):
    """Median and 95th percentile (the nearest rank) of so many samples."""

    p50: float
    p95: float
    samples: int

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """Of one value or more."""
        ordered = sorted(values)
        rank = math.ceil(0.95 * len(ordered)) - 1
        return cls(p50=round(statistics.median(ordered), 3), p95=round(ordered[rank], 3), samples=len(ordered))


class StageSummary(Frozen):
    """A stage over all calls that had it: token counts and forwards are means of a call."""

    stage: StageName
    ms: Spread
    prompt: float
    reused: float
    forced: float
    drafted: float
    decided: float
    forwards: float
    roofline_ms: float
    decode_per_s: float | None  # tokens a second, one at a time, as the naive path decodes; null without one


class Pass(Frozen):
    """Calls of one kind. Medians of them: `speedup` of naive against ours, `over_roofline` of ours against it."""

    kind: Literal["gold", "free"]
    ms: Spread
    naive_ms: Spread
    speedup: float
    over_roofline: float
    forwards_per_argument_token: float | None  # null without a token of arguments
    right: int
    same: int
    refused: int  # calls that ended in a RequestError; they are in none of the figures
    stages: tuple[StageSummary, ...]
    calls: tuple[CallRun, ...]


class StepStage(Frozen):
    """A stage's prompts in the steps of tasks behind the first: sums of tokens.

    `read` of them were computed, `again` of these had been read by the stage in an earlier step, at the same place.
    """

    stage: StageName
    prompts: int
    tokens: int
    reused: int
    read: int
    again: int


class Steps(Frozen):
    """Tasks, replayed step by step in one conversation each; `steps` counts those of all tasks, first ones included."""

    tasks: int
    steps: int
    stages: tuple[StepStage, ...]


class OpenTimes(Frozen):
    """Milliseconds, files in the system's cache. `first_call` is the first in this process, with all that is lazy."""

    hash: float  # of every file
    bundle: float  # manifest, names and sizes
    engine: float
    first_call: float

    @property
    def verified(self) -> float:
        """Of opening with every file hashed."""
        return self.hash + self.bundle + self.engine


class SwapTimes(Frozen):
    """Milliseconds of going to another adapter, and of restoring the KV state of a prompt of `tokens` tokens then.

    `restore` is null where the engine cannot save its state.
    """

    swap: Spread
    restore: Spread | None
    tokens: int


class Where(Frozen):
    """The machine and what ran on it."""

    system: str
    architecture: str
    cpu: str
    features: tuple[str, ...]  # those that a profile asks for
    physical_cores: int
    threads: int
    engine: str
    placement: Placement
    profile: str
    versions: dict[str, str]


class BenchReport(Frozen):
    """What `bench --json` prints. Memory is null where the system does not count it."""

    where: Where
    base: str
    weights_bytes: int  # of the base graph, read once a forward
    bandwidth: float  # bytes a second
    operations: float  # a second, of integer products
    float_operations: float  # a second, of products in float32
    open_ms: OpenTimes
    memory_opened: Memory | None
    memory_used: Memory | None  # after the calls
    swap_ms: SwapTimes | None  # null for a bundle of fewer than two adapters
    passes: tuple[Pass, ...]
    steps: Steps


class TaskTurn(Frozen):
    """One turn of a task. `new`: the tokens that the conversation grew by, in the stage that shows the most of them.

    `read`: the tokens of all stages' prompts that were computed. `roofline_ms`: the least that its forwards can take.
    """

    request: str
    ms: float
    new: int
    read: int
    roofline_ms: float


class TaskRun(Frozen):
    """A task, turn by turn."""

    turns: tuple[TaskTurn, ...]

    @property
    def seconds(self) -> float:
        """Of all turns."""
        return sum(turn.ms for turn in self.turns) / 1e3

    @property
    def over_roofline(self) -> float:
        """The median over the turns of a turn's time against its roofline."""
        return _median(turn.ms / turn.roofline_ms for turn in self.turns)


class TaskReport(Frozen):
    """What `bench --task --json` prints. `states_bytes`: of the bundle; `kept_bytes`: KV values kept at the end."""

    where: Where
    base: str
    tasks: tuple[TaskRun, ...]
    states_bytes: int
    kept_bytes: int

    @property
    def read_per_new(self) -> float:
        """Tokens computed for each token that the conversations grew by."""
        turns = [turn for task in self.tasks for turn in task.turns]
        return sum(turn.read for turn in turns) / max(1, sum(turn.new for turn in turns))


def summarize(
    kind: Literal["gold", "free"], calls: Sequence[CallRun], *, refused: int = 0, decode: Mapping[StageName, float]
) -> Pass:
    """All calls of one kind, one or more; `decode`: tokens a second of the naive path by stage."""
    runs = [run for call in calls for run in call.stages]
    names: tuple[StageName, ...] = ("toolset", "selection", "arguments")
    stages = [(name, [run for run in runs if run.stage == name]) for name in names]
    written = [run for run in runs if run.stage == "arguments"]
    tokens = sum(run.forced + run.decided for run in written)
    return Pass(
        kind=kind,
        ms=Spread.of(call.ms for call in calls),
        naive_ms=Spread.of(call.naive_ms for call in calls),
        speedup=_median(call.naive_ms / call.ms for call in calls),
        over_roofline=_median(call.ms / call.roofline_ms for call in calls),
        forwards_per_argument_token=round(sum(run.forwards for run in written) / tokens, 3) if tokens else None,
        right=sum(call.right for call in calls),
        same=sum(call.same for call in calls),
        refused=refused,
        stages=tuple(_summary(name, found, decode.get(name)) for name, found in stages if found),
        calls=tuple(calls),
    )


def _summary(name: StageName, runs: Sequence[StageRun], decode: float | None) -> StageSummary:
    def mean(values: Iterable[float]) -> float:
        return round(statistics.fmean(values), 2)

    return StageSummary(
        stage=name,
        ms=Spread.of(run.ms for run in runs),
        prompt=mean(run.prompt for run in runs),
        reused=mean(run.reused for run in runs),
        forced=mean(run.forced for run in runs),
        drafted=mean(run.drafted for run in runs),
        decided=mean(run.decided for run in runs),
        forwards=mean(run.forwards for run in runs),
        roofline_ms=mean(run.roofline_ms for run in runs),
        decode_per_s=decode,
    )


def _median(values: Iterable[float]) -> float:
    return round(statistics.median(values), 2)
