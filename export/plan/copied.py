"""Which properties are copied: those that the spec declares, and those whose values data shows to be.

A property is copied where the data has `_FEWEST` values of it or more, and each stands in the conversation before its
call. Its pieces end at words if all of these values do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from llguidance import LLTokenizer

from dualtune_edge.export.plan.prompts import PlannedStage, PlannedToolset, Plans
from dualtune_edge.export.spec.document import ExportSpec
from dualtune_edge.export.spec.parts import Copying, ToolsetSpec
from dualtune_edge.runtime.decode.sources import texts_in
from dualtune_edge.runtime.grammar.copies import compile_copies
from dualtune_edge.runtime.grammar.pieces import conversation, holds
from dualtune_edge.toolkit.bundle.manifest import CopiedProperty
from dualtune_edge.toolkit.errors import SpecError
from dualtune_edge.toolkit.frozen import Frozen
from dualtune_edge.toolkit.prompts.messages import FunctionCall, Message
from dualtune_edge.toolkit.prompts.trajectories import passed_over, read_trajectories
from dualtune_edge.toolkit.tools.defaults import default_texts
from dualtune_edge.toolkit.tools.toolset import Tool
from dualtune_edge.toolkit.validation import listing, nearest

_FEWEST: Final = 30  # values; of one that is copied nine times in ten, so many would all be with a chance of 4%


@dataclass(frozen=True)
class Example:
    """A call, and the conversation before it. `toolset` None: any that has such a tool."""

    messages: tuple[Message, ...]
    call: FunctionCall
    toolset: str | None = None


class CopiedStanding(Frozen):
    """A copied property, and what the data says of it: how many of its values stand in their conversation."""

    toolset: str
    tool: str
    copied: CopiedProperty
    declared: bool  # by the spec; if not, the data shows it
    values: int
    standing: int

    @property
    def line(self) -> str:
        """In a line."""
        data = [f"{self.standing:,} of {self.values:,} values in the data"] if self.values else []
        why = ", ".join([*(["declared"] if self.declared else []), *data])
        return f"{self.toolset}.{self.tool} {self.copied.name}: {self.copied.border} ({why})"


@dataclass
class _Count:
    """What the data says of one property."""

    values: int = 0
    standing: int = 0
    at_words: int = 0

    def add(self, value: str, texts: Sequence[str]) -> None:
        self.values += 1
        self.standing += any(value in text for text in texts) and bool(value)
        self.at_words += any(holds(text, value, "words") for text in texts)


@dataclass(frozen=True)
class CopiedPlans:
    """The stages with their copied properties, why these are copied, and what one might not expect of it."""

    plans: Plans
    standings: tuple[CopiedStanding, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Examples:
    """Calls that a file of trajectories holds, and what of the file is not read."""

    calls: tuple[Example, ...] = ()
    warnings: tuple[str, ...] = ()

    def __add__(self, other: Examples) -> Examples:
        """Both."""
        return Examples(self.calls + other.calls, self.warnings + other.warnings)


def read_examples(toolset: ToolsetSpec) -> Examples:
    """The calls in the trajectories of a toolset; lines of other toolsets are left out.

    Raises:
        DataError: the file cannot be read, or a line is no conversation.

    """
    if toolset.trajectories is None:
        return Examples()
    trajectories = [
        trajectory
        for trajectory in read_trajectories(toolset.trajectories)
        if trajectory.toolset in (None, toolset.name)
    ]
    calls = tuple(
        Example(trajectory.messages[:index], message.tool_calls[0].function, toolset.name)
        for trajectory in trajectories
        for index, message in enumerate(trajectory.messages)
        if message.tool_calls
    )
    unread = passed_over(trajectory.unread for trajectory in trajectories)
    return Examples(calls, tuple(f"{toolset.trajectories}: {what}" for what in unread))


def plan_copied(spec: ExportSpec, plans: Plans, examples: Iterable[Example], tokenizer: LLTokenizer) -> CopiedPlans:
    """Find the copied properties of every tool.

    Args:
        spec: declares some.
        plans: the stages.
        examples: calls that show others.
        tokenizer: the base's, for the grammar.

    Raises:
        SpecError: it declares a property of no tool, or one that cannot be copied.

    """
    finder = _Finder(plans, tokenizer)
    for example in examples:
        finder.count(example)
    named = {toolset.name: toolset for toolset in spec.toolsets}
    toolsets = tuple(finder.planned(planned, named[planned.toolset.name]) for planned in plans.toolsets)
    return CopiedPlans(replace(plans, toolsets=toolsets), tuple(finder.standings), (*finder.warnings, *finder.unknown))


@dataclass
class _Finder:
    plans: Plans
    tokenizer: LLTokenizer
    standings: list[CopiedStanding] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    _counts: dict[tuple[str, str], dict[str, _Count]] = field(default_factory=dict)  # toolset and tool → property
    _defaults: dict[tuple[str, str, str], tuple[str, ...]] = field(default_factory=dict)
    _unknown: Counter[str] = field(default_factory=Counter)  # names in calls that are no tool's

    def count(self, example: Example) -> None:
        """Count the values of one call. Those that are a default say nothing."""
        name, texts = example.call.name, conversation(example.messages)
        tools = (tool.name for planned in self.plans.toolsets for tool in planned.toolset.tools)
        self._unknown[name] += name not in tools
        for planned in self.plans.toolsets:
            if name not in planned.arguments or example.toolset not in (None, planned.toolset.name):
                continue
            tool = _tool(planned, name)
            counts = self._counts.setdefault((planned.toolset.name, name), {})
            for place, value in texts_in(example.call.arguments, numbered=False):
                key = (planned.toolset.name, name, place)
                if key not in self._defaults:
                    self._defaults[key] = default_texts(tool.parameters, place)
                if value not in self._defaults[key]:
                    counts.setdefault(place, _Count()).add(value, texts)

    @property
    def unknown(self) -> tuple[str, ...]:
        """What of the data calls no tool, in sentences."""
        return tuple(
            f"{count:,} calls in the data are of {name!r}, which is no tool here"
            for name, count in self._unknown.items()
            if count
        )

    def planned(self, planned: PlannedToolset, spec: ToolsetSpec) -> PlannedToolset:
        """The toolset whose stages have their copied properties."""
        where = f"copied of {planned.toolset.name!r}"
        for name in spec.copied:
            if name not in planned.arguments:
                known = planned.arguments
                raise SpecError(where, found=f"the tool {name!r}", expected=listing(known), fix=nearest(name, known))
        stages = {
            name: self._stage(planned, stage, _tool(planned, name), spec.copied.get(name, {}))
            for name, stage in planned.arguments.items()
        }
        return replace(planned, arguments=stages)

    def _stage(
        self, planned: PlannedToolset, stage: PlannedStage, tool: Tool, declared: Mapping[str, Copying]
    ) -> PlannedStage:
        counts = self._counts.get((planned.toolset.name, tool.name), {})
        wanted = {name: CopiedProperty(name=name, border=kind) for name, kind in declared.items() if kind != "free"}
        for name, count in counts.items():
            if name not in declared and count.values == count.standing >= _FEWEST:
                border = "words" if count.at_words == count.values else "characters"
                wanted[name] = CopiedProperty(name=name, border=border)
        frame = stage.plan.frame
        if not wanted or frame is None:
            return stage
        copies = compile_copies(tool, frame, self.tokenizer, tuple(wanted.values()))
        held = copies.properties if copies else ()
        for name in declared:
            if name in wanted and wanted[name] not in held:
                raise SpecError(
                    f"copied of {planned.toolset.name!r}, {tool.name!r}",
                    found=repr(name),
                    expected="a text in the tool's schema of which no more is said than its length",
                    fix="Leave it out; a place is written as `path`, `paths[]` or `edits[].oldText`.",
                )
        for copied in held:
            count = counts.get(copied.name, _Count())
            self.standings.append(
                CopiedStanding(
                    toolset=planned.toolset.name,
                    tool=tool.name,
                    copied=copied,
                    declared=copied.name in declared,
                    values=count.values,
                    standing=count.at_words if copied.border == "words" else count.standing,
                )
            )
            if self.standings[-1].standing < count.values:
                self.warnings.append(f"not all values of a copied property can be written: {self.standings[-1].line}")
        return replace(stage, copied=held)


def _tool(planned: PlannedToolset, name: str) -> Tool:
    return next(tool for tool in planned.toolset.tools if tool.name == name)
