import errno
import io
import os
import sys

import pytest

from dualtune_edge.toolkit.console import result, table_lines
from dualtune_edge.toolkit.errors import OutputError
from dualtune_edge.toolkit.tools.toolset import Tool


def test_names_that_look_like_markup_stand_as_they_are() -> None:
    rows = [("[/b]", "1"), ("[red]x", "22"), (":cat:", "3")]
    assert table_lines(("name", "n"), rows, left={"name"}) == ["name     n", "[/b]     1", "[red]x  22", ":cat:    3"]


class Full(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), text)


@pytest.mark.parametrize("as_json", [True, False])
def test_a_full_disk_is_told(monkeypatch: pytest.MonkeyPatch, *, as_json: bool) -> None:
    monkeypatch.setattr(sys, "stdout", Full())
    with pytest.raises(OutputError, match=r"stdout: found .*No space left"):
        result(Tool(name="read"), "text", as_json=as_json)
    assert sys.stdout is sys.stderr
