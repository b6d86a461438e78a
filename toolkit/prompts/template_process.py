"""The other side of `template_worker`: one process for all templates of this one, started again where it had to end."""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import IO, Any, Final

from dualtune_edge.toolkit import limits

_MAIN: Final = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from dualtune_edge.toolkit.prompts.template_worker import main; main()"
)
_LENGTH: Final = 4  # bytes
_KILLED: Final = -9  # by SIGKILL


class TemplateFault(Exception):  # noqa: N818 - an answer; the caller makes its own `EdgeError` of it
    """Why a template was not rendered. `line`: of its source, where it is no template."""

    def __init__(self, found: str, line: int | None = None) -> None:
        super().__init__(found)
        self.found, self.line = found, line


@dataclass(frozen=True)
class ToolList:
    """The tools that a template shows, as JSON. They are sent once: they can be longer than all else."""

    text: str

    @cached_property
    def key(self) -> str:
        """SHA-256 of the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()


class TemplateProcess:
    """A process that renders; requests of several threads wait for each other.

    `command`: runs `template_worker.main`, in a frozen program that has such a command; None: this interpreter does.
    """

    def __init__(self) -> None:
        self.command: Sequence[str] | None = None
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        atexit.register(self.close)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)  # the process answers whoever started it

    def start(self) -> None:
        """Start the process, if it does not run: it is ready a tenth of a second later.

        Raises:
            TemplateFault: it cannot be started.

        """
        with self._lock:
            self._running()

    def literals(self, source: str) -> str:
        """The texts that a template itself writes or compares with, parted by null characters.

        Raises:
            TemplateFault: it is no template, or takes too much time or memory.

        """
        return (self._ask({"source": source}) or b"").decode()

    def render(
        self,
        source: str,
        variables: Mapping[str, Any],
        tools: ToolList,
        all_toolsets: ToolList | None = None,
        *,
        where: str,
        now: datetime | None = None,
    ) -> str:
        """What a template writes.

        Args:
            source: the template.
            variables: names that it may use.
            tools: one more of these.
            all_toolsets: a JSON object of more of these: all toolsets.
            where: the name that it gives itself where it raises.
            now: what `strftime_now` writes; by default the time of the render.

        Raises:
            TemplateFault: it fails, or takes too much time or memory.

        """
        request: dict[str, Any] = {"source": source, "where": where, "variables": variables, "tools": tools.key}
        if all_toolsets:
            request["all_toolsets"] = all_toolsets.key
        if now is not None:
            request["now"] = now.isoformat()
        answer = self._ask(request)
        if answer is None:  # it does not know the tools by their key
            lists = (tools, all_toolsets) if all_toolsets else (tools,)
            answer = self._ask({**request, "texts": {tool_list.key: tool_list.text for tool_list in lists}})
        return (answer or b"").decode()

    def _ask(self, request: Mapping[str, Any]) -> bytes | None:
        try:
            data = json.dumps({**request, "seconds": limits.RENDER_SECONDS, "characters": limits.RENDER_CHARS}).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise TemplateFault(f"values that JSON cannot hold: {error}") from None
        with self._lock:
            answer = self._exchange(data)
        if answer[:1] == b"F":
            fault: Mapping[str, Any] = json.loads(answer[1:])
            raise TemplateFault(fault["found"], fault["line"])
        return answer[1:] if answer[:1] == b"T" else None

    def close(self) -> None:
        """End the process; the next request starts another."""
        with self._lock:
            self._end()

    def _exchange(self, data: bytes) -> bytes:
        for last in (False, True):
            process = self._running()
            try:
                with _watched(process):
                    _write(process.stdin, data)
                    answer = _read(process.stdout)
            except BaseException:  # an interrupt between the two would leave an answer behind
                self._end()
                raise
            if answer is not None:
                return answer
            code = self._end()
            if code != _KILLED or last:  # by somebody else, as between two requests
                break
        raise TemplateFault(
            f"a template that ends its process (code {code}): over {limits.RENDER_SECONDS:g} s of CPU time, "
            f"{limits.RENDER_BYTES // 2**20:,} MB of memory, or the depth that Python bears"
        )

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._end()
            self._process = _started(self.command or _interpreter())
        return self._process

    def _end(self) -> int | None:
        """What the process ended with; None: there was none."""
        process, self._process = self._process, None
        if process is None:
            return None
        process.kill()
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):  # what could not be written any more
                pipe.close()  # type: ignore[union-attr]
        return process.wait()

    def _forget(self) -> None:
        self._lock, self._process = threading.Lock(), None


def _interpreter() -> Sequence[str]:
    if not sys.executable or getattr(sys, "frozen", False):
        raise TemplateFault("no Python interpreter to render it: this program is not run by one")
    return [sys.executable, "-c", _MAIN, json.dumps(sys.path)]


def _started(command: Sequence[str]) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(  # noqa: S603 - this interpreter, or this program
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the process that asks; Windows has `creationflags` for it
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )
    except OSError as error:
        raise TemplateFault(f"no process to render it: {error}") from None


@contextlib.contextmanager
def _watched(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """On Windows, end the process when its time is over; elsewhere it sees to that itself."""
    if sys.platform != "win32":
        yield
        return
    timer = threading.Timer(limits.RENDER_SECONDS, process.kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _write(stream: IO[bytes] | None, data: bytes) -> None:
    if stream is not None:
        with contextlib.suppress(BrokenPipeError, ConnectionError):  # no answer comes, and that says it
            stream.write(len(data).to_bytes(_LENGTH, "little") + data)
            stream.flush()


def _read(stream: IO[bytes] | None) -> bytes | None:
    """The answer; None: the process ended without one."""
    head = stream.read(_LENGTH) if stream is not None else b""
    if stream is None or len(head) < _LENGTH:
        return None
    length = int.from_bytes(head, "little")
    answer = stream.read(length)
    return answer if len(answer) == length else None


TEMPLATES: Final = TemplateProcess()
