"""An MCP server for tests, by the official SDK: the first argument says how it misbehaves."""

import os
import sys
import time
from typing import Annotated

import anyio
from mcp.server.elicitation import ElicitationResult
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.resolve import Elicit, Resolve
from mcp.types import ToolAnnotations
from pydantic import BaseModel

fault = sys.argv[1] if len(sys.argv) > 1 else ""
if fault == "silent":
    time.sleep(600)
if fault == "broken":
    sys.stderr.write("no configuration file\n")
    sys.exit(3)
server = MCPServer("files")


class Form(BaseModel):
    password: str


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
async def log(count: int) -> str:
    """History"""
    if fault == "dies":
        os._exit(9)
    if fault == "hangs":
        await anyio.sleep(600)
    if fault == "huge":
        return "x" * 1_000_000
    if fault == "bytes":
        sys.stdout.buffer.write(b"\xff\xfe not JSON\n")
        sys.stdout.buffer.flush()
    if fault == "raises":
        raise ToolError("no such revision")
    return f"{count} commits"


def form() -> Elicit[Form]:
    return Elicit("Your password?", Form)


@server.tool()
async def ask(answer: Annotated[ElicitationResult[Form], Resolve(form)]) -> str:
    """Ask the user for something."""
    return f"the form: {answer.action}"


@server.tool()
async def change() -> str:
    """Take the tool `log` away."""
    server.remove_tool("log")
    return "changed"


if fault == "unlisted":

    async def never(*_: object) -> None:
        await anyio.sleep(600)

    server.list_tools = never  # type: ignore[method-assign]

server.run()
