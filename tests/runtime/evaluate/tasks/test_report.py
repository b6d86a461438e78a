"""Reports: each task counts in its groups, and what went wrong has the name of the first thing that did."""

from __future__ import annotations

from typing import Any

import pytest

from checkable.table import table
from dualtune_edge.runtime.evaluate.tasks.page import tasks_page
from dualtune_edge.runtime.evaluate.tasks.report import TaskEvaluation, TaskSide, compare_tasks, task_side
from dualtune_edge.runtime.evaluate.tasks.running import TaskCall, TaskResult
from dualtune_edge.runtime.evaluate.tasks.text import describe_tasks
from dualtune_edge.toolkit.errors import DataError

CALL = TaskCall(call="git.git_log", arguments={"path": "<b>"}, state="done")


def result(toolsets: tuple[str, ...], gold: int, *, done: bool, matched: int = 0, **changes: Any) -> TaskResult:
    return TaskResult(
        task="t",
        request="look \x1b[2J at <it>",
        toolsets=toolsets,
        done=done,
        faults=() if done else ("x is not there",),
        outcome="answered",
        answer="",
        calls=(CALL,) * 2,
        gold=gold,
        matched=matched,
        seconds=1.0,
    ).model_copy(update=changes)


RESULTS = [
    result(("git",), 1, done=True, matched=1),
    result(("git",), 2, done=False, matched=1),
    result(("filesystem", "git"), 4, done=False),
    result(("git",), 3, done=True, matched=3),
]


def side(*results: TaskResult) -> TaskSide:
    return task_side("ours", "0" * 64, results)


def test_a_task_counts_by_its_calls_its_toolsets_and_in_all() -> None:
    groups = side(*RESULTS).groups
    assert [(group.name, group.done.of, group.done.right) for group in groups] == [
        ("git", 3, 2),
        ("filesystem and git", 1, 0),
        ("one call", 1, 1),
        ("two calls", 1, 0),
        ("three calls or more", 2, 1),
        ("all", 4, 2),
    ]
    whole = groups[-1]
    assert (whole.gold_calls.right, whole.gold_calls.of, whole.calls) == (5, 10, 8)


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"calls": ()}, "no call"),
        ({"calls": (CALL, CALL.model_copy(update={"state": "denied"})), "outcome": "steps"}, "a call was not allowed"),
        ({"outcome": "repeated"}, "not finished"),
        ({"calls": (CALL.model_copy(update={"state": "failed"}),)}, "a call failed"),
        ({}, "not its gold calls"),
        ({"matched": 2}, "what is checked is not so"),
    ],
)
def test_what_went_wrong_has_the_name_of_the_first_thing(changes: dict[str, Any], kind: str) -> None:
    (faults,) = side(RESULTS[0], result(("git",), 2, done=False, **changes)).faults
    assert (faults.kind, faults.count, faults.examples[0].fault) == (kind, 1, "x is not there")


def test_a_reader_sees_every_group_and_no_control_character(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")  # a narrow terminal folds names
    ours = side(*RESULTS)
    report = TaskEvaluation(tasks="t.toml", ours=ours, against=compare_tasks(ours, side(*RESULTS)))
    text, page = describe_tasks(report), tasks_page(report)
    for name in ("filesystem and git", "three calls or more", "5 of 10; made 8"):
        assert name in text
        assert name in page
    assert "tasks done: +0.0 points" in text
    assert "2 not done: not its gold calls" in text
    assert "\x1b" not in text + page
    assert "<it>" not in page
    assert '<b>"' not in page
    assert TaskEvaluation.model_validate_json(report.model_dump_json()) == report


def test_sides_that_did_other_tasks_are_not_compared() -> None:
    """As two bundles do of BFCL's rows, where one lacks their functions."""
    for others in (RESULTS[:2], [*RESULTS[1:], RESULTS[0].model_copy(update={"task": "u"})], []):
        with pytest.raises(DataError, match="the 4 that the first one answers"):
            compare_tasks(side(*RESULTS), side(*others))


def test_the_table_has_a_row_a_method_and_a_column_a_group() -> None:
    assert table({"base": side(RESULTS[1]), "joint": side(result(("git",), 2, done=True, matched=2))}) == [
        "| adapters | git (1) | two calls (1) | all (1) | right calls |",
        "|---|---:|---:|---:|---:|",
        "| base | 0.0 | 0.0 | 0.0 | 1 of 2 |",
        "| joint | 100.0 | 100.0 | 100.0 | 2 of 2 |",
    ]
