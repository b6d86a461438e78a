"""What is compiled once is found again by its content, and a damaged entry never opens."""

import sys
from pathlib import Path

import pytest

from dualtune_edge.runtime.cache_folder import CACHE_VARIABLE, cache_folder
from dualtune_edge.runtime.compiled_cache import open_cached


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
