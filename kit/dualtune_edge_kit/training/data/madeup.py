"""Made-up tools with made-up requests, from which the base model learns tool calling. None is a real server's."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any, Final, TypeAlias

from dualtune_edge.toolkit.prompts.messages import FunctionCall, Message, ToolCall
from dualtune_edge.toolkit.tools.toolset import Tool
from dualtune_edge_kit.training.data import values, words
from dualtune_edge_kit.training.data.values import Pool

Argument: TypeAlias = str | int | bool | list[str] | list[dict[str, str]]


@dataclass(frozen=True)
class Kind:
    """A kind of argument: its JSON type, its maker of values, its names, and the words before an unnamed value."""

    schema: str
    make: Callable[[Random, Pool], Argument]
    names: tuple[str, ...]
    cues: tuple[str, ...]
    quoted: bool = False
    look: str = "other"  # two values that look alike must not both go unnamed


def _several(make: Callable[[Random, Pool], str]) -> Callable[[Random, Pool], Argument]:
    return lambda rng, pool: [make(rng, pool) for _ in range(rng.choice((1, 1, 2, 2, 3)))]


def _count(rng: Random, pool: Pool) -> Argument:
    return values.number(rng, pool, rng.choice((9, 60, 60, 900)))


def _random(rng: Random, _pool: Pool) -> Argument:
    alphabet = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:@#*=~"
    return "".join(rng.choice(alphabet) for _ in range(rng.randint(2, 12)))


def _edit(rng: Random, pool: Pool) -> Argument:
    old, new = rng.choice((("old", "new"), ("from", "to"), ("find", "replace"), ("before", "after"), ("a", "b")))
    ending = rng.choice(("", "", "_text", "Value", "Text"))
    return [{f"{old}{ending}": values.phrase(rng, pool), f"{new}{ending}": values.phrase(rng, pool)}]


KINDS: Final = (
    Kind(
        "string",
        values.file,
        ("path", "file", "filename", "file_path", "document"),
        ("", "the file", "of", "in", "from", "on", "for", "at"),
        look="path",
    ),
    Kind(
        "string",
        values.folder,
        ("path", "folder", "directory", "dir", "workspace"),
        ("in", "under", "from", "inside", "of", "the folder", "at"),
        look="path",
    ),
    Kind(
        "string",
        values.repository,
        ("repo", "repo_path", "repository", "root", "project"),
        ("in", "for", "of", "at", "in the repo", "from", "inside"),
        look="path",
    ),
    Kind(
        "string",
        values.branch,
        ("branch", "branch_name", "name", "ref", "base"),
        ("", "the branch", "to", "called", "from", "named", "on"),
    ),
    Kind(
        "string",
        values.revision,
        ("revision", "commit", "sha", "id", "version"),
        ("", "the commit", "at", "for", "of", "to"),
    ),
    Kind(
        "string",
        values.message,
        ("message", "title", "subject", "note", "comment"),
        ("with the message", "saying", "with the title", "as", "called"),
        quoted=True,
        look="quoted",
    ),
    Kind(
        "string",
        values.sentence,
        ("content", "text", "body", "data"),
        ("with", "containing", "with the text", "saying", "that says", "reading"),
        quoted=True,
        look="quoted",
    ),
    Kind(
        "string",
        values.phrase,
        ("query", "old", "new", "search", "keyword"),
        ("for", "with", "matching", "about"),
        quoted=True,
        look="quoted",
    ),
    Kind(
        "string",
        values.glob,
        ("pattern", "glob", "filter", "mask"),
        ("matching", "for", "like", "with the pattern", "that match"),
    ),
    Kind(
        "string",
        values.date,
        ("since", "until", "date", "start_time", "end_time", "timestamp", "before"),
        ("since", "from", "after", "before", "until", "on"),
    ),
    Kind(
        "string",
        values.noun,
        ("user", "label", "tag", "channel", "topic", "owner"),
        ("for", "to", "with", "named", "of", "by"),
    ),
    Kind("string", _random, ("code", "token", "key", "value"), ("with", "for", "as")),
    Kind(
        "integer",
        _count,
        ("count", "limit", "lines", "max_results", "size", "depth", "number"),
        ("at most", "only", "the first", "the last", "up to", "just"),
    ),
    Kind(
        "array",
        _several(values.file),
        ("files", "paths", "sources", "documents"),
        ("", "the files", "of", "from", "for"),
        look="path",
    ),
    Kind(
        "array",
        _several(values.exclusion),
        ("exclude", "ignore", "patterns", "skip"),
        ("without", "except", "ignoring", "leaving out", "but not"),
    ),
    Kind("array", _several(values.noun), ("tags", "labels", "users", "names", "topics"), ("with", "for", "to")),
    Kind("array", _edit, ("changes", "edits", "replacements", "swaps"), ()),
    Kind("boolean", lambda rng, _pool: rng.random() < 0.5, ("force", "recursive", "dry", "verbose", "public"), ()),
)

_NAMED: Final = (
    "with {name} {value}",
    "{name} {value}",
    "with the {name} {value}",
    "{name}={value}",
    "and {name} {value}",
    "where {name} is {value}",
    "{name}: {value}",
    "use {value} as the {name}",
)
_CHANGES: Final = (
    "replace {old} with {new}",
    "with {old} changed to {new}",
    "so that {old} becomes {new}",
    "put {new} for {old}",
    "and turn {old} into {new}",
)


@dataclass(frozen=True)
class Property:
    """One argument of a made-up tool."""

    name: str
    kind: Kind
    required: bool


@dataclass(frozen=True)
class MadeUpTool:
    """A made-up tool, with the words of a request for it."""

    verb: str
    objects: str
    properties: tuple[Property, ...]
    tool: Tool


@dataclass(frozen=True)
class Request:
    """A user's words and the call that they ask for."""

    text: str
    call: FunctionCall


def called(call: FunctionCall) -> Message:
    """An assistant's turn that makes a call."""
    return Message(role="assistant", tool_calls=(ToolCall(function=call),))


def make_tool(rng: Random, pool: Pool) -> MadeUpTool:
    """A tool with a random name, description and schema."""
    verb = rng.choice(pool.verbs) if rng.random() < 0.7 else words.invented(rng)
    objects = values.noun(rng, pool) if rng.random() < 0.6 else f"{values.noun(rng, pool)} {values.noun(rng, pool)}"
    properties: dict[str, Property] = {}
    for _ in range(rng.choice((1, 1, 2, 2, 2, 3, 3, 4))):
        kind = rng.choice(KINDS)
        name = rng.choice(kind.names)
        if rng.random() < 0.25:
            name = words.invented(rng) if rng.random() < 0.5 else f"{values.noun(rng, pool)}_{name}"
        properties.setdefault(name, Property(name, kind, required=rng.random() < 0.7))
    chosen = tuple(properties.values())
    schema = schema_of(chosen)
    joined = "_".join([verb, *objects.split()])
    if rng.random() < 0.3:
        joined = f"{values.noun(rng, pool)}_{joined}"
    description = f"{verb.capitalize()} {rng.choice(('the', 'a', 'one', 'some'))} {objects} {_idle(rng, pool)}"
    return MadeUpTool(verb, objects, chosen, Tool(name=joined, description=description, parameters=schema))


def make_request(rng: Random, pool: Pool, made: MadeUpTool) -> Request:
    """A sentence that asks for ``made`` with new values; it leaves out some of the optional arguments."""
    arguments: dict[str, Argument] = {}
    pieces: list[str] = []
    seen: set[str] = set()
    for property_ in made.properties:
        if not property_.required and rng.random() < 0.5:
            continue
        value = property_.kind.make(rng, pool)
        arguments[property_.name] = value
        pieces.append(piece(rng, property_, value, seen))
    rng.shuffle(pieces)
    verb = made.verb if rng.random() < 0.5 else made.verb.capitalize()
    opening = rng.choice(("", "", "", "Please ", "Now ", "Can you ", "I want to ", "Could you "))
    lead = f"{opening}{verb} {rng.choice(('the ', '', 'a '))}{made.objects}"
    text = " ".join([lead, *pieces])
    if pieces and rng.random() < 0.2:
        text = f"{pieces[0][:1].upper()}{pieces[0][1:]}, " + " ".join(
            [lead.lower() if lead.islower() else lead, *pieces[1:]]
        )
    text += rng.choice(("", "", "", ".", " please", " now"))
    return Request(text, FunctionCall(name=made.tool.name, arguments=arguments))


def written(rng: Random, value: str, *, quoted: bool) -> str:
    """A value as a user writes it: bare, or in quotes or backticks."""
    marks = rng.choice(("''", '""', "``")) if quoted or rng.random() < 0.25 else ""
    return f"{marks[0]}{value}{marks[1]}" if marks else value


def listed(rng: Random, items: list[str]) -> str:
    """Several values as a user lists them."""
    if len(items) == 1:
        return items[0]
    if rng.random() < 0.3:
        return ", ".join(items)
    return f"{', '.join(items[:-1])} and {items[-1]}"


def schema_of(properties: tuple[Property, ...]) -> dict[str, Any]:
    """The JSON schema of a tool's arguments."""
    return {
        "type": "object",
        "properties": {property_.name: _schema(property_) for property_ in properties},
        "required": [property_.name for property_ in properties if property_.required],
    }


def _schema(property_: Property) -> dict[str, Any]:
    kind = property_.kind.schema
    item = "object" if property_.kind.make is _edit else "string"
    return {"type": "array", "items": {"type": item}} if kind == "array" else {"type": kind}


def _idle(rng: Random, pool: Pool) -> str:
    """The end of a description."""
    return f"{rng.choice(('of', 'for', 'with', 'in'))} the {values.noun(rng, pool)} {values.noun(rng, pool)}"


def piece(rng: Random, property_: Property, value: Argument, seen: set[str]) -> str:
    """The words of one argument. It goes unnamed only where its cue and look are the request's first."""
    spoken = property_.name if rng.random() < 0.3 else property_.name.replace("_", " ")
    if isinstance(value, bool):
        return f"{rng.choice(('with', 'and'))} {spoken} {'on' if value else 'off'}"
    if isinstance(value, list):
        edits = [tuple(item.values()) for item in value if isinstance(item, dict)]
        if edits:
            old, new = (written(rng, text, quoted=True) for text in edits[0])
            return rng.choice(_CHANGES).format(old=old, new=new)
        text = listed(rng, [written(rng, item, quoted=False) for item in value if isinstance(item, str)])
    elif isinstance(value, int):
        text = str(value)
    else:
        text = written(rng, value, quoted=property_.kind.quoted)
    look = property_.kind.look if property_.kind.look != "other" else property_.kind.names[0]
    free = [cue for cue in property_.kind.cues if cue not in seen]
    if free and look not in seen and rng.random() < 0.5:
        cue = rng.choice(free)
        seen.update((cue, look))
        return f"{cue} {text}".strip()
    return rng.choice(_NAMED).format(name=spoken, value=text)
