# ruff: noqa: S311 - values drawn by seed, not secrets
"""Conversations with the two real servers: the adapters' training data, and the held-out set."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any, Final

from dualtune_edge.toolkit.prompts.messages import FunctionCall, Message, user
from dualtune_edge_kit.training.data import toolsets, values
from dualtune_edge_kit.training.data.madeup import Request, called
from dualtune_edge_kit.training.data.toolsets import Split
from dualtune_edge_kit.training.data.values import Pool

_JOINTS: Final[dict[Split, tuple[str, ...]]] = {
    "train": (" and then ", ", then ", ". Then ", ". After that ", "; then "),
    "heldout": (", and after that ", ". Next, ", ", and then "),
}
_SAID: Final[dict[Split, tuple[str, ...]]] = {
    "train": ("Done.", "Here it is.", "That is all.", "Finished.", "It worked."),
    "heldout": ("All done.", "It is finished.", "Here is all of it."),
}
_OPENERS: Final[dict[str, tuple[str, ...]]] = {"filesystem": ("search_files", "list_directory"), "git": ("git_log",)}
_ORDINALS: Final = ("first", "second", "third")


def write(path: Path, trajectories: Sequence[tuple[str, Sequence[Message]]]) -> None:
    """One conversation a line: `{"toolset": name, "messages": [OpenAI-style …]}`."""
    lines = (
        json.dumps({"toolset": name, "messages": [_written(message) for message in messages]}, ensure_ascii=False)
        for name, messages in trajectories
    )
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="\n")


def _written(message: Message) -> dict[str, Any]:
    """The message with the weight 0 of a turn that is not learnt."""
    return message.for_template() | ({} if message.weight is None else {"weight": message.weight})


def generate(seed: int, split: Split, count: int) -> Iterator[tuple[str, tuple[Message, ...]]]:
    """``count`` conversations; the tools take turns."""
    rng = Random(f"{split} {seed}")
    plan = [(name, tool.name) for name in toolsets.NAMES for tool in toolsets.load(name).toolset.tools]
    for index in range(count):
        name, tool = plan[index % len(plan)]
        yield name, conversation(rng, name, tool, split)


def conversation(rng: Random, name: str, tool: str, split: Split) -> tuple[Message, ...]:
    """A conversation. About a third have several calls, and some have none."""
    style = rng.random()
    if style < 0.62:
        return _single(rng, name, tool, split)
    if style < 0.77:
        return _in_one_breath(rng, name, tool, split)
    if style < 0.92:
        return follow_up(rng, name, split)
    return _chat(rng, name, tool, split)


def _single(rng: Random, name: str, tool: str, split: Split) -> tuple[Message, ...]:
    asked = toolsets.request(rng, name, tool, split)
    return (user(asked.text), *_made(rng, asked, split), _said(rng, split))


def _in_one_breath(rng: Random, name: str, tool: str, split: Split) -> tuple[Message, ...]:
    """Two calls requested in one sentence; the second half of a git request is about the same repository."""
    first = toolsets.request(rng, name, tool, split)
    other = rng.choice(toolsets.load(name).toolset.tools).name
    same = {key: value for key, value in first.call.arguments.items() if key == "repo_path"}
    second = toolsets.request(rng, name, other, split, same=same)
    text = first.text.rstrip(".?") + rng.choice(_JOINTS[split]) + second.text
    return (user(text), *_made(rng, first, split), *_made(rng, second, split), _said(rng, split))


def follow_up(rng: Random, name: str, split: Split) -> tuple[Message, ...]:
    """A call, then a request about something in its result."""
    opener = rng.choice(_OPENERS[name])
    first = toolsets.request(rng, name, opener, split)
    pool = _pool(split)
    lines = [
        values.file(rng, pool) if name == "filesystem" else values.sha(rng, pool) for _ in range(rng.randint(2, 4))
    ]
    which = rng.randrange(min(len(lines), len(_ORDINALS)))
    pointed, chosen = f"the {_ORDINALS[which]} one", lines[which]
    if rng.random() < 0.3:
        pointed, chosen = "the last one", lines[-1]
    if name == "filesystem":
        follow, slot = rng.choice((("read_text_file", "path"), ("get_file_info", "path"))), "path"
        tool = follow[0]
        second = toolsets.request(rng, name, tool, split, same={slot: pointed})
    else:
        tool, slot = "git_show", "revision"
        repository = str(first.call.arguments["repo_path"])
        second = toolsets.request(rng, name, tool, split, same={slot: pointed, "repo_path": repository})
    call = FunctionCall(name=tool, arguments={**second.call.arguments, slot: chosen})
    result = Message(role="tool", content="\n".join(_line(rng, pool, name, line) for line in lines))
    return (
        user(first.text),
        called(first.call),
        result,
        _said(rng, split),
        user(second.text),
        *_made(rng, Request(second.text, call), split),
        _said(rng, split),
    )


def _chat(rng: Random, name: str, tool: str, split: Split) -> tuple[Message, ...]:
    """A sentence that needs no tool, alone or after a call."""
    chat = (user(rng.choice(toolsets.chat(split))), _said(rng, split))
    return chat if rng.random() < 0.5 else (*_single(rng, name, tool, split), *chat)


def _made(rng: Random, asked: Request, split: Split) -> tuple[Message, Message]:
    """The call and its result."""
    pool = _pool(split)
    shown = rng.choice(("ok", values.sentence(rng, pool), f"{values.file(rng, pool)}\n{values.file(rng, pool)}", ""))
    return called(asked.call), Message(role="tool", content=shown)


def _line(rng: Random, pool: Pool, name: str, value: str) -> str:
    return value if name == "filesystem" else f"{value} {values.message(rng, pool)}"


def _said(rng: Random, split: Split) -> Message:
    return Message(role="assistant", content=rng.choice(_SAID[split]))


def _pool(split: Split) -> Pool:
    return values.TRAIN if split == "train" else values.HELDOUT
