"""The tasks themselves: enough of them, for every tool, in words that no training data has."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

from dualtune_edge_kit import FOLDER
from dualtune_edge_kit.training.data import toolsets
from dualtune_edge_kit.training.data.typed import conversations, requests

from checkable.gold import DATA
from dualtune_edge.runtime.evaluate.tasks.task import read_tasks
from dualtune_edge.toolkit.prompts.trajectories import read_trajectories

TASKS = read_tasks(DATA)
_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_SLOT = re.compile(r"\\\{(\w+)\\\}")
_TEXT = ".+"
_LIST = r"\S+(?:(?:, | and |, and )\S+)*"
_SLOTS = {  # kind of value → what it looks like in a sentence
    "message": _TEXT,
    "sentence": _TEXT,
    "phrase": _TEXT,
    "count": r"\d+",
    "date": r"\S+(?: \S+){0,2}",
    "files": _LIST,
    "relatives": _LIST,
    "exclusions": _LIST,
}
_SPACE = "(?: |(?<= )|^|$)"  # an empty choice leaves two of them, or one at an end
_JOINT = re.compile(r"[,;:.]\s+|\s(?:and|then|so|while|where)\s", re.IGNORECASE)
_LEAD = re.compile(r"^(?:(?:and|then|next|after that|afterwards|so|also|there) )+", re.IGNORECASE)


def test_there_are_at_least_80_tasks_of_one_to_four_calls() -> None:
    assert len(TASKS.tasks) >= 80
    assert {len(task.gold) for task in TASKS.tasks} == {1, 2, 3, 4}
    assert sum(len(task.gold) > 1 for task in TASKS.tasks) >= 30


def test_every_tool_of_both_servers_is_needed_by_a_task() -> None:
    needed = {call.call for task in TASKS.tasks for call in task.gold}
    assert needed == {f"{name}.{tool.name}" for name in toolsets.NAMES for tool in toolsets.load(name).toolset.tools}


def test_some_tasks_need_both_servers() -> None:
    assert sum(len({call.toolset for call in task.gold}) == 2 for task in TASKS.tasks) >= 10


def parts(request: str) -> Iterator[str]:
    """A request and all that stands between two of its joints."""
    starts = [0, *(joint.end() for joint in _JOINT.finditer(request))]
    ends = [*(joint.start() for joint in _JOINT.finditer(request)), len(request)]
    for start in starts:
        yield from (_LEAD.sub("", request[start:end]).strip(" .?!,;:") for end in ends if start < end)


def pattern(sentence: str, kinds: dict[str, str]) -> re.Pattern[str]:
    """What a wording matches, with any values in its slots and any of its choices."""

    def literal(text: str) -> str:
        words = (re.escape(word) for word in text.rstrip("?.").split(" "))
        return _SPACE.join(
            _SLOT.sub(lambda slot: f"(?:{_SLOTS.get(kinds.get(slot[1], ''), '[^ ]+')})", word) for word in words
        )

    halves = enumerate(_CHOICE.split(sentence))
    body = "".join(
        f"(?:{'|'.join(literal(choice) for choice in part.split('|'))})" if index % 2 else literal(part)
        for index, part in halves
    )
    polite = "|".join(toolsets.POLITE)
    return re.compile(f"(?:(?:{polite}) )?{body}", re.IGNORECASE)


@cache
def known_wordings() -> list[re.Pattern[str]]:
    """Every wording of training and of the held-out set."""
    found = [pattern(text, {}) for split in ("train", "heldout") for text in toolsets.chat(split)]
    for name in toolsets.NAMES:
        read = toolsets.load(name)
        for (tool, _), wordings in read.sentences.items():
            found += [pattern(wording.text, read.kinds[tool]) for wording in wordings]
        for tool, wordings in requests.typed_wordings(name).items():
            found += [pattern(wording.text, read.kinds[tool]) for wording in wordings]
    found += [pattern(text, {}) for part in ("train", "development") for text in requests.chat(part)]
    return found + [pattern(text, task.kinds) for task in conversations.tasks() for text in task.said]


def test_no_request_and_no_part_of_one_is_a_wording_of_the_kits_data() -> None:
    wordings = known_wordings()
    assert len(wordings) > 1000
    repeated = [
        (task.name, part)
        for task in TASKS.tasks
        for part in set(parts(task.request))
        if any(wording.fullmatch(part) for wording in wordings)
    ]
    assert repeated == []


def test_the_comparison_of_wordings_finds_what_the_kit_says() -> None:
    """Most of the sentences of the kit's own held-out conversations are found again, so a copy is noticed."""
    wordings = known_wordings()
    said = [
        trajectory.messages[0].content for name in toolsets.NAMES for trajectory in read_trajectories(HELDOUT, name)
    ]
    found = [text for text in said[:60] if any(w.fullmatch(part) for part in parts(text) for w in wordings)]
    assert len(found) >= 55


HELDOUT = FOLDER / "heldout.jsonl"
