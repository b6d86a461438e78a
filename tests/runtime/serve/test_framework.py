"""An agent framework, pydantic-ai, does a task of three calls through the endpoint: streamed or not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import requests
from pydantic_ai import Agent, Tool
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

TOOLS = {"read": "text", "roots": "/srv", "sort": "sorted"}


@pytest.fixture
def calls() -> list[tuple[str, dict[str, Any]]]:
    return []


@pytest.fixture
def agent(running: Any, calls: list[tuple[str, dict[str, Any]]]) -> Agent[None, str]:
    running.agent.calls = 3
    (listed,) = (
        toolset["tools"]
        for toolset in requests.get(f"{running.url}/v1/toolsets", timeout=30).json()["toolsets"]
        if toolset["name"] == "files"
    )

    def tool(entry: dict[str, Any]) -> Tool[None]:
        def called(**arguments: Any) -> str:
            calls.append((entry["name"], arguments))
            return TOOLS[entry["name"]]

        return Tool.from_schema(called, entry["name"], entry["description"], entry["parameters"])

    provider = OpenAIProvider(base_url=f"{running.url}/v1", api_key="none")
    model = OpenAIChatModel(running.service.model, provider=provider)
    return Agent(model, tools=[tool(entry) for entry in listed])


async def streamed(agent: Agent[None, str]) -> str:
    async with agent.run_stream("tidy up") as run:
        return await run.get_output()


@pytest.mark.parametrize(
    "run", [lambda agent: agent.run_sync("tidy up").output, lambda agent: asyncio.run(streamed(agent))]
)
def test_a_task_of_three_calls(
    run: Callable[[Agent[None, str]], str],
    agent: Agent[None, str],
    calls: list[tuple[str, dict[str, Any]]],
    running: Any,
) -> None:
    assert run(agent) == "It is done."
    assert [name for name, _ in calls] == ["read", "roots", "sort"]
    last = running.agent.seen[-1]["messages"]
    assert [message["content"] for message in last if message["role"] == "tool"] == ["text", "/srv", "sorted"]
