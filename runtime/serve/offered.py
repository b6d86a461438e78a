"""The tools of a request against the bundle's: a subset by name and schema, or an error that names the stranger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dualtune_edge.runtime.serve.errors import ApiError
from dualtune_edge.runtime.serve.requests import NamedTool, RequestedTool, ToolChoice
from dualtune_edge.toolkit.bundle.manifest import Manifest
from dualtune_edge.toolkit.errors import ToolsError
from dualtune_edge.toolkit.tools.constraint import constrain
from dualtune_edge.toolkit.tools.parts import SchemaReadError
from dualtune_edge.toolkit.tools.tool_files import parse_tools
from dualtune_edge.toolkit.tools.toolset import Tool
from dualtune_edge.toolkit.validation import listing, nearest


def offered(
    manifest: Manifest, tools: Sequence[RequestedTool], choice: ToolChoice | None
) -> Mapping[str, frozenset[str]]:
    """Toolset → names of its tools that the request offers.

    Raises:
        ApiError: a tool that the bundle does not have, or has with another schema; a `tool_choice` that is none of
            the request's tools.

    """
    if not tools and (choice == "required" or isinstance(choice, NamedTool)):
        raise ApiError(400, "'tool_choice' asks for a call, and there are no 'tools'.", param="tool_choice")
    found: dict[str, set[str]] = {}
    for index, tool in enumerate(tools):
        found.setdefault(_toolset(manifest, tool, f"tools[{index}]"), set()).add(tool.function.name)
    if isinstance(choice, NamedTool):
        name = choice.function.name
        found = {toolset: {name} for toolset, names in found.items() if name in names}
        if not found:
            raise ApiError(400, f"'tool_choice' names {name!r}, which is none of 'tools'.", param="tool_choice")
    return {toolset: frozenset(names) for toolset, names in found.items()}


def _toolset(manifest: Manifest, requested: RequestedTool, where: str) -> str:
    """The toolset that has the tool."""
    name = requested.function.name
    having = {entry.toolset.name: entry.toolset for entry in manifest.toolsets}
    known = {toolset: {tool.name: tool for tool in value.tools} for toolset, value in having.items()}
    same_name = [toolset for toolset, named in known.items() if name in named]
    if not same_name:
        names = sorted({tool for named in known.values() for tool in named})
        raise ApiError(
            400,
            f"The tool {name!r} is not in this bundle, which has {listing(names)}. {nearest(name, names)}",
            param=f"{where}.function.name",
            code="unknown_tool",
        )
    equal = [toolset for toolset in same_name if _is_equal(requested, known[toolset][name], where)]
    if len(equal) != 1:
        why = "has another schema than the bundle's" if not equal else f"is in several toolsets: {', '.join(equal)}"
        raise ApiError(400, f"The tool {name!r} {why}.", param=f"{where}.function.parameters", code="unknown_tool")
    return equal[0]


def _is_equal(requested: RequestedTool, tool: Tool, where: str) -> bool:
    """Whether a request's tool is the bundle's: whether its schema allows the same arguments.

    Frameworks write titles and `additionalProperties` as they like. Without a schema the name alone says so.
    """
    if requested.function.parameters is None:
        return True
    listed = {"type": "function", "function": {"name": tool.name, "parameters": requested.function.parameters}}
    try:
        (read,) = parse_tools([listed], where=where)
        asked, own = constrain(read.parameters), constrain(tool.parameters)
    except (ToolsError, SchemaReadError) as error:
        raise ApiError(400, str(error), param=f"{where}.function.parameters") from None
    return (asked.schema, asked.left) == (own.schema, own.left)
