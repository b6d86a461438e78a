"""The kit exported, and its requests answered: each with the call that would be right."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from dualtune_edge.export import run as export_run
from dualtune_edge.export.demo.task import TaskReport, do_task
from dualtune_edge.export.spec.document import read_spec
from dualtune_edge.runtime.evaluate.answers import same
from dualtune_edge.runtime.pipeline import Agent
from dualtune_edge.runtime.result import CallResult
from dualtune_edge.toolkit.bundle.sharing import VariantSize
from dualtune_edge.toolkit.errors import RequestError
from dualtune_edge.toolkit.frozen import Frozen
from dualtune_edge.toolkit.prompts.messages import FunctionCall
from dualtune_edge.toolkit.prompts.trajectories import Trajectory, read_trajectories

_SPEC: Final = "dualtune.yaml"
_REQUESTS: Final = "handwritten.jsonl"  # each with its right call; written apart from what the training is made of
_SHOWN: Final = 10  # of them, evenly spread


class Call(Frozen):
    """One request, its answer, and the right one. `result` is None where the request was refused: `refusal`."""

    request: str
    toolset: str  # of `expected`
    expected: FunctionCall
    result: CallResult | None
    refusal: str | None = None
    right: bool  # the same toolset, tool and arguments


class DemoReport(Frozen):
    """What the demo did. `bundle` is None where it was not kept."""

    bundle: str | None
    export_seconds: float
    size_bytes: int
    variants: tuple[VariantSize, ...]
    calls: tuple[Call, ...]
    task: TaskReport


def run(kit: Path, bundle: Path, profiles: tuple[str, ...], *, kept: bool) -> DemoReport:
    """Export the kit into `bundle`, answer its requests and do the task.

    `profiles` stand for the spec's; none: its own.
    """
    spec = read_spec(kit / _SPEC)
    if profiles:
        spec = spec.model_copy(update={"profiles": profiles, "mode": None})  # each profile's own mode
    exported = export_run.run(spec, bundle)
    with Agent.open(bundle) as agent:
        calls = tuple(_call(agent, trajectory) for trajectory in shown(read_trajectories(kit / _REQUESTS)))
        task = do_task(agent)
    return DemoReport(
        bundle=str(bundle) if kept else None,
        export_seconds=exported.seconds,
        size_bytes=exported.sizes.total,
        variants=exported.variants,
        calls=calls,
        task=task,
    )


def shown(trajectories: Sequence[Trajectory]) -> list[Trajectory]:
    """Those that the demo shows, spread over all that call a tool: right or wrong, as they come."""
    calling = [trajectory for trajectory in trajectories if trajectory.messages[1].tool_calls]
    return calling[:: -(-len(calling) // _SHOWN)]


def is_right(result: CallResult, toolset: str, expected: FunctionCall) -> bool:
    """Whether it is this call: the same toolset, tool and arguments. To Python `True` equals 1, in JSON it does not."""
    named = (result.toolset, result.tool) == (toolset, expected.name)
    return named and same(expected.arguments, result.arguments)


def _call(agent: Agent, trajectory: Trajectory) -> Call:
    request, answer = trajectory.messages
    (expected,) = (call.function for call in answer.tool_calls)
    toolset = trajectory.toolset or ""
    try:
        result, refusal = agent.call([request]), None
    except RequestError as error:  # of a small base: arguments that do not end
        result, refusal = None, str(error)
    return Call(
        request=request.content or "",
        toolset=toolset,
        expected=expected,
        result=result,
        refusal=refusal,
        right=result is not None and is_right(result, toolset, expected),
    )
