from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dualtune_edge.runtime.agent.config import ServerConfig
from dualtune_edge.runtime.agent.sandbox import Sandbox
from dualtune_edge.toolkit.errors import OutputError, SpecError


@pytest.fixture
def start(tmp_path: Path) -> Path:
    folder = tmp_path / "start"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.txt").write_text("a")
    (folder / "sub" / "b.txt").write_text("b")
    return folder


def test_every_conversation_begins_with_the_same_files(tmp_path: Path, start: Path) -> None:
    sandbox = Sandbox(tmp_path / "box", (start,))
    sandbox.fill(3)
    (sandbox.path / "a.txt").unlink()
    (sandbox.path / "new.txt").write_text("new")
    sandbox.fill(4)
    assert sorted(path.name for path in sandbox.path.rglob("*")) == ["a.txt", "b.txt", "sub"]
    assert sandbox.listing(4) == "a.txt\nsub/b.txt"
    assert sandbox.environment()["SANDBOX"] == str(sandbox.path)
    sandbox.remove()
    sandbox.remove()
    assert not sandbox.path.exists()


def test_of_several_starts_the_number_takes_one(tmp_path: Path, start: Path) -> None:
    (tmp_path / "other").mkdir()
    sandbox = Sandbox(tmp_path / "box", (start, tmp_path / "other"))
    sandbox.fill(1)
    assert not list(sandbox.path.iterdir())
    assert sandbox.listing(1) == ""
    sandbox.fill(2)
    assert (sandbox.path / "a.txt").exists()


@pytest.mark.parametrize(
    "value",
    ["a.txt", "sub/b.txt", "sub/../a.txt", "{box}/a.txt", "{box}", "file://{box}/a.txt", "1..2", "and/or", "", 5],
)
def test_what_is_in_it_or_no_path_is_not_outside(tmp_path: Path, value: Any) -> None:
    sandbox = Sandbox(tmp_path / "box")
    text = value.format(box=sandbox.path) if isinstance(value, str) else value
    assert sandbox.outside({"deep": [{"value": text}]}) is None


@pytest.mark.parametrize(
    "value", ["..", "/", "../box2/a", "{box}/../x", "{box}2/x", "~", "~root/x", "a\\..\\..\\x", "/\0"]
)
def test_paths_out_of_it_are_outside(tmp_path: Path, value: str) -> None:
    sandbox = Sandbox(tmp_path / "box")
    text = value.format(box=sandbox.path)
    assert sandbox.outside({"deep": [{"value": text}]}) == text


def test_servers_work_in_it_unless_they_say_where(tmp_path: Path) -> None:
    sandbox = Sandbox(tmp_path / "box")
    own, elsewhere = ServerConfig(command="x"), ServerConfig(command="x", cwd=tmp_path)
    remote = ServerConfig(url="http://localhost/mcp")
    placed = sandbox.placed({"own": own, "elsewhere": elsewhere, "remote": remote})
    assert [config.cwd for config in placed.values()] == [sandbox.path, tmp_path, None]


def test_variables_count_as_what_they_stand_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox = Sandbox(tmp_path / "box")
    monkeypatch.setenv("ELSEWHERE", "/srv")
    assert sandbox.outside({"path": "${ELSEWHERE}/x"}) == "${ELSEWHERE}/x"
    assert sandbox.outside({"path": "costs $ELSEWHERE, or $UNSET"}) is None


def test_a_link_out_of_it_is_outside(tmp_path: Path, start: Path) -> None:
    (start / "link").symlink_to("/")
    sandbox = Sandbox(tmp_path / "box", (start,))
    sandbox.fill(0)
    assert sandbox.outside({"path": str(sandbox.path / "link" / "etc")}) is not None


def test_files_of_others_and_a_start_around_it_are_refused(tmp_path: Path, start: Path) -> None:
    with pytest.raises(OutputError, match="something in it"):
        Sandbox(start).refuse_foreign()
    (tmp_path / "link").symlink_to(tmp_path / "box")
    with pytest.raises(OutputError):
        Sandbox(tmp_path / "link").refuse_foreign()
    with pytest.raises(SpecError, match="the sandbox in it"):
        Sandbox(start / "box", (start,))
    with pytest.raises(SpecError, match="no folder"):
        Sandbox(tmp_path / "box", (tmp_path / "missing",))
