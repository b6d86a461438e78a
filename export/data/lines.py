"""A file of trajectories, line by line: what cannot be read is a fault of its line, and the others go on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from dualtune_edge.toolkit.errors import DataError, SpecError
from dualtune_edge.toolkit.prompts.trajectories import Trajectory, parse_trajectory
from dualtune_edge.toolkit.tools.tool_files import read_tools
from dualtune_edge.toolkit.tools.toolset import Tool
from dualtune_edge.toolkit.validation import listing


@dataclass(frozen=True)
class Line:
    """One line: its text, and the conversation in it or why there is none."""

    where: str
    text: str
    trajectory: Trajectory | None
    fault: str = ""

    @property
    def request(self) -> str:
        """What the user says first, without case and with single blanks: equal requests are one conversation's.

        Where nobody is the user, what is said first; of a line that cannot be read, its text.
        """
        messages = self.trajectory.messages if self.trajectory else ()
        first = messages[0].content if messages else self.text
        said = next((message.content for message in messages if message.role == "user"), first)
        return " ".join(said.casefold().split())


def read_lines(path: Path) -> list[Line]:
    """The lines of a file that are not empty.

    Raises:
        DataError: the file cannot be read, or has none.

    """
    try:
        texts = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            str(path), found=str(error), expected="a UTF-8 file of JSON lines", fix="Check the path."
        ) from None
    lines = [_line(text, f"{path}:{number}") for number, text in enumerate(texts, start=1) if text.strip()]
    if not lines:
        raise DataError(str(path), found="no line", expected="one conversation a line", fix="Check the path.")
    return lines


def read_toolsets(flags: Mapping[str, Path]) -> dict[str, dict[str, Tool]]:
    """Toolset → name → tool, of files by the toolsets' names; the name is empty where one file is for all lines.

    Raises:
        ToolsError: a file cannot be used.

    """
    return {name: {tool.name: tool for tool in read_tools(path)} for name, path in flags.items()}


def named_files(values: list[str]) -> dict[str, Path]:
    """`NAME=FILE` of every value, or one plain FILE under an empty name.

    Raises:
        SpecError: several files, of which one has no name; or a name twice.

    """
    pairs = [_named(value) for value in values]
    names = [name for name, _ in pairs]
    if len(names) != len(set(names)) or ("" in names and len(names) > 1):
        raise SpecError(
            "--tools", found=listing(values), expected="one file, or NAME=FILE for each toolset", fix="Name each once."
        )
    return dict(pairs)


def _named(value: str) -> tuple[str, Path]:
    name, sign, path = value.partition("=")
    return (name, Path(path)) if sign else ("", Path(value))


def _line(text: str, where: str) -> Line:
    try:
        return Line(where, text, parse_trajectory(text, where))
    except DataError as error:
        return Line(where, text, None, f"{error.where}: found {error.found}; expected {error.expected}")


def turns(lines: list[Line]) -> Iterator[tuple[Line, Trajectory]]:
    """The lines that can be read."""
    for line in lines:
        if line.trajectory:
            yield line, line.trajectory
