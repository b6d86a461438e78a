"""`--keep` of a run of several adapters: each takes the shares of its own tools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from dualtune_edge.export.finetune.settings import Objective
from dualtune_edge.export.finetune.whole_spec.planning import Planned
from dualtune_edge.toolkit.errors import SpecError
from dualtune_edge.toolkit.tools.tool_files import read_tools
from dualtune_edge.toolkit.validation import listing, nearest

_CHOICES: Final[tuple[Objective, ...]] = ("toolset", "selection")  # all others learn every turn of their tool


def refuse_unheard(keep: Mapping[str, float], adapters: Sequence[Planned], no_tool: str) -> None:
    """Refuse shares that no adapter takes.

    Raises:
        SpecError: no adapter chooses among tools, or a name is no tool of those that do.

    """
    names = list(dict.fromkeys(name for adapter in adapters for name in _names(adapter, no_tool)))
    for tool in keep:
        if not names:
            raise SpecError(
                "--keep",
                found=f"{tool}, and no adapter that chooses",
                expected="an adapter of a toolset or selection, whose samples are thinned out",
                fix="Leave it out.",
            )
        if tool not in names:
            raise SpecError("--keep", found=f"the tool {tool!r}", expected=listing(names), fix=nearest(tool, names))


def shares_of(adapter: Planned, keep: Mapping[str, float], no_tool: str) -> dict[str, float]:
    """Those that thin out this adapter's samples."""
    names = _names(adapter, no_tool)
    return {tool: share for tool, share in keep.items() if tool in names}


def _names(adapter: Planned, no_tool: str) -> list[str]:
    """What the samples of an adapter that chooses may call; empty for any other."""
    if adapter.objective not in _CHOICES:
        return []
    tools = (tool.name for source in adapter.sources if source.tools for tool in read_tools(source.tools))
    return [*tools, no_tool]
