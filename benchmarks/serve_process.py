"""`dualtune-edge serve` in a process, as its users run it."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Self


class ServeProcess:
    """A server; leaving the `with` block ends it. `address`: host and port."""

    def __init__(self, bundle: Path, *options: str) -> None:
        command = [sys.executable, "-m", "dualtune_edge", "serve", str(bundle), "--port", "0", *options]
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)  # noqa: S603 - our own command
        assert self._process.stderr  # noqa: S101 - a pipe
        ready = next(line for text in self._process.stderr if (line := json.loads(text))["event"] == "ready")
        self.address, self.model = ready["url"].removeprefix("http://"), ready["model"]
        self.pid = self._process.pid
        threading.Thread(target=self._process.stderr.read, daemon=True).start()  # a full pipe would stop it

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait()
