"""Adapters that do nothing, or change while they are exported, are refused."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from export_desk import Desk

from dualtune_edge.export import run
from dualtune_edge.export.adapter.read import read_adapter
from dualtune_edge.export.base.checkpoint import read_checkpoint
from dualtune_edge.export.build import graphs
from dualtune_edge.export.graph.slot_map import SlotMap
from dualtune_edge.export.plan.inputs import read_inputs
from dualtune_edge.toolkit.errors import AdapterError, GraphError


@pytest.mark.usefixtures("quick_work")
def test_an_adapter_that_does_nothing_is_refused(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write_adapter(_: object, slots: SlotMap, path: Path) -> None:
        real(replace(some, pairs={}), slots, path)

    real, some = (
        graphs.write_adapter,
        read_adapter(desk.folder / "chooser", read_checkpoint(desk.folder / "base"), "external"),
    )
    monkeypatch.setattr(graphs, "write_adapter", write_adapter)
    with pytest.raises(GraphError, match=r"selection\.files") as caught:
        run.run(desk.spec("mixed"), tmp_path / "out" / "bundle")
    assert "bit for bit" in caught.value.found
    assert not (tmp_path / "out" / "bundle").exists()


@pytest.mark.usefixtures("quick_work")
def test_an_adapter_that_changes_during_the_export_is_refused(
    own_desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def add_slots(*args: Any, **kwargs: Any) -> SlotMap:
        shutil.copyfile(
            own_desk.folder / "writers" / "read" / "adapter_model.safetensors",
            own_desk.folder / "chooser" / "adapter_model.safetensors",
        )
        return real(*args, **kwargs)

    inputs, real = read_inputs(own_desk.spec("mixed")), graphs.add_slots
    monkeypatch.setattr(run, "read_inputs", lambda _: inputs)
    monkeypatch.setattr(graphs, "add_slots", add_slots)
    with pytest.raises(AdapterError, match="a moment ago") as caught:
        run.run(own_desk.spec("mixed"), tmp_path / "out" / "bundle")
    assert caught.value.where == str(own_desk.folder / "chooser")
    assert not (tmp_path / "out" / "bundle").exists()
