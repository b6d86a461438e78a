"""The stages that are compared with PEFT, each with conversations made for it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from dualtune_edge.export.plan.messages import Conversation, made_up
from dualtune_edge.export.plan.prompts import PlannedStage, Plans
from dualtune_edge.toolkit.prompts.messages import Message, user


@dataclass(frozen=True)
class Subject:
    """A stage that is compared, and the conversations made for it."""

    stage: PlannedStage
    toolset: str | None  # None: the choice among toolsets, and the answer
    messages: tuple[Conversation, ...]
    tool: str | None = None  # the choice that leads here; None: the choices themselves
    extra: bool = False  # no stage of the bundle: the user's own conversations are not compared on it


def subjects(plans: Plans, prompts: int) -> tuple[Subject, ...]:
    """Every stage in the device's order; before them the base on the first prompt, if adapters answer all stages."""
    made = made_up(plans, prompts)
    made |= {stage.name: _with_earlier_turn(made[stage.name]) for stage in plans.stages if stage.is_activated}
    found = [Subject(plans.toolset_choice, None, made[plans.toolset_choice.name])] if plans.toolset_choice else []
    for planned in plans.toolsets:
        stages = (planned.selection, *planned.arguments.values())
        found += [Subject(stage, planned.toolset.name, made[stage.name], stage.plan.tool) for stage in stages]
    if plans.answer:
        found.append(Subject(plans.answer, None, made[plans.answer.name], plans.no_tool))
    if all(subject.stage.adapter for subject in found):
        found.insert(0, replace(found[0], stage=replace(found[0].stage, name="base", adapter=None), extra=True))
    return tuple(found)


def _with_earlier_turn(conversations: tuple[Conversation, ...]) -> tuple[Conversation, ...]:
    """The same, the last one behind another turn: a prompt may hold the invocation several times."""
    earlier = (user("Are you there?"), Message(role="assistant", content="Yes."))
    return (*conversations[:-1], *((*earlier, *conversation) for conversation in conversations[-1:]))
