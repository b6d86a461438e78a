"""Ctrl-C and SIGTERM while a run goes on."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Final, Self

_NUMBERS: Final = (signal.SIGINT, signal.SIGTERM)
_STOPPED: Final = 128  # and a signal's number: the exit code by convention


class Signals:
    """Inside the block both signals raise an exception at once, except while they are held.

    SIGINT raises `KeyboardInterrupt` as always, SIGTERM a `SystemExit` of code 143. Only the main thread gets signals;
    in another one nothing changes.
    """

    def __init__(self) -> None:
        self._holding = False
        self._held: int | None = None

    def __enter__(self) -> Self:
        main = threading.current_thread() is threading.main_thread()
        self._handlers = {number: signal.signal(number, self._handle) for number in _NUMBERS} if main else {}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Inside the block a signal waits; what the block does is done whole."""
        self._holding = True
        try:
            yield
        finally:
            self._holding = False
            number, self._held = self._held, None
        if number:
            _stop(number)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self._holding:
            self._held = number
        else:
            _stop(number)


def _stop(number: int) -> None:
    raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(_STOPPED + number)
