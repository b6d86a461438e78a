"""Results and the calls that they answer."""

from __future__ import annotations

import pytest

from dualtune_edge.toolkit.prompts.messages import FunctionCall, Message, ToolCall, user
from dualtune_edge.toolkit.prompts.turns import single_calls, turn_faults, unknown_calls


def calls(*ids: str | None, content: str = "") -> Message:
    made = tuple(ToolCall(id=name, function=FunctionCall(name=f"tool_{at}")) for at, name in enumerate(ids))
    return Message(role="assistant", content=content, tool_calls=made)


def result(content: str, answers: str | None = None) -> Message:
    return Message(role="tool", content=content, tool_call_id=answers)


ASK, SAID = user("a"), Message(role="assistant", content="b")
FINE = {
    "by id": [ASK, calls("c"), result("r", "c")],
    "by place": [ASK, calls(None), result("r")],
    "two by place": [ASK, calls(None, None), result("r"), result("s")],
    "in another order": [ASK, calls("c", "d"), result("s", "d"), result("r", "c")],
    "by place though it has an id": [ASK, calls("c"), result("r")],
    "later, by id": [ASK, calls("c"), user("wait"), result("r", "c")],
    "equal ids": [ASK, calls("x"), result("r", "x"), calls("x"), result("s", "x")],
    "equal ids in one turn": [ASK, calls("x", "x"), result("r", "x"), result("s", "x")],
    "none": [ASK, SAID, ASK],
}
WRONG = {
    "first": ([result("r")], 0, "no call before it"),
    "behind words": ([ASK, SAID, result("r")], 2, "no call before it"),
    "behind a user": ([ASK, calls(None), result("r"), ASK, result("s")], 4, "no call before it"),
    "an id that no call has": ([ASK, calls("c"), result("r", "zzz")], 2, "'zzz'"),
    "an id where calls have none": ([ASK, calls(None), result("r", "zzz")], 2, "'zzz'"),
    "twice": ([ASK, calls("c"), result("r", "c"), result("s", "c")], 3, "a further result of the call 'c'"),
    "twice, the other calls between": (
        [ASK, calls("c", "d"), result("r", "c"), result("s", "d"), result("t", "c")],
        4,
        "a further result",
    ),
    "twice, later": ([ASK, calls("c"), result("r", "c"), SAID, ASK, result("r", "c")], 5, "a further result"),
    "an id before its call": ([ASK, calls("c"), result("r", "d"), calls("d")], 2, "'d'"),
}


@pytest.mark.parametrize("name", FINE)
def test_results_that_answer_a_call_are_good(name: str) -> None:
    assert list(turn_faults(FINE[name])) == []


@pytest.mark.parametrize("name", WRONG)
def test_a_result_that_answers_no_call_is_a_fault(name: str) -> None:
    messages, index, found = WRONG[name]
    (fault,) = turn_faults(messages)
    assert fault.index == index
    assert found in fault.found


def test_names_that_are_no_tools_are_known() -> None:
    assert unknown_calls([ASK, calls("a", "b"), calls("c")], {"tool_0"}) == ("tool_1",)


def test_several_calls_of_a_turn_become_several_turns() -> None:
    found = single_calls([ASK, calls("c", "d", content="now"), result("s", "d"), result("r", "c"), SAID])
    assert [message.content for message in found] == ["a", "now", "r", "", "s", "b"]
    assert [[call.id for call in message.tool_calls] for message in found] == [[], ["c"], [], ["d"], [], []]
    assert list(turn_faults(found)) == []


@pytest.mark.parametrize("ids", [(None, None), ("x", "x")])
def test_results_without_ids_of_their_own_are_taken_in_order(ids: tuple[str | None, ...]) -> None:
    answers = ids[0]
    found = single_calls([ASK, calls(*ids), result("r", answers), result("s", answers)])
    assert [message.content for message in found] == ["a", "", "r", "", "s"]


def test_calls_without_results_and_results_too_many_stay() -> None:
    assert [m.content for m in single_calls([ASK, calls("c", "d")])] == ["a", "", ""]
    found = single_calls([ASK, calls("c", "d"), result("r", "c"), result("s", "d"), result("t", "c")])
    assert [message.content for message in found] == ["a", "", "r", "", "s", "t"]


def test_single_calls_are_left_alone() -> None:
    for messages in FINE.values():
        if all(len(message.tool_calls) < 2 for message in messages):
            assert single_calls(messages) == tuple(messages)
