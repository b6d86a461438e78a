# ruff: noqa: S311 - values drawn by seed, not secrets
"""Conversations about requests as people type them: one call, several in one message, tasks, small talk."""

import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any, Final

from dualtune_edge.toolkit.prompts.messages import FunctionCall, Message, user
from dualtune_edge_kit.training.data import toolsets, trajectories
from dualtune_edge_kit.training.data.madeup import Request, called
from dualtune_edge_kit.training.data.typed.requests import (
    CHOICE,
    SLOT,
    WORDINGS,
    Part,
    chat,
    drawn,
    filled,
    request,
    roughened,
    tools,
    toolset_of,
)
from dualtune_edge_kit.training.data.typed.results import result

_SAID: Final = ("Done.", "Here it is.", "That is all.", "Finished.", "It worked.", "OK.", "There you go.")
JOINTS: Final = {
    "train": (
        " and then ",
        ", then ",
        ". Then ",
        ". After that ",
        "; then ",
        " and ",
        ", and ",
        " and also ",
        ", also ",
        ". Also ",
        " && ",
        "; ",
        ". ",
        "\n",
        ", afterwards ",
        " and afterwards ",
        ". Afterwards ",
        ", after which ",
        " -> ",
        " - then ",
        ". When that is done, ",
        ". Once you have that, ",
        ", finally ",
        ". Finally, ",
        " plus ",
        ", and finally ",
        " followed by this: ",
        "? And ",
        ". And ",
        " as well as ",
    ),
    "development": (". As a second step, ", ", and when you are through, ", " + "),
}
_LISTINGS: Final = (
    ("1. ", " 2. ", " 3. "),
    ("1) ", "\n2) ", "\n3) "),
    ("- ", "\n- ", "\n- "),
    ("first ", ", second ", ", third "),
    ("First: ", ". Second: ", ". Third: "),
    ("Two things: ", "; ", "; "),
    ("i need these: ", ", ", ", "),
    ("please do this: ", ", then ", ", then "),
    ("First ", ", then ", ", then "),
    ("can you first ", " and then ", " and then "),
    ("a) ", " b) ", " c) "),
)
_REVERSED: Final = ("{second}, but first {first}", "before you {second}, {first}", "{second}. But before that: {first}")


@dataclass(frozen=True)
class Task:
    """A request for several calls that share words."""

    kinds: dict[str, str]  # slot → kind of value
    calls: tuple[tuple[str, dict[str, str]], ...]  # tool, and what its arguments are
    said: tuple[str, ...]


def conversations(seed: int, part: Part, count: int) -> Iterator[tuple[Message, ...]]:
    """``count`` conversations; the tools take turns as the first one that is called."""
    rng = Random(f"typed {part} {seed}")
    plan = [tool for name in toolsets.NAMES for tool in tools(name)]
    for index in range(count):
        yield conversation(rng, plan[index % len(plan)], part)


def views(messages: Sequence[Message]) -> Iterator[tuple[str, tuple[Message, ...]]]:
    """A conversation as each of its toolsets learns it: turns of the other one have no weight.

    An answer in words belongs to the toolset of the last call before it, or to both where there is none.
    """
    owners: list[str | None] = []
    last: str | None = None
    for message in messages:
        if message.tool_calls:
            last = toolset_of(message.tool_calls[0].function.name)
        owners.append(last)
    for name in toolsets.NAMES:
        if name in owners or set(owners) == {None}:
            turns = zip(messages, owners, strict=True)
            yield name, tuple(message if owner in (name, None) else _unlearnt(message) for message, owner in turns)


def conversation(rng: Random, tool: str, part: Part) -> tuple[Message, ...]:
    """A conversation whose first call is ``tool``'s, if it is not a task or small talk."""
    style = rng.random()
    if style < 0.45:
        return single(rng, tool, part)
    if style < 0.68:
        return joined(rng, tool, part)
    if style < 0.84:
        return _task(rng, part)
    if style < 0.88:
        return trajectories.follow_up(rng, toolset_of(tool), "train")
    if style < 0.92:
        return (*conversation(rng, tool, part), *conversation(rng, rng.choice(tools(toolset_of(tool))), part))
    talk = (user(roughened(rng, rng.choice(chat(part)))), _answer(rng))
    return talk if rng.random() < 0.6 else (*single(rng, tool, part), *talk)


def single(rng: Random, tool: str, part: Part) -> tuple[Message, ...]:
    """A request, its call and the answer."""
    asked = request(rng, tool, part)
    return (user(asked.text), *_made(rng, asked.call), _answer(rng))


def joined(rng: Random, tool: str, part: Part) -> tuple[Message, ...]:
    """Two or three requests in one message. Most are of one toolset, and a repository stays the same."""
    name = toolset_of(tool)
    asked = [request(rng, tool, part)]
    same = {key: str(value) for key, value in asked[0].call.arguments.items() if key == "repo_path"}
    for _ in range(1 if rng.random() < 0.75 else 2):
        other = name if rng.random() < 0.85 else rng.choice(toolsets.NAMES)
        asked.append(request(rng, rng.choice(tools(other)), part, same))
    made = [message for one in asked for message in _made(rng, one.call)]
    return (user(joined_words(rng, asked, part)), *made, _answer(rng))


def joined_words(rng: Random, asked: Sequence[Request], part: Part) -> str:
    """The requests' words as one message."""
    texts = [one.text for one in asked]
    cut = [text.rstrip(".?") for text in texts]
    small = [_small(one) for one in asked]
    style = rng.random()
    if style < 0.08 and len(texts) == 2:
        return rng.choice(_REVERSED).format(first=small[0], second=small[1].rstrip(".?"))
    if style < 0.25:
        return "".join(lead + text for lead, text in zip(rng.choice(_LISTINGS), [*cut[:-1], texts[-1]], strict=False))
    joined = cut[0]
    for index, text in enumerate(small[1:], start=2):
        joint = rng.choice(JOINTS[part])
        after = texts[index - 1] if joint.endswith((". ", "\n")) else text
        joined += joint + (after.rstrip(".?") if index < len(texts) else after)
    return joined


def _small(asked: Request) -> str:
    """The request's words with a small first letter, unless a value stands there."""
    text = asked.text
    word = text.split()[0].rstrip(":,;.?")
    values = str(asked.call.arguments).replace("\\\\", "\\")
    return text if word in values or not text[:2].istitle() else text[0].lower() + text[1:]


def _task(rng: Random, part: Part) -> tuple[Message, ...]:
    """A request whose calls share words, or whose later calls need what earlier ones bring to light."""
    task = rng.choice(tasks())
    text = CHOICE.sub(lambda match: rng.choice(match[1].split("|")), drawn(rng, task.said, part))
    said = dict.fromkeys(SLOT.findall(text))
    text, given = filled(rng, roughened(rng, text), {slot: task.kinds[slot] for slot in said}, {})
    _, unsaid = filled(rng, "", {slot: kind for slot, kind in task.kinds.items() if slot not in said}, {})
    made: list[Message] = [user(text)]
    for index in range(len(task.calls)):
        following = task.calls[index + 1][1].values() if index + 1 < len(task.calls) else ()
        shown = [str(unsaid[slot]) for value in following for slot in SLOT.findall(value) if slot in unsaid]
        made += _made(rng, _call(task, index, given | unsaid), shown)
    return (*made, _answer(rng))


def _call(task: Task, index: int, drawn_values: dict[str, Any]) -> FunctionCall:
    tool, given = task.calls[index]
    said = {key: drawn_values[value[1:-1]] if value.startswith("{") else value for key, value in given.items()}
    if said.get("max_count") == "1":
        said["max_count"] = 1
    return FunctionCall(name=tool, arguments=toolsets.arguments(toolset_of(tool), tool, said))


def _made(rng: Random, call: FunctionCall, shown: Sequence[str] = ()) -> tuple[Message, Message]:
    return called(call), Message(role="tool", content=result(rng, call, list(shown)))


def _answer(rng: Random) -> Message:
    return Message(role="assistant", content=rng.choice(_SAID))


def _unlearnt(message: Message) -> Message:
    return message.model_copy(update={"weight": 0}) if message.role == "assistant" else message


@cache
def tasks() -> tuple[Task, ...]:
    """All requests for several calls that share words."""
    read = tomllib.loads((WORDINGS / "tasks.toml").read_text(encoding="utf-8"))
    return tuple(
        Task(entry["kinds"], tuple(_parsed(line) for line in entry["calls"]), tuple(entry["said"]))
        for entry in read["tasks"]
    )


def _parsed(line: str) -> tuple[str, dict[str, str]]:
    tool, *given = line.split(" ")
    return tool, dict(part.split("=", 1) for part in given)
