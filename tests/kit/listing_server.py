"""An MCP server for tests that lists the tools of a file and does none of them: LIST FAULT LOG are its arguments.

Each call that reaches it is a line of LOG. It speaks the protocol by hand, so that it can break it.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

listed: list[dict[str, Any]] = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))["tools"]
tools = [{key: value for key, value in tool.items() if key != "outputSchema"} for tool in listed]  # results are texts
fault, log = sys.argv[2], Path(sys.argv[3])
TEXTS = {"git_add": "Files staged successfully"}  # as the real server has it


def send(message: dict[str, Any], spoilt: bytes = b"") -> None:
    line = json.dumps({"jsonrpc": "2.0", **message}, ensure_ascii=False).encode()
    sys.stdout.buffer.write(line.replace(b"\\\\spoilt", spoilt) + b"\n")
    sys.stdout.buffer.flush()


def answer(request: dict[str, Any], text: str, *, spoilt: bytes = b"", error: bool = False) -> None:
    result = {"content": [{"type": "text", "text": text}], "isError": error}
    send({"id": request["id"], "result": result}, spoilt)


def call(request: dict[str, Any]) -> None:
    with log.open("a", encoding="utf-8") as file:
        file.write(json.dumps(request["params"]["name"]) + "\n")
    if fault == "dies":
        os._exit(9)
    elif fault == "half":
        sys.stdout.buffer.write(b'{"jsonrpc": "2.0", "id"')
        sys.stdout.buffer.flush()
        os._exit(9)
    elif fault == "silent":
        pass
    elif fault == "asks":
        schema = {"type": "object", "properties": {"password": {"type": "string"}}}
        send({"id": "q", "method": "elicitation/create", "params": {"message": "Pass?", "requestedSchema": schema}})
        reply = json.loads(sys.stdin.buffer.readline())
        answer(request, f"the form: {reply.get('result', reply)}")
    elif fault == "changes":
        tools[:] = [tool for tool in tools if tool["name"] != request["params"]["name"]]
        send({"method": "notifications/tools/list_changed"})
        answer(request, "done")
    elif fault == "huge":
        answer(request, "commit 1234567 " * 70_000)
    elif fault == "bytes":
        answer(request, "caf\\spoilt au lait", spoilt=b"\xff\xfe\xe9")
    elif fault == "noise":
        sys.stdout.buffer.write(b"\xff\xfe no JSON\n")
        answer(request, "done")
    elif fault == "fails":
        answer(request, "no such repository", error=True)
    else:
        answer(request, TEXTS.get(request["params"]["name"], "done"))


for line in sys.stdin.buffer:
    request = json.loads(line)
    method = request.get("method")
    if method == "initialize":
        answered = {
            "protocolVersion": request["params"]["protocolVersion"],
            "capabilities": {"tools": {"listChanged": True}},
            "serverInfo": {"name": "listing", "version": "1"},
        }
        send({"id": request["id"], "result": answered})
    elif method == "tools/list":
        send({"id": request["id"], "result": {"tools": tools}})
    elif method == "tools/call":
        call(request)
    elif "id" in request:
        send({"id": request["id"], "error": {"code": -32601, "message": f"no {method}"}})
