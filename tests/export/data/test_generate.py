"""Data made with a real MCP server and an endpoint by script, through the command."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from first_bundle import teacher_module, teaching, write_servers

from dualtune_edge import cli
from dualtune_edge.export.data.check import check
from dualtune_edge.export.data.lines import read_lines, read_toolsets
from dualtune_edge.toolkit.errors import EngineError, OutputError, SpecError, ToolsError

LINES = "conversations.jsonl"
SCRIPT = teacher_module()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with teaching(SCRIPT.Handler) as address:
        yield address


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    folder.mkdir()
    for name in ("anchor-bridge", "copper-kettle", "garden-ladder"):
        (folder / f"{name}.txt").write_text("a note\n")
    return folder


def generate(url: str, folder: Path, output: str, *options: str | Path) -> int:
    servers = write_servers(folder / "mcp.json")
    arguments = ["--mcp", servers, "--teacher", url, "--model", "scripted", "--sandbox", folder / "box"]
    with pytest.raises(SystemExit) as ended:
        cli.main(["data", "generate", *map(str, [*arguments, "-o", folder / output, *options])])
    return int(ended.value.code or 0)


@pytest.mark.parametrize(
    ("tool", "wanted"),
    [
        *((tool, ("the tool {} once", (tool,))) for tool in SCRIPT._SAID),
        *((tool, ("the tool {} and then more calls", (tool, "list_notes"))) for tool in SCRIPT._SAID),
        ("read_note", ("no tool: {}", ())),
    ],
)
def test_the_teacher_of_the_page_does_what_it_has_written(tool: str, wanted: tuple[str, tuple[str, ...]]) -> None:
    kind, expected = wanted
    need = "that need " if expected else "beside such work and need "
    for seed in range(20):
        prompt = f"anchor-bridge.txt\nWrite 10 different requests {need}{kind.format(tool)}"
        for request in SCRIPT.requests(prompt, seed).splitlines():
            assert tuple(name for name, _ in SCRIPT.calls(request)) == expected, request


def test_the_calls_are_run_and_what_is_written_can_be_learnt(
    url: str, tmp_path: Path, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--files", files, "--per-tool", "3", "--price", "1,2", "--json")
    assert generate(url, tmp_path, "data", *options) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["ended"], report["conversations"]) == ("complete", 12)
    assert report["usage"]["requests"] > 24
    assert report["cost"] > 0
    assert [tool["tool"] for tool in report["tools"]] == ["list_notes", "read_note", "add_note", "remove_note"]
    toolsets = read_toolsets({"notes": tmp_path / "data" / "tools" / "notes.json"})
    lines = read_lines(tmp_path / "data" / LINES)
    assert not check(lines, toolsets).faults
    messages = [message for line in lines if line.trajectory for message in line.trajectory.messages]
    results = [message.content for message in messages if message.role == "tool"]
    assert "a note" in results
    assert any(result.startswith("removed ") for result in results)
    assert (files / "anchor-bridge.txt").exists(), "the calls are made in a copy"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "files", "mcp.json"]


def test_an_interrupted_run_goes_on_and_ends_as_one_that_was_not(
    url: str, tmp_path: Path, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--files", files, "--per-tool", "2")
    assert generate(url, tmp_path, "whole", *options) == 0
    asked, answer = [0], SCRIPT.message

    def fails_late(body: dict[str, Any]) -> Any:
        asked[0] += 1
        if asked[0] == 9:
            raise KeyError
        return answer(body)

    monkeypatch.setattr("dualtune_edge.export.data.teacher._RETRIES", 0)
    monkeypatch.setattr(SCRIPT, "message", fails_late)
    assert generate(url, tmp_path, "parts", *options) == EngineError.exit_code
    assert not (tmp_path / "parts").exists()
    assert generate(url, tmp_path, "parts", *options, "--seed", "1") == OutputError.exit_code, "of another run"
    before = asked[0]
    assert generate(url, tmp_path, "parts", *options) == 0
    assert (tmp_path / "parts" / LINES).read_text() == (tmp_path / "whole" / LINES).read_text()
    whole = json.loads((tmp_path / "whole" / "generation.json").read_text())
    assert asked[0] - before < whole["usage"]["requests"], "nothing that was finished is asked for again"
    assert json.loads((tmp_path / "parts" / "generation.json").read_text())["usage"] == whole["usage"]
    assert not list(tmp_path.glob(".parts*"))


def test_a_limit_ends_it_with_some_of_every_tool(url: str, tmp_path: Path, files: Path) -> None:
    assert generate(url, tmp_path, "data", "--files", files, "--per-tool", "3", "--limit-tokens", "3000") == 0
    report = json.loads((tmp_path / "data" / "generation.json").read_text())
    assert report["ended"] == "limit"
    assert 0 < report["conversations"] < report["wanted"]
    assert 3000 <= report["usage"]["prompt_tokens"] + report["usage"]["completion_tokens"] < 6000
    assert generate(url, tmp_path, "other", "--limit-cost", "1") == SpecError.exit_code, "there are no prices"


def test_a_sandbox_with_files_and_a_server_that_is_none_are_refused(url: str, tmp_path: Path) -> None:
    (tmp_path / "box").mkdir()
    (tmp_path / "box" / "thesis.txt").write_text("years of work")
    assert generate(url, tmp_path, "data") == OutputError.exit_code
    assert (tmp_path / "box" / "thesis.txt").read_text() == "years of work"
    (tmp_path / "box" / "thesis.txt").unlink()
    (tmp_path / "bad.json").write_text('{"mcpServers": {"notes": {"command": "false"}}}')
    assert generate(url, tmp_path, "data", "--mcp", tmp_path / "bad.json") == ToolsError.exit_code
    assert not list(tmp_path.glob(".data*"))


def test_conversations_begin_with_the_files_of_one_of_several_folders(url: str, tmp_path: Path, files: Path) -> None:
    starts = tmp_path / "starts"
    (starts / "none").mkdir(parents=True)
    files.rename(starts / "notes")
    (starts / "none" / "violet-lantern.txt").write_text("another\n")
    (starts / "README.txt").write_text("no folder")
    assert generate(url, tmp_path, "data", "--files-of", starts, "--per-tool", "3") == 0
    named = (tmp_path / "data" / LINES).read_text()
    assert "violet-lantern" in named
    assert "copper-kettle" in named
    assert "README" not in named
    assert generate(url, tmp_path, "other", "--files-of", starts / "none") == SpecError.exit_code


class _Refusing(BaseHTTPRequestHandler):
    code, text = 401, b'{"error": {"message": "no such key"}}'

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(self.code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(self.text)))
        self.end_headers()
        self.wfile.write(self.text)

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(
    ("code", "text", "exit_code"),
    [
        (401, b'{"error": {"message": "no such key"}}', 13),
        (422, b'{"error": {"message": "unknown field: seed"}}', 12),
        (200, b"not JSON", 13),
        (200, b'{"choices": []}', 13),
        (200, b"[1]", 13),
    ],
)
def test_an_endpoint_that_does_not_answer_is_named(
    code: int, text: bytes, exit_code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with teaching(type("Handler", (_Refusing,), {"code": code, "text": text})) as address:
        assert generate(address, tmp_path, "data") == exit_code
    assert address in capsys.readouterr().err.replace("\n", "")
