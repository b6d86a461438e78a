"""Made-up tools whose descriptions say one word and whose requests say another: synonyms and typed requests.

A tool is an action, a thing and sometimes a way to do it. Tools of one set are alike: they share actions or things.
"""

import tomllib
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, Final

from dualtune_edge.toolkit.prompts.messages import FunctionCall
from dualtune_edge.toolkit.tools.toolset import Tool
from dualtune_edge_kit.training.data import madeup, toolsets, values, words
from dualtune_edge_kit.training.data.madeup import KINDS, Argument, Kind, Property, Request
from dualtune_edge_kit.training.data.typed import values as typed
from dualtune_edge_kit.training.data.typed.requests import roughened
from dualtune_edge_kit.training.data.values import TRAIN

_FILE: Final = Path(__file__).resolve().parent / "wordings" / "synonyms.toml"
_TYPED: Final = {getattr(values, name): make for name, make in typed.MAKERS.items() if hasattr(values, name)}
_STARTS: Final = ("", "", "", "", "please ", "can you ", "could you ", "i want to ", "now ", "pls ", "hey, ", "just ")
_ENDS: Final = ("", "", "", "", "", ".", "!", " please", " now", " thx", "?")
_MEDIA: Final = Kind("string", values.media, ("path", "file", "image", "source"), ("", "of", "from"), look="path")
_BEFORE: Final = ("the ", "the ", "", "", "my ", "a ", "this ")


@dataclass(frozen=True)
class Meaning:
    """One meaning: the words that tools have for it, what only people say, and the kind of a thing's value."""

    words: tuple[str, ...]
    said: tuple[str, ...]
    kind: Kind | None = None


@dataclass(frozen=True)
class Meanings:
    """All meanings that made-up tools are made of."""

    actions: tuple[Meaning, ...]
    things: tuple[Meaning, ...]
    modifiers: tuple[Meaning, ...]


@dataclass(frozen=True)
class Sense:
    """What a tool does."""

    action: Meaning
    thing: Meaning
    modifier: Meaning | None


@dataclass(frozen=True)
class EverydayTool:
    """A made-up tool, what it means, and whether its set has another one of the same action."""

    sense: Sense
    properties: tuple[Property, ...]
    tool: Tool
    alone: bool  # no other tool of the set has the action: a request may leave out the thing


@cache
def meanings() -> Meanings:
    """The table of synonyms."""
    read = tomllib.loads(_FILE.read_text(encoding="utf-8"))
    return Meanings(*(tuple(_meaning(line) for line in read[part]) for part in ("actions", "things", "modifiers")))


def make_tools(rng: Random, count: int) -> tuple[EverydayTool, ...]:
    """``count`` tools of unlike meanings and names."""
    senses: list[Sense] = []
    while len(senses) < count:
        sense = _sense(rng, senses)
        if sense not in senses:
            senses.append(sense)
    made: dict[str, EverydayTool] = {}
    real = {tool.name for name in toolsets.NAMES for tool in toolsets.load(name).toolset.tools}
    prefix = f"{values.noun(rng, TRAIN)}_" if rng.random() < 0.2 else ""
    for sense in senses:
        alone = sum(other.action is sense.action for other in senses) == 1
        tool = _tool(rng, sense, prefix, alone=alone)
        while tool.tool.name in made or tool.tool.name in real:
            tool = _tool(rng, sense, prefix, alone=alone)
        made[tool.tool.name] = tool
    return tuple(made.values())


def make_request(rng: Random, made: EverydayTool) -> Request:
    """A request for ``made`` in other words than its description's, as a person types it."""
    pieces, given = _pieces(rng, made)
    text = _lead(rng, made, bare=bool(pieces) and pieces[0][0])
    said = [piece for _, piece in pieces]
    style = rng.random()
    if style < 0.12 and said:
        text = f"{said[0]}{rng.choice((', ', ': ', ' ', ' - '))}{' '.join([text, *said[1:]])}"
    elif style < 0.2:
        text = f"{' '.join(said)} {text}".strip()
    elif style < 0.26:
        text = f"{made.tool.name} {' '.join(said)}".strip()
    else:
        text = " ".join([text, *said])
    return Request(text, FunctionCall(name=made.tool.name, arguments=given))


def _lead(rng: Random, made: EverydayTool, *, bare: bool) -> str:
    """The words without values. ``bare``: a value follows that shows what the thing is."""
    sense = made.sense
    thing = _said(rng, sense.thing)
    before = "" if thing.startswith(("the ", "a ", "my ", "what ", "how ")) else rng.choice(_BEFORE)
    spoken = "" if bare and made.alone and rng.random() < 0.5 else f"{before}{thing}"
    action = _said(rng, sense.action)
    text = action.replace("{o}", spoken or "it") if "{o}" in action else f"{action} {spoken}".strip()
    if sense.modifier:
        text = f"{text} {_said(rng, sense.modifier)}"
    start = rng.choice(_STARTS) if action in sense.action.words else rng.choice(("", "", "hey, ", "ok, "))
    text = roughened(rng, f"{start}{text.strip()}{rng.choice(_ENDS) if not made.properties else ''}")
    return text[:1].upper() + text[1:] if rng.random() < 0.4 else text


def _pieces(rng: Random, made: EverydayTool) -> tuple[list[tuple[bool, str]], dict[str, Argument]]:
    """([(whether it is the thing's own value, the words)], the arguments)."""
    given: dict[str, Argument] = {}
    pieces: list[tuple[bool, str]] = []
    seen: set[str] = set()
    loose = rng.random() < 0.5
    for index, property_ in enumerate(made.properties):
        if not property_.required and rng.random() < 0.5:
            continue
        make = _TYPED.get(property_.kind.make) if loose else None
        value = make(rng) if make else property_.kind.make(rng, TRAIN)
        given[property_.name] = value
        own = index == 0 and property_.kind is made.sense.thing.kind
        if own and isinstance(value, str) and rng.random() < 0.7:
            seen.update(("", property_.kind.look))
            pieces.append((True, madeup.written(rng, value, quoted=property_.kind.quoted or " " in value)))
        else:
            pieces.append((False, madeup.piece(rng, property_, value, seen)))
    first, rest = pieces[:1], pieces[1:]
    rng.shuffle(rest)
    return [*first, *rest], given


def _said(rng: Random, meaning: Meaning) -> str:
    """A word or a phrase of the meaning, more often one that tools have too."""
    return rng.choice(meaning.words if rng.random() < 0.55 else meaning.said)


def _sense(rng: Random, senses: list[Sense]) -> Sense:
    """A new meaning, most often near one of ``senses``."""
    known = meanings()
    modifier = rng.choice(known.modifiers) if rng.random() < 0.2 else None
    fresh = Sense(rng.choice(known.actions[:60] if rng.random() < 0.6 else known.actions), _thing(rng), modifier)
    if not senses or rng.random() < 0.25:
        return fresh
    near, style = rng.choice(senses), rng.random()
    if style < 0.4:
        return replace(fresh, action=near.action)
    return replace(fresh, thing=near.thing) if style < 0.85 else replace(near, modifier=fresh.modifier)


def _thing(rng: Random) -> Meaning:
    things = meanings().things
    return rng.choice([thing for thing in things if thing.kind] if rng.random() < 0.5 else things)


def _tool(rng: Random, sense: Sense, prefix: str, *, alone: bool) -> EverydayTool:
    action, thing = rng.choice(sense.action.words), rng.choice(sense.thing.words)
    parts = [action, thing, *([rng.choice(sense.modifier.words)] if sense.modifier else [])]
    name = prefix + "_".join("_".join(part.split()) for part in parts)
    if rng.random() < 0.5:
        action, thing = rng.choice(sense.action.words), rng.choice(sense.thing.words)
    middle = f"{parts[2]} " if sense.modifier and rng.random() < 0.5 else ""
    after = f" {parts[2]}" if sense.modifier and not middle else ""
    start = action if rng.random() < 0.7 else f"{action}s"
    end = f"{rng.choice(('of', 'for', 'with', 'in'))} the {values.noun(rng, TRAIN)}" if rng.random() < 0.6 else ""
    description = f"{start.capitalize()} {rng.choice(('the ', 'a ', '', ''))}{middle}{thing}{after} {end}".strip()
    properties = _properties(rng, sense.thing)
    schema = madeup.schema_of(properties)
    return EverydayTool(sense, properties, Tool(name=name, description=description, parameters=schema), alone)


def _properties(rng: Random, thing: Meaning) -> tuple[Property, ...]:
    """The thing's value first, if it has one, then some of other kinds."""
    found: dict[str, Property] = {}
    if thing.kind:
        name = rng.choice(thing.kind.names) if rng.random() < 0.8 else words.invented(rng)
        found[name] = Property(name, thing.kind, required=True)
    for _ in range(rng.choice((0, 0, 1, 1, 2)) if thing.kind else rng.choice((0, 1, 1, 2))):
        kind = rng.choice(KINDS)
        name = rng.choice(kind.names) if rng.random() < 0.8 else words.invented(rng)
        found.setdefault(name, Property(name, kind, required=rng.random() < 0.6))
    return tuple(found.values())


def _meaning(line: str) -> Meaning:
    terms, said, *kind = (part.strip() for part in line.split("|"))
    spoken = tuple(word.replace("_", " ") for word in terms.split())
    return Meaning(spoken, tuple(phrase.strip() for phrase in said.split(",")), _kind(kind[0]) if kind else None)


def _kind(name: str) -> Kind:
    """The kind of argument that a value of ``name`` is."""
    if name == "media":
        return _MEDIA
    make: Any = getattr(values, name)
    return next(kind for kind in KINDS if kind.make is make)
