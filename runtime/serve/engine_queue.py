"""One engine for many clients: a bounded queue before it, and a way out for those that no longer wait."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator
from typing import Final, TypeVar

import anyio

from dualtune_edge.runtime.serve.errors import ApiError

T = TypeVar("T")
_POLL: Final = 0.1  # seconds between two looks at whether the client is there
_END: Final = object()


class EngineQueue:
    """Lets one request at a time to the engine, and a bounded number wait.

    Args:
        waiting: the most requests that wait; one more is answered with 429.
        retry_after: seconds after which such a client is asked to try again.

    """

    def __init__(self, waiting: int, retry_after: int = 1) -> None:
        self._most, self._retry_after = waiting, retry_after
        self._engine = asyncio.Lock()
        self._inside = 0

    @property
    def length(self) -> int:
        """The number of requests at the engine or before it."""
        return self._inside

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """The engine, once it is free.

        Raises:
            ApiError: 429: too many wait already.

        """
        if self._inside > self._most:
            raise ApiError(429, "Too many requests wait for the engine.", retry_after=self._retry_after)
        self._inside += 1
        try:
            async with self._engine:
                yield
        finally:
            self._inside -= 1


async def in_thread(work: Callable[[], T], cancel: threading.Event, gone: Callable[[], Awaitable[bool]]) -> T:
    """Run `work` in a thread, and set `cancel` when the client goes away or the task is cancelled.

    It returns when the work has ended, on every way out: the engine is free then.

    Raises:
        ClientGoneError: the client went away.

    """
    task, left = asyncio.create_task(asyncio.to_thread(work)), False
    try:
        while not (await asyncio.wait({task}, timeout=_POLL))[0]:
            if left := left or await gone():
                cancel.set()
    finally:
        if not task.done():
            cancel.set()
            with anyio.CancelScope(shield=True):
                await asyncio.wait({task})
    if left:
        task.exception()  # the client's leaving is the reason, whatever the work says
        raise ClientGoneError
    return task.result()


async def pieces_in_thread(
    pieces: Generator[T, None, None], cancel: threading.Event, gone: Callable[[], Awaitable[bool]]
) -> AsyncGenerator[T, None]:
    """The items of a generator, each made in a thread; the generator is closed on every way out.

    Raises:
        ClientGoneError: the client went away.

    """
    try:
        while (item := await in_thread(lambda: next(pieces, _END), cancel, gone)) is not _END:
            yield item  # type: ignore[misc]  # not the end
    finally:
        with anyio.CancelScope(shield=True):
            await asyncio.to_thread(pieces.close)


class ClientGoneError(Exception):
    """Nobody reads the answer any more."""
