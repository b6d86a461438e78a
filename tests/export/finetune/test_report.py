"""Origins: equal ones make equal adapters, so all that influences an adapter is in them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dualtune_edge.export.finetune.loading.base import Base
from dualtune_edge.export.finetune.report import fingerprint, origin
from dualtune_edge.export.finetune.settings import FinetuneSettings, ToolsetSource
from dualtune_edge.export.finetune.train import template_of

HERE = {"base", "output", "threads", "checkpoint_every", "resume"}  # where and how, and not what
FILES = {"data", "held_out", "tools", "template", "toolsets", "all_toolsets", "own_toolset"}  # by their hashes


def digest(run: FinetuneSettings, base: Base) -> str:
    return fingerprint(origin(run, base.checkpoint, template_of(run, base)))


def test_every_setting_that_is_no_file_is_in_it(base: Base, settings: Any) -> None:
    run = settings(held_out_share=0.1, base_bits=4, optimizer="adamw-8bit")  # which records without them do not have
    made = origin(run, base.checkpoint, template_of(run, base))
    assert made.settings.keys() == FinetuneSettings.model_fields.keys() - HERE - FILES


@pytest.mark.parametrize(
    "changes", [{"held_out_share": 0.2}, {"measure_every": 3}, {"seed": 1}, {"keep": {"read": 0.5}}, {"rank": 5}]
)
def test_another_setting_is_another_run(base: Base, settings: Any, changes: dict[str, Any]) -> None:
    run = settings(held_out_share=0.1)
    assert digest(run.model_copy(update=changes), base) != digest(run, base)
    elsewhere = {"output": Path("elsewhere"), "threads": 7, "checkpoint_every": 3, "resume": True}
    assert digest(run.model_copy(update=elsewhere), base) == digest(run, base)


@pytest.mark.parametrize("name", ["data", "held_out", "tools", "template"])
def test_another_byte_of_a_file_is_another_run(base: Base, settings: Any, tmp_path: Path, name: str) -> None:
    held, template = tmp_path / "held.jsonl", tmp_path / "own.jinja"
    held.write_text("{}", encoding="utf-8")
    template.write_text("{{ messages[0].content }}", encoding="utf-8")
    run = settings(held_out=held, template=template)
    before = digest(run, base)
    assert digest(run, base) == before
    path = getattr(run, name)
    path.write_bytes(path.read_bytes() + b" ")
    assert digest(run, base) != before


CHANGES: tuple[Callable[[ToolsetSource, Path], ToolsetSource], ...] = (
    lambda source, other: source.model_copy(update={"data": other}),
    lambda source, other: source.model_copy(update={"tools": other}),
    lambda source, _: source.model_copy(update={"name": "other"}),
    lambda source, _: source.model_copy(update={"description": "Other"}),
    lambda source, _: source.model_copy(update={"named": False}),
)


@pytest.mark.parametrize("change", CHANGES)
def test_another_toolset_is_another_run(
    base: Base, settings: Any, tmp_path: Path, change: Callable[[ToolsetSource, Path], ToolsetSource]
) -> None:
    plain = settings()
    source = ToolsetSource(name="files", tools=plain.tools, data=plain.data)
    (tmp_path / "other").write_text("{}", encoding="utf-8")
    runs = [
        settings(objective="toolset", data=None, tools=None, toolsets=(source, other))
        for other in (source, change(source, tmp_path / "other"))
    ]
    assert digest(runs[0], base) != digest(runs[1], base)


def test_another_base_is_another_run(base: Base, settings: Any) -> None:
    run = settings()
    made = origin(run, base.checkpoint, template_of(run, base))
    assert made.base_fingerprint == base.checkpoint.fingerprint
