"""What a prompt of a bundle may say: the tools of its manifest and no others, in tokens that the model has."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from dualtune_edge.toolkit.bundle.manifest import Manifest, Stage, ToolsetEntry
from dualtune_edge.toolkit.prompts.prompt_plan import PromptPlan
from dualtune_edge.toolkit.tools.toolset import Tool


@dataclass(frozen=True)
class _Role:
    """What a stage is for, by the manifest. `tool`: whose arguments it writes; `entry`: its toolset, if any."""

    stage: Literal["toolset", "selection", "arguments", "answer"]
    entry: ToolsetEntry | None = None
    tool: str | None = None


def prompt_faults(plan: PromptPlan, stage: Stage, manifest: Manifest) -> Iterator[str]:
    """What is wrong with the prompt of a stage, each fault in a few words."""
    role = _role(stage, manifest)
    if plan.stage != role.stage:
        yield f"a prompt for the stage {plan.stage}, where one for {role.stage} stands"
    elif role.stage == "answer":
        if plan.tools or plan.tool is not None or plan.completions or plan.frame is not None:
            yield "tools, completions or a frame in the prompt of an answer"
    elif role.entry is None:
        yield from _choice_faults(plan, [entry.toolset.name for entry in manifest.toolsets])
        yield from _listed_faults(plan.tools, [entry.toolset.entry for entry in manifest.toolsets])
    elif role.tool is None:
        tools = role.entry.toolset.tools
        yield from _choice_faults(plan, [*(tool.name for tool in tools), manifest.no_tool])
        listed = plan.tools[:-1] if plan.tools and plan.tools[-1].name == manifest.no_tool else plan.tools
        yield from _listed_faults(listed, tools)
    else:
        if plan.tool != role.tool:
            yield f"a prompt for {plan.tool!r}, where one for {role.tool!r} stands"
        if plan.frame is None or plan.completions:
            yield "no frame of arguments, or completions beside it"
        yield from _listed_faults(plan.tools, role.entry.toolset.tools)
    own = role.entry.toolset.name if role.entry and plan.shows_toolsets else None
    if plan.toolset != own:
        yield f"a prompt for the toolset {plan.toolset!r}, where {own!r} stands"
    yield from _token_faults(plan, manifest)


def _role(stage: Stage, manifest: Manifest) -> _Role:
    for entry in manifest.toolsets:
        if stage == entry.selection:
            return _Role("selection", entry)
        for name, arguments in entry.arguments.items():
            if stage == arguments:
                return _Role("arguments", entry, name)
    return _Role("answer" if stage == manifest.answer else "toolset")


def _choice_faults(plan: PromptPlan, names: list[str]) -> Iterator[str]:
    if plan.tool is not None or plan.frame is not None:
        yield "a frame of arguments in a choice"
    for name in sorted(plan.completions.keys() - set(names)):
        yield f"a completion that calls {name!r}, which the manifest does not declare"
    for name in names:
        if not plan.completions.get(name):
            yield f"no completion that calls {name!r}"


def _listed_faults(listed: Iterable[Tool], declared: Iterable[Tool]) -> Iterator[str]:
    """Compared as JSON: the order of a schema's keys is the order in which it is shown."""
    shown = {tool.name: tool.model_dump_json() for tool in listed}
    own = {tool.name: tool.model_dump_json() for tool in declared}
    for name in sorted(shown.keys() ^ own.keys()):
        yield f"the tool {name!r} in {'the prompt' if name in shown else 'the manifest'} only"
    for name in shown.keys() & own.keys():
        if shown[name] != own[name]:
            yield f"another description or schema of {name!r} than the manifest's"
    if list(shown) != list(own):
        yield "the tools in another order than the manifest's"


def _token_faults(plan: PromptPlan, manifest: Manifest) -> Iterator[str]:
    groups = (plan.prefix, *plan.completions.values(), plan.frame.tokens if plan.frame else ())
    for token in (token for group in groups for token in group):
        if not 0 <= token < manifest.base.vocab_size:
            yield f"the token {str(token)[:40]}, where the vocabulary has {manifest.base.vocab_size}"
            return
