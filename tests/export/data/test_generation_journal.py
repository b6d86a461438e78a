from __future__ import annotations

from pathlib import Path

import pytest

from dualtune_edge.export.data.generation_journal import Entry, Journal
from dualtune_edge.export.data.teacher import Usage
from dualtune_edge.toolkit.errors import OutputError

FIRST = Entry(part="a", requests=("bücher", "two\u2028lines"), usage=Usage(requests=1, prompt_tokens=3))
SECOND = Entry(part="b", line={"messages": []}, calls=1)


def test_entries_are_there_again_and_a_torn_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path, "origin")
    assert not path.exists(), "there is nothing to keep yet"
    journal.add(FIRST)
    journal.add(SECOND)
    whole = path.read_bytes()
    for end in (*range(0, len(whole), 11), len(whole) - 1):
        path.write_bytes(whole[:end])
        entries = Journal(path, "origin").entries
        assert list(entries.values()) == [FIRST, SECOND][: max(0, whole[:end].count(b"\n") - 1)]
    torn = Journal(path, "origin")
    torn.add(SECOND)
    assert path.read_bytes() == whole


def test_that_of_another_run_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    Journal(path, "origin").add(FIRST)
    with pytest.raises(OutputError, match="other servers"):
        Journal(path, "other")
    path.write_text("notes\n")
    with pytest.raises(OutputError, match="no journal"):
        Journal(path, "origin")
