"""What ends a call before its answer: a deadline, another thread's word, or the agent's end."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from dualtune_edge.runtime.engines.engine import Engine
from dualtune_edge.toolkit.errors import StoppedError

_LOOK: Final = 0.02  # seconds between two looks at the reasons


@dataclass(frozen=True)
class Stop:
    """The reasons to end one call. `until`: a time of `time.monotonic`."""

    cancel: threading.Event | None = None
    until: float | None = None

    @classmethod
    def after(cls, deadline: float | None, cancel: threading.Event | None) -> Stop:
        """`deadline`: the seconds that the call may take; None: any number."""
        return cls(cancel, None if deadline is None else time.monotonic() + deadline)

    @property
    def reason(self) -> str | None:
        """Why the call is to end now; None: it may go on."""
        if self.cancel and self.cancel.is_set():
            return "it was cancelled"
        if self.until is not None and time.monotonic() >= self.until:
            return "its deadline is over"
        return None

    @contextlib.contextmanager
    def watching(self, engine: Engine, turn: threading.Lock) -> Iterator[None]:
        """The engine for one call, once `turn` is free; a reason to end interrupts the forward that runs.

        Raises:
            StoppedError: there is one before the engine is free.

        """
        while not turn.acquire(timeout=_LOOK):
            self._refuse_stopped()
        try:
            self._refuse_stopped()
            with self._interrupting(engine):
                yield
        finally:
            turn.release()

    @contextlib.contextmanager
    def _interrupting(self, engine: Engine) -> Iterator[None]:
        if self.cancel is None and self.until is None:
            yield
            return
        over = threading.Event()

        def look() -> None:
            while not over.wait(_LOOK):
                if self.reason:
                    engine.interrupt()
                    return

        watcher = threading.Thread(target=look, name="stop", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()
            engine.resume()

    def _refuse_stopped(self) -> None:
        if reason := self.reason:
            raise StoppedError("call", found=reason, expected="time for an answer", fix="Allow it more time.")
