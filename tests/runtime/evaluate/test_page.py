from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from dualtune_edge.runtime.evaluate.page import refuse_unwritable, write_page


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pipe in a folder")
def test_a_pipe_is_written_into_and_stays_a_pipe(tmp_path: Path) -> None:
    path = tmp_path / "page"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    refuse_unwritable(path)
    write_page(path, "whole")
    assert os.read(reader, 100) == b"whole"
    os.close(reader)
    assert path.is_fifo()


def test_a_device_stays_a_device() -> None:
    refuse_unwritable(Path(os.devnull))
    write_page(Path(os.devnull), "whole")
    assert not Path(os.devnull).is_file()


def test_a_link_is_followed_and_stays_a_link(tmp_path: Path) -> None:
    page, link = tmp_path / "page.html", tmp_path / "newest.html"
    page.write_text("old")
    link.symlink_to(page)
    refuse_unwritable(link)
    assert page.read_text() == "old"
    write_page(link, "new")
    assert link.is_symlink()
    assert page.read_text() == "new"
