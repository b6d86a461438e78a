"""Calls, measured: gold ones and the agent's own, each with all levers and once more by the naive path."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from dualtune_edge.runtime.bench.report import CallRun, Span, StageRun
from dualtune_edge.runtime.bench.requests import Request
from dualtune_edge.runtime.bench.roofline import Forward, Roofline
from dualtune_edge.runtime.bench.scripts import Script, ScriptWriter, StageName
from dualtune_edge.runtime.bench.watched import Event, Record, Watched
from dualtune_edge.runtime.bundle.folder import Bundle
from dualtune_edge.runtime.decode.tokenizers_ahead import TokenizersAhead
from dualtune_edge.runtime.levers import NAIVE
from dualtune_edge.runtime.pipeline import Agent
from dualtune_edge.runtime.result import CallResult
from dualtune_edge.toolkit.errors import DataError
from dualtune_edge.toolkit.prompts.messages import FunctionCall, user

_OTHER_WORDS: Final = (user("Something else, in other words, that was asked before."),)


@dataclass(frozen=True)
class Reading:
    """A stage of a call: `read` tokens of its prompt were computed, the last ones. `roofline_ms`: of its forwards."""

    stage: StageName
    prompt: tuple[int, ...]
    read: int
    roofline_ms: float


class Replay:
    """Measures calls of one agent.

    Before each measured call another one goes through the same stages with other words: what is reused is then what a
    new request shares with an earlier one, the tool lists above all, and never the request itself.
    """

    def __init__(self, bundle: Bundle, engine: Watched, roofline: Roofline, *, copied: bool = True) -> None:
        """`roofline`: of the bundle on this machine. `copied`: of free answers, as for `Agent.open`."""
        self._bundle, self._engine, self._roofline, self._copied = bundle, engine, roofline, copied
        ahead = TokenizersAhead(bundle)
        self._agent = Agent(bundle, engine, tokenizers=ahead)
        self._naive = Agent(bundle, engine, NAIVE, tokenizers=ahead)
        self._writer = ScriptWriter(bundle)
        self._decode: dict[StageName, list[float]] = {}

    @property
    def decode_per_s(self) -> Mapping[StageName, float]:
        """Tokens a second that the naive path decoded, by stage."""
        return {stage: round(1 / statistics.median(seconds), 2) for stage, seconds in self._decode.items()}

    def scripts(self, request: Request) -> tuple[Script, ...]:
        """The stages of a request's gold call."""
        return self._writer.scripts(request)

    def first(self, request: Request) -> float:
        """Milliseconds of the gold call by the agent, whatever it holds or lacks."""
        return self._forced(self._agent, request)[0].timings_ms.total

    def gold(self, request: Request) -> CallRun:
        """The gold call.

        Raises:
            DataError: the schema does not let it through.

        """
        self.warm(request)
        answer, start, events = self._forced(self._agent, request)
        naive, _, naive_events = self._forced(self._naive, request)
        self._learn_decoding(naive_events, self._writer.scripts(request))
        return self._run(request, answer, start, events, naive)

    def free(self, request: Request) -> CallRun:
        """What the agent answers by itself.

        Raises:
            RequestError: it cannot answer.

        """
        self.warm(request)
        answer = self._agent.call(
            request.messages, copied=self._copied
        )  # names the stages that the measured call will need
        self.warm(_answered(request, answer))
        answer, start, events = self._call(self._agent, request, ())
        naive, _, _ = self._call(self._naive, request, ())
        return self._run(request, answer, start, events, naive)

    @property
    def kept_bytes(self) -> int:
        """Bytes of KV values that the agent keeps for later prompts."""
        return self._agent.kept_bytes

    def readings(self, request: Request) -> tuple[Reading, ...]:
        """What each stage of the gold call reads, with what the agent holds from the calls before.

        Raises:
            DataError: the schema does not let it through.

        """
        return self.turn(request)[1]

    def turn(self, request: Request) -> tuple[float, tuple[Reading, ...]]:
        """Milliseconds of the gold call, and what each stage reads, with what the agent holds from the calls before.

        Raises:
            DataError: the schema does not let it through.

        """
        scripts, (answer, _, events) = self._writer.scripts(request), self._forced(self._agent, request)
        return answer.timings_ms.total, tuple(
            Reading(
                script.stage,
                script.prompt,
                sum(_of_prompt(event, len(script.prompt)) for event in found if event.kind == "forward"),
                self._roofline_ms(found),
            )
            for script, found in zip(scripts, attribute(events, scripts), strict=True)
        )

    def warm(self, request: Request) -> None:
        """Make the call that a request asks for once, in other words."""
        other = in_other_words(request)
        self._call(self._agent, other, self._writer.scripts(other))
        self._engine.rewind(0)

    def _forced(self, agent: Agent, request: Request) -> tuple[CallResult, float, list[Event]]:
        """The answer when every choice of the model is the gold call's."""
        answer, start, events = self._call(agent, request, self._writer.scripts(request))
        if not _is_gold(request, answer):
            raise DataError(
                request.where,
                found=f"the call {answer.toolset}.{answer.tool} {answer.arguments}",
                expected=f"its gold call, {request.toolset}.{request.call}, to be possible",
                fix="Write arguments that the tool's schema takes.",
            )
        return answer, start, events

    def _call(self, agent: Agent, request: Request, scripts: Sequence[Script]) -> tuple[CallResult, float, list[Event]]:
        """An agent's answer, when it began, and what the engine did."""
        self._engine.record = record = Record(scripts=scripts)
        start = time.perf_counter()
        answer = agent.call(request.messages, copied=self._copied and not scripts)
        self._engine.record = Record()
        return answer, start, record.events

    def _learn_decoding(self, events: Sequence[Event], scripts: Sequence[Script]) -> None:
        for script, found in zip(scripts, attribute(events, scripts), strict=True):
            steps = [
                forward.end - forward.start for forward in found if forward.kind == "forward" and forward.appended == 1
            ]
            if steps:
                self._decode.setdefault(script.stage, []).extend(steps)

    def _run(
        self, request: Request, answer: CallResult, start: float, events: Sequence[Event], naive: CallResult
    ) -> CallRun:
        scripts = self._writer.scripts(_answered(request, answer))
        left = answer.tokens
        stages = []
        for script, found in zip(scripts, attribute(events, scripts), strict=True):
            decided = left.decided if script.decided is None else script.decided
            forced = left.forced if script.decided is None else len(script.answer) - script.decided
            left = left.model_copy(update={"decided": left.decided - decided, "forced": left.forced - forced})
            stages.append(self._stage(script, found, start, forced=forced, decided=decided, answer=answer))
        return CallRun(
            request=request.where,
            toolset=answer.toolset,
            tool=answer.tool,
            arguments=answer.arguments,
            right=_is_gold(request, answer),
            ms=answer.timings_ms.total,
            naive_ms=naive.timings_ms.total,
            same=_said(naive) == _said(answer),
            notes=answer.notes,
            stages=tuple(stages),
        )

    def _stage(
        self, script: Script, events: Sequence[Event], start: float, *, forced: int, decided: int, answer: CallResult
    ) -> StageRun:
        forwards = [event for event in events if event.kind == "forward"]
        return StageRun(
            stage=script.stage,
            adapter=script.adapter,
            ms=getattr(answer.timings_ms, script.stage),
            prompt=len(script.prompt),
            reused=len(script.prompt) - sum(_of_prompt(event, len(script.prompt)) for event in forwards),
            forced=forced,
            drafted=sum(event.drafted for event in forwards),
            decided=decided,
            forwards=len(forwards),
            roofline_ms=round(self._roofline_ms(events), 3),
            spans=tuple(
                Span(
                    kind=event.kind,
                    start_ms=round(1e3 * (event.start - start), 3),
                    ms=round(1e3 * (event.end - event.start), 3),
                    tokens=event.appended,
                )
                for event in events
            ),
        )

    def _roofline_ms(self, events: Sequence[Event]) -> float:
        """The least that the forwards among these can take."""
        return 1e3 * sum(self._roofline.seconds(self._asked(event)) for event in events if event.kind == "forward")

    def _asked(self, event: Event) -> Forward:
        held = len(event.held) - event.appended
        return Forward(weight_bytes(self._bundle, event.adapter), held, event.appended, event.drafted + 1)


def in_other_words(request: Request) -> Request:
    """The same call, asked for by somebody else: it shares the tool lists with the request and no more."""
    return replace(request, messages=_OTHER_WORDS)


def attribute(events: Sequence[Event], scripts: Sequence[Script]) -> list[list[Event]]:
    """The events of each stage: those that leave its prompt held, and those before that lead to it."""
    found: list[list[Event]] = [[] for _ in scripts]
    waiting: list[Event] = []
    at = 0
    for event in events:
        waiting.append(event)
        holds = [
            index
            for index in range(at, len(scripts))
            if event.adapter == scripts[index].adapter
            and event.held[: len(scripts[index].prompt)] == scripts[index].prompt
        ]
        if holds:
            at = holds[-1]
            found[at] += waiting
            waiting = []
    found[at] += waiting
    return found


def weight_bytes(bundle: Bundle, adapter: str | None) -> int:
    """Bytes of weights that one forward reads: the graph's files, and an external adapter's.

    An embedding table that is not the head's too is counted though only some rows of it are read.
    """
    model = bundle.entry
    entry = next((entry for entry in model.adapters if entry.name == adapter), None)
    folder = entry.path if entry and entry.mode == "merged" else model.folder
    wanted = {f"{folder}/model.onnx", f"{folder}/model.onnx.data"} | ({entry.path} if entry else set())
    return sum(file.size for file in bundle.manifest.files if file.path in wanted)


def _of_prompt(event: Event, prompt: int) -> int:
    """How many tokens of the prompt a forward computed."""
    before = len(event.held) - event.appended
    return max(0, min(len(event.held), prompt) - before)


def _answered(request: Request, answer: CallResult) -> Request:
    """The request with what was answered as its gold call."""
    call = None if answer.tool is None else FunctionCall(name=answer.tool, arguments=answer.arguments or {})
    return replace(request, toolset=answer.toolset, call=call)


def _is_gold(request: Request, answer: CallResult) -> bool:
    gold = request.call
    return _said(answer) == (request.toolset, gold.name if gold else None, gold.arguments if gold else None)


def _said(answer: CallResult) -> tuple[str, str | None, dict[str, Any] | None]:
    return answer.toolset, answer.tool, answer.arguments
