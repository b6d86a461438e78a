"""What the server's own description allows, and what it does not, is sent to it by schemathesis.

DUALTUNE_TEST_REQUESTS: how many; 200 by default.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import jsonschema
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from dualtune_edge.profiles.schema import SessionSettings
from dualtune_edge.runtime.agent.offer import Offer
from dualtune_edge.runtime.agent.outcome import ToolOutcome
from dualtune_edge.runtime.pipeline import Agent
from dualtune_edge.runtime.result import AnswerTokens
from dualtune_edge.runtime.serve.guard import Guard

REQUESTS: Final = int(os.environ.get("DUALTUNE_TEST_REQUESTS", "200"))
SHARES: Final = {"/v1/chat/completions": 0.7, "/v1/agent": 0.15}  # the others share the rest


class BriefAgent(Agent):
    """Random weights write on and on: its answers have three tokens at most."""

    def answer(self, *arguments: Any, max_tokens: int = 3, **named: Any) -> Generator[str, None, AnswerTokens]:
        return super().answer(*arguments, max_tokens=min(max_tokens, 3), **named)


class NoTools:
    def offer(self, _manifest: object, *, cancel: object = None) -> Offer:  # noqa: ARG002
        return Offer({}, frozenset(), ())

    def call(self, *_: object, **__: object) -> ToolOutcome:
        raise AssertionError("nothing is offered")


@pytest.fixture
def agent(exported: Path) -> Iterator[Agent]:
    with BriefAgent.open(exported, settings=SessionSettings(intra_op_threads=1, spinning=False)) as agent:
        yield agent


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_no_request_has_a_500(mode: GenerationMode, agent: Agent, start: Callable[..., Any]) -> None:
    url = start(agent=agent, tools=NoTools()).url
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    operations = [result.ok() for result in schema.get_all_operations()]
    others = (1 - sum(SHARES.values())) / (len(operations) - len(SHARES))
    sent = 0
    for operation in operations:
        if mode is GenerationMode.NEGATIVE and not operation.body:
            continue  # there is nothing to send wrongly

        @given(case=operation.as_strategy(generation_mode=mode))
        @settings(
            max_examples=max(1, round(REQUESTS / 2 * SHARES.get(operation.path, others))),
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        def check(case: Any) -> None:
            nonlocal sent
            sent += 1
            # A body that fits the schema may still name a call that nobody made: it has an honest 400.
            response = case.call()
            if response.status_code != HTTPStatus.REQUEST_ENTITY_TOO_LARGE:  # honest too, of a body above 4 MB
                case.validate_response(response, excluded_checks=[positive_data_acceptance])

        check()
    assert sent > REQUESTS / 4


def test_the_description_is_openapis(running: Any, start: Callable[..., Any]) -> None:
    document = requests.get(f"{running.url}/openapi.json", timeout=30).json()
    for schema in document["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    assert "security" not in document
    secret = {"Authorization": "Bearer secret"}
    behind_a_key = requests.get(f"{start(guard=Guard(key='secret')).url}/openapi.json", headers=secret, timeout=30)
    assert behind_a_key.json()["security"] == [{"key": []}]
