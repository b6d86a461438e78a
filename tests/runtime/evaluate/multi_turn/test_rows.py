"""BFCL's multi-turn rows, read where the bundle has their classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dualtune_edge.runtime.bundle.opening import open_bundle
from dualtune_edge.runtime.evaluate.multi_turn.rows import RightCall, is_multi_turn, parse_call, read_dialogues
from dualtune_edge.toolkit.bundle.manifest import Manifest
from dualtune_edge.toolkit.errors import DataError

ROW: dict[str, Any] = {
    "id": "multi_turn_miss_func_0",
    "question": [[{"role": "user", "content": "four commits"}], []],
    "initial_config": {"git": {"commits": ["a"]}},
    "involved_classes": ["git"],
    "missed_function": {"1": ["log"]},
}
RIGHT = [[], ["log(count=4)"]]


@pytest.fixture
def manifest(exported: Path) -> Manifest:
    return open_bundle(exported).manifest


def write(folder: Path, *pairs: tuple[dict[str, Any], Any]) -> Path:
    path = folder / "rows.json"
    (folder / "possible_answer").mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row, _ in pairs), encoding="utf-8")
    truths = [json.dumps({"id": row["id"], "ground_truth": truth}) + "\n" for row, truth in pairs]
    (folder / "possible_answer" / path.name).write_text("".join(truths), encoding="utf-8")
    return path


def test_a_row_of_one_turn_is_none() -> None:
    assert is_multi_turn(ROW)
    assert not is_multi_turn({"id": "simple_0", "question": [], "function": []})
    assert not is_multi_turn(None)


def test_a_function_is_missing_until_its_turn_which_says_so(manifest: Manifest, tmp_path: Path) -> None:
    (dialogue,), passed_over = read_dialogues(write(tmp_path, (ROW, RIGHT)), manifest)
    assert passed_over == 0
    first, second = dialogue.turns
    assert (first.missing, second.missing) == ({"log"}, frozenset())
    assert "more functions" in second.messages[0].content
    assert second.right == (RightCall(name="log", values=(), arguments={"count": 4}),)
    assert not dialogue.long_context
    (long,), _ = read_dialogues(write(tmp_path, (ROW | {"id": "multi_turn_long_context_0"}, RIGHT)), manifest)
    assert long.long_context


@pytest.mark.parametrize(
    ("row", "right"),
    [({**ROW, "id": "b", "involved_classes": ["git", "MathAPI"]}, RIGHT), ({**ROW, "id": "b"}, [[], ["cp(a='b')"]])],
)
def test_rows_beyond_the_bundle_are_passed_over(
    manifest: Manifest, tmp_path: Path, row: dict[str, Any], right: list[list[str]]
) -> None:
    dialogues, passed_over = read_dialogues(write(tmp_path, (ROW, RIGHT), (row, right)), manifest)
    assert ([dialogue.name for dialogue in dialogues], passed_over) == ([ROW["id"]], 1)
    with pytest.raises(DataError, match="GorillaFileSystem"):
        read_dialogues(write(tmp_path, (row, right)), manifest)


@pytest.mark.parametrize(
    ("change", "right"),
    [
        ({"question": [[], []]}, RIGHT),  # nobody says anything
        ({"question": [[{"role": "user"}]]}, RIGHT),  # fewer turns than right ones
        ({"question": 7}, RIGHT),
        ({"involved_classes": None}, RIGHT),
        ({"missed_function": ["log"]}, RIGHT),
        ({}, [[], ["log(count=len('aaaa'))"]]),
        ({}, None),
    ],
)
def test_a_row_that_is_none_is_named(
    manifest: Manifest, tmp_path: Path, change: dict[str, Any], right: list[list[str]] | None
) -> None:
    with pytest.raises(DataError, match="multi_turn_miss_func_0"):
        read_dialogues(write(tmp_path, ({**ROW, **change}, right)), manifest)


def test_values_by_position_and_by_name() -> None:
    assert parse_call("sort('a', by=['n', -1.5, None], deep={'x': True})") == RightCall(
        name="sort", values=("a",), arguments={"by": ["n", -1.5, None], "deep": {"x": True}}
    )


@pytest.mark.parametrize(
    "text",
    [
        "sort",
        "sort(",
        "a.sort()",
        "sort(1)(2)",
        "x = sort()",
        "sort(a)",
        "sort(__import__('os'))",
        "sort(**{'a': 1})",
        "sort((1, 2))",
        "sort({1: 2})",
        "sort(b'a')",
        "sort(1e999)",
        "(" * 9999,
    ],
)
def test_what_is_no_call_with_plain_values_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="plain values"):
        parse_call(text)
