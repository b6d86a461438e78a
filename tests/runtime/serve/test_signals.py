"""The command itself in a process: SIGHUP opens another bundle, SIGTERM ends it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

if sys.platform == "win32":
    pytest.skip("these signals are not of Windows", allow_module_level=True)

LOOK = 60  # seconds: longer than any of it takes


@dataclass
class Process:
    """`dualtune-edge serve`, and its lines."""

    popen: subprocess.Popen[str]
    url: str = ""

    def line(self, event: str) -> dict[str, Any]:
        """The next line of this event."""
        assert self.popen.stderr
        for text in self.popen.stderr:
            with contextlib.suppress(json.JSONDecodeError):
                line: dict[str, Any] = json.loads(text)
                if line["event"] == event:
                    return line
        raise AssertionError(f"no line {event!r}")

    def toolsets(self) -> list[str]:
        body = requests.get(f"{self.url}/v1/toolsets", timeout=LOOK).json()
        return [toolset["name"] for toolset in body["toolsets"]]


@pytest.fixture
def served(exported: Path, tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """`served()` → the command on `tmp_path / "shop"`, a link to a copy of the bundle."""
    shutil.copytree(exported, tmp_path / "first")
    (tmp_path / "shop").symlink_to("first")
    running: list[subprocess.Popen[str]] = []

    def start(*options: str) -> Process:
        command = [sys.executable, "-m", "dualtune_edge", "serve", str(tmp_path / "shop"), "--port", "0", *options]
        popen = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
        running.append(popen)
        process = Process(popen)
        ready = process.line("ready")
        assert ready["model"] == "shop"
        process.url = ready["url"]
        return process

    yield start
    for popen in running:
        popen.kill()
        popen.communicate()


def put(bundle: Path, link: Path) -> None:
    """Replace a link in one step."""
    link.with_suffix(".new").symlink_to(bundle.name)
    os.replace(link.with_suffix(".new"), link)  # noqa: PTH105 - its own words


def test_a_broken_bundle_leaves_the_old_one_and_a_new_one_takes_its_place(
    served: Callable[..., Process], tmp_path: Path, exported: Path
) -> None:
    process = served()
    broken = shutil.copytree(exported, tmp_path / "broken")
    manifest = (broken / "manifest.json").read_text(encoding="utf-8")
    (broken / "manifest.json").write_text(manifest.replace("log", "lag", 1), encoding="utf-8")
    put(broken, tmp_path / "shop")
    process.popen.send_signal(signal.SIGHUP)
    assert "broken/manifest.sha256" in process.line("reload_failed")["error"]
    assert call(process) == (200, "shop")  # whose prompts are read only now
    put(tmp_path / "first", tmp_path / "shop")
    process.popen.send_signal(signal.SIGHUP)
    assert process.line("reloaded")["model"] == "shop"
    assert process.toolsets() == ["files", "git"]
    assert call(process) == (200, "shop")


def test_an_answer_in_flight_ends_on_the_old_bundle(served: Callable[..., Process]) -> None:
    process = served()
    with requests.post(
        f"{process.url}/v1/chat/completions", json=asked(200, stream=True), stream=True, timeout=LOOK
    ) as response:
        lines = (line for line in response.iter_lines() if line)
        next(lines)
        process.popen.send_signal(signal.SIGHUP)
        process.line("reloaded")
        *_, last, done = lines
    assert done == b"data: [DONE]"
    assert json.loads(last.removeprefix(b"data: "))["choices"][0]["finish_reason"] in {"length", "stop"}


def test_a_term_ends_it_in_order(served: Callable[..., Process]) -> None:
    process = served()
    process.popen.send_signal(signal.SIGTERM)
    assert process.line("stopping")
    assert process.popen.wait(LOOK) == 128 + signal.SIGTERM


def test_a_terms_time_cancels_what_does_not_end(served: Callable[..., Process]) -> None:
    process = served("--grace", "0")
    host, port = process.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=LOOK) as connection:
        body = json.dumps(asked(1000, stream=True)).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        assert connection.recv(1)
        process.popen.send_signal(signal.SIGTERM)
        assert process.line("completion")["outcome"] in {"stopped", "StoppedError"}
        assert process.popen.wait(LOOK) == 128 + signal.SIGTERM


def call(process: Process) -> tuple[int, str | None]:
    """(status, model) of a call."""
    body = asked(100, tools=[{"type": "function", "function": {"name": "log"}}], tool_choice="required")
    answer = requests.post(f"{process.url}/v1/chat/completions", json=body, timeout=LOOK)
    return answer.status_code, answer.json().get("model")


def asked(tokens: int, **settings: object) -> dict[str, Any]:
    messages = [{"role": "user", "content": "hello"}]
    return {"model": "shop", "messages": messages, "max_tokens": tokens, **settings}
