"""Tools of a request against the bundle's: what frameworks change in a schema makes no difference, the rest does."""

from __future__ import annotations

from typing import Any

import pytest

from dualtune_edge.runtime.bundle.folder import Bundle
from dualtune_edge.runtime.serve.errors import ApiError
from dualtune_edge.runtime.serve.offered import offered
from dualtune_edge.runtime.serve.requests import NamedFunction, NamedTool, RequestedTool

PATH: dict[str, Any] = {"type": "string", "maxLength": 8}
LINES: dict[str, Any] = {"type": "integer", "maximum": 99}


def read(properties: dict[str, Any], **words: Any) -> list[RequestedTool]:
    schema = {"type": "object", "properties": properties, "required": ["path"], **words}
    return [RequestedTool.model_validate({"type": "function", "function": {"name": "read", "parameters": schema}})]


@pytest.mark.parametrize(
    "tools",
    [
        read({"path": PATH, "lines": LINES}),
        read({"path": PATH, "lines": LINES}, additionalProperties=False),
        read({"path": {"title": "Path", "description": "Which", **PATH}, "lines": LINES}, title="readArguments"),
        read({"path": PATH, "lines": LINES}, **{"$schema": "https://json-schema.org/draft/2020-12/schema"}),
    ],
)
def test_what_allows_the_same_arguments_is_the_same_tool(tools: list[RequestedTool], opened: Bundle) -> None:
    assert offered(opened.manifest, tools, None) == {"files": {"read"}}


@pytest.mark.parametrize(
    "tools",
    [
        read({"path": PATH}),
        read({"path": {"type": "string"}, "lines": LINES}),
        read({"path": PATH, "lines": LINES, "title": {"type": "string"}}),
        read({"path": PATH, "lines": LINES}, required=[]),
        read({"path": PATH, "lines": LINES}, required=["path", "lines"]),
        read({"path": PATH, "lines": LINES}, additionalProperties=True),
        read({"path": {"$ref": "#/nowhere"}, "lines": LINES}),
        read({"path": 5, "lines": LINES}),
    ],
)
def test_what_allows_others_is_refused(tools: list[RequestedTool], opened: Bundle) -> None:
    with pytest.raises(ApiError) as caught:
        offered(opened.manifest, tools, None)
    assert (caught.value.status, caught.value.param) == (400, "tools[0].function.parameters")


@pytest.mark.parametrize("choice", ["required", NamedTool(type="function", function=NamedFunction(name="read"))])
def test_a_call_that_is_asked_for_needs_tools(choice: Any, opened: Bundle) -> None:
    with pytest.raises(ApiError, match="no 'tools'"):
        offered(opened.manifest, (), choice)
