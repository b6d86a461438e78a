"""The border to native libraries: a panic of Rust code becomes an ordinary exception."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


class PanicError(RuntimeError):
    """A library written in Rust met a state that its authors did not foresee."""


@contextlib.contextmanager
def catch_panics() -> Iterator[None]:
    """Raise `PanicError` for a panic: pyo3's own class is no `Exception`, so that no handler would see it."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise PanicError(str(error).strip() or "a panic without words") from None
