import json
from pathlib import Path
from typing import Any

import pytest

from dualtune_edge.toolkit import limits
from dualtune_edge.toolkit.errors import ToolsError
from dualtune_edge.toolkit.tools.tool_files import parse_tools, read_tools
from dualtune_edge.toolkit.tools.toolset import Tool

SCHEMA = {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]}


def mcp(**more: Any) -> dict[str, Any]:
    return {"name": "read", "description": "Reads.", "inputSchema": SCHEMA, **more}


SHAPES: dict[str, Any] = {
    "MCP": {"tools": [mcp(title="Read", annotations={"readOnlyHint": True})]},
    "MCP reply": {"jsonrpc": "2.0", "id": 1, "result": {"tools": [mcp()]}},
    "MCP items": [mcp()],
    "MCP pages": [{"tools": [mcp()], "nextCursor": "2"}, {"tools": [mcp(name="b")]}],
    "MCP replies": [{"id": 1, "result": {"tools": [mcp()], "nextCursor": "2"}}, {"result": {"tools": [mcp(name="b")]}}],
    "MCP, the last page": {"tools": [mcp()], "nextCursor": ""},
    "Anthropic": [{"name": "read", "description": "Reads.", "input_schema": SCHEMA, "cache_control": {}}],
    "Anthropic request": {
        "tools": [{"type": "custom", "name": "read", "description": "Reads.", "input_schema": SCHEMA}]
    },
    "OpenAI": [{"type": "function", "function": {"name": "read", "description": "Reads.", "parameters": SCHEMA}}],
    "OpenAI request": {
        "tools": [{"type": "function", "function": {"name": "read", "description": "Reads.", "parameters": SCHEMA}}]
    },
    "OpenAI responses": [{"type": "function", "name": "read", "description": "Reads.", "parameters": SCHEMA}],
    "BFCL": [{"name": "read", "description": "Reads.", "parameters": {**SCHEMA, "type": "dict"}}],
    "BFCL row": {
        "id": "simple_1",
        "question": [],
        "function": [{"name": "read", "description": "Reads.", "parameters": {**SCHEMA, "type": "dict"}}],
    },
}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_gives_the_same_tool(shape: str, tmp_path: Path) -> None:
    file = tmp_path / "tools.json"
    file.write_text(json.dumps(SHAPES[shape]), encoding="utf-8")
    tool, *others = read_tools(file)
    assert [other.name for other in others] == (["b"] if shape in {"MCP pages", "MCP replies"} else [])
    assert (tool.name, tool.description, tool.reading.schema) == ("read", "Reads.", SCHEMA)
    if not shape.startswith("BFCL"):
        assert tool == Tool(name="read", description="Reads.", parameters=SCHEMA)


def test_the_pages_of_a_list_may_stand_one_a_line(tmp_path: Path) -> None:
    file = tmp_path / "tools.jsonl"
    file.write_text("\n".join(map(json.dumps, SHAPES["MCP replies"])) + "\n", encoding="utf-8")
    assert [tool.name for tool in read_tools(file)] == ["read", "b"]


def test_a_prompt_shows_openais_function_as_it_was_given() -> None:
    """In OpenAI's order, as servers send it; what else it holds stands behind."""
    schema = {"required": ["b"], "type": "object", "properties": {"b": {"type": "string"}, "a": {"default": None}}}
    given = {"parameters": schema, "strict": True, "description": "Reads.", "name": "read", "x-note": {"z": 1}}
    (tool,) = parse_tools([{"function": given, "type": "function"}], where="test")
    shown = {"name": "read", "description": "Reads.", "parameters": schema, "strict": True, "x-note": {"z": 1}}
    assert json.dumps(tool.for_template()) == json.dumps({"type": "function", "function": shown})
    assert Tool.model_validate_json(tool.model_dump_json()) == tool
    del given["strict"], given["x-note"]
    (plain,) = parse_tools([{"function": given, "type": "function"}], where="test")
    assert json.dumps(plain.for_template()["function"]) == json.dumps({key: shown[key] for key in list(shown)[:3]})
    assert "function" not in plain.model_dump()


def test_a_server_of_604_tools_is_read() -> None:
    assert len(parse_tools([mcp(name=f"t{number}") for number in range(604)], where="test")) == 604


def test_python_type_names_are_bfcls_alone() -> None:
    schema = {
        "type": "dict",
        "properties": {
            "a": {"type": "float"},
            "b": {"type": "array", "items": {"type": "tuple"}},
            "c": {"type": "any"},
        },
    }
    (tool,) = parse_tools([{"name": "f", "parameters": schema}], where="test")
    assert tool.parameters == schema
    assert tool.reading.schema["properties"] == {
        "a": {"type": "number"},
        "b": {"type": "array", "items": {"type": "array"}},
        "c": {},
    }
    with pytest.raises(ToolsError, match="dict"):
        parse_tools([{"name": "f", "inputSchema": schema}], where="test")


@pytest.mark.parametrize("parameters", [None, {}, {"type": "object"}, {"type": "object", "properties": {}}])
def test_a_tool_without_properties_takes_no_arguments(parameters: Any) -> None:
    (tool,) = parse_tools([{"type": "function", "name": "f", "parameters": parameters}], where="test")
    assert not tool.takes_arguments
    assert tool.reading.fault({}) is None
    assert tool.reading.fault({"a": 1})


def test_a_tool_with_free_arguments_takes_them() -> None:
    (tool,) = parse_tools([mcp(inputSchema={"type": "object", "additionalProperties": True})], where="test")
    assert tool.takes_arguments


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ({}, "no list of tools"),
        ("tools", "no list of tools"),
        ([], "found 0 tools"),
        ([mcp(name=f"t{n}") for n in range(limits.TOOLS + 1)], f"{limits.TOOLS + 1} tools"),
        ({"tools": [mcp()], "nextCursor": "page-2"}, "nextCursor"),
        ([mcp(), mcp(name="write"), mcp()], "2 tools named 'read'"),
        ([3], "tool 1: found a tool that is int"),
        ([{"title": "x"}], "the keys title"),
        ([mcp(name="")], "the name ''"),
        ([mcp(name="a\nb")], "printable"),
        ([mcp(name="a\u202eb")], "printable"),
        ([mcp(name="x" * 129)], "1 to 128"),
        ([mcp(description=3)], "description 3"),
        ([mcp(inputSchema=[])], "a schema that is list"),
        ([mcp(inputSchema={"type": "array"})], "arguments of type 'array'"),
        ([{"name": "read", "description": "Reads.", "args_schema": SCHEMA}], r"\(read\).*'args_schema'"),
        ([{"tools": [mcp()], "nextCursor": "2"}, {"tools": [mcp(name="b")], "nextCursor": "3"}], "nextCursor"),
        ([{"type": "function", "function": {"name": "read", "inputSchema": SCHEMA}}], r"\(read\).*'inputSchema'"),
        ([mcp(inputSchema={"type": "object", "properties": {"a": {"type": "text"}}})], r"'text' .*properties/a/type"),
        ([mcp(inputSchema={"$schema": 5})], r"\$schema 5"),
        ([mcp(inputSchema={"properties": {"a": {"$ref": "https://example.com/a"}}})], "another document"),
    ],
)
def test_refuses(value: Any, complaint: str) -> None:
    with pytest.raises(ToolsError, match=complaint):
        parse_tools(value, where="test")


@pytest.mark.parametrize("text", [None, "{", '{"tools": [], "tools": []}'])
def test_an_unreadable_file_is_named(text: str | None, tmp_path: Path) -> None:
    file = tmp_path / "tools.json"
    if text is not None:
        file.write_text(text, encoding="utf-8")
    with pytest.raises(ToolsError, match=r"tools\.json: found"):
        read_tools(file)
