"""The clients of docs/serve.md, each as it stands there, against the built-in kit."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import nodejs
import pytest
import uvicorn

from dualtune_edge.runtime import Agent
from dualtune_edge.runtime.serve.app import Service
from dualtune_edge.runtime.serve.current_agent import CurrentAgent

PAGE: Final = Path(__file__).parents[2] / "docs" / "serve.md"
ADDRESS: Final = "127.0.0.1:8080"


def blocks(language: str) -> list[str]:
    """What stands there in that language and asks the server."""
    found = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return [block for block in found if ADDRESS in block]


@pytest.fixture(scope="module")
def address(kit_bundle: Path) -> Iterator[str]:
    with Agent.open(kit_bundle) as agent:
        application = Service(CurrentAgent(agent, kit_bundle)).application()
        server = uvicorn.Server(uvicorn.Config(application, port=0, log_config=None, access_log=False))
        thread = threading.Thread(target=server.run)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        _, port = server.servers[0].sockets[0].getsockname()
        yield f"127.0.0.1:{port}"
        server.should_exit = True
        thread.join()


def ran(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_curl(address: str) -> None:
    (block,) = blocks("sh")
    output = ran(["sh", "-c", block.replace(ADDRESS, address)])
    assert '"name":"git_status"' in output
    assert "/srv/atlas" in output


@pytest.mark.parametrize(
    ("block", "seen"),
    list(zip(blocks("python"), ["name='git_status'", "git_status of /srv/atlas"], strict=True)),
    ids=["openai", "pydantic-ai"],
)
def test_python(block: str, seen: str, address: str) -> None:
    assert seen in ran([sys.executable, "-c", block.replace(ADDRESS, address)])


@pytest.mark.skipif(bool(nodejs.MISSING), reason=nodejs.MISSING)
def test_npm(address: str, tmp_path: Path) -> None:
    (block,) = blocks("js")
    assert "name: 'git_status'" in nodejs.run(tmp_path, block.replace(ADDRESS, address))
