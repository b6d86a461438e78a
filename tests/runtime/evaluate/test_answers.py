"""Answers: what of each is right, and what is wrong with it first."""

from __future__ import annotations

from typing import Any

import pytest
from scripted_answers import Scripted, request, result

from dualtune_edge.runtime.bench.requests import Request
from dualtune_edge.runtime.evaluate.answers import Answer, answers, same
from dualtune_edge.runtime.evaluate.cases import Case
from dualtune_edge.runtime.result import CallResult
from dualtune_edge.toolkit.errors import EdgeError, EngineError, RequestError, StoppedError

LOG = {"path": "/srv", "count": 3}


def answer(asked: Request, *found: CallResult | EdgeError) -> Answer:
    (one,) = answers(Scripted(list(found)), [Case(asked)], lambda _number: None)
    return one


@pytest.mark.parametrize(
    ("found", "error", "named", "whole"),
    [
        ([result("git", "log", {"count": 3.0, "path": "/srv"})], None, True, True),
        ([result("git", "log", {"count": 4, "path": "/srv"})], "arguments with other values", True, False),
        ([result("git", "log", {"count": True, "path": "/srv"})], "arguments with other values", True, False),
        ([result("git", "log", {"path": "/srv"})], "arguments missing", True, False),
        ([result("git", "log", LOG | {"all": True})], "arguments beyond the expected ones", True, False),
        ([result("git", "show", LOG)], "another tool", False, False),
        ([result("git", None)], "no tool where one is needed", False, False),
        ([result("files", "read"), result("git", "log", LOG)], "another toolset", True, True),
        ([result("files", None), result("git", "log", LOG)], "no tool where one is needed", True, True),
        ([RequestError("x", found="a", expected="b", fix="c")], "refused", False, False),
    ],
)
def test_the_first_thing_that_is_wrong_names_the_error(
    found: list[CallResult | EdgeError], error: str | None, *, named: bool, whole: bool
) -> None:
    one = answer(request("git", "log", LOG), *found)
    assert (one.error(), one.named, one.whole, one.right) == (error, named, whole, error is None)


@pytest.mark.parametrize(
    ("found", "error"),
    [
        ([result("git", None)], None),
        ([result("files", None), result("git", "log", LOG)], None),
        ([result("git", "log", LOG)], "a tool where none is needed"),
        ([result("files", "read"), result("git", None)], "a tool where none is needed"),
    ],
)
def test_where_no_tool_is_needed_no_toolset_is_either(found: list[CallResult], error: str | None) -> None:
    assert answer(request("git", None), *found).error() == error


def test_within_the_expected_toolset_it_is_asked_only_where_it_chose_another() -> None:
    script = Scripted([result("git", "log", LOG), result("files", "read"), result("git", "log", LOG)])
    answers(script, [Case(request("git", "log", LOG))] * 2, lambda _number: None)
    assert script.toolsets == [None, None, "git"]


def test_the_probability_is_that_of_toolset_tool_and_arguments() -> None:
    found = result("git", "log", LOG, probability=0.5, toolset_probability=0.4, arguments_probability=0.3)
    assert answer(request("git", "log", LOG), found).probability == pytest.approx(0.06)
    assert answer(request("git", "log", LOG), result("git", None, probability=0.7)).probability == 0.7


def test_a_refusal_is_one_answer_and_a_failure_ends_the_evaluation() -> None:
    refused = RequestError("x", found="a\nb", expected="b", fix="c")
    assert answer(request("git", None), refused).refusal == "x: found a b; expected b. c"
    for kind in (EngineError, StoppedError):
        failure = kind("x", found="a", expected="b", fix="c")
        with pytest.raises(kind):
            answer(request("git", None), failure)


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        (1, 1.0, True),
        (1, True, False),
        (0, False, False),
        ("1", 1, False),
        ({"a": [1, {"b": None}]}, {"a": [1.0, {"b": None}]}, True),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        ([1, 2], [2, 1], False),
        ([1], [1, 1], False),
        ({"a": [True]}, {"a": [1]}, False),
    ],
)
def test_values_are_equal_as_json_has_them(one: Any, other: Any, *, equal: bool) -> None:
    assert same(one, other) is same(other, one) is equal
