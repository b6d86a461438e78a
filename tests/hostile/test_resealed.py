"""A bundle that somebody changed and sealed again, as an attacker would: what it says is refused, or harmless."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import tiny_bundle

from dualtune_edge.runtime.bundle.folder import Bundle
from dualtune_edge.runtime.bundle.opening import open_bundle
from dualtune_edge.runtime.variants import ways
from dualtune_edge.toolkit.errors import EdgeError

VALUES: Final[tuple[Any, ...]] = (
    None, True, False, 0, 1, -1, 2**31, 2**63, 2**70, 10**9, 0.5, 1e308, "", "..", "../x.toml", "/dev/zero", "rm_rf",
    "custom_ops_library", "x\0", "\u202e", "a" * 10_000, [], {}, [[]], {"a": {}}, [None], "(a+)+b", "{{ 9 ** 9 ** 9 }}",
)  # fmt: skip


def change(value: Any, draw: random.Random) -> Any:
    """The value with one place of it replaced, removed or doubled, or with a key more."""
    if not isinstance(value, (dict, list)) or not value or draw.random() < 0.08:
        return draw.choice(VALUES)
    if isinstance(value, list):
        at = draw.randrange(len(value))
        doubled, less = [*value, value[at]], [*value[:at], *value[at + 1 :]]
        changed = [*value[:at], change(value[at], draw), *value[at + 1 :]]
        return draw.choice((doubled, less, changed, changed, changed))
    key = draw.choice(list(value))
    rest = {name: item for name, item in value.items() if name != key}
    return draw.choices(
        (rest, {**value, draw.choice(("x", "rm_rf", "custom_ops_library", key.upper())): value[key]},
         {name: change(item, draw) if name == key else item for name, item in value.items()}),
        (1, 1, 6),
    )[0]  # fmt: skip


def said(opened: Bundle) -> Iterator[str]:
    """Every tool that the bundle could call."""
    manifest = opened.manifest
    for entry in manifest.toolsets:
        yield from opened.plan(entry.selection).completions
        yield from (opened.plan(stage).tool or "" for stage in entry.arguments.values())


def declared(opened: Bundle) -> set[str]:
    tools = {tool.name for entry in opened.manifest.toolsets for tool in entry.toolset.tools}
    return {*tools, opened.manifest.no_tool}


def test_every_json_file_changed_at_random(
    bundle: Path, share: Callable[[int], int], figure: Callable[[str, str], None]
) -> None:
    draw = random.Random(4)  # noqa: S311 - seeded, not secret
    paths = sorted(path for path in bundle.rglob("*.json") if path.name != "export.json")
    whole = {path: path.read_bytes() for path in (*paths, bundle / "manifest.sha256")}
    refused = opened_anyway = 0
    count = share(3_000)
    for _ in range(count):
        path = draw.choice(paths)
        value = json.loads(whole[path])
        for _ in range(draw.randint(1, 3)):
            value = change(value, draw)
        if path.name == "manifest.json":
            tiny_bundle.write_manifest(bundle, value)
        else:
            path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
            tiny_bundle.reseal(bundle)
        try:
            opened = open_bundle(bundle, verify="always")
            assert set(said(opened)) <= declared(opened)
            ways(opened)
            assert opened.tokenizer
        except EdgeError:
            refused += 1
        else:
            opened_anyway += 1
        for changed, data in whole.items():
            changed.write_bytes(data)
    assert refused > opened_anyway
    figure(
        "A bundle that was sealed again",
        f"{count:,} changes of JSON: {refused:,} refused, the rest says nothing undeclared",
    )
