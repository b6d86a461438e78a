"""The HTTP server around a service, and the signals that it follows."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable

import uvicorn

from dualtune_edge.runtime.pipeline import Agent
from dualtune_edge.runtime.serve.app import Service


class Server(uvicorn.Server):
    """Says where it listens, once it does. SIGHUP opens the bundle again."""

    def __init__(
        self,
        config: uvicorn.Config,
        service: Service,
        opening: Callable[[], Agent],
        until: threading.Event | None = None,
    ) -> None:
        """`opening` opens the bundle; `until` ends the server, as SIGTERM does, with exit code 0."""
        super().__init__(config)
        self._service, self._opening, self._until = service, opening, until
        self._hangup = asyncio.Event()
        self._reloads: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        """Listen, and write the ready line."""
        await super().startup(sockets)  # type: ignore[arg-type]
        self._follow_hangup()
        for server in self.servers:
            for bound in server.sockets:
                self._service.log.write({"event": "ready", **_place(bound.getsockname()), "model": self._service.model})

    async def on_tick(self, counter: int) -> bool:
        """Whether to stop; it is asked every tenth of a second."""
        return await super().on_tick(counter) or (self._until is not None and self._until.is_set())

    async def shutdown(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        """Let requests in flight end, for as long as the configuration says."""
        self._service.log.write({"event": "stopping"})
        if self._reloads:
            self._reloads.cancel()
        await super().shutdown(sockets)  # type: ignore[arg-type]

    def _follow_hangup(self) -> None:
        if sys.platform == "win32":  # it has no such signal
            return
        # A terminal that is closed sends SIGHUP too: what runs in its foreground ends then, without nohup.
        bound = _has_terminal() and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN

        def follow() -> None:
            if bound and not _has_terminal():
                self.should_exit = True
            else:
                self._hangup.set()

        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, follow)
        self._reloads = asyncio.create_task(self._reload())

    async def _reload(self) -> None:
        while True:
            await self._hangup.wait()
            self._hangup.clear()
            await self._service.reload(self._opening)


def _place(name: tuple[str, int] | str) -> dict[str, str]:
    """Where it listens: the URL of an address and a port, or the path of a Unix socket."""
    if isinstance(name, str):
        return {"socket": name}
    address, port, *_ = name
    return {"url": f"http://{f'[{address}]' if ':' in address else address}:{port}"}


def _has_terminal() -> bool:
    if sys.platform == "win32":
        return False
    with contextlib.suppress(OSError):
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
        return True
    return False
