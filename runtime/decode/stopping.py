"""What ends a call before its answer: a deadline, another thread's word, or the agent's end."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from dualtune_edge.runtime.decode.arguments import shortened
from dualtune_edge.runtime.engines.engine import Engine
from dualtune_edge.toolkit.errors import Reached, RequestError, StoppedError

_ENDLESS: Final = 1e9  # seconds, some 32 years
_LOOK: Final = 0.02  # seconds between two looks at the reasons


@dataclass(frozen=True)
class Stop:
    """The reasons to end one call. `until`: a time of `time.monotonic`. `closed` is set once the agent is closed."""

    cancel: threading.Event | None = None
    until: float | None = None
    closed: threading.Event | None = None

    @classmethod
    def after(
        cls, deadline: float | None, cancel: threading.Event | None, closed: threading.Event | None = None
    ) -> Stop:
        """`deadline`: the seconds that the call may take; None: any number.

        Raises:
            RequestError: it is no number of seconds, or `cancel` is no event.

        """
        is_number = isinstance(deadline, (int, float)) and not isinstance(deadline, bool)
        if deadline is not None and not (is_number and deadline >= 0):
            raise RequestError(
                "deadline", found=repr(deadline), expected="a number of seconds from now", fix="Leave it out for none."
            )
        if cancel is not None and not isinstance(cancel, threading.Event):
            raise RequestError("cancel", found=repr(cancel), expected="a threading.Event", fix="Pass one, or leave it.")
        return cls(cancel, None if deadline is None else time.monotonic() + min(deadline, _ENDLESS), closed)

    @property
    def reason(self) -> str | None:
        """Why the call is to end now; None: it may go on."""
        if self.closed and self.closed.is_set():
            return "the agent was closed"
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


def stopped(error: StoppedError, reason: str | None, reached: Reached) -> StoppedError:
    """The error of a call that was stopped: why, and how far it had come."""
    if reached.tool is None:
        how_far = f"after choosing the toolset {reached.toolset}" if reached.toolset else "before anything was chosen"
    else:
        written = shortened(reached.arguments or "")
        how_far = f"after choosing {reached.toolset}.{reached.tool} and writing {written!r}"
    return StoppedError(
        error.where if reason is None else "call",
        found=f"{reason or error.found}, {how_far}",
        expected="an answer by then",
        fix="Allow it more time, or ask for less.",
    )
