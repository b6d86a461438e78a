"""Which stages a user's own conversation is compared on: those that it leads through."""

from __future__ import annotations

from dualtune_edge.export.compare.stages import Walker, _conversations, _lead_on
from dualtune_edge.export.plan.prompts import PlannedStage
from dualtune_edge.export.plan.subjects import Subject
from dualtune_edge.toolkit.prompts.messages import user
from dualtune_edge.toolkit.prompts.prompt_plan import PromptPlan

MADE_UP, OWN = (user("made up"),), (user("own"),)


def subject(stage: str, toolset: str | None = None, tool: str | None = None) -> Subject:
    plan = PromptPlan.model_validate({"stage": stage, "template": "", "tools": (), "tool": tool})
    return Subject(PlannedStage(stage, plan), toolset, (MADE_UP,), "summarize" if stage == "answer" else tool)


def led_to(stage: Subject, walker: Walker) -> bool:
    return (OWN, walker) in list(_conversations(stage, [walker]))


def test_a_conversation_that_needs_no_tool_leads_to_the_answer() -> None:
    walker = Walker(OWN, None, None)
    _lead_on(walker, subject("toolset"), "git")
    _lead_on(walker, subject("selection", "git"), "summarize")
    assert (walker.toolset, walker.tool) == ("git", "summarize")
    assert led_to(subject("answer"), walker)
    assert not led_to(subject("arguments", "git", "log"), walker)
    _lead_on(walker, subject("answer"), "")
    assert (walker.toolset, walker.tool) == ("git", "summarize")


def test_one_that_calls_leads_to_the_arguments_and_to_no_answer() -> None:
    walker = Walker(OWN, None, None)
    _lead_on(walker, subject("toolset"), "git")
    _lead_on(walker, subject("selection", "git"), "log")
    assert led_to(subject("arguments", "git", "log"), walker)
    assert not led_to(subject("selection", "files"), walker)
    assert not led_to(subject("answer"), walker)
