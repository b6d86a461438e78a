"""JSON as RFC 8259 has it: no duplicate keys, no NaN or Infinity, no half of a surrogate pair, bounded size and depth.

Python's `json.loads` keeps the last of two equal keys, takes NaN, reads 1e999 as infinity and half of a surrogate
pair as a text that no file can hold, and dies of deep nesting with a RecursionError.
"""

from __future__ import annotations

import json
import math
from typing import Final, TypeAlias

from dualtune_edge.toolkit import limits

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

LFS_POINTER: Final = "version https://git-lfs.github.com/spec/"  # what a file begins with that stands for another one


class JsonError(ValueError):
    """What is wrong with the text; the caller turns it into its own `EdgeError`."""


def loads(text: str | bytes) -> Json:
    """Parse one JSON value.

    Raises:
        JsonError: not UTF-8, not JSON, a duplicate key, NaN or Infinity, too large or too deep.

    """
    if len(text) > limits.JSON_BYTES:
        raise JsonError(f"{len(text)} bytes, over the {limits.JSON_BYTES} allowed")
    try:
        value: Json = json.loads(text, object_pairs_hook=_object, parse_constant=_constant, parse_float=_float)
    except RecursionError:
        raise JsonError(f"nested deeper than {limits.JSON_DEPTH}") from None
    except UnicodeDecodeError as error:
        raise JsonError(f"not UTF-8: {error.reason} at byte {error.start}") from None
    except JsonError:
        raise
    except json.JSONDecodeError as error:
        if text[: len(LFS_POINTER)] in (LFS_POINTER, LFS_POINTER.encode()):
            raise JsonError("a pointer of Git LFS, which `git lfs pull` replaces by the file") from None
        raise JsonError(f"no JSON from line {error.lineno}, column {error.colno} on") from None
    except ValueError as error:  # an integer of more digits than Python converts
        raise JsonError(str(error)) from None
    if depth(value) > limits.JSON_DEPTH:
        raise JsonError(f"nested deeper than {limits.JSON_DEPTH}")
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise JsonError(f"half of a surrogate pair (U+{ord(error.object[error.start]):04X})") from None
    return value


def depth(value: object) -> int:
    """Levels of nesting: 0 for a scalar, 1 for a flat array or object."""
    deepest, stack = 0, [(value, 0)]
    while stack:
        item, level = stack.pop()
        if isinstance(item, (dict, list)):
            deepest = max(deepest, level + 1)
            children = item.values() if isinstance(item, dict) else item
            stack.extend((child, level + 1) for child in children)
    return deepest


def _object(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise JsonError(f"the key {twice!r} twice in one object")
    return result


def _constant(name: str) -> Json:
    raise JsonError(f"{name}, which JSON does not have")


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise JsonError(f"{text}, which is beyond every float")
    return value
