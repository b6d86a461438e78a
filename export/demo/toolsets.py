"""The kit's two toolsets: the real servers' tools, and sentences that ask for them."""

import json
import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, Final, Literal, TypeAlias

from dualtune_edge.export.demo import madeup, values
from dualtune_edge.export.demo.madeup import Request
from dualtune_edge.export.demo.values import Pool
from dualtune_edge.toolkit.messages import FunctionCall
from dualtune_edge.toolkit.tool_files import read_tools
from dualtune_edge.toolkit.tools import Tool, Toolset

HERE: Final = Path(__file__).resolve().parent
NAMES: Final = ("filesystem", "git")
Split: TypeAlias = Literal["train", "heldout"]

_MAKERS: Final[dict[str, Callable[[Random, Pool], str]]] = {
    "file": values.file,
    "folder": values.folder,
    "media": values.media,
    "repository": values.repository,
    "branch": values.branch,
    "sha": values.sha,
    "revision": values.revision,
    "message": values.message,
    "sentence": values.sentence,
    "phrase": values.phrase,
    "glob": values.glob,
    "date": values.date,
}
_QUOTED: Final = {"message", "sentence", "phrase"}
_LISTS: Final[dict[str, Callable[[Random, Pool], str]]] = {
    "files": values.file,
    "relatives": values.relative,
    "exclusions": values.exclusion,
}
POLITE: Final = ("Please", "Now", "Can you", "Could you", "I want to", "I would like you to", "You should", "Next")
_QUESTIONS: Final = {
    "What",
    "Which",
    "Where",
    "How",
    "When",
    "Who",
    "Is",
    "Are",
    "I",
    "Can",
    "Could",
    "With",
    "In",
    "From",
}
_CHOICE: Final = re.compile(r"\[([^\[\]]*)\]")
_SLOT: Final = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Wording:
    """One sentence with slots, and the arguments that its words fix."""

    text: str
    fixed: tuple[tuple[str, Any], ...]

    @property
    def slots(self) -> tuple[str, ...]:
        """The names in braces, in the order of the sentence."""
        return tuple(_SLOT.findall(self.text))


@dataclass(frozen=True)
class Wordings:
    """All sentences of one toolset."""

    toolset: Toolset
    kinds: dict[str, dict[str, str]]  # tool → slot → kind of value
    sentences: dict[tuple[str, Split], tuple[Wording, ...]]


def servers_file(name: str) -> Path:
    """The server's own `tools/list`."""
    return HERE / "servers" / f"{name}.json"


@cache
def load(name: str) -> Wordings:
    """Read a toolset of the kit: the server's `tools/list` and the sentences."""
    words = tomllib.loads((HERE / "wordings" / f"{name}.toml").read_text(encoding="utf-8"))
    tools = read_tools(servers_file(name))
    sentences: dict[tuple[str, Split], tuple[Wording, ...]] = {}
    for tool in tools:
        said = words["tools"][tool.name]
        sentences[tool.name, "train"] = _wordings(said["train"])
        sentences[tool.name, "heldout"] = _wordings(said["heldout"])
    kinds = {tool.name: {**words["kinds"], **words["tools"][tool.name].get("kinds", {})} for tool in tools}
    return Wordings(Toolset(name=name, description=words["description"], tools=tools), kinds, sentences)


def request(rng: Random, name: str, tool: str, split: Split, *, same: dict[str, str] | None = None) -> Request:
    """A sentence of ``split`` that asks for ``tool``, with fresh values; ``same`` gives slots values said before."""
    wordings = load(name)
    pool = values.TRAIN if split == "train" else values.HELDOUT
    wording = rng.choice(wordings.sentences[tool, split])
    filled: dict[str, Any] = dict(wording.fixed)
    text = _CHOICE.sub(lambda match: rng.choice(match[1].split("|")), wording.text)
    for slot in wording.slots:
        kind = wordings.kinds[tool][slot]
        given = (same or {}).get(slot)
        filled[slot], said = (given, given) if given is not None else _value(rng, pool, kind)
        text = text.replace(f"{{{slot}}}", str(said))
    text = re.sub(" +", " ", text).strip().replace(" ?", "?")
    if split == "train" and rng.random() < 0.35 and text.split()[0] not in _QUESTIONS:
        text = f"{rng.choice(POLITE)} {text[0].lower()}{text[1:]}"
    if rng.random() < 0.15 and text[-1] not in "?.":
        text += "."
    if rng.random() < 0.15 and text[:2].istitle():
        text = text[0].lower() + text[1:]
    return Request(text, FunctionCall(name=tool, arguments=_arguments(wordings, tool, filled)))


def routing(rng: Random) -> tuple[str, str, tuple[Tool, ...]]:
    """(a request, the toolset that it belongs to, the toolsets on offer as pseudo-tools)."""
    others = _others()
    names = rng.sample(sorted(others), rng.choice((0, 0, 1, 2, 3)))
    offered = {name: load(name).toolset.description for name in NAMES} | {name: others[name][0] for name in names}
    chosen = rng.choice(list(NAMES) * 2 + names)
    if chosen in NAMES:
        tool = rng.choice(load(chosen).toolset.tools).name
        text = request(rng, chosen, tool, "train").text
    else:
        sentence = rng.choice(others[chosen][1])
        text = _CHOICE.sub(lambda match: rng.choice(match[1].split("|")), sentence)
        text = re.sub(r"\{x\}", lambda _: values.noun(rng, values.TRAIN), text).strip()
    order = list(offered)
    if rng.random() < 0.5:
        rng.shuffle(order)
    tools = tuple(Tool(name=name, description=offered[name]) for name in order)
    return text, chosen, tools


@cache
def _others() -> dict[str, tuple[str, tuple[str, ...]]]:
    read = tomllib.loads((HERE / "wordings" / "others.toml").read_text(encoding="utf-8"))
    return {name: (each["description"], tuple(each["train"])) for name, each in read.items()}


def _wordings(lines: list[str]) -> tuple[Wording, ...]:
    cut = (line.partition(" => ") for line in lines)
    return tuple(Wording(text, tuple(json.loads(fixed or "{}").items())) for text, _, fixed in cut)


def _value(rng: Random, pool: Pool, kind: str) -> tuple[Any, str]:
    """(the argument, how the sentence says it)."""
    if kind == "count":
        count = values.number(rng, pool, rng.choice((20, 60, 200)))
        return count, str(count)
    if kind in _LISTS:
        items = [_LISTS[kind](rng, pool) for _ in range(rng.choice((1, 2, 2, 3) if kind != "files" else (2, 2, 3)))]
        return items, madeup.listed(rng, items)
    value = _MAKERS[kind](rng, pool)
    return value, madeup.written(rng, value, quoted=kind in _QUOTED)


def _arguments(wordings: Wordings, tool: str, filled: dict[str, Any]) -> dict[str, Any]:
    """The call's arguments in the schema's order; an edit's two texts become its list of edits."""
    if "old" in filled:
        filled["edits"] = [{"oldText": filled.pop("old"), "newText": filled.pop("new")}]
    schema = next(each.parameters for each in wordings.toolset.tools if each.name == tool)
    return {name: filled[name] for name in schema["properties"] if name in filled}
