"""Warnings about samples that can be learnt, though the adapter will hardly be good: too few, or too one-sided."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Final

from dualtune_edge.export.data.lines import Line
from dualtune_edge.export.finetune.samples.turns import Turn
from dualtune_edge.export.finetune.settings import FinetuneSettings
from dualtune_edge.toolkit.prompts.messages import FunctionCall
from dualtune_edge.toolkit.prompts.trajectories import Trajectory

_FEW: Final = 100  # samples a tool; DualTune has about 1,000 requests for each
_ONE_SIDED: Final = 2 / 3  # of all samples
_SHOWN: Final = 60  # characters of an answer
_TRY: Final = "Try the adapter on conversations that are not in them"


def selection_warnings(chosen: Sequence[str], tools: Collection[str], no_tool: str) -> tuple[str, ...]:
    """Warnings of an adapter that chooses among tools.

    Args:
        chosen: the name that each sample teaches.
        tools: the names of the tools, without the no-tool entry.
        no_tool: the name that a turn without a call is learnt as.

    """
    counts = Counter(chosen)
    calls = len(chosen) - counts[no_tool]
    warnings = []
    name, count = counts.most_common(1)[0]
    if count > _ONE_SIDED * len(chosen):
        others = len(chosen) - count
        keep = f", or learn a share of these: --keep {name}={max(others / count, 0.01):.2f}" if others else ""
        warnings.append(f"{_one_sided(chosen, 'no tool' if name == no_tool else name)} tools{keep}")
    warnings += _missing(counts, tools)
    if calls < _FEW * len(tools):
        warnings.append(_few(calls, f"the {len(tools)} tools", calls // len(tools)))
    return tuple(warnings)


def toolset_warnings(chosen: Sequence[str], toolsets: Collection[str]) -> tuple[str, ...]:
    """Warnings of an adapter that chooses among toolsets; `chosen`: the name that each sample teaches."""
    counts = Counter(chosen)
    warnings = []
    name, count = counts.most_common(1)[0]
    if count > _ONE_SIDED * len(chosen):
        warnings.append(f"{_one_sided(chosen, name)} toolsets")
    warnings += _missing(counts, toolsets)
    if len(chosen) < _FEW * len(toolsets):
        mean = len(chosen) // len(toolsets)
        warnings.append(f"{len(chosen)} samples for {len(toolsets)} toolsets, {mean} each: these are few. {_TRY}")
    return tuple(warnings)


def arguments_warnings(answers: Sequence[FunctionCall], tool: str) -> tuple[str, ...]:
    """Warnings of an adapter that writes the arguments of one tool; `answers` as above."""
    counts = Counter(json.dumps(answer.arguments, ensure_ascii=False, sort_keys=True) for answer in answers)
    warnings = []
    written, count = counts.most_common(1)[0]
    if count > _ONE_SIDED * len(answers):
        warnings.append(
            f"{count} of {len(answers)} samples write the same arguments, {written}: the adapter may learn to write "
            "them always. Add samples with other values"
        )
    if len(answers) < _FEW:
        warnings.append(_few(len(answers), tool, len(answers)))
    return tuple(warnings)


def answer_warnings(texts: Sequence[str]) -> tuple[str, ...]:
    """Warnings of an adapter that writes answers in words; `texts`: what each sample teaches."""
    warnings = []
    text, count = Counter(texts).most_common(1)[0]
    if count > _ONE_SIDED * len(texts):
        warnings.append(
            f"{count} of {len(texts)} samples say the same, {text[:_SHOWN]!r}: the adapter may learn to say it always. "
            "Add samples with other answers"
        )
    if len(texts) < _FEW:
        warnings.append(f"{len(texts)} samples of answers: these are few. {_TRY}")
    return tuple(warnings)


def held_out_warnings(turns: Sequence[Turn], names: Collection[str], settings: FinetuneSettings) -> tuple[str, ...]:
    """Warnings of what is measured with.

    Args:
        turns: of the held-out samples.
        names: of the tools or toolsets that are chosen among, without the no-tool entry.
        settings: of the run.

    """
    if not turns:
        return ("nothing of this adapter's is held out: the last step is kept, whether it is the best or not",)
    warnings = []
    if len(turns) < _FEW:
        points = 100 / len(turns)
        warnings.append(
            f"{len(turns)} samples are held out: one of them is {points:.1f} points, and steps differ by chance"
        )
    chosen = {call.function.name for turn in turns for call in turn.answer.tool_calls}
    chooses = settings.objective not in ("arguments", "answer")
    if chooses and (missing := [name for name in names if name not in chosen]):
        warnings.append(f"nothing held out calls {', '.join(missing)}: how these are learnt is not measured")
    return tuple(warnings)


def leak_warnings(learnt: Iterable[Trajectory], held: Iterable[Trajectory]) -> tuple[str, ...]:
    """A warning if requests of the held-out conversations are learnt."""
    known = {_request(trajectory) for trajectory in learnt}
    leaks = sum(_request(trajectory) in known for trajectory in held)
    if not leaks:
        return ()
    return (f"{leaks} held-out conversations begin as some that are learnt: what they measure is memory (data split)",)


def _request(trajectory: Trajectory) -> str:
    return Line(trajectory.where, "", trajectory).request


def _one_sided(chosen: Sequence[str], name: str) -> str:
    """Of the most frequent name; the kind of the others is to follow."""
    count = Counter(chosen).most_common(1)[0][1]
    return (
        f"{count} of {len(chosen)} samples call {name}: the adapter may learn to answer that always. "
        "Add samples of the other"
    )


def _missing(counts: Counter[str], names: Collection[str]) -> list[str]:
    missing = [name for name in names if not counts[name]]
    return [f"no sample calls {', '.join(missing)}: the adapter does not learn when to choose them"] if missing else []


def _few(calls: int, tools: str, share: int) -> str:
    mean = f", {share} a tool" if share != calls else ""
    return f"{calls} samples call {tools}{mean}: these are few, where DualTune has about 1,000 a tool. {_TRY}"
