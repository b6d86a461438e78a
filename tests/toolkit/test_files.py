import errno
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualtune_edge.toolkit import files
from dualtune_edge.toolkit.errors import OutputError, RoomError
from dualtune_edge.toolkit.files import published_folder, safe_name, sha256_file


def test_sha256_is_of_the_bytes(tmp_path: Path) -> None:
    file, content = tmp_path / "f", os.urandom(3_000_000)
    file.write_bytes(content)
    assert sha256_file(file) == hashlib.sha256(content).hexdigest()


@given(st.text(min_size=1))
def test_safe_names_are_plain(name: str) -> None:
    safe = safe_name(name)
    assert safe == safe.lower()
    assert len(safe) <= 100
    assert set(safe) <= set("abcdefghijklmnopqrstuvwxyz0123456789_.-")
    assert not safe.startswith((".", "-"))
    assert not safe.endswith(".")


@given(st.text(min_size=1), st.text(min_size=1))
def test_safe_names_differ_where_names_do(one: str, two: str) -> None:
    assert (safe_name(one) == safe_name(two)) == (one == two)


@pytest.mark.parametrize("name", ["Read", "con", "nul.txt", "a/b", "..", "a.", "ü", "x" * 101])
def test_awkward_names_are_replaced(name: str) -> None:
    assert safe_name(name) != name


@pytest.mark.parametrize("name", ["read_file", "selection.filesystem", "spotify.play", "a"])
def test_plain_names_stay(name: str) -> None:
    assert safe_name(name) == name


def test_a_staged_folder_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "bundle"
    with published_folder(target) as workspace:
        (workspace / "sub").mkdir()
        (workspace / "sub" / "file").write_text("x", encoding="utf-8")
        assert not target.exists()
    assert (target / "sub" / "file").read_text(encoding="utf-8") == "x"
    assert list(target.parent.iterdir()) == [target]


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), published_folder(tmp_path / "bundle") as workspace:  # noqa: PT012
        (workspace / "file").write_text("x", encoding="utf-8")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_goes(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    killed = f"""
import os, pathlib
from dualtune_edge.toolkit.files import published_folder

with published_folder(pathlib.Path({str(target)!r})) as workspace:
    (workspace / "half").write_text("x", encoding="utf-8")
    os._exit(1)
"""
    subprocess.run([sys.executable, "-c", killed], check=False)
    assert list(tmp_path.rglob("half"))
    with published_folder(target) as workspace:
        (workspace / "whole").touch()
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == ["bundle", "bundle/whole"]


def test_two_at_once_do_not_meet(tmp_path: Path) -> None:
    with published_folder(tmp_path / "bundle") as workspace:
        (workspace / "first").touch()
        with pytest.raises(ZeroDivisionError), published_folder(tmp_path / "bundle") as other:  # noqa: PT012
            assert list(other.iterdir()) == []
            raise ZeroDivisionError
        assert [path.name for path in workspace.iterdir()] == ["first"]
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == ["bundle", "bundle/first"]


@pytest.mark.parametrize("kind", ["folder", "file", "broken link"])
def test_what_is_there_stays(kind: str, tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    if kind == "folder":
        target.mkdir()
    elif kind == "file":
        target.write_text("mine", encoding="utf-8")
    else:
        target.symlink_to(tmp_path / "nowhere")
    with pytest.raises(OutputError, match="already there"), published_folder(target):
        pytest.fail("the block ran")


def test_a_target_that_appears_meanwhile_wins(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    with pytest.raises(OutputError), published_folder(target) as workspace:  # noqa: PT012
        (workspace / "file").write_text("late", encoding="utf-8")
        target.mkdir()
        (target / "file").write_text("early", encoding="utf-8")
    assert (target / "file").read_text(encoding="utf-8") == "early"
    assert list(tmp_path.iterdir()) == [target]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    for target in (tmp_path / "file" / "bundle", tmp_path / ("n" * 300)):
        with pytest.raises(OutputError, match="a place to write"), published_folder(target):
            pytest.fail("the block ran")


@pytest.mark.parametrize("undone", [True, False])
def test_a_name_that_does_not_reach_the_disk_is_taken_back_or_said(
    *, undone: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, rename = tmp_path / "bundle", Path.rename

    def sync(path: Path) -> None:
        if path == tmp_path:
            raise OSError(errno.ENOSPC, "no room")

    def rename_once(source: Path, to: Path) -> Path:
        if source == target and not undone:
            raise OSError(errno.ENOSPC, "no room")
        return rename(source, to)

    monkeypatch.setattr(files, "sync", sync)
    monkeypatch.setattr(Path, "rename", rename_once)
    with pytest.raises(RoomError) as refusal, published_folder(target) as workspace:
        (workspace / "file").touch()
    assert target.exists() is not undone
    assert ("stands there, whole" in str(refusal.value)) is not undone
    assert [path.name for path in tmp_path.iterdir()] == ([] if undone else ["bundle"])
