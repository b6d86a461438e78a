"""MCP servers as people have them in files: Claude Desktop's and Cursor's `mcpServers`, VS Code's `servers`."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import Field, StringConstraints, model_validator

from dualtune_edge.toolkit import strict_json
from dualtune_edge.toolkit.errors import SpecError
from dualtune_edge.toolkit.frozen import Frozen
from dualtune_edge.toolkit.validation import validate

_KEYS: Final = ("mcpServers", "servers")
_VARIABLE: Final = re.compile(r"\$\{(?:env:)?(?P<name>[A-Za-z_]\w*)(?::-(?P<default>[^}]*))?\}")
_UNFILLED: Final = re.compile(r"\$\{[^}]*\}")  # as VS Code's ${input:…}
_HOST_ONLY: Final = frozenset(
    {"type", "transport", "disabled", "autoApprove", "alwaysAllow", "description", "timeout", "gallery", "version"}
)  # keys of the hosts' own, which change nothing about the connection
Text = Annotated[str, StringConstraints(min_length=1)]


class ServerConfig(Frozen):
    """One server: a `command` to start (stdio), or the `url` of a running one (streamable HTTP)."""

    command: Text | None = None
    args: tuple[str, ...] = ()
    env: dict[str, str] = Field(default_factory=dict)
    cwd: Path | None = None
    url: Text | None = None
    headers: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_transport(self) -> ServerConfig:
        if (self.command is None) == (self.url is None):
            raise ValueError("either a `command` or a `url`")
        return self


def read_config(path: Path, environment: Mapping[str, str] = os.environ) -> dict[str, ServerConfig]:
    """The servers of a file by name, in its order; disabled ones are left out.

    `${NAME}`, `${env:NAME}` and `${NAME:-default}` are filled in from `environment`.

    Raises:
        SpecError: no such JSON file, no server, an unknown key, or a variable that is not set.

    """
    try:
        value = strict_json.loads(path.read_bytes())
    except (OSError, strict_json.JsonError) as error:
        raise SpecError(str(path), found=str(error), expected="a JSON file", fix="Check the file.") from None
    named = _servers(value)
    if not named:
        raise SpecError(
            str(path),
            found="no servers",
            expected='{"mcpServers": {"NAME": {"command": …}}}',
            fix="Name at least one server.",
        )
    return {
        name: _server(entry, f"{path}, {name}", environment)
        for name, entry in named.items()
        if not (isinstance(entry, dict) and entry.get("disabled") is True)
    }


def _servers(value: Any) -> dict[str, Any]:
    """The mapping of names, under whichever key it stands; VS Code's settings have it one level deeper."""
    if not isinstance(value, dict):
        return {}
    for key in _KEYS:
        if isinstance(value.get(key), dict):
            return dict(value[key])
    return _servers(value["mcp"]) if "mcp" in value else {}


def _server(entry: Any, where: str, environment: Mapping[str, str]) -> ServerConfig:
    if isinstance(entry, dict):
        if entry.get("type") == "sse":
            raise SpecError(
                f"{where}, type",
                found="'sse', a transport that MCP has dropped",
                expected="stdio or streamable HTTP",
                fix="Use the server's streamable HTTP address.",
            )
        entry = {key: value for key, value in entry.items() if key not in _HOST_ONLY}
    return validate(ServerConfig, _filled(entry, where, environment), where=where, error=SpecError)


def _filled(value: Any, where: str, environment: Mapping[str, str]) -> Any:
    """The value with its variables filled in."""
    if isinstance(value, dict):
        return {key: _filled(part, f"{where}, {key}", environment) for key, part in value.items()}
    if isinstance(value, list):
        return [_filled(part, where, environment) for part in value]
    if not isinstance(value, str):
        return value

    def fill(variable: re.Match[str]) -> str:
        name, default = variable["name"], variable["default"]
        if name in environment:
            return environment[name]
        if default is not None:
            return default
        raise SpecError(
            where, found=f"${{{name}}}, which is not set", expected="a variable of the environment", fix=f"Set {name}."
        )

    filled = _VARIABLE.sub(fill, value)
    if unknown := _UNFILLED.search(filled):
        raise SpecError(
            where,
            found=f"{unknown[0]}, which is no variable of the environment",
            expected="${NAME} or ${env:NAME}",
            fix="Write the value, or the name of a variable that holds it.",
        )
    return filled
