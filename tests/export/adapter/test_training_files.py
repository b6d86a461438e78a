"""What an adapter's own notes say of its training."""

from __future__ import annotations

from pathlib import Path

import pytest

from dualtune_edge.export.adapter.training_files import TRAINING_RECORD, learnt_toolsets

UNKNOWN = {
    "no file": None,
    "no JSON": b"{",
    "no object": b"[1]",
    "no list of toolsets": b'{"tools": 1}',
    "a text": b'{"all_toolsets": "git"}',
    "a number": b'{"all_toolsets": 5}',
    "entries without a hash": b'{"all_toolsets": [{"name": "git"}]}',
    "a deep nest": b"[" * 100_000,
    "no UTF-8": b'{"all_toolsets": "\xff"}',
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_a_folder_that_does_not_say_what_was_shown_is_taken(name: str, tmp_path: Path) -> None:
    if (data := UNKNOWN[name]) is not None:
        (tmp_path / TRAINING_RECORD).write_bytes(data)
    assert learnt_toolsets(tmp_path) is None


def test_the_toolsets_stand_in_the_order_in_which_they_were_shown(tmp_path: Path) -> None:
    listed = '{"all_toolsets": [{"name": "git", "sha256": "b"}, {"name": "files", "sha256": "a"}]}'
    (tmp_path / TRAINING_RECORD).write_text(listed, encoding="utf-8")
    assert list((learnt_toolsets(tmp_path) or {}).items()) == [("git", "b"), ("files", "a")]
