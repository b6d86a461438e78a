"""Tool lists on disk, in four shapes, which differ in the keys that they hold.

- MCP: a `tools/list` result, `{"tools": [{"name", "description", "inputSchema"}]}`, alone or in its JSON-RPC reply; the
  pages of a long one are a list of such results, or one a line;
- OpenAI: `[{"type": "function", "function": {"name", "description", "parameters"}}]`, alone or under `tools`;
- Anthropic: `[{"name", "description", "input_schema"}]`, alone or under `tools`;
- BFCL: `[{"name", "description", "parameters": {"type": "dict", …}}]`, alone or under `function` of a BFCL row.

Of a tool, the name, the description and the argument schema are read: all that a call is made of. Titles, annotations,
icons and output schemas describe what comes after it. What else OpenAI's function holds, as `strict`, prompts show.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any, Final, Literal

from dualtune_edge.toolkit import limits, strict_json
from dualtune_edge.toolkit.errors import ToolsError
from dualtune_edge.toolkit.tools.schemas import read_schema
from dualtune_edge.toolkit.tools.toolset import Tool

Shape = Literal["MCP", "OpenAI", "Anthropic", "BFCL"]
_SCHEMA_KEYS: Final[dict[Shape, str]] = {
    "MCP": "inputSchema", "OpenAI": "parameters", "Anthropic": "input_schema", "BFCL": "parameters",
}  # fmt: skip
# What a tool may say without a schema: none of it is about its arguments.
_ABOUT: Final = {
    "_meta", "annotations", "description", "execution", "icons", "name", "outputSchema", "response", "strict", "title",
    "type",
}  # fmt: skip


def read_tools(path: Path) -> tuple[Tool, ...]:
    """The tools of one file, in its order.

    Raises:
        ToolsError: the file cannot be read, has none of the four shapes, or holds a tool that cannot be used.

    """
    try:
        data = path.read_bytes()
        value = _lines(data) or strict_json.loads(data)
    except (OSError, strict_json.JsonError) as error:
        raise ToolsError(str(path), found=str(error), expected="a JSON tool list", fix="Check the file.") from None
    return parse_tools(value, where=str(path))


def _lines(data: bytes) -> list[Any] | None:
    """The pages of a list, one a line; None: the file is one JSON value."""
    lines = [line for line in data.splitlines() if line.strip()]
    if len(lines) < 2:
        return None
    try:
        values = [strict_json.loads(line) for line in lines]
    except strict_json.JsonError:
        return None
    return values if all(map(_is_page, values)) else None


def parse_tools(value: Any, *, where: str) -> tuple[Tool, ...]:
    """The tools of a parsed tool list; `where` names it in errors.

    Raises:
        ToolsError: as for `read_tools`.

    """
    items = _items(value, where)
    if not 0 < len(items) <= limits.TOOLS:
        raise ToolsError(
            where,
            found=f"{len(items)} tools",
            expected=f"between 1 and {limits.TOOLS}",
            fix="Give each toolset its own file.",
        )
    tools = tuple(_tool(item, f"{where}, tool {number}") for number, item in enumerate(items, start=1))
    name, count = Counter(tool.name for tool in tools).most_common(1)[0]
    if count > 1:
        raise ToolsError(
            where,
            found=f"{count} tools named {name!r}",
            expected="each name once in a toolset",
            fix="Rename one, or put it into another toolset.",
        )
    return tools


def _is_page(value: Any) -> bool:
    return isinstance(value, dict) and (isinstance(value.get("result"), dict) or isinstance(value.get("tools"), list))


def _items(value: Any, where: str) -> list[Any]:
    if isinstance(value, list) and value and all(map(_is_page, value)):
        return [item for page in value for item in _page(page, where, last=page is value[-1])]
    return _page(value, where, last=True)


def _page(value: Any, where: str, *, last: bool) -> list[Any]:
    if isinstance(value, dict) and isinstance(value.get("result"), dict):
        value = value["result"]
    if isinstance(value, dict):
        if value.get("nextCursor") and last:
            raise ToolsError(
                where,
                found="a nextCursor: one page of a longer list",
                expected="the whole tools/list",
                fix="Ask the server for the further pages, and write all pages as a list or one a line.",
            )
        value = value.get("tools", value.get("function"))
    if not isinstance(value, list):
        raise _shapeless(where, "no list of tools")
    return value


def _tool(item: Any, where: str) -> Tool:
    shape, function = _shape(item, where)
    name, description = function.get("name"), function.get("description") or ""
    if not isinstance(name, str) or not 0 < len(name) <= limits.NAME_CHARS or any(map(_unprintable, name)):
        expected = f"1 to {limits.NAME_CHARS} printable characters"
        raise ToolsError(where, found=f"the name {name!r}", expected=expected, fix="Rename the tool.")
    if not isinstance(description, str):
        found = f"the description {description!r}"
        raise ToolsError(where, found=found, expected="a text", fix="Correct the tool list.")
    key = _SCHEMA_KEYS[shape]
    schema = function.get(key)
    if schema is None:
        _refuse_other_keys(function.keys() - {key}, f"{where} ({name})")
        schema = {"type": "object", "properties": {}}
    if shape != "BFCL" and isinstance(schema, dict) and schema.get("type") == "dict":
        raise ToolsError(
            f"{where} ({name})",
            found=f"arguments of type 'dict', as BFCL writes them, under `{key}`",
            expected="type 'object'",
            fix="Correct the tool list, or write it as BFCL has it.",
        )
    read_schema(schema, f"{where} ({name})")
    known = {"name": name, "description": description, "parameters": schema}
    further = {key: value for key, value in function.items() if key not in known} if "function" in item else {}
    return Tool(
        name=name, description=description, parameters=schema, function={**known, **further} if further else None
    )


def _refuse_other_keys(keys: set[str], where: str) -> None:
    """A schema under another name would make a tool without arguments."""
    if others := sorted(keys - _ABOUT):
        raise ToolsError(
            where,
            found=f"no schema of its arguments, and the key {others[0]!r}",
            expected="the schema under `inputSchema` (MCP), `input_schema` (Anthropic) or `parameters` (OpenAI, BFCL)",
            fix="Rename the key; or remove it, if the tool takes no arguments.",
        )


def _shape(item: Any, where: str) -> tuple[Shape, dict[str, Any]]:
    if not isinstance(item, dict):
        raise _shapeless(where, f"a tool that is {type(item).__name__}")
    if isinstance(item.get("function"), dict):
        return "OpenAI", item["function"]
    if "inputSchema" in item:
        return "MCP", item
    if "input_schema" in item:
        return "Anthropic", item
    if "name" in item:
        return ("OpenAI" if item.get("type") == "function" else "BFCL"), item
    raise _shapeless(where, f"the keys {', '.join(sorted(map(str, item)))}")


def _shapeless(where: str, found: str) -> ToolsError:
    return ToolsError(
        where,
        found=found,
        expected="an MCP tools/list result, OpenAI's or Anthropic's tools, or BFCL functions",
        fix="Save what the server answers to tools/list.",
    )


def _unprintable(character: str) -> bool:
    return unicodedata.category(character) in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
