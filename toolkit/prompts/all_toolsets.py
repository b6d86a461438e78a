"""All toolsets of a bundle as a template may show them to every stage: so prompts of several toolsets begin alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dualtune_edge.toolkit.tools.toolset import Tool, Toolset


@dataclass(frozen=True)
class AllToolsets:
    """The toolsets with their tools, and the entry that stands for calling none."""

    toolsets: tuple[Toolset, ...]
    no_tool: Tool

    @property
    def entries(self) -> tuple[Tool, ...]:
        """Each toolset's own entry, and its tools."""
        return tuple(tool for toolset in self.toolsets for tool in (toolset.entry, *toolset.tools))

    def for_template(self) -> dict[str, Any]:
        """The template's variables: `toolsets`, each with its tools in the OpenAI form, and `no_tool`, in it too."""
        toolsets = [
            {
                "name": toolset.name,
                "description": toolset.description,
                "tools": [tool.for_template() for tool in toolset.tools],
            }
            for toolset in self.toolsets
        ]
        return {"toolsets": toolsets, "no_tool": self.no_tool.for_template()}
