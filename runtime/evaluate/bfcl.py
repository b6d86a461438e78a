"""Rows of the Berkeley Function Calling Leaderboard: single turns, with every value that counts as right.

Read are the AST categories of one call (`simple`, `multiple`) and irrelevance, whose rows need no call. Values are
compared as BFCL's own checker does: texts without case, blanks and some punctuation.

Source: `ShishirPatil/gorilla`, `bfcl_eval/eval_checker/ast_eval/ast_checker.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from dualtune_edge.runtime.bench.requests import Request
from dualtune_edge.runtime.evaluate.cases import Case
from dualtune_edge.toolkit import strict_json
from dualtune_edge.toolkit.bundle.manifest import Manifest
from dualtune_edge.toolkit.errors import DataError, EdgeError
from dualtune_edge.toolkit.prompts.messages import FunctionCall, Message
from dualtune_edge.toolkit.tools.tool_files import parse_tools
from dualtune_edge.toolkit.tools.toolset import Tool

OPTIONAL: Final = ""  # among the accepted values: the argument may be left out
_PASSED_OVER: Final = re.compile(r"[ ,./\-_*^]")


def is_bfcl(row: Any) -> bool:
    """Whether a line is a row of BFCL."""
    return isinstance(row, dict) and {"question", "function"} <= row.keys()


def read_bfcl(path: Path, manifest: Manifest) -> tuple[list[Case], int]:
    """The rows that the bundle can answer, and the number of those that it cannot.

    It can where a toolset has all functions of the row, as they are; the row's functions alone are on offer then. The
    answers stand in `possible_answer/` beside the file, under its name; without that file no row needs a call.

    Raises:
        DataError: a file cannot be read, or a row is none of one call.

    """
    rows = read_rows(path)
    found = [case for row, truth in rows if (case := _case(row, truth, manifest, str(path)))]
    if not found:
        raise DataError(
            str(path),
            found=f"{len(rows)} rows whose functions no toolset of the bundle has",
            expected="functions that the bundle was exported with",
            fix="Export a bundle with these functions as its tools.",
        )
    return found, len(rows) - len(found)


def read_rows(path: Path) -> list[tuple[dict[str, Any], Any]]:
    """Each row with its ground truth: a mapping for each call, of names to accepted values; None where none is needed.

    Raises:
        DataError: a file cannot be read, is not there, or has no answer to a row.

    """
    answers_file, rows = path.parent / "possible_answer" / path.name, _rows(path)
    if not answers_file.is_file():
        if "irrelevance" in path.name:
            return [(row, None) for row in rows]
        raise DataError(
            str(answers_file), found="no such file", expected="the accepted answers", fix="Put it beside the questions."
        )
    answers = {row["id"]: row.get("ground_truth") for row in _rows(answers_file)}
    for row in rows:
        if answers.get(row["id"]) is None:
            raise DataError(
                str(answers_file),
                found=f"no answer to {row['id']}",
                expected="the accepted answers of every row",
                fix="Take both files of one release.",
            )
    return [(row, answers[row["id"]]) for row in rows]


def accepts(accepted: Sequence[Any], value: Any) -> bool:
    """Whether a value is one of those that BFCL accepts for an argument."""
    return any(_matches(option, value) for option in accepted)


def _case(row: Mapping[str, Any], truth: Any, manifest: Manifest, where: str) -> Case | None:
    place = f"{where}, {row['id']}"
    try:
        tools = parse_tools(row["function"], where=place)
        messages = tuple(Message.model_validate(message) for message in row["question"][0])
    except (EdgeError, ValueError, KeyError, IndexError, TypeError) as error:
        found = " ".join(str(error).split())[:200]
        raise DataError(place, found=found, expected="a row of BFCL", fix="Give the file unchanged.") from None
    toolset = _toolset(tools, manifest)
    if (truth is not None and len(truth) != 1) or len(row["question"]) != 1:
        raise DataError(
            place,
            found="several calls or turns",
            expected="one",
            fix="Give a file of the categories simple or multiple.",
        )
    if toolset is None:
        return None
    name, accepted = next(iter(truth[0].items())) if truth else (None, None)
    call = FunctionCall(name=name, arguments=first_values(accepted)) if name and accepted is not None else None
    names = frozenset(tool.name for tool in tools)
    return Case(Request(place, messages, toolset, call), accepted, {toolset: names})


def _toolset(tools: Sequence[Tool], manifest: Manifest) -> str | None:
    for entry in manifest.toolsets:
        known = {tool.name: tool.parameters for tool in entry.toolset.tools}
        if all(known.get(tool.name) == tool.parameters for tool in tools):
            return entry.toolset.name
    return None


def first_values(accepted: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """A call that is right: the first value of each argument that has to be there."""
    return {name: _plain(options[0]) for name, options in accepted.items() if options[0] != OPTIONAL}


def _plain(value: Any) -> Any:
    """Inside of an object, BFCL lists the accepted values of each key."""
    if isinstance(value, dict):
        return first_values(value)
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _matches(option: Any, value: Any) -> bool:
    if isinstance(option, bool) or isinstance(value, bool):
        return option is value
    if isinstance(option, str) and isinstance(value, str):
        return _plain_text(option) == _plain_text(value)
    if isinstance(option, dict) and isinstance(value, dict):
        left_out = (name for name, options in option.items() if name not in value and OPTIONAL not in options)
        return not any(True for _ in left_out) and all(
            name in option and accepts(option[name], part) for name, part in value.items()
        )
    if isinstance(option, list) and isinstance(value, list):
        return len(option) == len(value) and all(map(_matches, option, value))
    return bool(option == value)


def _plain_text(text: str) -> str:
    return _PASSED_OVER.sub("", text).lower().replace("'", '"')


def _rows(path: Path) -> list[dict[str, Any]]:
    try:
        # `splitlines` would cut a line at characters that JSON's texts may hold, as U+2028.
        rows = [strict_json.loads(line) for line in path.read_text(encoding="utf-8-sig").split("\n") if line.strip()]
    except (OSError, UnicodeDecodeError, strict_json.JsonError) as error:
        raise DataError(str(path), found=str(error), expected="JSON lines", fix="Check the file.") from None
    found = [row for row in rows if isinstance(row, dict) and "id" in row]
    if len(found) < len(rows):
        raise DataError(
            str(path), found="a line without an id", expected="rows of BFCL", fix="Give the file unchanged."
        )
    return found
