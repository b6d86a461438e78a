from __future__ import annotations

import io
import tarfile

import pytest

from dualtune_edge.toolkit import limits
from dualtune_edge.toolkit.bundle import tar

FILES = {"oci-layout": b"{}", "blobs/sha256/" + "a" * 64: bytes(range(256)) * 5, "empty": b""}


def archive(files: dict[str, bytes]) -> bytes:
    parts = [tar.header(name, len(data)) + data + tar.padding(len(data)) for name, data in files.items()]
    return b"".join([*parts, tar.END])


def read(data: bytes) -> dict[str, bytes]:
    return {member.name: data[member.offset : member.offset + member.size] for member in tar.members(io.BytesIO(data))}


def test_any_tar_reads_it() -> None:
    with tarfile.open(fileobj=io.BytesIO(archive(FILES))) as file:
        found = {member.name: (member, file.extractfile(member)) for member in file}
        assert {name: content.read() for name, (_, content) in found.items() if content} == FILES
        assert {(member.mode, member.mtime, member.uid, member.gid) for member, _ in found.values()} == {
            (0o644, 0, 0, 0)
        }


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT])
def test_it_reads_what_others_write(form: int) -> None:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=form) as file:
        folder = tarfile.TarInfo("blobs")
        folder.type = tarfile.DIRTYPE
        file.addfile(folder)
        for name, data in FILES.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            file.addfile(member, io.BytesIO(data))
    assert read(target.getvalue()) == FILES
    assert read(archive(FILES)) == FILES


@pytest.mark.parametrize("size", [8**11 - 1, 8**11, 2**40])
def test_sizes_beyond_octal(size: int) -> None:
    assert tarfile.TarInfo.frombuf(tar.header("large", size), "ascii", "strict").size == size


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, b"x", b"g", b"L"]
)
def test_other_kinds_are_refused(kind: bytes) -> None:
    member = tarfile.TarInfo("link")
    member.type = kind
    with pytest.raises(tar.TarError, match="no plain file"):
        read(member.tobuf(tarfile.USTAR_FORMAT) + tar.END)


@pytest.mark.parametrize("length", [0, 1, 511, 512, 600, 1024])
def test_the_end_is_missing(length: int) -> None:
    with pytest.raises(tar.TarError):
        read(archive({"file": b"." * 900})[:length])


@pytest.mark.parametrize("place", [0, 99, 124, 130, 148, 156, 257])
def test_one_bit_of_a_header(place: int) -> None:
    data = bytearray(archive(FILES))
    data[place] ^= 4
    with pytest.raises(tar.TarError):
        read(bytes(data))


def with_size(field: bytes) -> bytes:
    """A header with other digits as its size, and the right sum."""
    block = bytearray(tar.header("file", 0))
    block[124:136] = field.ljust(12, tar.NUL)
    block[148:156] = b" " * 8
    block[148:156] = f"{sum(block):06o}\0 ".encode()
    return bytes(block) + bytes(8 * tar.BLOCK)


@pytest.mark.parametrize(
    "field",
    [
        b"-1000",  # one block back: the same header again, without end
        b"-0001000",
        b"+1000",
        b"1_000",
        b"0o1000",
        b"8",
        b"",
        b"   ",
        b"1 0",
        "\u0661".encode(),  # a digit, of another script
        b"\xff" * 12,  # base 256, below zero
        b"\x80" + b"\xff" * 11,
        b"77777777777",
    ],
)
def test_a_size_that_is_none(field: bytes) -> None:
    with pytest.raises(tar.TarError):
        read(with_size(field))


def test_too_many_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PACK_MEMBERS", 3)
    assert read(archive(FILES)) == FILES
    with pytest.raises(tar.TarError, match="over 3"):
        read(archive({**FILES, "more": b""}))
    folder = tarfile.TarInfo("folder")
    folder.type = tarfile.DIRTYPE
    with pytest.raises(tar.TarError, match="over 3"):
        read(folder.tobuf(tarfile.USTAR_FORMAT) * 4 + tar.END)
