"""A report put into a finished bundle."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from dualtune_edge.export.publish import amend
from dualtune_edge.runtime import Bundle
from dualtune_edge.toolkit.bundle.layout import MANIFEST, SEAL
from dualtune_edge.toolkit.bundle.manifest import FileEntry
from dualtune_edge.toolkit.errors import RoomError


class _Manifest(SimpleNamespace):
    """The part of a manifest that is amended."""

    def model_copy(self, *, update: dict[str, tuple[FileEntry, ...]]) -> _Manifest:
        return _Manifest(**update)

    def to_bytes(self) -> bytes:
        return " ".join(file.path for file in self.files).encode()

    def seal(self) -> bytes:
        return b"sealed"


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    root = tmp_path / "bundle"
    (root / "model").mkdir(parents=True)
    (root / "model" / "weights").write_bytes(b"many")
    for name in (MANIFEST, SEAL):
        (root / name).write_bytes(b"old")
    manifest = _Manifest(files=(FileEntry(path="model/weights", size=4, sha256=""),))
    return cast("Bundle", SimpleNamespace(root=root, manifest=manifest))


def contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


WITH = {"a/report.json": b"{}", MANIFEST: b"a/report.json model/weights", "model/weights": b"many", SEAL: b"sealed"}


@pytest.mark.parametrize("links", ["hard", "none"])
def test_it_has_the_file_and_is_sealed_anew(bundle: Bundle, monkeypatch: pytest.MonkeyPatch, links: str) -> None:
    def no_links(_source: Path, _target: Path) -> None:
        raise PermissionError

    if links == "none":
        monkeypatch.setattr(os, "link", no_links)
    amend.put(bundle, "a/report.json", b"{}")
    assert contents(bundle.root) == WITH
    assert list(bundle.root.parent.iterdir()) == [bundle.root]


@pytest.mark.parametrize("call", ["write_bytes", "rename"])
def test_where_it_fails_the_bundle_is_as_it_was(bundle: Bundle, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    before, real = contents(bundle.root), getattr(Path, call)

    def fails(self: Path, other: object) -> object:
        if ".partial" in str(self):
            raise OSError(28, "No space left on device")
        return real(self, other)

    with monkeypatch.context() as patch:
        patch.setattr(Path, call, fails)
        with pytest.raises(RoomError, match="No space left"):
            amend.put(bundle, "a/report.json", b"{}")
    assert contents(bundle.root) == before
    assert list(bundle.root.parent.iterdir()) == [bundle.root]
