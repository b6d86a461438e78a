"""A bundle that was sealed again: its prompts may say no more than its manifest."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dualtune_edge.runtime.bundle.folder import Bundle
from dualtune_edge.runtime.bundle.opening import open_bundle
from dualtune_edge.toolkit.bundle.manifest import Stage
from dualtune_edge.toolkit.errors import BundleError

Prompt = dict[str, Any]
Change = Callable[[Prompt], object]
STAGES: dict[str, Callable[[Bundle], Stage | None]] = {
    "toolset": lambda bundle: bundle.manifest.toolset_choice,
    "selection": lambda bundle: bundle.toolset("files").selection,
    "arguments": lambda bundle: bundle.toolset("files").arguments["read"],
}
SCHEMA = {"type": "object", "properties": {"command": {"type": "string"}}}


def change_prompt(bundle: Path, kind: str, change: Change) -> Stage:
    stage = STAGES[kind](open_bundle(bundle))
    assert stage is not None
    path = bundle / stage.prompt
    prompt = json.loads(path.read_bytes())
    change(prompt)
    path.write_text(json.dumps(prompt, ensure_ascii=False), encoding="utf-8")
    return stage


def put(prompt: Prompt, tool: int, **values: Any) -> None:
    prompt["tools"][tool] |= values


def move(prompt: Prompt, name: str) -> None:
    prompt["completions"]["rm_rf"] = prompt["completions"].pop(name)


CHANGES: dict[str, tuple[str, Change]] = {
    "an undeclared call": ("selection", lambda p: p["completions"].update(rm_rf=[1, 2])),
    "a call under another name": ("selection", lambda p: move(p, "read")),
    "a call less": ("selection", lambda p: p["completions"].pop("sort")),
    "no call of no tool": ("selection", lambda p: p["completions"].pop("summarize")),
    "a call without tokens": ("selection", lambda p: p["completions"].update(read=[])),
    "no calls": ("selection", lambda p: p.update(completions={})),
    "an undeclared toolset": ("toolset", lambda p: p["completions"].update(web=[1])),
    "a toolset less": ("toolset", lambda p: p["completions"].pop("git")),
    "a tool more": ("selection", lambda p: p["tools"].insert(0, {"name": "rm_rf", "parameters": SCHEMA})),
    "a tool less": ("selection", lambda p: p["tools"].pop(0)),
    "two entries for no tool": ("selection", lambda p: p["tools"].append(p["tools"][-1])),
    "another order": ("selection", lambda p: p["tools"].insert(0, p["tools"].pop(1))),
    "another description": ("selection", lambda p: put(p, 0, description="Remove everything")),
    "another schema": ("arguments", lambda p: put(p, 0, parameters=SCHEMA)),
    "another schema of another tool": ("arguments", lambda p: put(p, 1, parameters=SCHEMA)),
    "another order of properties": (
        "arguments",
        lambda p: put(p, 0, parameters={**p["tools"][0]["parameters"], "properties": {"lines": {}, "path": {}}}),
    ),
    "another tool": ("arguments", lambda p: p.update(tool="sort")),
    "an undeclared tool": ("arguments", lambda p: p.update(tool="rm_rf")),
    "no tool": ("arguments", lambda p: p.update(tool=None)),
    "no frame": ("arguments", lambda p: p.update(frame=None)),
    "a choice where arguments are": ("arguments", lambda p: p.update(completions={"rm_rf": [1]})),
    "arguments where a choice is": ("selection", lambda p: p.update(tool="read")),
    "another stage": ("selection", lambda p: p.update(stage="arguments")),
    "the stage of toolsets": ("selection", lambda p: p.update(stage="toolset")),
    "another toolset's description": ("toolset", lambda p: put(p, 0, description="Everything")),
    "a toolset with a schema": ("toolset", lambda p: put(p, 0, parameters=SCHEMA)),
    "a toolset where its tools alone are shown": ("arguments", lambda p: p.update(toolset="files")),
    "another toolset of all": ("arguments", lambda p: p.update(shows_toolsets=True, toolset="git")),
    "no toolset of all": ("selection", lambda p: p.update(shows_toolsets=True)),
    "a toolset before it is chosen": ("toolset", lambda p: p.update(shows_toolsets=True, toolset="git")),
    "a huge token": ("selection", lambda p: p["prefix"].append(2**70)),
    "a negative token": ("arguments", lambda p: p["prefix"].append(-1)),
    "a token behind the vocabulary": ("arguments", lambda p: p["frame"]["tokens"].append(10**6)),
    "a huge token of a call": ("toolset", lambda p: p["completions"].update(git=[2**63])),
}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("verify", ["always", "once"])
def test_a_prompt_that_says_more_than_the_manifest(
    bundle: Path, reseal: Callable[[], None], name: str, verify: Any
) -> None:
    kind, change = CHANGES[name]
    change_prompt(bundle, kind, change)
    reseal()
    with pytest.raises(BundleError, match=r"prompts.*\.json"):
        open_bundle(bundle, verify=verify)


@pytest.mark.parametrize("name", ["an undeclared call", "another schema", "a huge token"])
def test_it_is_not_read_where_nothing_was_verified_either(bundle: Path, reseal: Callable[[], None], name: str) -> None:
    kind, change = CHANGES[name]
    stage = change_prompt(bundle, kind, change)
    reseal()
    with pytest.raises(BundleError):
        open_bundle(bundle, verify="never").plan(stage)


@pytest.mark.parametrize("kind", STAGES)
def test_what_the_export_wrote_is_right(exported: Path, kind: str) -> None:
    opened = open_bundle(exported)
    stage = STAGES[kind](opened)
    assert stage is not None
    assert opened.plan(stage).stage == kind
