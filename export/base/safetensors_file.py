"""Safetensors without a framework: what a file holds, its raw bytes in pieces, and whether they are finite numbers.

Source of the layout: https://github.com/huggingface/safetensors (8 bytes of length, a JSON header, the tensors).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from safetensors import SafetensorError, safe_open

# Bits that are all ones in infinities and NaNs, and the unsigned type to look at them with.
_EXPONENTS: Final[dict[str, tuple[np.dtype[np.unsignedinteger], int]]] = {
    "F32": (np.dtype("<u4"), 0x7F80_0000),
    "F16": (np.dtype("<u2"), 0x7C00),
    "BF16": (np.dtype("<u2"), 0x7F80),
}
FLOATS: Final = tuple(_EXPONENTS)  # the dtypes that weights may have
_CHUNK: Final = 1 << 20  # bytes read at a time
_SYSTEM_ERROR: Final = re.compile(r"\(os error (\d+)\)")  # as Rust writes one


def ends_early(name: str, left: int) -> SafetensorError:
    """The error for a tensor of which `left` bytes are missing."""
    return SafetensorError(f"{name} ends {left:,} bytes early: the file was cut off meanwhile")


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor's bytes lie."""

    path: Path
    name: str
    dtype: str  # as safetensors writes it: "F32", "BF16", …
    shape: tuple[int, ...]
    offset: int  # bytes from the start of the file
    size: int  # bytes

    def chunks(self) -> Iterator[bytes]:
        """Its bytes, a piece at a time.

        Raises:
            SafetensorError: the file has become shorter since its header was read.

        """
        with self.path.open("rb") as file:
            file.seek(self.offset)
            left = self.size
            while left:
                chunk = file.read(min(left, _CHUNK))
                if not chunk:
                    raise ends_early(self.name, left)
                left -= len(chunk)
                yield chunk

    def header(self) -> bytes:
        """What a digest covers besides the bytes: name, dtype and shape on one line."""
        return json.dumps([self.name, self.dtype, self.shape], separators=(",", ":")).encode() + b"\n"


def stored_tensors(path: Path) -> dict[str, StoredTensor]:
    """What a file holds, by name.

    Raises:
        SafetensorError: not a safetensors file, or one whose header and length disagree.
        OSError: it cannot be read.

    """
    with safe_open(path, framework="numpy"):  # checks header, offsets and length
        pass
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    start = 8 + length
    return {
        name: StoredTensor(
            path,
            name,
            entry["dtype"],
            tuple(entry["shape"]),
            start + entry["data_offsets"][0],
            entry["data_offsets"][1] - entry["data_offsets"][0],
        )
        for name, entry in header.items()
        if name != "__metadata__"
    }


def digest(tensors: Iterable[StoredTensor], about: object) -> tuple[str, list[str]]:
    """SHA-256 over `about` (as canonical JSON) and every tensor, in order of name.

    Returns:
        The digest in hex, and the names of the tensors that hold an infinity or NaN.

    Raises:
        SafetensorError: a file has become shorter since its header was read.

    """
    sha256 = hashlib.sha256(json.dumps(about, sort_keys=True, separators=(",", ":")).encode() + b"\n")
    wrong = []
    for tensor in sorted(tensors, key=lambda tensor: tensor.name):
        sha256.update(tensor.header())
        finite = True
        kind, exponent = _EXPONENTS[tensor.dtype]
        for chunk in tensor.chunks():
            sha256.update(chunk)
            finite = finite and not _any_ones(np.frombuffer(chunk, kind), exponent)
        if not finite:
            wrong.append(tensor.name)
    return sha256.hexdigest(), wrong


def _any_ones(bits: np.typing.NDArray[np.unsignedinteger], exponent: int) -> bool:
    return bool(np.any((bits & exponent) == exponent))


@contextlib.contextmanager
def system_errors() -> Iterator[None]:
    """A block that writes: where the system refuses that, its error, which safetensors has as a text alone.

    Raises:
        OSError: the file cannot be written.

    """
    try:
        yield
    except SafetensorError as error:
        number = _SYSTEM_ERROR.search(str(error))
        raise OSError(int(number[1]) if number else errno.EIO, str(error)) from None


__all__ = ["FLOATS", "SafetensorError", "StoredTensor", "digest", "stored_tensors", "system_errors"]
