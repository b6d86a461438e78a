"""The demo's requests: each right call fits its tool's schema, and is made of the request's own words."""

import json

import jsonschema
import pytest
from dualtune_edge_kit import FOLDER

from dualtune_edge.toolkit.prompts.trajectories import Trajectory, read_trajectories

REQUESTS = read_trajectories(FOLDER / "demo.jsonl")


@pytest.mark.parametrize("trajectory", REQUESTS, ids=lambda trajectory: trajectory.messages[0].content)
def test_the_right_call_fits_the_schema_and_the_words(trajectory: Trajectory) -> None:
    request, answer = trajectory.messages
    (call,) = (call.function for call in answer.tool_calls)
    tools = json.loads((FOLDER / "servers" / f"{trajectory.toolset}.json").read_text(encoding="utf-8"))["tools"]
    (schema,) = (tool["inputSchema"] for tool in tools if tool["name"] == call.name)
    jsonschema.validate(call.arguments, schema)
    assert all(str(value) in (request.content or "") for value in call.arguments.values())
