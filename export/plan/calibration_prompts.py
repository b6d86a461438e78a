"""Prompts made from the tools, from which the ranges of integer values are taken."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from typing import Final

from dualtune_edge.export.base.checkpoint import Checkpoint
from dualtune_edge.export.plan.messages import made_up
from dualtune_edge.export.plan.prompts import PlannedStage, Plans
from dualtune_edge.toolkit.prompts.chat_template import ChatTemplate
from dualtune_edge.toolkit.prompts.prompter import Prompter

_CONVERSATIONS: Final = 2  # of a stage: most of a prompt is its tool list, the same in all


def calibration_prompts(
    checkpoint: Checkpoint, plans: Plans, stages: Sequence[PlannedStage]
) -> tuple[tuple[int, ...], ...]:
    """The tokens of each stage's prompts, each with the beginning of an answer."""
    made, prompts = made_up(plans, _CONVERSATIONS), []
    for stage in stages:
        plan = stage.plan
        template = ChatTemplate(plan.template, where=stage.name, bos=checkpoint.bos, eos=checkpoint.eos)
        prompter = Prompter(template, checkpoint.tokenizer, plan.tools, plan.tool)
        answers = list(plan.completions.values()) or [plan.frame.tokens if plan.frame else ()]
        for messages, answer in zip(made[stage.name], cycle(answers), strict=False):
            prompts.append((*prompter.tokens(messages), *answer))
    return tuple(prompts)
