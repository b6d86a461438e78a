"""The cache folder is this user's alone, or it is not used."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from dualtune_edge.runtime.cache.compiled import cached_folder, open_cached
from dualtune_edge.runtime.cache.folder import CACHE_VARIABLE, private_folder
from dualtune_edge.toolkit.errors import OutputError

pytestmark = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="modes say nothing on this system")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "below" / "cache"))
    return tmp_path / "below" / "cache"


@pytest.fixture
def no_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def fill(folder: Path) -> None:
    (folder / "file").write_text("text", encoding="utf-8")


@pytest.mark.usefixtures("no_umask")
def test_no_umask_opens_it_to_others(cache: Path) -> None:
    entry = cached_folder("a", fill)
    assert [mode(folder) for folder in (cache.parent, cache, private_folder("more"), entry)] == [0o700] * 4
    assert {path.name: mode(path) for path in entry.iterdir()} == {"file": 0o600, "sha256": 0o600}


@pytest.mark.parametrize("name", ["", "more"])
@pytest.mark.parametrize("bits", [0o777, 0o770, 0o707, 0o1777, 0o720])
def test_one_that_others_can_write_to_is_refused(cache: Path, name: str, bits: int) -> None:
    folder = private_folder(name)
    folder.chmod(bits)
    with pytest.raises(OutputError, match=rf"others can write to \(mode {bits:o}\)"):
        private_folder(name)
    folder.chmod(0o755)
    assert private_folder(name) == cache / name


@pytest.mark.parametrize("name", ["", "more"])
def test_one_of_another_user_is_refused(cache: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    private_folder(name)
    owner = cache.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    if owner == 0:
        assert private_folder(name)  # who is root needs no cache to deceive
        os.chown(cache, 4711, 4711)
        os.chown(cache / name, 4711, 4711)
    with pytest.raises(OutputError, match="a folder of user"):
        private_folder(name)


def test_a_link_in_it_is_refused(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    private_folder()
    (cache / "more").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match="a link"):
        private_folder("more")


def test_the_users_own_link_to_it_is_followed(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    cache.parent.mkdir()
    cache.symlink_to(tmp_path / "elsewhere")
    assert private_folder("more").is_dir()
    (tmp_path / "elsewhere").chmod(0o777)
    with pytest.raises(OutputError, match="others can write"):
        private_folder()


def test_a_file_is_no_folder(cache: Path) -> None:
    cache.parent.mkdir()
    cache.write_text("", encoding="utf-8")
    with pytest.raises(OutputError, match="a file"):
        private_folder()
    with pytest.raises(OutputError):
        private_folder("more")


def test_nothing_is_used_of_a_folder_that_others_can_write_to(cache: Path) -> None:
    entry = cached_folder("a", fill)
    for folder in (entry, cache):
        folder.chmod(0o777)
        with pytest.raises(OutputError, match="others can write"):
            cached_folder("a", fill)
        assert open_cached("a", lambda place: place) is None
