"""The command on a machine without settings."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dualtune_edge import cli
from dualtune_edge.profiles import catalog


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A cache folder, and no other setting."""
    for name in (catalog.PROFILE_VARIABLE, "DUALTUNE_EDGE_TRUST", "DUALTUNE_EDGE_CACHE_MB"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DUALTUNE_EDGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def diagnose(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, dict[str, Any]]]:
    """`diagnose(*arguments)` → the exit code, and about → the line of that (the worst, where there are several)."""

    def run(*arguments: str) -> tuple[int, dict[str, Any]]:
        with pytest.raises(SystemExit) as ended:
            cli.main(["doctor", *arguments, "--json"])
        report = json.loads(capsys.readouterr().out)
        assert report["fit"] == all(line["state"] != "wrong" for line in report["findings"])
        ranked = sorted(report["findings"], key=lambda line: ["ok", "note", "wrong"].index(line["state"]))
        return int(ended.value.code or 0), {line["about"]: line for line in ranked}

    return run
