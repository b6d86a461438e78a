"""A bench's report for a reader."""

from __future__ import annotations

from collections.abc import Iterator

from dualtune_edge.runtime.bench.machine import Memory
from dualtune_edge.runtime.bench.report import BenchReport, Pass, Spread, StageSummary, Steps, TaskReport
from dualtune_edge.runtime.bench.requests import MADE_UP
from dualtune_edge.toolkit.console import table_lines

_COUNTS = ("prompt", "reused", "forced", "drafted", "decided", "forwards")
_COLUMNS = ("", "ms p50", "p95", *_COUNTS, "roofline ms", "decode/s")
_TURN_COLUMNS = ("", "seconds", "roofline", "new tokens", "computed")
_STEP_COLUMNS = ("", "prompts", "tokens", "reused", "read", "read again")


def describe(report: BenchReport) -> str:
    """The whole report: where it ran, what a call costs by stage, what opening and swapping cost."""
    passes = (line for replay_pass in report.passes for line in ("", *_pass(replay_pass)))
    return "\n".join((*_machine(report), *passes, *_steps(report.steps)))


def describe_tasks(report: TaskReport) -> str:
    """A line for each turn, then what the tasks take in all."""
    where, runs = report.where, report.tasks
    rows = [
        (
            f"{number}.{at}",
            f"{turn.ms / 1e3:.2f}",
            f"{turn.roofline_ms / 1e3:.2f}",
            str(turn.new),
            str(turn.read),
        )
        for number, run in enumerate(runs, start=1)
        for at, turn in enumerate(run.turns, start=1)
    ]
    turns = sum(len(run.turns) for run in runs)
    seconds = sum(run.seconds for run in runs)
    return "\n".join(
        (
            f"runs by         {where.engine}, {where.placement.provider}, profile {where.profile}",
            f"threads         {where.threads} of {where.physical_cores} cores",
            "",
            *table_lines(_TURN_COLUMNS, rows, left={""}),
            "",
            f"{len(runs)} tasks with {turns} turns in {seconds:.2f} s, {seconds / turns:.2f} s a turn",
            f"{report.read_per_new:.2f} tokens computed for each token that the conversation grew by",
            f"prefix states {report.states_bytes / 1e6:,.1f} MB; kept in memory {report.kept_bytes / 1e6:,.1f} MB",
        )
    )


def _machine(report: BenchReport) -> Iterator[str]:
    where, times = report.where, report.open_ms
    yield f"base            {report.base}, {report.weights_bytes / 1e6:,.1f} MB of weights a forward"
    yield f"machine         {where.system} on {where.architecture}: {where.cpu or 'a CPU without a name'}"
    yield f"features        {', '.join(where.features) or 'none that a profile asks for'}"
    yield f"threads         {where.threads} of {where.physical_cores} cores"
    yield f"runs by         {where.engine}, {where.placement.provider}, profile {where.profile}"
    yield f"versions        {', '.join(f'{name} {version}' for name, version in where.versions.items())}"
    yield (
        f"roofline        {report.bandwidth / 1e9:.1f} GB/s read from memory, {report.operations / 1e9:,.0f} billion"
        f" operations a second in integers and {report.float_operations / 1e9:,.0f} in float32, {where.threads} threads"
    )
    yield (
        f"open            {times.verified:.0f} ms; without hashing every file {times.verified - times.hash:.0f} ms"
        f" (engine {times.engine:.0f}); then the first call {times.first_call:.0f} ms"
    )
    if any(call.request.startswith(MADE_UP) for replayed in report.passes for call in replayed.calls):
        yield (
            "requests        made up from the tools' descriptions, so how many are right says nothing of the adapters;"
            " --requests FILE measures with real ones"
        )
    yield f"memory          {_memory(report.memory_opened)} once open, {_memory(report.memory_used)} after the calls"
    if report.swap_ms:
        swap, restore = report.swap_ms.swap, report.swap_ms.restore
        restored = "; this engine restores no KV state"
        if restore:
            restored = f", with the KV state of {report.swap_ms.tokens:,} tokens {swap.p50 + restore.p50:.2f} ms"
        yield f"adapter swap    {swap.p50:.3f} ms{restored}"
    notes = dict.fromkeys(note for replay_pass in report.passes for call in replay_pass.calls for note in call.notes)
    yield from (f"note            {note}" for note in (*filter(None, (where.placement.instead,)), *notes))


def _memory(memory: Memory | None) -> str:
    if memory is None:
        return "not counted by this system"
    return f"{memory.anonymous / 1e6:,.0f} MB anonymous and {memory.file / 1e6:,.0f} MB mapped"


def _pass(replayed: Pass) -> Iterator[str]:
    what = "gold calls, replayed" if replayed.kind == "gold" else "free calls, the agent's own answers"
    yield f"{what}: {len(replayed.calls)}, {_spread(replayed.ms)}; {replayed.right} right, {replayed.refused} refused"
    yield from table_lines(_COLUMNS, map(_cells, replayed.stages), left={""})
    same = f"{replayed.same} of its answers are ours; ours are {replayed.speedup:.2f} times as fast"
    yield f"the naive path: {_spread(replayed.naive_ms)}; {same}"
    roofline = f"{replayed.over_roofline:.2f} times the roofline"
    if replayed.forwards_per_argument_token is not None:
        roofline += f"; {replayed.forwards_per_argument_token:.2f} forwards for each token of arguments"
    yield roofline


def _steps(steps: Steps) -> Iterator[str]:
    if not steps.tasks:
        return
    yield ""
    yield f"tasks of several steps, replayed: {steps.tasks} with {steps.steps} steps; behind each one's first step"
    cells = ((row.stage, *map(str, (row.prompts, row.tokens, row.reused, row.read, row.again))) for row in steps.stages)
    yield from table_lines(_STEP_COLUMNS, cells, left={""})


def _cells(stage: StageSummary) -> tuple[str, ...]:
    counts: list[float] = [getattr(stage, name) for name in _COUNTS]
    decode = "" if stage.decode_per_s is None else f"{stage.decode_per_s:.1f}"
    times = (f"{stage.ms.p50:.1f}", f"{stage.ms.p95:.1f}")
    return stage.stage, *times, *(f"{count:.1f}" for count in counts), f"{stage.roofline_ms:.1f}", decode


def _spread(spread: Spread) -> str:
    return f"p50 {spread.p50:.1f} ms, p95 {spread.p95:.1f} ms"
