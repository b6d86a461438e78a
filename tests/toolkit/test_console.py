import errno
import io
import json
import os
import sys

import pytest

from dualtune_edge.toolkit.console import result, table_lines, warn
from dualtune_edge.toolkit.errors import RoomError
from dualtune_edge.toolkit.frozen import Frozen
from dualtune_edge.toolkit.tools.toolset import Tool


def test_names_that_look_like_markup_stand_as_they_are() -> None:
    rows = [("[/b]", "1"), ("[red]x", "22"), (":cat:", "3")]
    assert table_lines(("name", "n"), rows, left={"name"}) == ["name     n", "[/b]     1", "[red]x  22", ":cat:    3"]


ROWS = [("read_text_file", "arguments.filesystem.read_text_file", "6"), ("git_log", "", "12")]


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_no_line_of_a_table_is_wider_than_the_terminal(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    lines = table_lines(("tool", "answered by", "rank"), ROWS, left={"tool", "answered by"})
    assert max(map(len, lines)) <= max(width, len("answered by  arguments.filesystem.read_text_file"))
    text = "".join("".join(lines).split())
    assert all("".join(cell.split()) in text for row in ROWS for cell in row[:1])


def test_a_narrow_terminal_has_a_line_for_each_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    assert table_lines(("tool", "answered by", "rank"), ROWS, left={"tool"}) == [
        "tool         read_text_file",
        "answered by  arguments.filesystem.read_text_file",
        "rank         6",
        "",
        "tool         git_log",
        "rank         12",
    ]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("name", "value", "bold"), [("TERM", "xterm", True), ("TERM", "dumb", False), ("NO_COLOR", "1", False)]
)
def test_bold_is_for_terminals_only(name: str, value: str, monkeypatch: pytest.MonkeyPatch, *, bold: bool) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv(name, value)
    for stream in (Terminal(), io.StringIO()):
        monkeypatch.setattr(sys, "stderr", stream)
        monkeypatch.setattr(sys, "stdout", stream)
        warn("look")
        result(Tool(name="read"), "\n".join(table_lines(("name",), [("read",)], left={"name"})), as_json=False)
        assert ("\x1b[" in stream.getvalue()) is (bold and stream.isatty())


class Full(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), text)


@pytest.mark.parametrize("as_json", [True, False])
def test_a_full_disk_is_told(monkeypatch: pytest.MonkeyPatch, *, as_json: bool) -> None:
    monkeypatch.setattr(sys, "stdout", Full())
    with pytest.raises(RoomError, match=r"stdout: found .*No space left"):
        result(Tool(name="read"), "text", as_json=as_json)
    assert sys.stdout is sys.stderr


class Value(Frozen):
    text: str


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\x1b[2J\x1b[H", r"\x1b[2J\x1b[H"),
        ("\x1b[8mhidden", r"\x1b[8mhidden"),
        ("\x1b[1;8mhidden", r"\x1b[1;8mhidden"),
        ("\x9b2J", r"\x9b2J"),
        ("a\rb\x08c", r"a\rb\x08c"),
        ("ab\u202etxt.exe", r"ab\u202etxt.exe"),
        ("\u2066\u2069\u200b\ufeff", r"\u2066\u2069\u200b\ufeff"),
        ("\u2028", r"\u2028"),
        ("日本\u3000größe\u00a0é\n\tx", "日本\u3000größe\u00a0é\n\tx"),
    ],
)
def test_no_text_controls_the_terminal(text: str, shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    result(Value(text=text), text, as_json=False)
    warn(text)
    printed = capsys.readouterr()
    assert printed.out == f"{shown}\n"
    assert printed.err == f"warning: {shown}\n"


def test_json_is_the_text_to_the_letter(capsys: pytest.CaptureFixture[str]) -> None:
    result(Value(text="\x1b\u202e"), "", as_json=True)
    assert json.loads(capsys.readouterr().out) == {"text": "\x1b\u202e"}
