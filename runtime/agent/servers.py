"""MCP servers, connected and driven by a thread of their own; what they are asked ends in time, whatever they do."""

from __future__ import annotations

import contextlib
import logging
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import anyio
import anyio.from_thread
from mcp import Client, StdioServerParameters, stdio_client
from mcp.client.session import ClientRequestContext
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from mcp.types import ElicitRequestParams, ElicitResult

from dualtune_edge.runtime.agent.config import ServerConfig, read_config
from dualtune_edge.runtime.agent.offer import LiveTool, Offer, offer
from dualtune_edge.runtime.agent.outcome import ToolOutcome, as_text
from dualtune_edge.runtime.agent.toolbox import Cancellation
from dualtune_edge.toolkit import limits
from dualtune_edge.toolkit.bundle.manifest import Manifest
from dualtune_edge.toolkit.errors import ToolsError
from dualtune_edge.toolkit.tools.tool_files import parse_tools

logging.getLogger("mcp").addHandler(logging.NullHandler())  # it logs tracebacks, which would reach the terminal
T = TypeVar("T")
_POLL: Final = 0.05  # seconds between two looks at a cancelled run
_PAGES: Final = 100  # of a tool list: a server that never ends its list is cut off
_LOG_TAIL: Final = 2_000  # bytes of a server's stderr that an error may quote from


@dataclass(frozen=True)
class Timeouts:
    """Seconds that a server may take."""

    connect: float = 30.0
    list_tools: float = 10.0
    call: float = 120.0
    close: float = 5.0


class Servers:
    """The connected servers. A context manager: leaving it ends the processes that it started.

    A server that does not start, dies or does not answer is left out of the offer, with a note that says why; the
    others go on.
    """

    def __init__(self, configs: Mapping[str, ServerConfig], timeouts: Timeouts | None = None) -> None:
        self._configs, self._timeouts = dict(configs), timeouts or Timeouts()
        self._stack = contextlib.ExitStack()
        self._connections: dict[str, _Connection] = {}

    @classmethod
    def open(cls, path: Path | str, timeouts: Timeouts | None = None) -> Servers:
        """The servers of an `mcpServers` file; they are connected when the `with` block begins.

        Raises:
            SpecError: the file cannot be used.

        """
        return cls(read_config(Path(path)), timeouts)

    def __enter__(self) -> Self:
        portal = self._stack.enter_context(anyio.from_thread.start_blocking_portal())
        started = {name: _Connection(name, config, portal) for name, config in self._configs.items()}
        for name, connection in started.items():  # all of them start at once
            self._stack.callback(connection.close, self._timeouts.close)
            connection.wait(self._timeouts.connect)
            self._connections[name] = connection
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        self._connections = {}

    def offer(self, manifest: Manifest, *, cancel: Cancellation | None = None) -> Offer:
        """What can be called now. The servers are asked for their lists each time, so every change is followed."""
        return offer(manifest, self.listed(cancel=cancel))

    def listed(self, *, cancel: Cancellation | None = None) -> dict[str, tuple[LiveTool, ...] | str]:
        """Each server's tools, or why they are not known."""
        listings = {name: connection.listing() for name, connection in self._connections.items()}  # all at once
        seconds = self._timeouts.list_tools
        return {name: listed(seconds, cancel) for name, listed in listings.items()}

    def call(
        self, server: str, tool: str, arguments: dict[str, Any], *, cancel: Cancellation | None = None
    ) -> ToolOutcome:
        """Run a tool. Whatever goes wrong with the server is an outcome with `error`: the model reads it."""
        return self._connections[server].call(tool, arguments, self._timeouts.call, cancel)


class _Connection:
    """One server's session, which lives in a task of the portal's event loop."""

    def __init__(self, name: str, config: ServerConfig, portal: anyio.from_thread.BlockingPortal) -> None:
        self._name, self._config, self._portal = name, config, portal
        self._folder = tempfile.TemporaryDirectory(prefix="dualtune-edge-mcp-")
        self._stderr = Path(self._folder.name) / "stderr.txt"
        self._ready: Future[Client] = Future()
        self._stop: Future[anyio.Event] = Future()
        self._asked: list[str] = []  # questions of the server's to the user, all declined
        self._task = portal.start_task_soon(self._live)
        self._broken = ""

    def wait(self, seconds: float) -> None:
        """Wait until it is connected, or known not to be."""
        try:
            self._ready.result(seconds)
        except FutureTimeoutError:
            self._broken = f"it did not answer within {seconds:g} s"
            self._task.cancel()
        except Exception as error:  # noqa: BLE001 - whatever the server or the SDK does, it is not connected
            self._broken = self._reason(error)

    def close(self, seconds: float) -> None:
        """End the session, and the process if it is ours."""
        if self._stop.done():
            self._portal.call(self._stop.result().set)
        with contextlib.suppress(Exception, CancelledError):
            self._task.result(seconds)
        self._task.cancel()
        with contextlib.suppress(OSError):  # Windows removes no file that a process has open
            self._folder.cleanup()

    def listing(self) -> Callable[[float, Cancellation | None], tuple[LiveTool, ...] | str]:
        """Ask for the server's list. What comes back waits so many seconds for it, and says why there is none."""
        if self._gone():
            return lambda _seconds, _cancel: self._broken
        asked, start = self._portal.start_task_soon(self._list), time.monotonic()

        def wait(seconds: float, cancel: Cancellation | None) -> tuple[LiveTool, ...] | str:
            try:
                return self._wait(asked, start, seconds, cancel)
            except _FailureError as failure:
                return failure.why

        return wait

    def call(self, tool: str, arguments: dict[str, Any], seconds: float, cancel: Cancellation | None) -> ToolOutcome:
        """Run a tool."""
        if self._gone():
            return ToolOutcome(f"error: the server {self._name} is gone: {self._broken}", error=True)
        self._asked.clear()

        async def run() -> ToolOutcome:
            result = await self._ready.result().call_tool(tool, arguments, read_timeout_seconds=seconds)
            return ToolOutcome(as_text(result.content, result.structured_content), error=result.is_error)

        try:
            outcome = self._wait(self._portal.start_task_soon(run), time.monotonic(), seconds, cancel)
        except _FailureError as failure:
            return ToolOutcome(f"error: {failure.why}", error=True)
        if self._asked:
            asked = "; ".join(self._asked)
            return ToolOutcome(
                f"{outcome.text}\n[the tool asked for input, which was declined: {asked}]", outcome.error
            )
        return outcome

    def _gone(self) -> bool:
        if not self._broken and self._task.done():
            self._broken = self._reason(self._task.exception() or EOFError("it ended"))
        return bool(self._broken)

    def _wait(self, future: Future[T], start: float, seconds: float, cancel: Cancellation | None) -> T:
        """The result of work in the loop that began at `start`.

        Raises:
            _FailureError: it failed, took too long, or was cancelled.

        """
        while True:
            try:
                return future.result(_POLL)
            except FutureTimeoutError:
                if cancel and cancel.is_set():
                    future.cancel()
                    raise _FailureError("the run was stopped") from None
                if time.monotonic() - start >= seconds:
                    future.cancel()
                    raise _FailureError(f"no answer within {seconds:g} s") from None
                if self._task.done():
                    future.cancel()
                    self._gone()
                    raise _FailureError(f"the server {self._name} is gone: {self._broken}") from None
            except Exception as error:  # noqa: BLE001 - a server's failure is a result that the model reads
                raise _FailureError(self._reason(error)) from None

    async def _live(self) -> None:
        """Hold the session open until it is to end."""
        stop = anyio.Event()
        try:
            async with self._client() as client:
                self._stop.set_result(stop)
                self._ready.set_result(client)
                await stop.wait()
        except BaseException as error:
            if not self._ready.done():
                self._ready.set_exception(error if isinstance(error, Exception) else EOFError("it was stopped"))
            raise

    @contextlib.asynccontextmanager
    async def _client(self) -> AsyncIterator[Client]:
        config = self._config
        async with contextlib.AsyncExitStack() as stack:
            if config.url is not None:
                http = await stack.enter_async_context(create_mcp_http_client(headers=dict(config.headers)))
                transport = streamable_http_client(config.url, http_client=http)
            else:
                assert config.command is not None  # noqa: S101 - ServerConfig has one of the two
                parameters = StdioServerParameters(
                    command=config.command,
                    args=list(config.args),
                    env=dict(config.env) or None,
                    cwd=config.cwd,
                    encoding_error_handler="replace",  # a server's stray byte is shown, and stops nothing
                )
                log = stack.enter_context(self._stderr.open("w", encoding="utf-8"))
                transport = stdio_client(parameters, errlog=log)
            client = Client(transport, elicitation_callback=self._decline, cache=None)
            yield await stack.enter_async_context(client)

    async def _decline(self, context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:  # noqa: ARG002
        """Nobody fills in a server's forms: the tool gets that answer, and the result says what it asked."""
        self._asked.append(params.message)
        return ElicitResult(action="decline")

    async def _list(self) -> tuple[LiveTool, ...]:
        client, listed, cursor = self._ready.result(), list[LiveTool](), None
        for _ in range(_PAGES):
            page = await client.list_tools(cursor=cursor)
            listed += [_live_tool(tool) for tool in page.tools]
            cursor = page.next_cursor
            if cursor is None or len(listed) > limits.TOOLS:
                break
        return tuple(listed)

    def _reason(self, error: BaseException) -> str:
        """One line: the innermost error, and the last line that the server wrote to stderr."""
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        text = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        with contextlib.suppress(OSError):
            lines = self._stderr.read_bytes()[-_LOG_TAIL:].decode(errors="replace").strip().splitlines()
            text += f" (it wrote: {lines[-1][:200]})" if lines else ""
        return text


class _FailureError(Exception):
    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


def _live_tool(tool: Any) -> LiveTool:
    read_only = bool(tool.annotations and tool.annotations.read_only_hint)
    listed = {"name": tool.name, "description": tool.description, "inputSchema": tool.input_schema}
    try:
        (read,) = parse_tools([listed], where="tools/list")
    except ToolsError as error:
        return LiveTool(tool.name, None, read_only, f"{error.where}: {error.found}")
    return LiveTool(tool.name, read, read_only)
