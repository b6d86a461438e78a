"""Trajectories → samples: the turns that are learnt, their contexts, and the calls that they teach."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from random import Random

from tokenizers import Tokenizer

from dualtune_edge.export.finetune.data_warnings import arguments_warnings, selection_warnings
from dualtune_edge.export.finetune.masks import MASKS, Sample
from dualtune_edge.export.finetune.settings import FinetuneSettings
from dualtune_edge.toolkit.errors import DataError, SpecError, ToolsError
from dualtune_edge.toolkit.prompts.chat_template import ChatTemplate
from dualtune_edge.toolkit.prompts.messages import FunctionCall, Message
from dualtune_edge.toolkit.prompts.no_tool import selection_prompter
from dualtune_edge.toolkit.prompts.prompter import Prompter
from dualtune_edge.toolkit.prompts.trajectories import Trajectory, passed_over, read_trajectories
from dualtune_edge.toolkit.tools.toolset import Tool
from dualtune_edge.toolkit.validation import listing, nearest


@dataclass(frozen=True)
class Samples:
    """The samples of a run, and how many were left out."""

    samples: tuple[Sample, ...]
    dropped_long: int
    dropped_kept: int  # turns of too frequent tools, by `keep`
    warnings: tuple[str, ...]  # too few samples, or too one-sided ones


@dataclass(frozen=True)
class _Turn:
    """An assistant's turn that is learnt: its context, and the call that it teaches."""

    where: str
    context: tuple[Message, ...]
    answer: FunctionCall


def make_prompter(
    settings: FinetuneSettings, template: ChatTemplate, tokenizer: Tokenizer, tools: tuple[Tool, ...]
) -> Prompter:
    """What renders the run's samples.

    Raises:
        ToolsError: a tool has the name of the no-tool entry; the arguments' tool is unknown or takes none.

    """
    names = [tool.name for tool in tools]
    for name in settings.keep:
        if name not in (*names, settings.no_tool):
            raise SpecError("keep", found=f"the tool {name!r}", expected=listing(names), fix=nearest(name, names))
    if settings.objective != "arguments":
        if settings.no_tool in names:
            raise ToolsError(
                str(settings.tools),
                found=f"a tool named {settings.no_tool!r}",
                expected="that name for turns without a call",
                fix="Rename the tool, or set another no_tool name.",
            )
        return selection_prompter(template, tokenizer, tools, settings.no_tool)
    tool = next((tool for tool in tools if tool.name == settings.tool), None)
    if tool is None or not tool.takes_arguments:
        raise ToolsError(
            str(settings.tools),
            found=f"no tool {settings.tool!r}" if tool is None else f"{settings.tool!r}, which takes no arguments",
            expected=listing(tool.name for tool in tools if tool.takes_arguments),
            fix="Name a tool that takes arguments.",
        )
    return Prompter(template, tokenizer, tools, settings.tool)


def make_samples(settings: FinetuneSettings, prompter: Prompter, max_length: int) -> Samples:
    """All samples of the settings' data file, in its order.

    Args:
        settings: of the run.
        prompter: of `make_prompter`.
        max_length: tokens of a sample.

    Raises:
        DataError: a line cannot be used, a sample is too long, or there is nothing to learn.
        TemplateError: the template does not write a call as the device reads it.

    """
    trajectories = read_trajectories(settings.data, settings.toolset)
    turns = list(_turns(settings, prompter.tools, trajectories))
    kept = _keep(turns, settings)
    mask = MASKS[settings.objective](prompter)
    samples, answers, long = [], [], 0
    for turn in kept:
        try:
            sample = mask.sample(turn.context, turn.answer)
        except UnicodeEncodeError:
            raise _unusable(turn.where, "half of a surrogate pair", "Unicode text", "Correct the text.") from None
        if len(sample.tokens) <= max_length:
            samples.append(sample)
            answers.append(turn.answer)
        elif settings.too_long == "drop":
            long += 1
        else:
            raise _unusable(
                turn.where,
                f"a sample of {len(sample.tokens)} tokens",
                f"at most {max_length}",
                "Shorten the conversation or the tool list, or set too_long to 'drop' to leave out such samples.",
            )
    if not samples:
        left_out = f" ({long} over {max_length} tokens)" if long else ""
        raise _unusable(
            str(settings.data),
            f"nothing to learn{left_out}",
            f"calls of {settings.tool!r}" if settings.tool else "assistant's turns",
            "Check the objective, the tool and the toolset against the data.",
        )
    tools = [tool.name for tool in prompter.tools if tool.name != settings.no_tool]
    return Samples(
        tuple(samples),
        dropped_long=long,
        dropped_kept=len(turns) - len(kept),
        warnings=(
            *passed_over(trajectory.unread for trajectory in trajectories),
            *_other_tools(trajectories, tools, settings),
            *(
                arguments_warnings(answers, settings.tool)
                if settings.tool
                else selection_warnings(answers, tools, settings.no_tool)
            ),
        ),
    )


def _other_tools(trajectories: Iterable[Trajectory], tools: Collection[str], settings: FinetuneSettings) -> list[str]:
    """The first line that lists other tools than the samples show."""
    for line in trajectories:
        if line.tools is not None and (others := line.tools.symmetric_difference(tools) - {settings.no_tool}):
            listed = ", ".join(sorted(others))
            return [f"{line.where} lists other tools than {settings.tools}, which samples show: {listed}"]
    return []


def _turns(settings: FinetuneSettings, tools: tuple[Tool, ...], trajectories: Iterable[Trajectory]) -> Iterator[_Turn]:
    """The turns to learn: every assistant's turn, or those that call the settings' tool."""
    known = {tool.name: tool for tool in tools if tool.name != settings.no_tool}
    for trajectory in trajectories:
        for index, message in enumerate(trajectory.messages):
            if message.role != "assistant" or message.weight == 0:
                continue
            where = f"{trajectory.where}, message {index + 1}"
            answer = FunctionCall(name=settings.no_tool)
            if message.tool_calls:
                answer = message.tool_calls[0].function
                _check_call(answer, known, where)
            if settings.tool in (None, answer.name):
                yield _Turn(where, trajectory.messages[:index], answer)


def _check_call(answer: FunctionCall, tools: dict[str, Tool], where: str) -> None:
    if answer.name not in tools:
        raise _unusable(where, f"a call of {answer.name!r}", listing(tools), nearest(answer.name, tools))
    if refused := tools[answer.name].reading.fault(answer.arguments):
        raise _unusable(
            where,
            f"a call of {answer.name!r}: {refused}",
            "arguments that fit the tool's schema",
            "Correct the call: it would be learnt.",
        )


def _keep(turns: list[_Turn], settings: FinetuneSettings) -> list[_Turn]:
    """The turns without those that `keep` leaves out, drawn by the seed."""
    rng = Random(f"keep {settings.seed}")  # noqa: S311 - sampling, not secrets
    return [turn for turn in turns if rng.random() < settings.keep.get(turn.answer.name, 1.0)]


def _unusable(where: str, found: str, expected: str, fix: str) -> DataError:
    return DataError(where, found=found, expected=expected, fix=fix)
