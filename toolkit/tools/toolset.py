"""Tools and toolsets: MCP `tools/list`, OpenAI `tools`, Anthropic's and BFCL's functions in one form."""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import Any

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from dualtune_edge.toolkit import limits
from dualtune_edge.toolkit.frozen import Frozen
from dualtune_edge.toolkit.tools.schemas import Reading, read_schema


class Tool(Frozen):
    """One tool: its name, what it does, and the JSON Schema of its arguments, as the tool list has it.

    `function` is the whole OpenAI function where it has other keys than these three; it is what prompts show.
    """

    name: str = Field(min_length=1, max_length=limits.NAME_CHARS)
    description: str = ""
    parameters: dict[str, Any] = Field(default_factory=lambda: {"type": "object", "properties": {}})
    function: dict[str, Any] | None = None  # None is left out of JSON

    @model_serializer(mode="wrap")
    def _without_none(self, dump: SerializerFunctionWrapHandler) -> dict[str, object]:
        return {name: value for name, value in dump(self).items() if value is not None}

    @cached_property
    def reading(self) -> Reading:
        """Its schema, read.

        Raises:
            ToolsError: the schema cannot be used; one from a tool list can.

        """
        return read_schema(self.parameters, f"schema of {self.name!r}")

    @property
    def takes_arguments(self) -> bool:
        """Whether a call of this tool can hold any argument."""
        if self.parameters.get("properties"):
            return True
        schema = self.reading.constraint.schema
        return bool(schema["properties"]) or schema.get("additionalProperties") is not False

    def for_template(self) -> dict[str, Any]:
        """The OpenAI form, which Hugging Face chat templates read."""
        function = {"name": self.name, "description": self.description, "parameters": self.parameters}
        return {"type": "function", "function": self.function or function}


class Toolset(Frozen):
    """Tools that are chosen among together (in DualTune: one MCP server)."""

    name: str = Field(min_length=1, max_length=limits.NAME_CHARS)
    description: str = ""
    tools: tuple[Tool, ...] = Field(min_length=1, max_length=limits.TOOLS)

    @property
    def entry(self) -> Tool:
        """Its entry in the choice among toolsets."""
        return toolset_entry(self.name, self.description)

    @property
    def sha256(self) -> str:
        """Of all that a prompt shows of it, as JSON: not of the file that it was read from."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


def toolset_entry(name: str, description: str) -> Tool:
    """A toolset as a pseudo-tool: it is chosen like a tool."""
    closed = {"type": "object", "properties": {}, "additionalProperties": False}
    return Tool(name=name, description=description, parameters=closed)
