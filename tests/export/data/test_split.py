"""Splits: nothing lost, nothing twice, no request in two parts, the same parts for the same seed."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualtune_edge.export.data.lines import Line
from dualtune_edge.export.data.split import split, write_parts
from dualtune_edge.toolkit.errors import DataError, OutputError

SHARES = st.tuples(st.integers(1, 9), st.integers(0, 9), st.integers(0, 9))


def line(request: str, number: int = 0) -> Line:
    """One that cannot be read is its own request."""
    return Line(f"d.jsonl:{number}", request, None)


@given(st.lists(st.sampled_from("abcdefghijkl"), min_size=1), SHARES, st.integers(0, 3))
def test_each_line_is_in_one_part_with_all_of_its_request(
    requests: list[str], shares: tuple[int, int, int], seed: int
) -> None:
    lines = [line(request, number) for number, request in enumerate(requests)]
    if len(set(requests)) < sum(map(bool, shares)):
        with pytest.raises(DataError, match="different requests"):
            split(lines, shares, seed)
        return
    parts = split(lines, shares, seed)
    assert sorted(entry.where for part in parts for entry in part) == sorted(entry.where for entry in lines)
    assert [bool(part) for part in parts] == [bool(share) for share in shares]
    held = [{entry.request for entry in part} for part in parts]
    assert sum(map(len, held)) == len(set(requests))
    for part in parts:
        assert part == [entry for entry in lines if entry in part]


def test_the_shares_are_kept_and_the_order_of_lines_changes_no_part() -> None:
    lines = [line(f"request {number}", number) for number in range(200)]
    shuffled = random.Random(1).sample(lines, len(lines))  # noqa: S311 - an order
    parts, others = split(lines, (80, 10, 10), 0), split(shuffled, (80, 10, 10), 0)
    assert [len(part) for part in parts] == [160, 20, 20]
    assert [{entry.where for entry in part} for part in parts] == [{entry.where for entry in part} for part in others]
    assert split(lines, (80, 10, 10), 1) != parts


def test_parts_are_files_of_a_new_folder_with_their_lines_unchanged(tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    report = write_parts([[line('{"a":  1}'), line("b ")], [], [line("c")]], folder)
    assert [(part.file, part.lines) for part in report.parts] == [("train.jsonl", 2), ("heldout.jsonl", 1)]
    assert sorted(path.name for path in folder.iterdir()) == ["heldout.jsonl", "train.jsonl"]
    assert (folder / "train.jsonl").read_bytes() == b'{"a":  1}\nb\n'
    with pytest.raises(OutputError):
        write_parts([[line("a")], [], []], folder)
