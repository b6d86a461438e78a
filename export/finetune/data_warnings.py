"""Warnings about samples that can be learnt, though the adapter will hardly be good: too few, or too one-sided."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Final

from dualtune_edge.toolkit.prompts.messages import FunctionCall

_FEW: Final = 100  # samples a tool; DualTune has about 1,000 requests for each
_ONE_SIDED: Final = 2 / 3  # of all samples


def selection_warnings(answers: Sequence[FunctionCall], tools: Collection[str], no_tool: str) -> tuple[str, ...]:
    """Warnings of an adapter that chooses among tools.

    Args:
        answers: the call that each sample teaches.
        tools: the names of the tools, without the no-tool entry.
        no_tool: the name that a turn without a call is learnt as.

    """
    counts = Counter(answer.name for answer in answers)
    calls = len(answers) - counts[no_tool]
    warnings = []
    name, count = counts.most_common(1)[0]
    if count > _ONE_SIDED * len(answers):
        others = len(answers) - count
        keep = f", or learn a share of these: --keep {name}={max(others / count, 0.01):.2f}" if others else ""
        warnings.append(
            f"{count} of {len(answers)} samples call {'no tool' if name == no_tool else name}: the adapter may learn "
            f"to answer that always. Add samples of the other tools{keep}"
        )
    if missing := [tool for tool in tools if not counts[tool]]:
        warnings.append(f"no sample calls {', '.join(missing)}: the adapter does not learn when to choose them")
    if calls < _FEW * len(tools):
        warnings.append(_few(calls, f"the {len(tools)} tools", calls // len(tools)))
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


def _few(calls: int, tools: str, share: int) -> str:
    mean = f", {share} a tool" if share != calls else ""
    return (
        f"{calls} samples call {tools}{mean}: these are few, where DualTune has about 1,000 a tool. "
        "Try the adapter on conversations that are not in them"
    )
