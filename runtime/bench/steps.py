"""Tasks of several steps: what each stage reads of its prompts, and what of that it reads a second time.

A token is read when a forward computes it. It is read again when the stage has read the same beginning of a prompt, up
to this token, in an earlier step of the task: the tool list and the earlier turns are such beginnings.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from dualtune_edge.runtime.bench.replay import Replay
from dualtune_edge.runtime.bench.report import Steps, StepStage
from dualtune_edge.runtime.bench.requests import Request
from dualtune_edge.runtime.bench.scripts import StageName
from dualtune_edge.toolkit.prompts.prompter import common_prefix

_NAMES: Final[tuple[StageName, ...]] = ("toolset", "selection", "arguments")


def measure_steps(replay: Replay, tasks: Sequence[Sequence[Request]]) -> Steps:
    """Replay tasks, each a list of requests that continue one conversation.

    Raises:
        DataError: a gold call does not fit its tool's schema.

    """
    prompts = [prompt for task in tasks for prompt in _later_prompts(replay, task)]
    return Steps(
        tasks=len(tasks),
        steps=sum(map(len, tasks)),
        stages=tuple(_summary(name, prompts) for name in _NAMES if any(prompt.stage == name for prompt in prompts)),
    )


def _later_prompts(replay: Replay, task: Sequence[Request]) -> Iterator[StepStage]:
    """Each stage's prompt of each step behind the first, as a count of one."""
    known: dict[tuple[str, ...], list[tuple[int, ...]]] = {}  # stage → the prompts that it has read
    replay.warm(task[0])
    for number, request in enumerate(task):
        tool = request.call.name if request.call else ""
        keys = {"toolset": (), "selection": (request.toolset,), "arguments": (request.toolset, tool)}
        for reading in replay.readings(request):
            earlier = known.setdefault(keys[reading.stage], [])
            shared = max((len(common_prefix([tokens, reading.prompt[:-1]])) for tokens in earlier), default=0)
            earlier.append(reading.prompt)
            if number:
                length = len(reading.prompt)
                yield StepStage(
                    stage=reading.stage,
                    prompts=1,
                    tokens=length,
                    reused=length - reading.read,
                    read=reading.read,
                    again=max(0, shared - (length - reading.read)),
                )


def _summary(name: StageName, prompts: Sequence[StepStage]) -> StepStage:
    mine = [prompt for prompt in prompts if prompt.stage == name]
    return StepStage(
        stage=name,
        prompts=len(mine),
        tokens=sum(prompt.tokens for prompt in mine),
        reused=sum(prompt.reused for prompt in mine),
        read=sum(prompt.read for prompt in mine),
        again=sum(prompt.again for prompt in mine),
    )
