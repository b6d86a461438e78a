"""A tiny seeded base, two tools whose names begin alike, and trajectories of their calls."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import torch
from dualtune_edge_kit.random_checkpoint import SHAPES, write_checkpoint

from dualtune_edge.export.finetune.loading.base import Base
from dualtune_edge.export.finetune.settings import FinetuneSettings

MakeSettings: TypeAlias = Callable[..., FinetuneSettings]

TOOLS = [
    {
        "name": "read",
        "description": "Read",
        "inputSchema": {
            "type": "object",
            "properties": {"path": {"type": "string"}, "head": {"type": "integer"}},
            "required": ["path"],
        },
    },
    {
        "name": "read_file",
        "description": "",
        "inputSchema": {"type": "object", "properties": {"a": {"type": "string"}}},
    },
    {"name": "status", "description": "", "inputSchema": {"type": "object", "properties": {}}},
]


def turn(tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
    function = {"name": tool, "arguments": json.dumps(arguments)}
    return {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": function}]}


def request(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


CONVERSATIONS = [
    [
        request("read /docs/a"),
        turn("read", {"head": 3, "path": "/docs/ä"}),
        {"role": "tool", "content": "text"},
        {"role": "assistant", "content": "Done."},
    ],
    [request("show me b"), turn("read_file", {"a": "b"})],
    [request("what now?"), turn("status", {}), {"role": "tool", "content": "ok"}, turn("read", {"path": "c"})],
]


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Base]:
    folder = tmp_path_factory.mktemp("bases") / "tiny"
    shape = replace(SHAPES["tiny"], context=2048)
    write_checkpoint(folder, shape, seed=1, dtype=torch.float32)
    with Base.open(folder) as opened:
        yield opened


@pytest.fixture
def write_data(tmp_path: Path) -> Callable[[list[Any]], Path]:
    def write(lines: list[Any]) -> Path:
        path = tmp_path / "data.jsonl"
        path.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8", newline="\n")
        return path

    return write


@pytest.fixture
def settings(base: Base, tmp_path: Path, write_data: Callable[[list[Any]], Path]) -> MakeSettings:
    tools = tmp_path / "tools.json"
    tools.write_text(json.dumps({"tools": TOOLS}), encoding="utf-8")

    def make(**changes: Any) -> FinetuneSettings:
        values = {
            "objective": "selection",
            "base": base.checkpoint.folder,
            "data": tmp_path / "data.jsonl",
            "tools": tools,
            "output": tmp_path / "adapter",
            "rank": 4,
            "batch_size": 2,
            "max_steps": 4,
        }
        if not (tmp_path / "data.jsonl").exists():
            write_data([{"messages": messages} for messages in CONVERSATIONS])
        return FinetuneSettings.model_validate(values | changes)

    return make
