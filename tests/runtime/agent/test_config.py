import json
from pathlib import Path
from typing import Any

import pytest

from dualtune_edge.runtime.agent.config import ServerConfig, read_config
from dualtune_edge.toolkit.errors import SpecError

GIT = {"command": "uvx", "args": ["mcp-server-git"]}


@pytest.fixture
def read(tmp_path: Path) -> Any:
    def read(value: object, **environment: str) -> dict[str, ServerConfig]:
        path = tmp_path / "mcp.json"
        path.write_text(json.dumps(value), encoding="utf-8")
        return read_config(path, environment)

    return read


@pytest.mark.parametrize(
    "value",
    [
        {"mcpServers": {"git": GIT}},  # Claude Desktop, Cursor
        {"servers": {"git": {"type": "stdio", **GIT}}, "inputs": []},  # VS Code, .vscode/mcp.json
        {"mcp": {"servers": {"git": GIT}}, "editor.fontSize": 12},  # VS Code, settings.json
        {"mcpServers": {"git": {**GIT, "disabled": False, "autoApprove": ["log"]}}, "theme": "dark"},
    ],
)
def test_every_hosts_file_is_read(value: object, read: Any) -> None:
    assert read(value) == {"git": ServerConfig(command="uvx", args=("mcp-server-git",))}


def test_an_address_and_its_headers(read: Any) -> None:
    found = read(
        {"mcpServers": {"x": {"type": "http", "url": "http://localhost:1/mcp", "headers": {"A": "Bearer ${BEARER}"}}}},
        BEARER="t",
    )
    assert found["x"].headers == {"A": "Bearer t"}


def test_variables_are_filled_in_everywhere(read: Any) -> None:
    entry = {"command": "${BIN}/x", "args": ["${env:ROOT}", "${PORT:-80}", "$5", "{}"], "env": {"K": "a${ROOT}b"}}
    found = read({"mcpServers": {"x": entry}}, BIN="/bin", ROOT="/r")["x"]
    assert found == ServerConfig(command="/bin/x", args=("/r", "80", "$5", "{}"), env={"K": "a/rb"})


def test_a_disabled_server_is_left_out(read: Any) -> None:
    assert list(read({"mcpServers": {"a": GIT, "b": {**GIT, "disabled": True}}})) == ["a"]


@pytest.mark.parametrize(
    ("entry", "match"),
    [
        ({"command": "x", "args": ["${NOT_SET}"]}, "NOT_SET"),
        ({"command": "x", "args": ["${input:key}"]}, "input:key"),
        ({"command": "x", "url": "http://a"}, "either"),
        ({}, "either"),
        ({"command": ""}, "command"),
        ({"comand": "x"}, "comand"),
        ({"type": "sse", "url": "http://a"}, "sse"),
        ("uvx", "git"),
    ],
)
def test_a_malformed_server_is_refused_by_name(entry: object, match: str, read: Any) -> None:
    with pytest.raises(SpecError, match=match):
        read({"mcpServers": {"git": entry}})


@pytest.mark.parametrize("value", [{}, [], {"mcpServers": {}}, {"mcpServers": []}, 5])
def test_a_file_without_servers_is_refused(value: object, read: Any) -> None:
    with pytest.raises(SpecError, match="no servers"):
        read(value)
