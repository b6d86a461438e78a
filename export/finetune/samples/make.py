"""Trajectories → samples: the turns that are learnt, their contexts, and the calls that they teach."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from random import Random

from tokenizers import Tokenizer

from dualtune_edge.export.finetune.samples.data_warnings import (
    answer_warnings,
    arguments_warnings,
    held_out_warnings,
    leak_warnings,
    selection_warnings,
    toolset_warnings,
)
from dualtune_edge.export.finetune.samples.masks import MASKS, Mask, Sample
from dualtune_edge.export.finetune.samples.turns import TrajectoryFiles, Turn, read_turns, unusable
from dualtune_edge.export.finetune.settings import FinetuneSettings
from dualtune_edge.toolkit.errors import SpecError, ToolsError
from dualtune_edge.toolkit.prompts.all_toolsets import AllToolsets
from dualtune_edge.toolkit.prompts.chat_template import ChatTemplate
from dualtune_edge.toolkit.prompts.no_tool import no_tool_entry, selection_prompter
from dualtune_edge.toolkit.prompts.prompter import Prompter
from dualtune_edge.toolkit.prompts.trajectories import Trajectory, passed_over
from dualtune_edge.toolkit.tools.tool_files import read_tools
from dualtune_edge.toolkit.tools.toolset import Tool, Toolset, toolset_entry
from dualtune_edge.toolkit.validation import listing, nearest


@dataclass(frozen=True)
class Samples:
    """The samples of a run, and how many were left out."""

    samples: tuple[Sample, ...]
    held: tuple[Sample, ...]  # that are not learnt, to measure with
    dropped_long: int
    dropped_kept: int  # turns of too frequent tools, by `keep`
    warnings: tuple[str, ...]  # too few samples, or too one-sided ones


def listed_tools(settings: FinetuneSettings) -> tuple[Tool, ...]:
    """The tools that the run's prompts list: those of its toolset, the toolsets as what is chosen among, or none.

    Raises:
        ToolsError: the tool list cannot be read.

    """
    if settings.objective == "toolset":
        return tuple(toolset_entry(source.name, source.description) for source in settings.toolsets)
    return tuple(read_tools(settings.tools)) if settings.tools else ()


def make_prompter(
    settings: FinetuneSettings, template: ChatTemplate, tokenizer: Tokenizer, tools: tuple[Tool, ...]
) -> Prompter:
    """What renders the run's samples; `tools`: of `listed_tools`.

    Raises:
        ToolsError: a tool has the name of the no-tool entry; the arguments' tool is unknown or takes none.
        SpecError: the template shows all toolsets, and there is no spec that has them.

    """
    names = [tool.name for tool in tools]
    _check_keep(settings)
    everything = shown_toolsets(settings, template)
    own = settings.own_toolset if everything else None
    if settings.objective in ("toolset", "answer"):
        return Prompter(template, tokenizer, tools, all_toolsets=everything)
    if settings.objective != "arguments":
        if settings.no_tool in names:
            raise ToolsError(
                str(settings.tools),
                found=f"a tool named {settings.no_tool!r}",
                expected="that name for turns without a call",
                fix="Rename the tool, or set another no_tool name.",
            )
        return selection_prompter(template, tokenizer, tools, settings.no_tool, all_toolsets=everything, toolset=own)
    tool = next((tool for tool in tools if tool.name == settings.tool), None)
    if tool is None or not tool.takes_arguments:
        raise ToolsError(
            str(settings.tools),
            found=f"no tool {settings.tool!r}" if tool is None else f"{settings.tool!r}, which takes no arguments",
            expected=listing(tool.name for tool in tools if tool.takes_arguments),
            fix="Name a tool that takes arguments.",
        )
    return Prompter(template, tokenizer, tools, settings.tool, all_toolsets=everything, toolset=own)


def shown_toolsets(settings: FinetuneSettings, template: ChatTemplate) -> AllToolsets | None:
    """All toolsets of the spec, for a template that shows them.

    Raises:
        SpecError: there is no spec that has them.
        ToolsError: a tool list cannot be read.

    """
    if not template.shows_toolsets:
        return None
    if not settings.all_toolsets:
        raise SpecError(
            "template",
            found=f"{template.where}, which shows all toolsets, and no spec",
            expected="a dualtune.yaml, whose toolsets it shows",
            fix="Give it: dualtune-edge finetune dualtune.yaml",
        )
    toolsets = tuple(
        Toolset(name=toolset.name, description=toolset.description, tools=read_tools(toolset.tools))
        for toolset in settings.all_toolsets
    )
    return AllToolsets(toolsets, no_tool_entry(settings.no_tool))


def _check_keep(settings: FinetuneSettings) -> None:
    sources = settings.sources if settings.keep else ()
    names = [tool.name for source in sources if source.tools for tool in read_tools(source.tools)]
    for name in settings.keep:
        if name not in (*names, settings.no_tool):
            raise SpecError("keep", found=f"the tool {name!r}", expected=listing(names), fix=nearest(name, names))


def make_samples(
    settings: FinetuneSettings, prompter: Prompter, max_length: int, files: TrajectoryFiles | None = None
) -> Samples:
    """All samples of the settings' data file, in its order.

    Args:
        settings: of the run.
        prompter: of `make_prompter`.
        max_length: tokens of a sample.
        files: those that are read already, where several adapters are trained.

    Raises:
        DataError: a line cannot be used, a sample is too long, or there is nothing to learn.
        TemplateError: the template does not write a call as the device reads it.

    """
    read, held = read_turns(settings, files or TrajectoryFiles())
    kept = _keep(read.turns, settings)
    mask = MASKS[settings.objective](prompter)
    samples, learnt = _masked(mask, kept, max_length, settings)
    held_samples, measured = _masked(mask, held.turns, max_length, settings)
    long = len(kept) - len(learnt)
    if not samples:
        left_out = f" ({long} over {max_length} tokens)" if long else ""
        raise unusable(
            ", ".join(dict.fromkeys(str(source.data) for source in settings.sources)),
            f"nothing to learn{left_out}",
            f"calls of {settings.tool!r}" if settings.tool else "assistant's turns",
            "Check the objective, the tool and the toolset against the data.",
        )
    names = [tool.name for tool in prompter.tools if tool.name != settings.no_tool]
    return Samples(
        tuple(samples),
        tuple(held_samples),
        dropped_long=long,
        dropped_kept=len(read.turns) - len(kept),
        warnings=(
            *passed_over(trajectory.unread for trajectory in read.trajectories),
            *read.warnings,
            *(_other_tools(read.trajectories, names, settings) if settings.tools else ()),
            *_sample_warnings(learnt, names, settings),
            *(held_out_warnings(measured, names, settings) if _holds(settings) else ()),
            *leak_warnings(read.trajectories, held.trajectories),
        ),
    )


def _masked(
    mask: Mask, turns: Sequence[Turn], max_length: int, settings: FinetuneSettings
) -> tuple[list[Sample], list[Turn]]:
    """The samples of turns, and the turns that they are of: without those that are too long."""
    samples, fitting = list[Sample](), list[Turn]()
    shared: dict[int, int] = {}  # one object a token, not one a place: 8 bytes a place instead of 40
    for turn in turns:
        try:
            sample = mask.sample(turn.context, turn.answer)
        except UnicodeEncodeError:
            raise unusable(turn.where, "half of a surrogate pair", "Unicode text", "Correct the text.") from None
        if len(sample.tokens) <= max_length:
            tokens = tuple(map(shared.setdefault, sample.tokens, sample.tokens))
            samples.append(Sample(tokens, sample.learnt))
            fitting.append(turn)
        elif settings.too_long == "refuse":
            raise unusable(
                turn.where,
                f"a sample of {len(sample.tokens)} tokens",
                f"at most {max_length}",
                "Shorten the conversation or the tool list, or set too_long to 'drop' to leave out such samples.",
            )
    return samples, fitting


def _holds(settings: FinetuneSettings) -> bool:
    return settings.held_out is not None or settings.held_out_share > 0


def _sample_warnings(turns: Sequence[Turn], names: Collection[str], settings: FinetuneSettings) -> tuple[str, ...]:
    if settings.tool:
        return arguments_warnings([turn.chosen for turn in turns], settings.tool)
    if settings.objective == "answer":
        return answer_warnings([turn.answer.content for turn in turns])
    chosen = [turn.chosen.name for turn in turns]
    if settings.objective == "toolset":
        return toolset_warnings(chosen, names)
    return selection_warnings(chosen, names, settings.no_tool)


def _other_tools(trajectories: Iterable[Trajectory], tools: Collection[str], settings: FinetuneSettings) -> list[str]:
    """The first line that lists other tools than the samples show."""
    for line in trajectories:
        if line.tools is not None and (others := line.tools.symmetric_difference(tools) - {settings.no_tool}):
            listed = ", ".join(sorted(others))
            return [f"{line.where} lists other tools than {settings.tools}, which samples show: {listed}"]
    return []


def _keep(turns: Sequence[Turn], settings: FinetuneSettings) -> list[Turn]:
    """The turns without those that `keep` leaves out, drawn by the seed."""
    rng = Random(f"keep {settings.seed}")  # noqa: S311 - sampling, not secrets
    return [turn for turn in turns if rng.random() < settings.keep.get(turn.tool, 1.0)]
