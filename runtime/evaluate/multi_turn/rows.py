"""Rows of BFCL's multi-turn categories: a dialogue, the simulated systems it begins with, and the calls that are right.

Source: `ShishirPatil/gorilla`, `bfcl_eval/data/BFCL_v4_multi_turn_*.json`.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from dualtune_edge.runtime.evaluate.bfcl import read_rows
from dualtune_edge.toolkit.bundle.manifest import Manifest
from dualtune_edge.toolkit.errors import DataError
from dualtune_edge.toolkit.frozen import Frozen
from dualtune_edge.toolkit.prompts.messages import Message, user

# What BFCL says in a turn that only adds functions.
_ADDED: Final = "I have updated some more functions you can choose from. What about now?"


class RightCall(Frozen):
    """A call of the ground truth: a simulated function, with values by position and by name."""

    name: str
    values: tuple[Any, ...]
    arguments: dict[str, Any]


class Turn(Frozen):
    """What the user says, the functions that are not on offer yet, and the calls that are right."""

    messages: tuple[Message, ...]
    missing: frozenset[str]
    right: tuple[RightCall, ...]


class Dialogue(Frozen):
    """A row. `systems` are BFCL's classes; `config` is what each begins with."""

    name: str
    systems: tuple[str, ...]
    config: dict[str, Any]
    long_context: bool
    turns: tuple[Turn, ...]


def is_multi_turn(row: Any) -> bool:
    """Whether a line is a row of BFCL's multi-turn categories."""
    return isinstance(row, dict) and {"question", "involved_classes", "initial_config"} <= row.keys()


def read_dialogues(path: Path, manifest: Manifest) -> tuple[list[Dialogue], int]:
    """The rows that the bundle can work on, and the number of those that it cannot.

    It can where it has a toolset of each class's name, with the functions that the ground truth calls.

    Raises:
        DataError: a file cannot be read, or a row is none of a multi-turn category.

    """
    rows = [_dialogue(row, truth, path) for row, truth in read_rows(path)]
    known = {entry.toolset.name: {tool.name for tool in entry.toolset.tools} for entry in manifest.toolsets}
    dialogues = [row for row in rows if _is_covered(row, known)]
    if not dialogues:
        raise DataError(
            str(path),
            found=f"{len(rows)} rows whose classes are no toolsets of the bundle",
            expected="a toolset for each class, by its name: GorillaFileSystem, MathAPI, …",
            fix="Export a bundle with BFCL's functions (multi_turn_func_doc) as its tools.",
        )
    return dialogues, len(rows) - len(dialogues)


def _is_covered(dialogue: Dialogue, known: Mapping[str, set[str]]) -> bool:
    called = {call.name for turn in dialogue.turns for call in turn.right}
    offered = {name for system in dialogue.systems for name in known.get(system, ())}
    return known.keys() >= set(dialogue.systems) and offered >= called


def _dialogue(row: Any, truth: Any, path: Path) -> Dialogue:
    try:
        name, said = row["id"], row["question"]
        added = {int(turn): frozenset(names) for turn, names in row.get("missed_function", {}).items()}
        turns = [
            Turn(
                messages=_messages(messages, adds=number in added),
                missing=frozenset[str]().union(*(names for turn, names in added.items() if turn > number)),
                right=tuple(map(parse_call, calls)),
            )
            for number, (messages, calls) in enumerate(zip(said, truth, strict=True))
        ]
        return Dialogue(
            name=name,
            systems=row["involved_classes"],
            config=row["initial_config"],
            long_context="long_context" in name,
            turns=tuple(turns),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        found = f"{type(error).__name__}: {_line(error)}"
        place = f"{path}, {row.get('id', 'a row without id')}" if isinstance(row, dict) else str(path)
        raise DataError(
            place, found=found, expected="a row of BFCL's multi-turn categories", fix="Give the files unchanged."
        ) from None


def _messages(messages: Sequence[Any], *, adds: bool) -> tuple[Message, ...]:
    if not messages and adds:
        return (user(_ADDED),)
    if not messages:
        raise ValueError("a turn in which nobody says anything")
    return tuple(Message.model_validate(message) for message in messages)


def parse_call(text: str) -> RightCall:
    """A call that the ground truth writes as Python, with JSON's values alone. It is read and never run.

    Raises:
        ValueError: it is anything else.

    """
    refusal = ValueError(f"{text[:120]!r} is no call with plain values")
    try:
        call = ast.parse(text, mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
            raise refusal
        values = [ast.literal_eval(value) for value in call.args]
        arguments = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords if keyword.arg}
        plain = len(arguments) == len(call.keywords) and _is_json([values, arguments])
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        raise refusal from None
    if not plain:
        raise refusal
    return RightCall(name=call.func.id, values=tuple(values), arguments=arguments)


def _is_json(value: Any) -> bool:
    return bool(json.loads(json.dumps(value, allow_nan=False)) == value)


def _line(error: Exception) -> str:
    text = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
    return " ".join(text.split())[:200]
