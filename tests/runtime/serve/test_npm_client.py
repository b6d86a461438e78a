"""OpenAI's package of npm, unchanged, against a real server."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parent / "clients" / "openai_client.mjs"


@pytest.fixture
def got(running: Any, node: Callable[..., str]) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(node(SCRIPT.read_text(encoding="utf-8"), running.url, running.service.model))
    return value


def test_what_the_client_gets(got: dict[str, Any], running: Any) -> None:
    assert got["models"] == [running.service.model]
    user, call, result, answer = got["turns"]
    assert (user["role"], call["tool_calls"][0]["function"]["name"]) == ("user", "read")
    assert result == {"role": "tool", "tool_call_id": call["tool_calls"][0]["id"], "content": "the lines of größe"}
    assert (answer["role"], answer["content"]) == ("assistant", "It is done.")
    streamed = got["streamed"]
    assert streamed["events"] == ["call"]
    assert streamed["choice"]["finish_reason"] == "tool_calls"
    assert streamed["choice"]["message"]["tool_calls"][0]["function"]["name"] == "sort"
    assert streamed["usage"]["prompt_tokens_details"] == {"cached_tokens": 30}
    assert got["text"] == "It is done."
    assert got["choices"] == {"auto": "read", "none": "It is done.", "required": "read", "function": "sort"}
    assert [(error["kind"], error["status"], error["param"], error["code"]) for error in got["errors"]] == [
        ("BadRequestError", 400, "n", "unsupported_parameter"),
        ("NotFoundError", 404, "model", None),
        ("BadRequestError", 400, "tools[0].function.name", "unknown_tool"),
        ("BadRequestError", 400, "messages[0].role", "RequestError"),
        ("BadRequestError", 400, None, "RequestError"),
    ]
