"""A file is hashed again unless nothing of it has moved since it was hashed."""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dualtune_edge.runtime.bundle.opening import open_bundle
from dualtune_edge.runtime.cache import verified_files
from dualtune_edge.runtime.cache.folder import CACHE_VARIABLE
from dualtune_edge.runtime.cache.verified_files import forget, hash_changed
from dualtune_edge.toolkit.errors import BundleError

NAMES = ("a", "below/b")
SETTLED = verified_files._SETTLED


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(verified_files, "_SETTLED", 0)  # the tests write no file twice within a tick
    monkeypatch.setattr(verified_files, "name_of", lambda _root: "a file system")  # whatever the tests run on
    monkeypatch.setattr(verified_files, "_FORGOTTEN", threading.Event())
    return tmp_path / "cache"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root" / "below").mkdir(parents=True)
    for name in NAMES:
        (tmp_path / "root" / name).write_text(name, encoding="utf-8")
    return tmp_path / "root"


def hashed(root: Path, digest: str = "d") -> list[str]:
    names: list[str] = []
    hash_changed(root, digest, NAMES, names.append)
    return names


def test_each_file_is_hashed_once(root: Path) -> None:
    assert hashed(root) == list(NAMES)
    assert hashed(root) == []
    assert hashed(Path(os.path.relpath(root))) == []


def touched(path: Path) -> None:
    os.utime(path, ns=(1, 1))


def rewritten(path: Path, content: bytes | None = None) -> None:
    """The same size and time of modification, as a copying tool leaves them; by default the same bytes."""
    status = path.stat()
    while path.stat().st_ctime_ns == status.st_ctime_ns:  # until the clock of the file system moves: 10 ms at most
        path.write_bytes(path.read_bytes() if content is None else content)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def replaced(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    other.replace(path)


def grown(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"+")


@pytest.mark.parametrize("change", [touched, rewritten, replaced, grown])
def test_a_file_that_changed_is_hashed_again(root: Path, change: Callable[[Path], None]) -> None:
    hashed(root)
    change(root / "a")
    assert hashed(root) == ["a"]
    assert hashed(root) == []


def test_other_hashes_or_another_folder_are_another_matter(root: Path, tmp_path: Path) -> None:
    hashed(root)
    assert hashed(root, "e") == list(NAMES)
    root.rename(tmp_path / "moved")
    assert hashed(tmp_path / "moved", "e") == list(NAMES)


def test_what_fails_is_not_recorded(root: Path) -> None:
    def check(name: str) -> None:
        if name == "below/b":
            raise BundleError(name, found="damage", expected="none", fix="")

    for _ in range(2):
        with pytest.raises(BundleError):
            hash_changed(root, "d", NAMES, check)
    assert hashed(root) == list(NAMES)


@pytest.mark.parametrize(("after", "recorded"), [(0, False), (2 * 10**9, False), (2 * 10**9 + 1, True)])
@pytest.mark.parametrize("written", [(1000, 0), (0, 1000)], ids=["contents", "status"])
def test_what_was_written_in_the_last_two_seconds_is_not_recorded(
    root: Path, monkeypatch: pytest.MonkeyPatch, written: tuple[int, int], after: int, *, recorded: bool
) -> None:
    """File systems tell times that coarsely. An inode's number, however large, is no time."""
    stamp = (1, *written, 2**63 - 1, 2**63 - 1)
    monkeypatch.setattr(verified_files, "_SETTLED", SETTLED)
    monkeypatch.setattr(verified_files._Records, "stamp", lambda _self, _path: stamp)
    monkeypatch.setattr(verified_files.time, "time_ns", lambda: 1000 + after)
    hashed(root)
    assert hashed(root) == ([] if recorded else list(NAMES))


def test_what_was_written_while_it_was_hashed_is_not_recorded(root: Path) -> None:
    hash_changed(root, "d", NAMES, lambda name: touched(root / name) if name == "a" else None)
    assert hashed(root) == ["a"]


def test_a_missing_file_is_for_the_check_to_tell(root: Path) -> None:
    hashed(root)
    (root / "a").unlink()
    assert hashed(root) == hashed(root) == ["a"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"root": 1}', '{"root":"","digest":"d","files":{"a":[1]}}'])
def test_a_damaged_record_counts_for_nothing(root: Path, cache: Path, text: str) -> None:
    hashed(root)
    (record,) = (cache / "verified").iterdir()
    record.write_text(text, encoding="utf-8")
    assert hashed(root) == list(NAMES)
    assert hashed(root) == []


@pytest.mark.parametrize(("size", "read"), [(16 * 2**20, True), (16 * 2**20 + 1, False)])
def test_a_record_of_more_than_16_mb_is_not_read(root: Path, cache: Path, size: int, *, read: bool) -> None:
    hashed(root)
    (record,) = (cache / "verified").iterdir()
    record.write_bytes(record.read_bytes().ljust(size))
    assert hashed(root) == ([] if read else list(NAMES))


def test_records_of_folders_that_are_gone_go(root: Path, cache: Path, tmp_path: Path) -> None:
    hashed(root)
    root.rename(tmp_path / "moved")
    hashed(tmp_path / "moved")
    assert len(list((cache / "verified").iterdir())) == 1


def test_without_a_place_to_write_everything_is_hashed(root: Path, cache: Path) -> None:
    cache.write_text("a file where the folder should be", encoding="utf-8")
    assert hashed(root) == hashed(root) == list(NAMES)


def remembering(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a later process does."""
    monkeypatch.setattr(verified_files, "_FORGOTTEN", threading.Event())


def test_all_can_be_forgotten(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed(root)
    forget()
    assert hashed(root) == hashed(root) == list(NAMES)
    forget()
    forget()
    remembering(monkeypatch)
    assert hashed(root) == list(NAMES)
    assert hashed(root) == []


def linked(cache: Path) -> None:
    (cache / "verified").rename(cache / "moved")
    (cache / "verified").symlink_to(cache / "moved")


def of_others(cache: Path) -> None:
    (cache / "verified").chmod(0o777)


def not_to_be_removed(cache: Path) -> None:
    (record,) = (cache / "verified").iterdir()
    text = record.read_bytes()
    record.unlink()
    record.mkdir()
    (record / "inside").write_bytes(text)


@pytest.mark.parametrize("spoil", [linked, of_others, not_to_be_removed])
def test_what_cannot_be_forgotten_counts_for_nothing(root: Path, cache: Path, spoil: Callable[[Path], None]) -> None:
    hashed(root)
    spoil(cache)
    forget()
    assert hashed(root) == hashed(root) == list(NAMES)


def test_a_record_that_stays_is_not_read_after_all_was_to_be_forgotten(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed(root)
    monkeypatch.setattr(verified_files.shutil, "rmtree", lambda _path, **_options: None)
    forget()
    assert hashed(root) == list(NAMES)


@pytest.mark.parametrize("spoil", [linked, of_others])
def test_records_that_others_could_have_written_count_for_nothing(
    root: Path, cache: Path, spoil: Callable[[Path], None]
) -> None:
    hashed(root)
    spoil(cache)
    assert hashed(root) == hashed(root) == list(NAMES)


def test_a_record_is_its_users_alone(root: Path, cache: Path) -> None:
    before = os.umask(0)
    try:
        hashed(root)
    finally:
        os.umask(before)
    (record,) = (cache / "verified").iterdir()
    assert [stat.S_IMODE(path.stat().st_mode) for path in (cache, record.parent, record)] == [0o700, 0o700, 0o600]


def test_where_times_tell_nothing_everything_is_hashed(
    root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read-only image: another one at the same place may have the same times, sizes and inodes."""
    hashed(root)
    monkeypatch.setattr(verified_files, "name_of", lambda _root: None)
    assert hashed(root) == hashed(root) == list(NAMES)
    assert len(list((cache / "verified").iterdir())) == 1


def test_on_another_file_system_everything_is_hashed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed(root)
    monkeypatch.setattr(verified_files, "name_of", lambda _root: "another one")
    assert hashed(root) == list(NAMES)
    assert hashed(root) == []


def test_a_file_on_another_device_than_its_folder_is_hashed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One file mounted over another, or a mount inside the folder."""
    real = Path.lstat

    def lstat(path: Path) -> os.stat_result:
        status = real(path)
        fields = list(status)
        fields[2] += path.name == "a"  # st_dev
        return os.stat_result(fields, {"st_mtime_ns": status.st_mtime_ns, "st_ctime_ns": status.st_ctime_ns})

    hashed(root)
    monkeypatch.setattr(Path, "lstat", lstat)
    assert hashed(root) == hashed(root) == ["a"]


def test_a_damaged_bundle_is_refused_after_it_was_verified(bundle: Path) -> None:
    weights = bundle / "model" / "model.onnx.data"
    for _ in range(2):
        assert open_bundle(bundle, verify="once")
    whole = weights.read_bytes()
    rewritten(weights, bytes([whole[0] ^ 1]) + whole[1:])
    for _ in range(2):
        with pytest.raises(BundleError, match="SHA-256"):
            open_bundle(bundle, verify="once")
    weights.write_bytes(whole)
    assert open_bundle(bundle, verify="once")


def test_what_is_trusted_is_told_in_the_docs(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Damage that moves neither size, nor times, nor inode passes "once", and never "always"."""
    stamp = (1, time.time_ns() - 1, 1, 1, 1)
    monkeypatch.setattr(verified_files._Records, "stamp", lambda _self, _path: stamp)
    open_bundle(bundle, verify="once")
    weights = bundle / "model" / "model.onnx.data"
    weights.write_bytes(bytes([weights.read_bytes()[0] ^ 1]) + weights.read_bytes()[1:])
    assert open_bundle(bundle, verify="once")
    with pytest.raises(BundleError, match="SHA-256"):
        open_bundle(bundle, verify="always")
    forget()
    with pytest.raises(BundleError, match="SHA-256"):
        open_bundle(bundle, verify="once")
