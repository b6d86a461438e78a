"""Tools and toolsets: read MCP `tools/list`, OpenAI `tools` and BFCL functions into one form."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from dualtune_edge.toolkit import limits
from dualtune_edge.toolkit.frozen import Frozen


class Tool(Frozen):
    """One tool: its name, what it does, and the JSON Schema of its arguments (always an object's)."""

    name: str = Field(min_length=1, max_length=limits.NAME_CHARS)
    description: str = ""
    parameters: dict[str, Any] = Field(default_factory=lambda: {"type": "object", "properties": {}})

    @property
    def takes_arguments(self) -> bool:
        """Whether a call of this tool can hold any argument."""
        return bool(self.parameters.get("properties")) or self.parameters.get("additionalProperties") is not False

    def for_template(self) -> dict[str, Any]:
        """The OpenAI form, which Hugging Face chat templates read."""
        function = {"name": self.name, "description": self.description, "parameters": self.parameters}
        return {"type": "function", "function": function}


class Toolset(Frozen):
    """Tools that are chosen among together (in DualTune: one MCP server)."""

    name: str = Field(min_length=1, max_length=limits.NAME_CHARS)
    description: str = ""
    tools: tuple[Tool, ...] = Field(min_length=1, max_length=limits.TOOLS)
