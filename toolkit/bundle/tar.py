"""Tar archives of plain files, without times and owners: the same bytes each time. This reads no other kind.

A size beyond 8 GiB is written as GNU tar has it (base 256).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO, Final, NamedTuple

from dualtune_edge.toolkit import limits

BLOCK: Final = 512  # bytes
NUL: Final = b"\x00"
_OCTAL: Final = 8**11  # sizes below it are written in octal
_FOLDER: Final = b"5"
_DIGITS: Final = re.compile(rb" *[0-7]+[ \0]*")  # no sign: a size below zero would lead back to what was read


class TarError(ValueError):
    """What is wrong with an archive."""


class Member(NamedTuple):
    """A file of an archive, and where its bytes are."""

    name: str
    offset: int
    size: int


def header(name: str, size: int) -> bytes:
    """The block that stands before a file's bytes."""
    number = f"{size:011o}".encode().ljust(12, NUL) if size < _OCTAL else b"\x80" + size.to_bytes(11, "big")
    fields = (
        name.encode().ljust(100, NUL),
        b"0000644".ljust(8, NUL),  # mode
        *(b"0000000".ljust(8, NUL) for _ in ("owner", "group")),
        number,
        b"00000000000".ljust(12, NUL),  # time
        b" " * 8,  # the sum is taken so
        b"0".ljust(101, NUL),  # a plain file; no link
        b"ustar".ljust(6, NUL),
        b"00",
    )
    block = b"".join(fields).ljust(BLOCK, NUL)
    return block[:148] + f"{sum(block):06o}\0 ".encode() + block[156:]


def padding(size: int) -> bytes:
    """What stands behind a file of that size."""
    return bytes(-size % BLOCK)


END: Final = bytes(2 * BLOCK)


def members(file: BinaryIO) -> Iterator[Member]:
    """Every file of an archive, in order; folders are passed over.

    Raises:
        TarError: it is no archive of plain files, has too many, or ends too early.

    """
    file.seek(0, 2)
    length, offset, count = file.tell(), 0, 0
    while offset < length:
        file.seek(offset)
        block = file.read(BLOCK)
        if not block.strip(NUL):
            return
        count += 1
        if count > limits.PACK_MEMBERS:
            raise TarError(f"over {limits.PACK_MEMBERS} files")
        name, size = _fields(block)
        if offset + BLOCK + size > length:
            raise TarError(f"{name!r} beyond the end of the file")
        if block[156:157] != _FOLDER:
            yield Member(name, offset + BLOCK, size)
        offset += BLOCK + size + len(padding(size))
    raise TarError("no end")


def _fields(block: bytes) -> tuple[str, int]:
    """Name and size."""
    if len(block) < BLOCK or block[257:262] != b"ustar" or block[156:157] not in {b"0", NUL, _FOLDER}:
        raise TarError("something that is no plain file")
    try:
        if _octal(block[148:156]) != sum(block[:148]) + sum(block[156:]) + 8 * ord(" "):
            raise TarError("a damaged header")
        size = block[124:136]
        number = int.from_bytes(size[1:], "big") if size[0] == 0x80 else _octal(size)
        return block[:100].rstrip(NUL).decode("ascii"), number
    except ValueError as error:
        raise error if isinstance(error, TarError) else TarError("a damaged header") from None


def _octal(field: bytes) -> int:
    if not _DIGITS.fullmatch(field):
        raise TarError("a damaged header")
    return int(field.strip(b"\0 "), 8)
