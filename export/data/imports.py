"""Other people's training data as trajectories: one row of `FORMATS` a form.

Sources: TRL's dataset formats; Salesforce's xlam-function-calling-60k; NousResearch's hermes-function-calling-v1.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dualtune_edge.runtime.evaluate.bfcl import first_values, is_bfcl, read_rows
from dualtune_edge.toolkit import strict_json
from dualtune_edge.toolkit.errors import DataError
from dualtune_edge.toolkit.prompts.trajectories import Trajectory, parse_trajectory

Json = dict[str, Any]
_CALL: Final = re.compile(r"<tool_call>\s*(.*?)\s*</tool_call>", re.DOTALL)
_RESULT: Final = re.compile(r"<tool_response>\s*(.*?)\s*</tool_response>", re.DOTALL)
_ROLES: Final = {"system": "system", "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}


@dataclass(frozen=True)
class Format:
    """A form of rows: the keys that tell it, and how a row becomes messages."""

    name: str
    keys: frozenset[str]
    messages: Callable[[Json], list[Json]]


def import_file(path: Path, toolset: str | None) -> tuple[str, list[Trajectory]]:
    """The form's name, and the conversations; `toolset` names that of all of them.

    Raises:
        DataError: the file or a row cannot be read, or its form is none of these.

    """
    rows = _rows(path)
    if is_bfcl(rows[0]):
        return "BFCL", [_from_bfcl(row, truth, toolset, path) for row, truth in read_rows(path)]
    found = next((form for form in FORMATS if isinstance(rows[0], dict) and form.keys <= rows[0].keys()), None)
    if found is None:
        keys = ", ".join(rows[0]) if isinstance(rows[0], dict) else type(rows[0]).__name__
        expected = "; ".join(f"{form.name} ({', '.join(sorted(form.keys))})" for form in FORMATS) + "; BFCL"
        raise DataError(f"{path}, row 1", found=keys, expected=expected, fix="Write it as one of these.")
    return found.name, [
        _converted(found, row, toolset, f"{path}, row {number}") for number, row in enumerate(rows, start=1)
    ]


def text_of(trajectories: Iterable[Trajectory]) -> str:
    """Lines as `finetune` reads them."""
    return "".join(json.dumps(_line(trajectory), ensure_ascii=False) + "\n" for trajectory in trajectories)


def _line(trajectory: Trajectory) -> Json:
    messages = [
        message.for_template() | ({} if message.weight is None else {"weight": message.weight})
        for message in trajectory.messages
    ]
    return {"messages": messages} | ({"toolset": trajectory.toolset} if trajectory.toolset else {})


def _converted(form: Format, row: Any, toolset: str | None, where: str) -> Trajectory:
    with _row_of(form.name, where):
        return _trajectory(form.messages(row), toolset or row.get("toolset"), where, row)


def _from_bfcl(row: Json, truth: Any, toolset: str | None, path: Path) -> Trajectory:
    where = f"{path}, {row['id']}"
    with _row_of("BFCL's single-turn categories", where):
        return _trajectory(_bfcl(row, truth), toolset, where, {})


@contextlib.contextmanager
def _row_of(form: str, where: str) -> Iterator[None]:
    """Name a row that is not of the form."""
    try:
        yield
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        found = f"{type(error).__name__}: {error}"[:200]
        raise DataError(where, found=found, expected=f"a row of {form}", fix="Correct or remove it.") from None


def _trajectory(messages: list[Json], toolset: str | None, where: str, row: Json) -> Trajectory:
    """Checked as a line is; keys that say nothing here are passed over and noted."""
    rest = {key: value for key, value in row.items() if key not in {"messages", "toolset"} | _READ}
    return parse_trajectory(json.dumps(rest | {"messages": messages, "toolset": toolset}), where)


def _completion(row: Json) -> list[Json]:
    return [*row["prompt"], *row["completion"]]


def _xlam(row: Json) -> list[Json]:
    calls = _parsed(row["answers"])
    return [{"role": "user", "content": row["query"]}, _calls(calls) if calls else {"role": "assistant", "content": ""}]


def _hermes(row: Json) -> list[Json]:
    return [message for turn in row["conversations"] for message in _hermes_turn(turn["from"], turn["value"])]


def _hermes_turn(speaker: str, text: str) -> Iterator[Json]:
    """Results of several calls are one turn there; the system's text is left out where it only lists the tools."""
    if speaker == "tool":
        yield from ({"role": "tool", "content": result} for result in _RESULT.findall(text) or [text])
    elif speaker in {"gpt", "assistant"} and (calls := _CALL.findall(text)):
        yield _calls([_parsed(call) for call in calls]) | {"content": _CALL.sub("", text).strip()}
    elif not (speaker == "system" and "<tools>" in text):
        yield {"role": _ROLES[speaker], "content": text}


def _bfcl(row: Json, truth: Any) -> list[Json]:
    (question,) = row["question"]  # of the categories with several turns the calls are text
    calls = [
        {"name": name, "arguments": first_values(accepted)} for call in truth or () for name, accepted in call.items()
    ]
    return [*question, _calls(calls) if calls else {"role": "assistant", "content": ""}]


def _calls(calls: Iterable[Mapping[str, Any]]) -> Json:
    functions = [{"function": {"name": call["name"], "arguments": call.get("arguments", {})}} for call in calls]
    return {"role": "assistant", "tool_calls": functions}


def _parsed(value: Any) -> Any:
    """Rows hold JSON as text in places."""
    return strict_json.loads(value) if isinstance(value, str) else value


def _rows(path: Path) -> list[Any]:
    """Of a JSON list, or of JSON lines."""
    try:
        data = path.read_text(encoding="utf-8-sig")
        if data.lstrip().startswith("["):
            rows = strict_json.loads(data)
        else:
            rows = [strict_json.loads(line) for line in data.split("\n") if line.strip()]
    except (OSError, UnicodeDecodeError, strict_json.JsonError) as error:
        raise DataError(
            str(path), found=str(error), expected="JSON lines, or one JSON list", fix="Check the file."
        ) from None
    if not isinstance(rows, list) or not rows:
        raise DataError(str(path), found="no row", expected="one or more", fix="Check the file.")
    return rows


FORMATS: Final = (
    Format("messages (OpenAI, TRL, AgentFlux)", frozenset({"messages"}), lambda row: list(row["messages"])),
    Format("TRL's prompt and completion", frozenset({"prompt", "completion"}), _completion),
    Format("xLAM", frozenset({"query", "answers"}), _xlam),
    Format("Hermes", frozenset({"conversations"}), _hermes),
)
_READ: Final = frozenset(key for form in FORMATS for key in form.keys)  # what a form's own conversion has read
