"""Silences libraries that print and draw progress bars; their output is kept for an error."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator


@contextlib.contextmanager
def captured() -> Iterator[io.StringIO]:
    """Redirect `sys.stdout` and `sys.stderr` to the yielded text."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        yield output
