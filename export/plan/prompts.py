"""The prompt of every stage, rendered once at the export: static prefix, completions, argument frame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Final, Literal

from dualtune_edge.export.adapter.training_files import learnt_toolsets
from dualtune_edge.export.plan.inputs import Inputs
from dualtune_edge.export.plan.templates import Templates
from dualtune_edge.export.plan.toolsets import AdapterInput, ToolsetInput
from dualtune_edge.toolkit.bundle.layout import PROMPTS_DIR
from dualtune_edge.toolkit.bundle.manifest import CopiedProperty
from dualtune_edge.toolkit.errors import RequestError, TemplateError, ToolsError
from dualtune_edge.toolkit.files import safe_name
from dualtune_edge.toolkit.prompts.all_toolsets import AllToolsets
from dualtune_edge.toolkit.prompts.chat_template import ChatTemplate
from dualtune_edge.toolkit.prompts.frames import frame_of
from dualtune_edge.toolkit.prompts.growing_text import GrowingTexts
from dualtune_edge.toolkit.prompts.messages import FunctionCall, Message, ToolCall, call, user
from dualtune_edge.toolkit.prompts.no_tool import NO_TOOL, no_tool_entry, selection_prompter
from dualtune_edge.toolkit.prompts.prompt_plan import PromptPlan
from dualtune_edge.toolkit.prompts.prompter import Prompter
from dualtune_edge.toolkit.tools.toolset import Tool, Toolset

ROOM: Final = 64  # tokens that the static prompt must leave for the conversation: a short request


@dataclass(frozen=True)
class PlannedStage:
    """A stage's name, its prompt, and the adapter that answers (None: the base).

    `copied`: of the tool whose arguments it writes. `all_toolsets`: all toolsets, where the prompt shows them.
    """

    name: str
    plan: PromptPlan
    adapter: AdapterInput | None = None
    copied: tuple[CopiedProperty, ...] = ()
    all_toolsets: AllToolsets | None = None

    @property
    def adapter_name(self) -> str | None:
        """None: the base answers."""
        return self.adapter.name if self.adapter else None

    @property
    def is_activated(self) -> bool:
        """Whether an activated adapter answers."""
        return self.adapter is not None and self.adapter.invocation is not None


@dataclass(frozen=True)
class PlannedToolset:
    """The stages of one toolset; a tool that takes no arguments has none."""

    toolset: Toolset
    selection: PlannedStage
    arguments: Mapping[str, PlannedStage]


@dataclass(frozen=True)
class Plans:
    """Every stage of a bundle. With one toolset nothing is chosen among toolsets; a spec may leave the answer alone."""

    toolset_choice: PlannedStage | None
    toolsets: tuple[PlannedToolset, ...]
    warnings: tuple[str, ...] = ()  # what one might not expect of the templates
    answer: PlannedStage | None = None  # None: the base writes it, by its own template
    no_tool: str = NO_TOOL  # the name that leads to the answer

    @property
    def stages(self) -> Iterator[PlannedStage]:
        """All of them, the toolset choice first and the answer last."""
        if self.toolset_choice:
            yield self.toolset_choice
        for planned in self.toolsets:
            yield planned.selection
            yield from planned.arguments.values()
        if self.answer:
            yield self.answer


def plan_prompts(inputs: Inputs) -> Plans:
    """Render the template of every stage, and take what the device needs from it.

    Raises:
        TemplateError: a template fails, writes two completions alike, or arguments that are not one JSON object.
        RequestError: a prompt leaves no room for a conversation in the context.
        ToolsError: a tool's text holds a control token of the base.

    """
    templates = Templates.of(inputs)
    choice = _toolset_choice(inputs, templates) if len(inputs.toolsets) > 1 else None
    toolsets = tuple(_toolset(source, inputs, templates) for source in inputs.toolsets)
    answer = _answer(inputs, templates) if inputs.others.answer or inputs.answer_template else None
    plans = Plans(choice, toolsets, tuple(templates.warnings.values()), answer, inputs.no_tool)
    return replace(plans, warnings=(*plans.warnings, *_other_lists(plans)))


def _other_lists(plans: Plans) -> Iterator[str]:
    """A warning of adapters whose prompts showed other toolsets when they were trained."""
    names = []
    for stage in plans.stages:
        if stage.adapter and stage.all_toolsets:
            learnt = learnt_toolsets(stage.adapter.folder)
            shown = [(toolset.name, toolset.sha256) for toolset in stage.all_toolsets.toolsets]
            names += [] if learnt is None or list(learnt.items()) == shown else [stage.adapter.name]
    if names:
        yield (
            f"{len(names)} adapters learnt from prompts that show other toolsets, or their tools otherwise: "
            f"{', '.join(names)}; train them again"
        )


def prompt_path(stage: PlannedStage) -> str:
    """The path of a stage's prompt in the bundle."""
    return f"{PROMPTS_DIR}/{safe_name(stage.name)}.json"


def _toolset_choice(inputs: Inputs, templates: Templates) -> PlannedStage:
    template = templates.choose("toolset", adapter=inputs.others.toolset, named=inputs.toolset_template)
    entries = tuple(source.toolset.entry for source in inputs.toolsets)
    with templates.advice():
        prompter = Prompter(
            template, inputs.checkpoint.tokenizer, entries, all_toolsets=_all_toolsets(template, inputs)
        )
        plan = _choice_plan("toolset", prompter, inputs, templates)
        templates.look_for_invocation(inputs.others.toolset, prompter)
    return PlannedStage("toolset", plan, inputs.others.toolset, all_toolsets=prompter.all_toolsets)


def _all_toolsets(template: ChatTemplate, inputs: Inputs) -> AllToolsets | None:
    """All toolsets, for a template that shows them."""
    if not template.shows_toolsets:
        return None
    return AllToolsets(tuple(source.toolset for source in inputs.toolsets), no_tool_entry(inputs.no_tool))


def _toolset(source: ToolsetInput, inputs: Inputs, templates: Templates) -> PlannedToolset:
    tools = source.toolset.tools
    template = templates.choose("selection", adapter=source.selection, named=source.templates.selection)
    with templates.advice():
        prompter = selection_prompter(
            template,
            inputs.checkpoint.tokenizer,
            tools,
            inputs.no_tool,
            all_toolsets=_all_toolsets(template, inputs),
            toolset=source.toolset.name,
        )
        plan = _choice_plan("selection", prompter, inputs, templates)
        templates.look_for_invocation(source.selection, prompter)
    return PlannedToolset(
        toolset=source.toolset,
        selection=PlannedStage(
            f"selection.{source.toolset.name}", plan, source.selection, all_toolsets=prompter.all_toolsets
        ),
        arguments={tool.name: _arguments(tool, source, inputs, templates) for tool in tools if tool.takes_arguments},
    )


def _choice_plan(
    stage: Literal["toolset", "selection"], prompter: Prompter, inputs: Inputs, templates: Templates
) -> PromptPlan:
    _refuse_control_tokens(prompter)
    where, context = f"prompt of the {stage} stage", inputs.checkpoint.context_length
    prefix = prompter.prefix()
    first = prompter.completion(call(prompter.choices[0]))
    _refuse_overlong(where, len(prefix), len(first), context)  # now: all completions of 600 tools take minutes
    growing = replace(prompter, texts=GrowingTexts(prompter.tokenizer))  # which tokenizes the tool list once
    completions = {name: growing.completion(call(name)) for name in prompter.choices}
    _refuse_ambiguous(completions, prompter.template)
    templates.look_for_dates(prompter, len(prefix))
    _refuse_overlong(where, len(prefix), max(map(len, completions.values())), context)
    return PromptPlan(
        stage=stage,
        template=prompter.template.source,
        tools=prompter.tools,
        prefix=prefix,
        completions=completions,
        shows_toolsets=prompter.all_toolsets is not None,
        toolset=prompter.toolset,
    )


def _arguments(tool: Tool, source: ToolsetInput, inputs: Inputs, templates: Templates) -> PlannedStage:
    adapter = source.arguments.get(tool.name)
    template = templates.choose("arguments", adapter=adapter, named=source.templates.arguments)
    everything, name = _all_toolsets(template, inputs), source.toolset.name
    own = name if everything else None
    prompter = Prompter(
        template, inputs.checkpoint.tokenizer, source.toolset.tools, tool.name, all_toolsets=everything, toolset=own
    )
    _refuse_control_tokens(prompter)
    with templates.advice():
        prefix, frame = prompter.prefix(), frame_of(prompter)
    templates.look_for_invocation(adapter, prompter, frame.tokens)
    templates.look_for_dates(prompter, len(prefix))
    where = f"prompt for the arguments of {tool.name!r}"
    _refuse_overlong(where, len(prefix), len(frame.tokens), inputs.checkpoint.context_length)
    plan = PromptPlan(
        stage="arguments",
        template=template.source,
        tools=prompter.tools,
        tool=tool.name,
        prefix=prefix,
        frame=frame,
        shows_toolsets=everything is not None,
        toolset=own,
    )
    return PlannedStage(f"arguments.{name}.{tool.name}", plan, adapter, all_toolsets=everything)


def _answer(inputs: Inputs, templates: Templates) -> PlannedStage:
    adapter, checkpoint = inputs.others.answer, inputs.checkpoint
    template = templates.choose("answer", adapter=adapter, named=inputs.answer_template)
    prompter = Prompter(template, checkpoint.tokenizer, (), all_toolsets=_all_toolsets(template, inputs))
    _refuse_control_tokens(prompter)
    with templates.advice():
        prefix = prompter.prefix()
        prompter.tokens(answered_call("a"))  # the template can render a result, or the error says so
    templates.look_for_dates(prompter, len(prefix))
    templates.look_for_invocation(adapter, prompter)
    templates.look_for_end(prompter)
    _refuse_overlong("prompt of the answer", len(prefix), 0, checkpoint.context_length)
    plan = PromptPlan(
        stage="answer",
        template=template.source,
        tools=(),
        prefix=prefix,
        shows_toolsets=prompter.all_toolsets is not None,
    )
    return PlannedStage("answer", plan, adapter, all_toolsets=prompter.all_toolsets)


def answered_call(request: str, arguments: dict[str, Any] | None = None, tool: str = "a") -> tuple[Message, ...]:
    """A request, a call and its result, as an agent writes them: what an answer stands behind."""
    called = ToolCall(function=FunctionCall(name=tool, arguments=arguments or {}), id="call_1")
    return (
        user(request),
        Message(role="assistant", tool_calls=(called,)),
        Message(role="tool", content="done", name=tool, tool_call_id=called.id),
    )


def _refuse_control_tokens(prompter: Prompter) -> None:
    others = prompter.all_toolsets.entries if prompter.all_toolsets else ()
    for tool in (*prompter.tools, *others):
        if token := prompter.control_token_in(tool.for_template()):
            raise ToolsError(
                f"tool {tool.name!r}",
                found=f"{token!r}, a control token of the base, in its name, description or schema",
                expected="text without it: in a prompt it would end or begin a turn",
                fix="Use other words in the tool list.",
            )


def _refuse_ambiguous(completions: Mapping[str, Sequence[int]], template: ChatTemplate) -> None:
    """No completion may be the beginning of another: each is a leaf of the trie."""
    ordered: Iterable[tuple[Sequence[int], str]] = sorted((tokens, name) for name, tokens in completions.items())
    for (first, name), (second, other) in pairwise(ordered):  # a text sorts right before those that begin with it
        if tuple(second[: len(first)]) == tuple(first):
            raise TemplateError(
                template.where,
                found=f"a call of {name!r} rendered as the beginning of a call of {other!r}, or like it",
                expected="a different text for each, up to the end of the turn",
                fix="Let the template write the called tool's name (`tool_call.function.name`) and end the turn.",
            )


def _refuse_overlong(where: str, prefix: int, answer: int, context: int) -> None:
    if prefix + ROOM + answer > context:
        raise RequestError(
            where,
            found=f"{prefix} tokens before the conversation and {answer} after it, in a context of {context}",
            expected=f"at least {ROOM} tokens of room between them",
            fix="Split the toolset, shorten its descriptions, or take a base with a longer context.",
        )
