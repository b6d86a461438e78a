"""A real registry on loopback, and skopeo, which copies images to it and from it."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Final

TOOLS: Final = ("docker-registry", "skopeo")
INSTALLED: Final = all(map(shutil.which, TOOLS))
CONFIG: Final = """\
version: 0.1
storage: {{filesystem: {{rootdirectory: "{folder}"}}}}
http: {{addr: "127.0.0.1:{port}"}}
log: {{accesslog: {{disabled: false}}, level: error}}
"""


@contextlib.contextmanager
def serve_registry(folder: Path) -> Iterator[tuple[str, Path]]:
    """Its address, and the log of its requests."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{found.getsockname()[1]}"
    config, log = folder / "registry.yml", folder / "registry.log"
    config.write_text(CONFIG.format(folder=folder / "registry", port=address.partition(":")[2]), encoding="utf-8")
    with log.open("wb") as file:
        process = subprocess.Popen([TOOLS[0], "serve", config], stdout=file, stderr=file)
        try:
            _wait(f"http://{address}/v2/")
            yield address, log
        finally:
            process.terminate()
            process.wait()


def _wait(url: str) -> None:
    for _ in range(600):
        try:
            with urllib.request.urlopen(url, timeout=1):  # noqa: S310 - our own
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError("the registry does not answer")


def copy_image(source: str, target: str) -> None:
    command = ["skopeo", "copy", "--src-tls-verify=false", "--dest-tls-verify=false", source, target]
    subprocess.run(command, check=True, capture_output=True)
