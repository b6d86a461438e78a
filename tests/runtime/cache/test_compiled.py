"""What is compiled once is found again by its content, and a damaged entry never opens."""

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dualtune_edge.runtime.cache.compiled import cached_folder, open_cached
from dualtune_edge.runtime.cache.folder import BUDGET_VARIABLE, CACHE_VARIABLE, cache_budget, cache_folder, no_room
from dualtune_edge.toolkit.errors import OutputError, ProfileError
from dualtune_edge.toolkit.files import aside


class Provider:
    """Compiles into the folder that it is given, unless its blob lies there."""

    def __init__(self) -> None:
        self.compiled = 0

    def open(self, folder: Path | None) -> str:
        blob = folder / "1.blob" if folder else None
        if blob is None or not blob.exists():
            self.compiled += 1
            if blob:
                blob.write_bytes(b"compiled")
                blob.chmod(0o400)  # as OpenVINO leaves it
        return blob.read_text(encoding="ascii") if blob else "compiled"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def only_entry(cache: Path) -> Path:
    (entry,) = cache.iterdir()
    return entry


def test_the_same_content_is_compiled_once(cache: Path) -> None:
    provider = Provider()
    assert [open_cached("a", provider.open) for _ in range(3)] == ["compiled"] * 3
    assert provider.compiled == 1
    assert sorted(path.name for path in only_entry(cache).iterdir()) == ["1.blob", "sha256"]


def test_other_content_is_another_entry(cache: Path) -> None:
    provider = Provider()
    open_cached("a", provider.open)
    open_cached("b", provider.open)
    assert provider.compiled == 2
    assert len(list(cache.iterdir())) == 2


@pytest.mark.parametrize("damage", ["changed", "missing", "added", "unsealed"])
def test_a_damaged_entry_is_compiled_anew(cache: Path, damage: str) -> None:
    provider = Provider()
    open_cached("a", provider.open)
    entry = only_entry(cache)
    if damage == "changed":
        (entry / "1.blob").write_bytes(b"compilec")
    elif damage == "missing":
        (entry / "1.blob").unlink()
    elif damage == "added":
        (entry / "2.blob").write_bytes(b"")
    else:
        (entry / "sha256").unlink()
    assert open_cached("a", provider.open) == "compiled"
    assert provider.compiled == 2
    assert sorted(path.name for path in only_entry(cache).iterdir()) == ["1.blob", "sha256"]
    open_cached("a", provider.open)
    assert provider.compiled == 2


def test_a_model_that_does_not_open_leaves_nothing(cache: Path) -> None:
    def fail(folder: Path | None) -> str:
        assert folder
        (folder / "half").write_bytes(b"")
        raise RuntimeError("cannot compile")

    with pytest.raises(RuntimeError, match="cannot compile"):
        open_cached("a", fail)
    assert list(cache.iterdir()) == []


def test_without_a_place_to_write_the_model_opens_all_the_same(cache: Path) -> None:
    cache.write_text("a file where the folder should be", encoding="utf-8")
    provider = Provider()
    assert open_cached("a", provider.open) == "compiled"
    assert provider.compiled == 1


def test_where_another_process_was_quicker_its_entry_stays(cache: Path) -> None:
    provider = Provider()

    def slow(folder: Path | None) -> str:
        open_cached("a", provider.open)  # the other process
        return Provider().open(folder)

    assert open_cached("a", slow) == "compiled"
    assert [path.name for path in cache.iterdir()] == [only_entry(cache).name]
    assert open_cached("a", provider.open) == "compiled"
    assert provider.compiled == 1


def test_the_users_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (CACHE_VARIABLE, "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    for platform, expected in (
        ("linux", ".cache/dualtune-edge"),
        ("darwin", "Library/Caches/dualtune-edge"),
        ("win32", "AppData/Local/dualtune-edge/Cache"),
    ):
        monkeypatch.setattr(sys, "platform", platform)
        assert cache_folder() == tmp_path / expected
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "dualtune-edge"
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"


def fill(size: int) -> Callable[[Path], None]:
    return lambda folder: (folder / "data").write_bytes(b"." * size) and None


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("system", ["linux", "darwin", "win32"])
def test_a_user_without_a_home_is_told(system: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in (CACHE_VARIABLE, "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", nowhere)
    monkeypatch.setattr(sys, "platform", system)
    with pytest.raises(ProfileError, match=f"Set {CACHE_VARIABLE}"):
        cache_folder()


def test_a_folder_is_filled_once() -> None:
    entry = cached_folder("a", fill(3))
    inode = (entry / "data").stat().st_ino
    assert cached_folder("a", fill(4)) == entry
    assert (entry / "data").stat().st_ino == inode
    (entry / "data").write_bytes(b"..!")
    cached_folder("a", fill(4))
    assert (entry / "data").read_bytes() == b"...."


def test_a_folder_that_cannot_be_filled_leaves_nothing(cache: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").write_bytes(b"")
        raise RuntimeError("cannot")

    with pytest.raises(RuntimeError, match="cannot"):
        cached_folder("a", fail)
    assert list(cache.iterdir()) == []
    cache.rmdir()
    cache.write_text("a file where the folder should be", encoding="utf-8")
    with pytest.raises(OutputError):
        cached_folder("a", fill(1))


@pytest.mark.usefixtures("cache")
def test_where_another_process_was_quicker_its_folder_is_taken() -> None:
    def slow(folder: Path) -> None:
        cached_folder("a", fill(3))  # the other process
        fill(4)(folder)

    assert (cached_folder("a", slow) / "data").read_bytes() == b"..."


def test_those_not_used_for_longest_leave_first(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BUDGET_VARIABLE, "1")
    made = {name: cached_folder(name, fill(300_000)) for name in "abc"}
    for age, name in enumerate("cba", start=1):
        os.utime(made[name], (age, age))
    cached_folder("c", fill(0))  # used again
    made["d"] = cached_folder("d", fill(300_000))
    assert {name for name, entry in made.items() if entry.exists()} == {"a", "c", "d"}
    made["e"] = cached_folder("e", fill(900_000))
    assert {name for name, entry in made.items() if entry.exists()} == {"e"}
    cached_folder("f", fill(2_000_000))  # alone above the budget: its user has it now, and the next one drops it
    assert len(list(cache.iterdir())) == 1


def test_what_a_killed_process_left_goes(cache: Path) -> None:
    killed = cache / ".killed.0.partial"
    (killed / "stage").mkdir(parents=True)
    (killed / "lock").touch()
    with aside(cache / "working") as workspace:
        workspace.mkdir()
        cached_folder("a", fill(1))
        assert [path for path in cache.iterdir() if path.name.endswith(".partial")] == [workspace.parent]


@pytest.mark.parametrize("text", ["-1", "1.5", "much", "１"])
def test_a_budget_that_is_no_number(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(BUDGET_VARIABLE, text)
    with pytest.raises(ProfileError, match=BUDGET_VARIABLE):
        cache_budget()


@pytest.mark.usefixtures("cache")
def test_no_room_on_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    assert no_room(1) == ""
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: shutil._ntuple_diskusage(10**8, 10**8, 0))
    assert no_room(2 * 10**6) == "they would take 2 of the 0 MB that are free"
