"""Reads a pack: a bundle as an OCI image layout, in one tar file or in a folder."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final, TypeVar

from pydantic import ValidationError

from dualtune_edge.runtime.bundle.checks import is_plain
from dualtune_edge.runtime.bundle.plain_files import open_plain
from dualtune_edge.toolkit import limits, strict_json
from dualtune_edge.toolkit.bundle.oci import BLOBS, BUNDLE, IMAGE, INDEX, LAYOUT, TITLE, Descriptor, Image, Index
from dualtune_edge.toolkit.bundle.tar import Member, TarError, members
from dualtune_edge.toolkit.errors import BundleError
from dualtune_edge.toolkit.validation import expectation

_CHUNK: Final = 1 << 20  # bytes read at a time
_Form = TypeVar("_Form", Image, Index)


@dataclass(frozen=True)
class _Layout:
    """The files of a layout, below a folder or in an archive."""

    path: Path
    archive: BinaryIO | None  # None: a folder
    members: Mapping[str, Member]

    @contextlib.contextmanager
    def opened(self, name: str) -> Iterator[tuple[BinaryIO, int]]:
        """A file, to be read from where it stands, and its size.

        Raises:
            BundleError: it is not there.

        """
        if self.archive is not None:
            if name not in self.members:
                raise _damaged(self.path, f"no {name}", f"an OCI image layout with a {BUNDLE}")
            self.archive.seek(self.members[name].offset)
            yield self.archive, self.members[name].size
            return
        try:
            file = open_plain(self.path / name)
        except (OSError, ValueError) as error:
            raise _damaged(self.path / name, str(error), f"a file of an OCI image layout with a {BUNDLE}") from None
        with file:
            size = file.seek(0, 2)
            file.seek(0)
            yield file, size

    def read(self, name: str) -> bytes:
        """A file that is no blob.

        Raises:
            BundleError: it is not there, or too large.

        """
        with self.opened(name) as (file, size):
            if size > limits.JSON_BYTES:
                raise _damaged(self.path, f"{name} of {size} bytes", f"at most {limits.JSON_BYTES}")
            return self._read(file, size)

    def pieces(self, blob: Descriptor) -> Iterator[bytes]:
        """A blob, hashed as it is read: the last piece comes after the hash was right.

        Raises:
            BundleError: it is not there, or not as its hash says.

        """
        digest, left, held = hashlib.sha256(), blob.size, b""
        with self.opened(f"{BLOBS}/{blob.digest.removeprefix('sha256:')}") as (file, size):
            if size != blob.size:
                raise _damaged(self.path, f"{blob.digest} of {size} bytes", str(blob.size))
            while left and (piece := self._read(file, min(_CHUNK, left))):
                digest.update(piece)
                left -= len(piece)
                if held:
                    yield held
                held = piece
        if f"sha256:{digest.hexdigest()}" != blob.digest:
            raise _damaged(self.path, f"sha256:{digest.hexdigest()}", blob.digest)
        yield held

    def _read(self, file: BinaryIO, size: int) -> bytes:
        try:
            return file.read(size)
        except OSError as error:
            raise _damaged(self.path, str(error), "a file that can be read") from None

    def bytes_of(self, blob: Descriptor) -> bytes:
        """A small blob.

        Raises:
            BundleError: as for `pieces`, or it is too large.

        """
        if blob.size > limits.JSON_BYTES:
            raise _damaged(self.path, f"{blob.digest} of {blob.size} bytes", f"at most {limits.JSON_BYTES}")
        return b"".join(self.pieces(blob))


@dataclass(frozen=True)
class Pack:
    """An open pack. `image`: SHA-256 of the image's manifest. `files`: path → blob of every file of the bundle."""

    path: Path
    image: str
    files: Mapping[str, Descriptor]
    _layout: _Layout

    def read(self, path: str) -> bytes:
        """A small file of the bundle.

        Raises:
            BundleError: it is not there, too large, or not as its hash says.

        """
        if path not in self.files:
            raise _damaged(self.path, f"no {path!r}", "a bundle with its manifest")
        return self._layout.bytes_of(self.files[path])

    def pieces(self, path: str) -> Iterator[bytes]:
        """A file of the bundle, hashed as it is read: the last piece comes after the hash was right.

        Raises:
            BundleError: it is not in the pack, or not as its hash says.

        """
        return self._layout.pieces(self.files[path])


@contextlib.contextmanager
def open_pack(path: Path) -> Iterator[Pack]:
    """A pack, to be read while the block lasts.

    Raises:
        BundleError: it is none, or holds no bundle.

    """
    with contextlib.ExitStack() as stack:
        layout = _Layout(path, None, {})
        if not path.is_dir():
            try:
                archive = stack.enter_context(open_plain(path))
                there = _by_name(members(archive))
            except (OSError, TarError, ValueError) as error:  # ValueError: a null character in the path
                raise _damaged(path, str(error), "a pack, as `pack` writes it") from None
            layout = _Layout(path, archive, there)
        image, files = _image(layout)
        yield Pack(path, image, files, layout)


def _image(layout: _Layout) -> tuple[str, dict[str, Descriptor]]:
    """SHA-256 of the layout's one image, and path → blob."""
    layout.read(LAYOUT)
    index = _parse(Index, layout.read(INDEX), layout.path)
    images = {blob.digest: blob for blob in index.manifests if _may_be_ours(blob)}
    if len(images) != 1:
        raise _damaged(layout.path, f"{len(images)} images", "one image")
    (blob,) = images.values()
    image = _parse(Image, layout.bytes_of(blob), layout.path)
    files: dict[str, Descriptor] = {}
    folded: set[str] = set()
    for layer in image.layers:
        name = (layer.annotations or {}).get(TITLE, "")
        if not is_plain(name) or name.casefold() in folded:
            raise _damaged(layout.path, f"the path {name!r}", "paths below a folder, of plain names, each once")
        files[name] = layer
        folded.add(name.casefold())
    for parent in (parent.as_posix() for name in folded for parent in PurePosixPath(name).parents):
        if parent in folded:
            raise _damaged(layout.path, f"{parent!r}, a file and a folder", "each path once")
    return blob.digest.removeprefix("sha256:"), files


def _by_name(found: Iterable[Member]) -> dict[str, Member]:
    """Name → member. Of two files of one name, other programs might take the other one."""
    named: dict[str, Member] = {}
    for member in found:
        name = member.name.removeprefix("./")
        if name in named:
            raise TarError(f"{name!r} twice")
        named[name] = member
    return named


def _may_be_ours(blob: Descriptor) -> bool:
    """Whether it is an image, and not one of a document: what registry tools copy has no artifact type in the index."""
    return blob.media_type == IMAGE and blob.artifact_type in {None, BUNDLE}


def _parse(form: type[_Form], data: bytes, path: Path) -> _Form:
    try:
        return form.model_validate(strict_json.loads(data))
    except strict_json.JsonError as error:
        raise _damaged(path, str(error), "JSON") from None
    except ValidationError as error:
        fault = error.errors()[0]
        found = f"{'.'.join(map(str, fault['loc']))}: expected {expectation(fault)}"
        raise _damaged(path, found, f"an image of a {BUNDLE}") from None


def _damaged(path: Path, found: str, expected: str) -> BundleError:
    return BundleError(str(path), found=found, expected=expected, fix="Fetch the pack again, or pack the bundle again.")
