"""An export whose writes fail: a typed error, no half bundle, nothing left over, and the next one goes on.

DUALTUNE_EDGE_FAULTS=all lets every operation fail once (some 700, an hour), else some of them do.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from dualtune_edge_kit.random_checkpoint import MODULES, Shape, write_adapter, write_checkpoint
from peft import LoraConfig

HERE = Path(__file__).parent
TOOLS = [{"name": "read", "description": "Read", "inputSchema": {"properties": {"path": {"type": "string"}}}}]
SPEC = """\
base: base
parity: off
profile: [cpu-x64, openvino]
toolsets: [{name: files, tools: files.json, selection: one, arguments: {read: {path: two, mode: merged}}}]
"""
PARTIAL = ".bundle.partial"

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="LD_PRELOAD is Linux's"),
    pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler for the preloaded library"),
]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = tmp_path_factory.mktemp("library") / "failing_io.so"
    source = HERE / "failing_io.c"
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)  # noqa: S607
    return library


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    desk = tmp_path_factory.mktemp("desk")
    write_checkpoint(desk / "base", Shape(64, 96, 2, 4, 2, 288, 2048))
    config = LoraConfig(r=4, target_modules=list(MODULES), task_type="CAUSAL_LM")
    for seed, name in enumerate(("one", "two")):
        write_adapter(desk / name, desk / "base", config, seed=seed)
    (desk / "files.json").write_text(json.dumps({"tools": TOOLS}), encoding="utf-8")
    (desk / "dualtune.yaml").write_text(SPEC, encoding="utf-8")
    return desk


def outcomes(library: Path, desk: Path, folder: Path, *faults: dict[str, Any]) -> list[dict[str, Any]]:
    every = ["every"] if os.environ.get("DUALTUNE_EDGE_FAULTS") == "all" and "limit" not in faults[0] else []
    command = [sys.executable, HERE / "export_with_faults.py", library, desk, folder, json.dumps(faults), *every]
    done = subprocess.run(
        list(map(str, command)), env=os.environ | {"LD_PRELOAD": str(library)}, check=True, stdout=subprocess.PIPE
    )
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def test_each_operation_that_fails_ends_in_a_typed_error(library: Path, desk: Path, tmp_path: Path) -> None:
    """Those early, late and in between; where an export copies from an earlier one too."""
    turns = [1, 2, 5, *(share / 10 for share in range(1, 10)), 0.97, 0.99]
    faults = [{"turn": turn, "reuse": reuse} for turn in turns for reuse in (False, True)]
    found = outcomes(library, desk, tmp_path, *faults)
    assert any(outcome["error"] for outcome in found)
    for outcome in found:
        if outcome["error"]:
            assert outcome["error"] == "OutputError", outcome
            assert set(outcome["left"]) <= {PARTIAL}, outcome
        else:  # what clears up may fail
            assert outcome["left"] == ["bundle"], outcome
        assert outcome["whole"], outcome
        assert outcome["left_at_last"] == ["bundle"], outcome


@pytest.mark.parametrize(
    "fault",
    [
        {"turn": 0.3, "error": "ENOSPC", "for_good": True},
        {"turn": 0.6, "error": "EDQUOT", "for_good": True},
        {"turn": 0.9, "error": "ENOSPC", "reuse": True},
    ],
    ids=str,
)
def test_a_disk_that_fills_up_is_want_of_room(library: Path, desk: Path, tmp_path: Path, fault: dict[str, Any]) -> None:
    for outcome in outcomes(library, desk, tmp_path, fault):
        if outcome["error"]:
            assert outcome["error"] == "RoomError", outcome
            assert set(outcome["left"]) <= {PARTIAL}, outcome
        assert outcome["whole"], outcome


def test_a_limit_on_the_size_of_files_is_want_of_room(library: Path, desk: Path, tmp_path: Path) -> None:
    """RLIMIT_FSIZE: whichever library writes the file that is too long."""
    limits = [0, 1_000, 30_000, 100_000, 200_000, 10_000_000]
    *short, enough = outcomes(library, desk, tmp_path, *({"limit": limit} for limit in limits))
    for outcome in short:
        assert outcome["error"] == "RoomError", outcome
        assert set(outcome["left"]) <= {PARTIAL}, outcome
        assert outcome["whole"], outcome
    assert (enough["error"], enough["whole"]) == (None, True)
