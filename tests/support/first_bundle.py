"""The server and the teacher of docs/first-bundle.md, for tests."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import sys
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

FOLDER = Path(__file__).parents[2] / "docs" / "first_bundle"


def teacher_module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("scripted_teacher", FOLDER / "teacher.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def teaching(handler: type) -> Iterator[str]:
    """The address of an endpoint that a handler answers."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1"
        finally:
            server.shutdown()
            thread.join()


def write_servers(path: Path) -> Path:
    entry = {"command": sys.executable, "args": [str(FOLDER / "server.py")]}
    path.write_text(json.dumps({"mcpServers": {"notes": entry}}))
    return path
