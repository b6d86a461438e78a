"""Libraries that print and draw progress bars as they work, made silent; what they said is kept for an error."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator


@contextlib.contextmanager
def captured() -> Iterator[io.StringIO]:
    """While it holds, `sys.stdout` and `sys.stderr` lead to the text that it gives."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        yield said
