"""The process in which templates are compiled and rendered, within the memory and time that it gives itself.

A template is a program: a filter, a nest of shared lists or a constant that is folded can take any time and memory, in
the middle of one call into C. The system ends this process where it goes over its bounds, whatever the template does.

A request and an answer are each 4 bytes of length (little-endian) and so many bytes of UTF-8. A request is JSON; an
answer begins with a letter: T and the text, F and the fault as JSON, or U: the tools are unknown here.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from collections.abc import Iterator
from datetime import datetime
from functools import lru_cache
from typing import Any, BinaryIO, Final

import jinja2

from dualtune_edge.toolkit import limits
from dualtune_edge.toolkit.prompts.template_sandbox import Template

_KEPT: Final = 8  # templates and tool lists
_LENGTH: Final = 4  # bytes
_TOOLS: Final[dict[str, Any]] = {}  # tool lists by key


def main() -> None:
    """Answer requests on stdin until it is closed."""
    _bound_memory()
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    while (data := _read(requests)) is not None:
        answer = _answer(data)
        answers.write(len(answer).to_bytes(_LENGTH, "little") + answer)
        answers.flush()


def _read(stream: BinaryIO) -> bytes | None:
    head = stream.read(_LENGTH)
    return stream.read(int.from_bytes(head, "little")) if len(head) == _LENGTH else None


def _answer(data: bytes) -> bytes:
    request: dict[str, Any] = json.loads(data)
    for key, text in request.get("texts", {}).items():
        _keep(key, json.loads(text))
    if any(request[name] not in _TOOLS for name in ("tools", "all_toolsets") if name in request):
        return b"U"
    try:
        with _bounded_time(request["seconds"]):
            return b"T" + _text(request).encode()
    except jinja2.TemplateSyntaxError as error:
        return _fault(str(error.message), line=error.lineno)
    except Exception as error:  # noqa: BLE001 - a template can raise anything that its filters can
        return _fault(f"{type(error).__name__}: {error}".rstrip(": "))


def _text(request: dict[str, Any]) -> str:
    template = _template(request["source"])
    if "variables" not in request:
        return template.literals
    all_toolsets = _TOOLS[request["all_toolsets"]] if "all_toolsets" in request else {}
    variables = {**request["variables"], "tools": _TOOLS[request["tools"]], **all_toolsets}
    if "now" in request:
        variables["strftime_now"] = datetime.fromisoformat(request["now"]).strftime
    return template.render(variables, where=request["where"], characters=request["characters"])


@lru_cache(maxsize=_KEPT)
def _template(source: str) -> Template:
    return Template(source)


def _keep(key: str, tools: Any) -> None:
    while len(_TOOLS) >= _KEPT:
        del _TOOLS[next(iter(_TOOLS))]
    _TOOLS[key] = tools


def _fault(found: str, *, line: int | None = None) -> bytes:
    return b"F" + json.dumps({"found": found[:1000], "line": line}).encode()


def _bound_memory() -> None:
    if sys.platform != "win32":
        import resource  # noqa: PLC0415 - there is none on Windows

        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        most = limits.RENDER_BYTES if hard == resource.RLIM_INFINITY else min(limits.RENDER_BYTES, hard)
        with contextlib.suppress(OSError, ValueError):  # macOS knows the limit and does not take it
            resource.setrlimit(resource.RLIMIT_AS, (most, hard))


@contextlib.contextmanager
def _bounded_time(seconds: float) -> Iterator[None]:
    """End this process after so many seconds of CPU time; on Windows the asking process does it."""
    if sys.platform != "win32":
        signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        if sys.platform != "win32":
            signal.setitimer(signal.ITIMER_PROF, 0)
