"""Files of a bundle, read through one descriptor: no link is followed, and what was checked is what is read."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import BinaryIO, Final

_CHUNK: Final = 1 << 20  # bytes read at a time
# Without O_NONBLOCK a named pipe that nobody writes to is waited for. Windows has no such names.
_FLAGS: Final = os.O_RDONLY | sum(
    getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY")
)


def open_plain(path: Path) -> BinaryIO:
    """Open a file to be read.

    Raises:
        OSError: it cannot be, or is a link, a pipe or a device.

    """
    file = os.fdopen(os.open(path, _FLAGS), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(f"{path} is no plain file")
    return file


def read_plain(path: Path, limit: int) -> bytes:
    """The bytes of a file.

    Args:
        path: of the file.
        limit: the most bytes that it may have.

    Raises:
        OSError: as for `open_plain`, or it has more.

    """
    with open_plain(path) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise OSError(f"over {limit} bytes")
    return data


def sha256_plain(path: Path) -> str:
    """SHA-256 of a file's bytes in hex.

    Raises:
        OSError: as for `open_plain`.

    """
    digest = hashlib.sha256()
    with open_plain(path) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
