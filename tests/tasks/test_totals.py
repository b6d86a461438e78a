"""Totals: each task counts in its groups, and the table has a row a method."""

from __future__ import annotations

from checkable.running import Made, TaskResult
from checkable.totals import Total, table, totals


def result(toolsets: tuple[str, ...], gold: int, *, ok: bool, matched: int = 0) -> TaskResult:
    return TaskResult(
        task="t",
        toolsets=toolsets,
        ok=ok,
        faults=() if ok else ("x",),
        outcome="answered",
        answer="",
        calls=(Made(call="git.git_log", arguments={}, error=False),) * 2,
        gold=gold,
        matched=matched,
        seconds=1.0,
    )


RESULTS = [
    result(("git",), 1, ok=True, matched=1),
    result(("git",), 2, ok=False, matched=1),
    result(("filesystem", "git"), 4, ok=False),
    result(("git",), 3, ok=True, matched=3),
]


def test_a_task_counts_by_its_calls_its_toolsets_and_in_all() -> None:
    counted = totals(RESULTS)
    assert {name: (total.tasks, total.done) for name, total in counted.items()} == {
        "one call": (1, 1),
        "two calls": (1, 0),
        "three or four calls": (2, 1),
        "git": (3, 2),
        "filesystem and git": (1, 0),
        "all": (4, 2),
    }
    assert counted["all"] == Total(tasks=4, done=2, gold_calls=10, gold_calls_made=5, calls=8)


def test_the_table_has_a_row_a_method_and_a_column_a_group() -> None:
    assert table({"base": RESULTS[1:2], "joint": [result(("git",), 2, ok=True, matched=2)]}) == [
        "| adapters | git (1) | two calls (1) | all (1) | right calls |",
        "|---|---:|---:|---:|---:|",
        "| base | 0.0 | 0.0 | 0.0 | 1 of 2 |",
        "| joint | 100.0 | 100.0 | 100.0 | 2 of 2 |",
    ]
