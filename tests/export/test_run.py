"""A whole export: its phases, its bytes, and that an interrupted one leaves no output."""

from pathlib import Path
from typing import Any

import psutil
import pytest
from export_desk import Desk, Exported

from dualtune_edge.export import models, run
from dualtune_edge.export.build import graphs, try_out
from dualtune_edge.export.work.phases import PhaseName
from dualtune_edge.toolkit.bundle.manifest import Manifest
from dualtune_edge.toolkit.errors import OutputError

STEPS = (
    "build_graph", "add_slots", "write_adapter", "merged_weights", "Trial", "compare_bundle", "write_prompts",
    "write_manifest",
)  # fmt: skip


def test_the_report_has_every_phase_in_order_and_every_size(exported: Exported) -> None:
    report, merges = exported.report, any(adapter.mode == "merged" for adapter in exported.manifest.adapters)
    names = [phase.name for phase in report.phases]
    left_out = {PhaseName.KV_SCALES, PhaseName.MOMENTS, PhaseName.STATIC} | (set() if merges else {PhaseName.MERGED})
    assert names == [name for name in PhaseName if name not in left_out]
    assert all(phase.seconds >= 0 and phase.peak_mb > 0 for phase in report.phases)
    assert report.sizes.total == sum(path.stat().st_size for path in exported.bundle.rglob("*") if path.is_file())
    assert (report.sizes.merged > 0) == merges
    assert report.path == str(exported.bundle)


def test_nothing_in_a_bundle_tells_where_it_was_made(exported: Exported) -> None:
    for path in exported.bundle.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert str(exported.desk.folder).encode() not in content, path
            assert str(exported.bundle.parent).encode() not in content, path


def test_two_exports_in_two_places_give_the_same_bytes(mixed: Exported, tmp_path: Path) -> None:
    again = mixed.desk.copy(tmp_path / "another desk").export("mixed", tmp_path / "another bundle")
    assert again.manifest.files == mixed.manifest.files
    assert (again.bundle / "manifest.json").read_bytes() == (mixed.bundle / "manifest.json").read_bytes()


@pytest.mark.skipif(not hasattr(psutil.Process, "memory_maps"), reason="this system does not tell what is mapped")
def test_no_file_is_held_when_the_bundle_gets_its_name(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows neither deletes nor renames what a process has mapped."""
    held: list[str] = []

    def write_manifest(*args: Any, **kwargs: Any) -> Manifest:
        manifest = real(*args, **kwargs)
        process = psutil.Process()
        opened = [file.path for file in (*process.memory_maps(), *process.open_files())]
        held.extend(path for path in opened if ".partial" in path and Path(path).name != "lock")
        return manifest

    real = run.write_manifest
    monkeypatch.setattr(run, "write_manifest", write_manifest)
    desk.export("mixed", tmp_path / "bundle")
    assert held == []


def test_an_output_that_exists(own_desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    with pytest.raises(OutputError, match="bundle"):
        run.run(own_desk.spec("external"), tmp_path / "bundle")
    assert list((tmp_path / "bundle").iterdir()) == []


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.usefixtures("quick_work")
def test_an_interrupted_export_has_no_output(
    desk: Desk, step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = next(module for module in (graphs, try_out, models, run) if hasattr(module, step))
    work = getattr(where, step)

    def interrupted(*args: Any, **kwargs: Any) -> None:
        work(*args, **kwargs)  # what it writes is there
        raise KeyboardInterrupt

    monkeypatch.setattr(where, step, interrupted)
    with pytest.raises(KeyboardInterrupt):
        run.run(desk.spec("mixed"), tmp_path / "out" / "bundle")
    kept = [] if step == "build_graph" else [tmp_path / "out" / ".bundle.partial"]
    assert list((tmp_path / "out").iterdir()) == kept
