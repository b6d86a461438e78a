"""The agent that new requests get. A new one takes its place while requests on the old one go on."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from dualtune_edge.runtime.pipeline import Agent


@dataclass(eq=False)
class _Held:
    """An agent, and the number of requests on it."""

    agent: Agent
    users: int = 0


class CurrentAgent:
    """Owns the opened bundles of a server: one, and for a while the one before it.

    Leaving the `with` block closes it. `name`: the bundle's for clients, that of its folder or link.
    """

    def __init__(self, agent: Agent, path: Path | str) -> None:
        """`path`: the bundle's, as the user gave it; it may be a link."""
        self._held = _Held(agent)
        self.name = Path(os.path.abspath(path)).name  # noqa: PTH100 - a link keeps its own name
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.agent.close()

    @property
    def agent(self) -> Agent:
        """The one that a new request gets."""
        return self._held.agent

    @contextlib.contextmanager
    def lease(self) -> Iterator[Agent]:
        """The agent for one request; it stays open until the request has ended."""
        with self._lock:
            held = self._held
            held.users += 1
        try:
            yield held.agent
        finally:
            with self._lock:
                held.users -= 1
                last = held is not self._held and not held.users
            if last:
                held.agent.close()

    def replace(self, agent: Agent) -> None:
        """Give new requests this agent; the one before it is closed when the last request on it has ended."""
        with self._lock:
            held, self._held = self._held, _Held(agent)
            unused = not held.users
        if unused:
            held.agent.close()
