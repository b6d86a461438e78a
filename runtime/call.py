"""One call: toolset, tool and arguments, chosen and written in that order."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from tokenizers import Tokenizer

from dualtune_edge.runtime.bundle.folder import Bundle
from dualtune_edge.runtime.decode.choice import Choice
from dualtune_edge.runtime.decode.overflow import OnOverflow, Overflow, shortened_by
from dualtune_edge.runtime.decode.stages import Progress, PromptOverflow, Stages, Written
from dualtune_edge.runtime.result import Alternative, CallResult, Timings
from dualtune_edge.toolkit.bundle.manifest import Manifest, ToolsetEntry
from dualtune_edge.toolkit.errors import Reached
from dualtune_edge.toolkit.prompts.messages import Message

_SHORTENINGS: Final = 4  # times that one call has its conversation shortened


@dataclass(frozen=True)
class Question:
    """A conversation, and what may be its answer.

    `offered`: the tools of each toolset that can be called. `required`: whether one has to be. `min_probability`: that
    of the whole answer, below which it is `unsure`.
    """

    messages: tuple[Message, ...]
    offered: Mapping[str, Collection[str]]
    required: bool
    min_probability: float


@dataclass(frozen=True)
class Shortening:
    """How a conversation is shortened whose prompt has more than `limit` tokens. `tokenizer`: the base's."""

    on_overflow: OnOverflow
    limit: int
    tokenizer: Tokenizer


def decide_shortened(
    bundle: Bundle, stages: Stages, question: Question, progress: Progress, shortening: Shortening
) -> CallResult:
    """As `decide`, of a shorter conversation where the prompt is too long; a note says so."""
    progress.longest = shortening.limit
    for _ in range(_SHORTENINGS):
        try:
            return decide(bundle, stages, question, progress)
        except PromptOverflow as error:
            overflow = Overflow(question.messages, error.tokens, shortening.limit, shortening.tokenizer)
            messages, note = shortened_by(shortening.on_overflow, overflow)
            question = replace(question, messages=messages)
            progress.notes.append(note)
    progress.longest = None  # it takes the context, or the engine refuses it
    return decide(bundle, stages, question, progress)


def decide(bundle: Bundle, stages: Stages, question: Question, progress: Progress) -> CallResult:
    """The tool call that the conversation needs next, or that it needs none; `progress` follows it."""
    no_tool = bundle.manifest.no_tool
    routed = _routed(bundle.manifest, stages, question, progress)
    entry = bundle.toolset(routed.winner if routed else next(iter(question.offered)))
    progress.reached = Reached(entry.toolset.name)
    after_toolset = progress.elapsed()
    among = (*question.offered[entry.toolset.name], *(() if question.required else (no_tool,)))
    choice = stages.choose(entry.selection, question.messages, among, progress)
    after_selection = progress.elapsed()
    tool = None if choice.winner == no_tool else choice.winner
    progress.reached = Reached(entry.toolset.name, tool)
    probability = choice.probability * (routed.probability if routed else 1.0)
    written: Written | None = None
    if tool in entry.arguments and probability >= question.min_probability:
        written = stages.write(entry.arguments[tool], question.messages, progress)
        probability *= written.arguments.probability
    total = progress.elapsed()
    return CallResult(
        toolset=entry.toolset.name,
        tool=tool,
        arguments=_arguments(tool, entry, written),
        outcome="unsure" if probability < question.min_probability else "no_tool" if tool is None else "call",
        probability=choice.probability,
        alternatives=tuple(
            Alternative(tool=other.name, probability=other.probability) for other in choice.alternatives
        ),
        timings_ms=Timings(
            toolset=after_toolset,
            selection=round(after_selection - after_toolset, 3),
            arguments=round(total - after_selection, 3),
            total=total,
        ),
        tokens=progress.tokens(),
        notes=tuple(progress.notes),
        toolset_probability=routed.probability if routed else None,
        arguments_probability=written.arguments.probability if written else None,
        not_in_conversation=written.not_in_conversation if written else (),
    )


def _routed(manifest: Manifest, stages: Stages, question: Question, progress: Progress) -> Choice | None:
    """The choice of a toolset; None where there is none to make."""
    stage = manifest.toolset_choice
    if len(question.offered) == 1 or stage is None:
        return None
    return stages.choose(stage, question.messages, question.offered, progress)


def _arguments(tool: str | None, entry: ToolsetEntry, written: Written | None) -> dict[str, Any] | None:
    """What the result has of them: none where no tool is called, or where they were not written."""
    if written:
        return written.arguments.value
    return None if tool is None or tool in entry.arguments else {}
