"""An MCP server of four tools: notes, as text files in the folder that it is started in. The standard library alone."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

_NAME: Final = {"type": "string", "description": "the note's name"}
_TEXT: Final = {"type": "string", "description": "what it says"}


def list_notes() -> str:
    """List the names of all notes."""
    return "\n".join(sorted(path.stem for path in Path().glob("*.txt"))) or "no notes"


def read_note(name: str) -> str:
    """Read a note."""
    return _path(name).read_text(encoding="utf-8").strip()


def add_note(name: str, text: str) -> str:
    """Write a new note."""
    _path(name).write_text(f"{text}\n", encoding="utf-8")
    return f"added {name}"


def remove_note(name: str) -> str:
    """Remove a note."""
    _path(name).unlink()
    return f"removed {name}"


def _path(name: str) -> Path:
    if "/" in name or "\\" in name:
        raise ValueError("a name is no path")
    return Path(f"{name}.txt")


_TOOLS: Final[dict[str, tuple[Callable[..., str], dict[str, Any], bool]]] = {  # function, arguments, reads only
    "list_notes": (list_notes, {}, True),
    "read_note": (read_note, {"name": _NAME}, True),
    "add_note": (add_note, {"name": _NAME, "text": _TEXT}, False),
    "remove_note": (remove_note, {"name": _NAME}, False),
}


def _listed(name: str) -> dict[str, Any]:
    function, arguments, reads = _TOOLS[name]
    schema = {"type": "object", "properties": arguments, "required": list(arguments)}
    annotations = {"readOnlyHint": reads}
    return {"name": name, "description": function.__doc__, "inputSchema": schema, "annotations": annotations}


def _called(name: str, arguments: dict[str, str]) -> dict[str, Any]:
    try:
        text, error = _TOOLS[name][0](**arguments), False
    except (OSError, ValueError) as fault:
        text, error = f"{type(fault).__name__}: {fault}", True
    return {"content": [{"type": "text", "text": text}], "isError": error}


def _answer(method: str, params: dict[str, Any]) -> dict[str, Any] | None:
    """A request's result; None: there is no such method."""
    if method == "initialize":
        about = {"name": "notes", "version": "1"}
        return {"protocolVersion": params["protocolVersion"], "capabilities": {"tools": {}}, "serverInfo": about}
    if method == "tools/list":
        return {"tools": [_listed(name) for name in _TOOLS]}
    if method == "tools/call":
        return _called(params["name"], params.get("arguments") or {})
    return {} if method == "ping" else None


def main() -> None:
    """Answer requests, a JSON object a line, to the end of the input."""
    for line in sys.stdin:
        request = json.loads(line)
        if "id" not in request:
            continue
        result = _answer(request["method"], request.get("params") or {})
        outcome = {"error": {"code": -32601, "message": "no such method"}} if result is None else {"result": result}
        sys.stdout.write(json.dumps({"jsonrpc": "2.0", "id": request["id"]} | outcome) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
