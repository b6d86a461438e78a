"""Requests as people type them: in small letters, with typing errors, with values of their own kinds."""

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, Final, Literal, TypeAlias, TypeVar

from dualtune_edge.toolkit.prompts.messages import FunctionCall
from dualtune_edge_kit.training.data import madeup, toolsets
from dualtune_edge_kit.training.data.madeup import Request
from dualtune_edge_kit.training.data.toolsets import Wording
from dualtune_edge_kit.training.data.typed import values

Drawn = TypeVar("Drawn", str, Wording)
Part: TypeAlias = Literal["train", "development"]

WORDINGS: Final = Path(__file__).resolve().parents[1] / "wordings" / "typed"
CHOICE: Final = re.compile(r"\[([^\[\]]*)\]")
SLOT: Final = re.compile(r"\{(\w+)\}")
_HELD_BACK: Final = 11  # every such wording is one of the development set
_WORD: Final = re.compile(r"(?<![\w{])[A-Za-z]{4,}(?![\w}])")
_QUOTED: Final = {"message", "sentence", "phrase"}
_LISTS: Final = {"files": values.file, "relatives": values.relative, "exclusions": values.exclusion}
_LEADS: Final = ("please ", "pls ", "hey, ", "ok, ", "now ", "hi, ", "um, ", "quick: ")
_TAILS: Final = (" please", " pls", " thx", ", thanks", "!", " now", " asap", "...")


def toolset_of(tool: str) -> str:
    """The toolset that has the tool."""
    return next(name for name in toolsets.NAMES if tool in tools(name))


def request(rng: Random, tool: str, part: Part, same: dict[str, str] | None = None) -> Request:
    """A sentence that asks for ``tool``, with new values or those of ``same``, by slot."""
    name = toolset_of(tool)
    kinds = toolsets.load(name).kinds[tool]
    wording = _wording(rng, name, tool, part)
    text = CHOICE.sub(lambda match: rng.choice(match[1].split("|")), wording.text)
    slots = {slot: kinds[slot] for slot in SLOT.findall(text)}
    text, arguments = filled(rng, roughened(rng, text), slots, same or {})
    arguments |= dict(wording.fixed)
    return Request(text, FunctionCall(name=tool, arguments=toolsets.arguments(name, tool, arguments)))


def filled(rng: Random, text: str, slots: dict[str, str], same: dict[str, str]) -> tuple[str, dict[str, Any]]:
    """(the text with values in its slots, the values)."""
    found: dict[str, Any] = {}
    for slot, kind in slots.items():
        found[slot], said = (same[slot],) * 2 if slot in same else _value(rng, kind)
        text = text.replace(f"{{{slot}}}", said)
    return re.sub(" +", " ", text).strip().replace(" ?", "?"), found


def _value(rng: Random, kind: str) -> tuple[Any, str]:
    """(the argument, its words in the sentence)."""
    if kind == "count":
        count = rng.choice((rng.randint(1, 30), rng.randint(1, 30), rng.randint(1, 500)))
        return count, str(count)
    if kind in _LISTS:
        most = (1, 1, 2, 2, 3) if kind != "files" else (2, 2, 3)
        items = [_LISTS[kind](rng).replace(" ", "_") for _ in range(rng.choice(most))]
        return items, rng.choice((madeup.listed(rng, items), " ".join(items), " and ".join(items)))
    value = values.MAKERS[kind](rng)
    quoted = (kind in _QUOTED and rng.random() < 0.7) or (" " in value and kind != "date" and rng.random() < 0.8)
    return value, madeup.written(rng, value, quoted=quoted)


def roughened(rng: Random, text: str) -> str:
    """The words as they are typed in a hurry: small letters, no full stop, letters swapped, lost or doubled."""
    if rng.random() < 0.4:
        text = SLOT.sub(lambda match: f"\x00{match[1]}\x01", text)
        parts = re.split("(\x00.*?\x01)", text)
        text = "".join(part if part.startswith("\x00") else part.lower() for part in parts)
        text = text.replace("\x00", "{").replace("\x01", "}")
    if rng.random() < 0.2:
        text = _mistyped(rng, text)
    if rng.random() < 0.25:
        text = text.rstrip("?.")
    if rng.random() < 0.08:
        text = f"{rng.choice(_LEADS)}{text}"
    elif rng.random() < 0.06:
        text = f"{text.rstrip('?.')}{rng.choice(_TAILS)}"
    return text


def _mistyped(rng: Random, text: str) -> str:
    found = list(_WORD.finditer(text))
    if not found:
        return text
    word = rng.choice(found)
    letters = list(word[0])
    at = rng.randint(1, len(letters) - 2)
    style = rng.random()
    if style < 0.4:
        letters[at], letters[at + 1] = letters[at + 1], letters[at]
    elif style < 0.7:
        del letters[at]
    elif style < 0.85:
        letters.insert(at, letters[at])
    else:
        letters[at] = rng.choice("abcdefghijklmnopqrstuvwxyz")
    return text[: word.start()] + "".join(letters) + text[word.end() :]


def _wording(rng: Random, name: str, tool: str, part: Part) -> Wording:
    typed = typed_wordings(name)[tool]
    if part == "train" and rng.random() < 0.4:
        return rng.choice(toolsets.load(name).sentences[tool, "train"])
    return drawn(rng, typed, part)


def drawn(rng: Random, known: Sequence[Drawn], part: Part) -> Drawn:
    """One of the part's; of a short list, all are of both parts."""
    if len(known) < _HELD_BACK:
        return rng.choice(known)
    held_back = [one for index, one in enumerate(known) if index % _HELD_BACK == _HELD_BACK // 2]
    kept = [one for index, one in enumerate(known) if index % _HELD_BACK != _HELD_BACK // 2]
    return rng.choice(kept if part == "train" else held_back)


@cache
def chat(part: Part) -> tuple[str, ...]:
    """Sentences that need no tool."""
    typed = _lines("chat.txt")
    held_back = typed[_HELD_BACK // 2 :: _HELD_BACK]
    kept = (line for line in typed if line not in held_back)
    return held_back if part == "development" else (*kept, *toolsets.chat("train"))


@cache
def tools(name: str) -> tuple[str, ...]:
    """The names of a toolset's tools."""
    return tuple(tool.name for tool in toolsets.load(name).toolset.tools)


@cache
def typed_wordings(name: str) -> dict[str, tuple[Wording, ...]]:
    """The typed wordings of a toolset's tools."""
    lines: dict[str, list[str]] = {}
    for line in _lines(f"{name}.txt"):
        if line.startswith("[") and line.endswith("]") and line[1:-1] in tools(name):
            lines[line[1:-1]] = current = []
        else:
            current.append(line)
    return {tool: toolsets.wordings(said) for tool, said in lines.items()}


def _lines(file: str) -> tuple[str, ...]:
    text = (WORDINGS / file).read_text(encoding="utf-8")
    return tuple(line for line in text.splitlines() if line and not line.startswith("# "))
