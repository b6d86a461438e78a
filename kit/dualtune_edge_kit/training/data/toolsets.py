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

from dualtune_edge.toolkit.prompts.messages import FunctionCall
from dualtune_edge.toolkit.tools.tool_files import read_tools
from dualtune_edge.toolkit.tools.toolset import Tool, Toolset
from dualtune_edge_kit import FOLDER
from dualtune_edge_kit.training.data import madeup, values
from dualtune_edge_kit.training.data.madeup import Request
from dualtune_edge_kit.training.data.values import Pool

_WORDINGS: Final = Path(__file__).resolve().parent / "wordings"
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
# What opens a sentence that no such words may go before.
_NO_COMMAND: Final = frozenset(
    """A After An And As At Before Between By Can Contents Could Did Do Does For From Has Have Here Here's How I I'd If
    In Inside Into Is It It's Kindly Let May My Next Now Of On Once Over Please Should Since Status Text The There To
    Under Until We What When Where Which Who Whose Will With Without Would You""".split()  # noqa: SIM905 - reads better
)
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
    """The server's `tools/list`."""
    return FOLDER / "servers" / f"{name}.json"


@cache
def load(name: str) -> Wordings:
    """Read a toolset of the kit: the server's `tools/list` and the sentences."""
    words = tomllib.loads((_WORDINGS / f"{name}.toml").read_text(encoding="utf-8"))
    tools = read_tools(servers_file(name))
    sentences: dict[tuple[str, Split], tuple[Wording, ...]] = {}
    for tool in tools:
        said = words["tools"][tool.name]
        sentences[tool.name, "train"] = wordings(said["train"])
        sentences[tool.name, "heldout"] = wordings(said["heldout"])
    kinds = {tool.name: {**words["kinds"], **words["tools"][tool.name].get("kinds", {})} for tool in tools}
    return Wordings(Toolset(name=name, description=words["description"], tools=tools), kinds, sentences)


def request(rng: Random, name: str, tool: str, split: Split, *, same: dict[str, str] | None = None) -> Request:
    """A sentence of ``split`` that asks for ``tool``, with new values, or those of ``same``, by slot."""
    known = load(name)
    pool = values.TRAIN if split == "train" else values.HELDOUT
    wording = rng.choice(known.sentences[tool, split])
    filled: dict[str, Any] = dict(wording.fixed)
    text = _CHOICE.sub(lambda match: rng.choice(match[1].split("|")), wording.text)
    for slot in wording.slots:
        kind = known.kinds[tool][slot]
        given = (same or {}).get(slot)
        filled[slot], said = (given, given) if given is not None else _value(rng, pool, kind)
        text = text.replace(f"{{{slot}}}", str(said))
    text = re.sub(" +", " ", text).strip().replace(" ?", "?")
    if split == "train" and rng.random() < 0.3 and text[0].isupper() and text.split()[0] not in _NO_COMMAND:
        text = f"{rng.choice(POLITE)} {text[0].lower()}{text[1:]}"
    if rng.random() < 0.15 and text[-1] not in "?.":
        text += "."
    if rng.random() < 0.15 and text[:2].istitle():
        text = text[0].lower() + text[1:]
    return Request(text, FunctionCall(name=tool, arguments=arguments(name, tool, filled)))


def routing(rng: Random) -> tuple[str, str, tuple[Tool, ...]]:
    """(a request, its toolset, the toolsets on offer as pseudo-tools)."""
    tools = offered(rng)
    others = [tool.name for tool in tools if tool.name not in NAMES]
    chosen = rng.choice(list(NAMES) * 2 + others)
    if chosen in NAMES:
        tool = rng.choice(load(chosen).toolset.tools).name
        return request(rng, chosen, tool, "train").text, chosen, tools
    text = _CHOICE.sub(lambda match: rng.choice(match[1].split("|")), rng.choice(_others()[chosen][1]))
    text = re.sub(r"\{x\}", lambda _: values.noun(rng, values.TRAIN), text)
    return re.sub(" +", " ", text).strip(), chosen, tools


def offered(rng: Random) -> tuple[Tool, ...]:
    """The kit's toolsets as pseudo-tools, alone or among others, in their order or shuffled."""
    others = _others()
    descriptions = {name: load(name).toolset.description for name in NAMES}
    descriptions |= {name: others[name][0] for name in rng.sample(sorted(others), rng.choice((0, 0, 1, 2, 3)))}
    order = list(descriptions)
    if rng.random() < 0.5:
        rng.shuffle(order)
    return tuple(Tool(name=name, description=descriptions[name]) for name in order)


@cache
def chat(split: Split) -> tuple[str, ...]:
    """Users' sentences that need no tool."""
    return tuple(tomllib.loads((_WORDINGS / "chat.toml").read_text(encoding="utf-8"))[split])


@cache
def _others() -> dict[str, tuple[str, tuple[str, ...]]]:
    read = tomllib.loads((_WORDINGS / "others.toml").read_text(encoding="utf-8"))
    return {name: (toolset["description"], tuple(toolset["train"])) for name, toolset in read.items()}


def wordings(lines: list[str]) -> tuple[Wording, ...]:
    """The sentences of lines such as `text => {"argument": value}`."""
    cut = (line.partition(" => ") for line in lines)
    return tuple(Wording(text, tuple(json.loads(fixed or "{}").items())) for text, _, fixed in cut)


def _value(rng: Random, pool: Pool, kind: str) -> tuple[Any, str]:
    """(the argument, its words in the sentence)."""
    if kind == "count":
        count = values.number(rng, pool, rng.choice((20, 60, 200)))
        return count, str(count)
    if kind in _LISTS:
        items = [_LISTS[kind](rng, pool) for _ in range(rng.choice((1, 2, 2, 3) if kind != "files" else (2, 2, 3)))]
        return items, madeup.listed(rng, items)
    value = _MAKERS[kind](rng, pool)
    return value, madeup.written(rng, value, quoted=kind in _QUOTED)


def arguments(name: str, tool: str, filled: dict[str, Any]) -> dict[str, Any]:
    """The call's arguments in the schema's order; an edit's two texts become its list of edits."""
    if "old" in filled:
        filled["edits"] = [{"oldText": filled.pop("old"), "newText": filled.pop("new")}]
    schema = next(known.parameters for known in load(name).toolset.tools if known.name == tool)
    return {name: filled[name] for name in schema["properties"] if name in filled}
