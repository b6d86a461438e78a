"""Each thing that a machine can lack is a line that says what was found, what was expected and what to do."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from signatures import NOW, TestKey, policy, write_policy

from dualtune_edge import cli
from dualtune_edge.profiles import catalog
from dualtune_edge.runtime.doctor import installation, machine
from dualtune_edge.runtime.doctor.command import WRONG
from dualtune_edge.runtime.doctor.installation import EXTRAS, older
from dualtune_edge.toolkit import extras

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="modes of folders say nothing there")


Diagnose = Callable[..., tuple[int, dict[str, Any]]]


def test_a_machine_on_which_nothing_is_wrong(diagnose: Diagnose, capsys: pytest.CaptureFixture[str]) -> None:
    code, lines = diagnose()
    assert code == 0
    assert {line["about"] for line in lines.values()} >= {"machine", "packages", "extras", "cache", "profile", "runs"}
    assert lines["trust"]["state"] == "note"
    with pytest.raises(SystemExit):
        cli.main(["doctor"])
    text = capsys.readouterr().out
    assert text.startswith("ok    dualtune-edge "), "no styles off a terminal, nor escapes of them"
    assert text.splitlines()[-1].startswith("nothing is wrong")
    assert len(text.splitlines()) < 40


@pytest.mark.parametrize(
    ("name", "value", "about", "found"),
    [
        (catalog.PROFILE_VARIABLE, "cpu-x46", "profile", "no profile of this name"),
        (catalog.PROFILE_VARIABLE, "/nowhere.toml", "profile", "No such file"),
        ("DUALTUNE_EDGE_CACHE_MB", "much", "cache", "'much'"),
        ("DUALTUNE_EDGE_TRUST", "/nowhere.toml", "trust", "No such file"),
        ("DUALTUNE_EDGE_CACHE", "/dev/null", "cache", "a file"),
        ("DUALTUNE_EDGE_CACHE", "/proc/nowhere", "cache", "/proc/nowhere"),
    ],
)
def test_a_setting_that_cannot_be_followed(
    name: str, value: str, about: str, found: str, *, diagnose: Diagnose, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    code, lines = diagnose()
    assert (code, lines[about]["state"]) == (WRONG, "wrong")
    assert found in lines[about]["found"]
    assert lines[about]["expected"]
    assert lines[about]["fix"]


def test_a_cache_folder_that_others_can_write_to(diagnose: Diagnose, environment: Path) -> None:
    environment.mkdir(mode=0o700)
    environment.chmod(0o777)
    code, lines = diagnose()
    assert (code, lines["cache"]["state"]) == (WRONG, "wrong")
    assert "mode 777" in lines["cache"]["found"]


def test_a_cache_without_a_budget_and_a_disk_without_room(diagnose: Diagnose, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_TIGHT", 10**18)
    code, lines = diagnose()
    assert (code, lines["cache"]["state"], lines["cache"]["expected"]) == (0, "note", "1,000 MB free")
    monkeypatch.setenv("DUALTUNE_EDGE_CACHE_MB", "0")
    code, lines = diagnose()
    assert (code, lines["cache"]["state"]) == (0, "note")


@pytest.mark.parametrize("free", [None, 0, 2**40])
def test_free_memory(free: int | None, diagnose: Diagnose, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "free_memory", lambda: free)
    code, lines = diagnose()
    assert (code, lines["machine"]["state"]) == (0, "note" if free == 0 else "ok")


@pytest.mark.parametrize(
    ("version", "least", "is_older"),
    [("1.9.2+cpu", "1.10", True), ("1.10", "1.9", False), ("2", "2.0", False), ("2.0.0", "2", False), ("x", "1", True)],
)
def test_versions(version: str, least: str, is_older: bool) -> None:  # noqa: FBT001 - a column of the table
    assert older(version, least) is is_older


@pytest.mark.parametrize(
    ("package", "version", "code", "about"),
    [
        ("onnxruntime", "1.9", WRONG, "packages"),
        ("jinja2", None, WRONG, "packages"),
        ("uvicorn", "0.1", WRONG, "extras"),
        ("uvicorn", None, 0, "extras"),
    ],
)
def test_a_package_that_is_old_or_missing(
    package: str, version: str | None, code: int, about: str, *, diagnose: Diagnose, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = metadata.version

    def other(name: str) -> str:
        if name != package:
            return installed(name)
        if version is None:
            raise metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(installation.metadata, "version", other)
    ended, lines = diagnose()
    assert (ended, lines[about]["state"]) == (code, "wrong" if code else "ok")
    assert package in lines[about]["found"] or "not installed: serve" in lines[about]["found"]
    if version is None and code:
        assert "runs" not in lines  # what needs the packages is not asked


def test_a_library_that_does_not_load(tmp_path: Path) -> None:
    (tmp_path / "onnxruntime.py").write_text("raise ImportError('libm.so: GLIBC_2.99 not found')", encoding="utf-8")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\nfrom dualtune_edge.cli import main\nmain(['doctor'])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=False)
    assert ran.returncode == WRONG, ran.stderr
    assert "onnxruntime does not load: libm.so: GLIBC_2.99 not found" in ran.stdout
    assert "Run: pip install --force-reinstall" in ran.stdout


def test_the_extras_are_those_that_pyproject_has() -> None:
    known = {package.extra for package in extras.requirements()}
    assert set(EXTRAS) <= known
    build_side = {"bitsandbytes", "export", "export-optimum", "sign", "dev", "generate", None}
    assert known - build_side == set(EXTRAS)
    assert all(package.least for package in extras.requirements() if package.extra in {None, *EXTRAS})


@pytest.mark.parametrize(
    ("dates", "state"),
    [
        ({}, "ok"),
        ({"expires": NOW - timedelta(days=1)}, "wrong"),
        ({"not_before": NOW + timedelta(days=1)}, "wrong"),
    ],
)
def test_a_key_outside_its_time(dates: dict[str, Any], state: str, diagnose: Diagnose, tmp_path: Path) -> None:
    path = write_policy(policy(TestKey().trusted(**dates)), tmp_path / "trust.toml")
    code, lines = diagnose("--trust", str(path))
    assert (code, lines["trust"]["state"]) == (WRONG if state == "wrong" else 0, state)
    two = policy(TestKey().trusted("old", **dates), TestKey().trusted("new"))
    code, lines = diagnose("--trust", str(write_policy(two, tmp_path / "two.toml")))
    assert (code, lines["trust"]["state"]) == (0, "note" if dates else "ok")
