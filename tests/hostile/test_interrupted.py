"""An export that is killed, or whose writes fail: no half bundle, and the next one makes the same bytes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dualtune_edge_kit.random_checkpoint import MODULES, Shape, write_adapter, write_checkpoint
from peft import LoraConfig

Share = Callable[..., int]
Figure = Callable[[str, str], None]
HERE = Path(__file__).parent
TOOLS = [{"name": "read", "description": "Read", "inputSchema": {"properties": {"path": {"type": "string"}}}}]
SPEC = """\
base: base
parity: off
toolsets: [{name: files, tools: files.json, selection: one, arguments: {read: {path: two, mode: merged}}}]
"""
PARTIAL = ".bundle.partial"

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="LD_PRELOAD is Linux's"),
    pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler for the preloaded library"),
]


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


@pytest.fixture(scope="module")
def outcomes(
    failing_io: Path, desk: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[list[dict[str, Any]]], list[dict[str, Any]]]]:
    """Tries faults, all in forks of one process: it imports PyTorch once, and exports once without a fault."""
    command = [sys.executable, HERE / "export_with_faults.py", failing_io, desk, tmp_path_factory.mktemp("outputs")]
    environment = os.environ | {"LD_PRELOAD": str(failing_io), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        list(map(str, command)),
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as trials:

        def outcome(fault: dict[str, Any]) -> dict[str, Any]:
            assert trials.stdin
            assert trials.stdout
            trials.stdin.write(json.dumps(fault) + "\n")
            trials.stdin.flush()
            value: dict[str, Any] = json.loads(trials.stdout.readline())
            return value

        yield lambda faults: list(map(outcome, faults))


def turns(count: int) -> list[float]:
    """Spread evenly over an export."""
    return [(number + 0.5) / count for number in range(count)]


def heals(outcome: dict[str, Any]) -> None:
    assert outcome["whole"], outcome
    assert outcome["last"] == ["bundle"], outcome


def test_kills(outcomes: Any, share: Share, figure: Figure) -> None:
    found = outcomes([{"turn": turn, "error": "KILL"} for turn in turns(share(200, 40))])
    for outcome in found:
        assert outcome["error"] == "killed" or outcome["left"] == ["bundle"], outcome
        assert "bundle" not in outcome["left"] or outcome["operation"] > outcome["operations"] * 0.9, outcome
        heals(outcome)
    operations = found[0]["operations"]
    figure(
        "A killed export leaves no bundle or a valid one",
        f"{len(found)} kills spread over {operations} writes, renames and fsyncs: no half bundle; the next run of each "
        "makes the same bytes",
    )


def test_errors_of_the_disk(outcomes: Any, share: Share, figure: Figure) -> None:
    kinds = [("EIO", False), ("EIO", True), ("ENOSPC", False), ("ENOSPC", True), ("EDQUOT", True)]
    faults = [
        {"turn": turn, "error": kinds[number % len(kinds)][0], "for_good": kinds[number % len(kinds)][1]}
        for number, turn in enumerate(turns(share(200, 40)))
    ]
    found = outcomes(faults)
    for outcome, fault in zip(found, faults, strict=True):
        if outcome["error"]:
            assert outcome["error"] == ("OutputError" if fault["error"] == "EIO" else "RoomError"), outcome
            named = outcome["left"] == ["bundle"] and "stands there, whole" in outcome["message"]
            assert set(outcome["left"]) <= {PARTIAL} or named, outcome
        else:  # what clears up may fail, and so may a write that is made once more
            assert outcome["left"] == ["bundle"], outcome
        heals(outcome)
    kind = Counter(outcome["error"] or "none" for outcome in found)
    said = ", ".join(f"{count} {name}" for name, count in kind.most_common())
    figure("Disk full or an I/O error is clean", f"{len(found)} operations that fail, once or for good: {said}")


def test_a_limit_on_the_size_of_files(outcomes: Any, figure: Figure) -> None:
    """RLIMIT_FSIZE: whichever library writes the file that is too long."""
    limits = [1_000, 30_000, 200_000, 10_000_000]
    *short, enough = outcomes([{"limit": limit} for limit in limits])
    for outcome in short:
        assert outcome["error"] == "RoomError", outcome
        assert set(outcome["left"]) <= {PARTIAL}, outcome
        heals(outcome)
    assert (enough["error"], enough["whole"]) == (None, True)
    figure("… RLIMIT_FSIZE", f"{len(short)} limits: a named error each")
