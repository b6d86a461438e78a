from __future__ import annotations

import pytest

from dualtune_edge.export.finetune.samples.data_warnings import (
    answer_warnings,
    arguments_warnings,
    selection_warnings,
    toolset_warnings,
)
from dualtune_edge.toolkit.prompts.messages import FunctionCall

TOOLS = ("read", "write")


def calls(**counts: int) -> list[str]:
    return [name for name, count in counts.items() for _ in range(count)]


def test_enough_samples_of_every_kind_are_not_warned_of() -> None:
    assert selection_warnings(calls(read=100, write=100, summarize=200), TOOLS, "summarize") == ()
    assert arguments_warnings([FunctionCall(name="read", arguments={"path": str(n)}) for n in range(100)], "read") == ()


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ({"read": 100, "write": 100, "summarize": 401}, "401 of 601 samples call no tool"),
        ({"read": 900, "write": 100, "summarize": 200}, "900 of 1200 samples call read"),
        ({"read": 1000}, "1000 of 1000 samples call read"),
    ],
)
def test_one_sided_samples_are_named(counts: dict[str, int], words: str) -> None:
    (warning, *_) = selection_warnings(calls(**counts), TOOLS, "summarize")
    assert warning.startswith(words)
    assert ("--keep" in warning) == (len(counts) > 1)


def test_the_share_to_keep_makes_the_answer_as_frequent_as_the_others() -> None:
    (warning,) = selection_warnings(calls(read=100, write=100, summarize=800), TOOLS, "summarize")
    assert "--keep summarize=0.25" in warning


def test_tools_without_a_sample_are_named() -> None:
    (warning,) = selection_warnings(calls(write=300, summarize=200), TOOLS, "summarize")
    assert warning.startswith("no sample calls read:")


@pytest.mark.parametrize("count", [1, 99])
def test_few_samples_are_counted(count: int) -> None:
    (warning,) = selection_warnings(calls(read=count, write=count, summarize=count), TOOLS, "summarize")
    assert warning.startswith(f"{2 * count} samples call the 2 tools, {count} a tool:")
    same = [FunctionCall(name="read", arguments={"path": str(n)}) for n in range(count)]
    assert f"{count} samples call read:" in arguments_warnings(same, "read")[-1]


def test_equal_arguments_are_named() -> None:
    answers = [FunctionCall(name="read", arguments={"path": "a", "head": 1})] * 200
    (warning,) = arguments_warnings(answers, "read")
    assert warning.startswith('200 of 200 samples write the same arguments, {"head": 1, "path": "a"}')


def test_toolsets_are_warned_of_by_their_names() -> None:
    assert toolset_warnings(calls(files=100, git=100), ("files", "git")) == ()
    (few,) = toolset_warnings(calls(files=90, git=90), ("files", "git"))
    assert "180 samples for 2 toolsets, 90 each" in few
    one_sided, missing, few = toolset_warnings(calls(files=90), ("files", "git"))
    assert one_sided.startswith("90 of 90 samples call files")
    assert "no sample calls git" in missing
    assert "90 samples for 2 toolsets, 45 each" in few


def test_answers_are_warned_of_where_they_are_few_or_one() -> None:
    assert answer_warnings([f"answer {number}" for number in range(100)]) == ()
    alike, few = answer_warnings(["Done.", "Done.", "Done.", "Nothing changed."])
    assert alike.startswith("3 of 4 samples say the same, 'Done.'")
    assert few.startswith("4 samples of answers")
