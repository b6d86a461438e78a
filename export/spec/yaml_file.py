"""A spec's file: YAML with line numbers, without what would hide a mistake, and the paths that it names.

Duplicate keys, keys that are not text and repetition hide mistakes.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import yaml

from dualtune_edge.toolkit import limits
from dualtune_edge.toolkit.errors import SpecError

if TYPE_CHECKING:
    from pathlib import Path

_OTHER_BASES: Final = re.compile(r"[-+]?0[0-7_]+|.*:.*")  # 010 would be 8, 1:30 would be 90
_NODES: Final = 100_000  # values of one file; aliases can repeat each other into billions

Location: TypeAlias = tuple[str | int, ...]


@dataclass(frozen=True)
class YamlFile:
    """A parsed YAML file: its value, and the line of every value in it."""

    path: Path
    value: Any
    lines: Mapping[Location, int]

    def where(self, location: Location) -> str:
        """How errors name a place: file, line and path in the document."""
        known = location
        while known and known not in self.lines:
            known = known[:-1]
        place = f"{self.path}, line {self.lines.get(known, 1)}"
        return f"{place}, {dotted(location)}" if location else place


def dotted(location: Location) -> str:
    """`toolsets[0].selection` for `("toolsets", 0, "selection")`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).removeprefix(".")


def read_yaml(path: Path) -> YamlFile:
    """Read one document.

    Raises:
        SpecError: the file cannot be read, is not YAML, repeats a key, or has a key that is not text.

    """
    try:
        data = path.read_bytes()
        if len(data) > limits.JSON_BYTES:
            raise _refusal(str(path), f"{len(data)} bytes", f"at most {limits.JSON_BYTES}")
        loader = yaml.SafeLoader(data)
        reader = _Reader(path, loader)
        node = loader.get_single_node()
        value = None if node is None else reader.value(node, ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{path}, line {mark.line + 1}" if mark else str(path)
        raise _refusal(where, str(error.problem or error.context), "valid YAML") from None
    except (OSError, UnicodeDecodeError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise _refusal(str(path), str(error) or type(error).__name__, "a readable YAML file") from None
    return YamlFile(path, value, reader.lines)


class _Reader:
    """Turns nodes into values, and notes where each began."""

    def __init__(self, path: Path, loader: yaml.SafeLoader) -> None:
        self._path, self._loader = path, loader
        self._count = 0
        self.lines: dict[Location, int] = {}

    def value(self, node: yaml.Node, location: Location) -> Any:
        self._count += 1
        if self._count > _NODES or len(location) > limits.JSON_DEPTH:
            raise _refusal(self._where(node), "a document without end", f"at most {_NODES} values")
        self.lines.setdefault(location, node.start_mark.line + 1)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*location, index)) for index, item in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, location)
        value = self._loader.construct_object(node)
        if isinstance(value, (int, float)) and _OTHER_BASES.fullmatch(node.value):
            found = f"{node.value}, which YAML 1.1 reads as {value}"
            raise _refusal(self._where(node), found, "a number in decimal digits", "Write it so; a text in quotes.")
        return value

    def _mapping(self, node: yaml.MappingNode, location: Location) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, item in node.value:
            key = self._loader.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise _refusal(self._where(key_node), f"the key {key!r}", "a text", "Write it in quotes.")
            if key in result:
                again = dotted((*location, key))
                raise _refusal(self._where(key_node), f"the key `{again}` twice", "each key once", "Remove one.")
            self.lines[(*location, key)] = key_node.start_mark.line + 1
            result[key] = self.value(item, (*location, key))
        return result

    def _where(self, node: yaml.Node) -> str:
        return f"{self._path}, line {node.start_mark.line + 1}"


def _refusal(where: str, found: str, expected: str, fix: str = "Correct the file.") -> SpecError:
    return SpecError(where, found=found, expected=expected, fix=fix)


def require_path(where: str, path: Path, *, folder_wanted: bool) -> None:
    """Refuse a path that leads nowhere, or to a file in place of a folder.

    Raises:
        SpecError: it does.

    """
    if not _is_there(path, folder_wanted=folder_wanted):
        raise _nowhere(where, path, folder_wanted=folder_wanted)


def _is_there(path: Path, *, folder_wanted: bool) -> bool:
    try:
        return path.is_dir() if folder_wanted else path.is_file()
    except OSError:  # a name that is too long, a folder that may not be searched
        return False


def _nowhere(where: str, path: Path, *, folder_wanted: bool) -> SpecError:
    kind = "folder" if folder_wanted else "file"
    try:
        if path.exists():
            return SpecError(where, found=f"{path}, which is no {kind}", expected=f"a {kind}", fix="Check the path.")
        siblings = [sibling.name for sibling in path.parent.iterdir()] if path.parent.is_dir() else []
    except OSError as error:
        return SpecError(where, found=str(error), expected=f"a {kind}", fix="Check the path.")
    near = difflib.get_close_matches(path.name, siblings, n=1)
    fix = f"Did you mean {path.parent / near[0]}?" if near else "Check the path."
    return SpecError(where, found=f"{path}, which does not exist", expected=f"a {kind}", fix=fix)
