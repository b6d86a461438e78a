"""Requests that a user might make, from the tools alone: a tool's description, with values for its arguments."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import cycle
from random import Random
from typing import Any, Final, TypeAlias

from dualtune_edge.export.base.checkpoint import Checkpoint
from dualtune_edge.export.plan.prompts import PlannedStage, Plans, answered_call
from dualtune_edge.toolkit.prompts.chat_template import ChatTemplate
from dualtune_edge.toolkit.prompts.messages import Message, user
from dualtune_edge.toolkit.prompts.prompter import Prompter
from dualtune_edge.toolkit.tools.toolset import Tool

Conversation: TypeAlias = tuple[Message, ...]
_WORDS: Final = ("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "harbor", "island", "juniper")
_PLACES: Final = ("path", "file", "dir", "folder", "repo", "source", "destination")  # names of what is on a disk
_WORDINGS: Final = ("{what}: {values}", "Please {what} with {values}", "{values}. {what}", "{what} ({values})")
_DEPTH: Final = 3  # of values within values; below it every value is a word
_CHARS: Final = 160  # of a description
_CONVERSATIONS: Final = 2  # of a stage, for ranges: most of a prompt is its tool list, the same in all


def made_up(plans: Plans, count: int) -> dict[str, tuple[Conversation, ...]]:
    """`count` conversations for each stage: of as many tools for a choice, of the stage's own tool for arguments.

    Those of the answer are requests, and by turns calls with a result behind them.
    """
    everything = [tool for planned in plans.toolsets for tool in planned.toolset.tools]
    result = {plans.toolset_choice.name: _one_each(everything, count)} if plans.toolset_choice else {}
    for planned in plans.toolsets:
        result[planned.selection.name] = _one_each(planned.toolset.tools, count)
        tools = {tool.name: tool for tool in planned.toolset.tools}
        for name, stage in planned.arguments.items():
            result[stage.name] = tuple((user(request(tools[name], variant)),) for variant in range(count))
    if plans.answer:
        asked = _one_each(everything, count)
        result[plans.answer.name] = tuple(
            conversation if index % 2 else answered_call(conversation[0].content, tool=everything[0].name)
            for index, conversation in enumerate(asked)
        )
    return result


def request(tool: Tool, variant: int) -> str:
    """One sentence that asks for the tool; variants differ in words and values."""
    random = Random(f"{tool.name}/{variant}")  # noqa: S311 - no secret; a text as a seed is the same everywhere
    what = (tool.description.split("\n")[0].partition(". ")[0] or tool.name.replace("_", " "))[:_CHARS].rstrip(".")
    schema = tool.reading.schema
    properties: Mapping[str, Any] = schema.get("properties", {})
    required = [name for name in properties if name in schema.get("required", ())]
    names = list(properties) if variant % 2 or not required else required
    values = ", ".join(f"{name} {_text(_value(properties[name], name, random, 0))}" for name in names)
    return _WORDINGS[variant % len(_WORDINGS)].format(what=what, values=values) if values else what


def calibration_prompts(
    checkpoint: Checkpoint, plans: Plans, stages: Sequence[PlannedStage]
) -> tuple[tuple[int, ...], ...]:
    """The tokens of each stage's prompts with the beginning of an answer: ranges of integers are taken from them."""
    made, prompts = made_up(plans, _CONVERSATIONS), []
    for stage in stages:
        plan = stage.plan
        template = ChatTemplate(plan.template, where=stage.name, bos=checkpoint.bos, eos=checkpoint.eos)
        prompter = Prompter.of(plan, template, checkpoint.tokenizer, stage.all_toolsets)
        answers = list(plan.completions.values()) or [plan.frame.tokens if plan.frame else ()]
        for messages, answer in zip(made[stage.name], cycle(answers), strict=False):
            prompts.append((*prompter.tokens(messages), *answer))
    return tuple(prompts)


def _one_each(tools: Sequence[Tool], count: int) -> tuple[Conversation, ...]:
    """Requests for `count` tools, evenly spread over the list; further requests for one tool are worded differently."""
    chosen = [(tools[(index * len(tools) // count) % len(tools)], index) for index in range(count)]
    return tuple((user(request(tool, variant)),) for tool, variant in chosen)


def _value(schema: Any, name: str, random: Random, depth: int) -> Any:
    """A plausible value: it fits plain schemas. It need not fit others, as nothing checks it."""
    if not isinstance(schema, dict) or depth > _DEPTH:
        return _words(name, random)
    named = schema.get("enum") or schema.get("examples") or [schema.get("const", schema.get("default"))]
    if named[0] is not None:
        return random.choice(named)
    choices = schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf")
    return _value(choices[0], name, random, depth + 1) if choices else _typed(schema, name, random, depth)


def _typed(schema: Mapping[str, Any], name: str, random: Random, depth: int) -> Any:
    kind = schema.get("type")
    match kind[0] if isinstance(kind, list) else kind:
        case "integer" | "number":
            low = int(schema.get("minimum", 1))
            return random.randint(low, max(low, int(min(schema.get("maximum", low + 20), low + 20))))
        case "boolean":
            return random.random() < 0.5
        case "array":
            return [_value(schema.get("items"), name, random, depth + 1) for _ in range(2)]
        case "object":
            return {
                key: _value(property_schema, key, random, depth + 1)
                for key, property_schema in schema.get("properties", {}).items()
            }
        case _:
            return _words(name, random)


def _words(name: str, random: Random) -> str:
    first, second = random.sample(_WORDS, 2)
    return f"/srv/{first}/{second}.txt" if any(place in name.lower() for place in _PLACES) else f"{first} {second}"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
