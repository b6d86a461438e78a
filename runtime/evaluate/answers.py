"""A turn of a held-out conversation, answered: what was expected, what came, and what of it is right."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol, TypeAlias

from dualtune_edge.runtime.evaluate.bfcl import OPTIONAL, accepts
from dualtune_edge.runtime.evaluate.cases import Case
from dualtune_edge.runtime.result import CallResult
from dualtune_edge.toolkit.errors import EdgeError, RequestError, StoppedError
from dualtune_edge.toolkit.frozen import Frozen
from dualtune_edge.toolkit.prompts.messages import Message

ErrorKind: TypeAlias = Literal[
    "refused",
    "another toolset",
    "another tool",
    "no tool where one is needed",
    "a tool where none is needed",
    "arguments missing",
    "arguments beyond the expected ones",
    "arguments with other values",
]
PropertyState: TypeAlias = Literal["right", "wrong", "missing", "extra"]


class Answerer(Protocol):
    """What is evaluated: an agent on a bundle, or a model behind an endpoint."""

    def call(
        self,
        request: Sequence[Message],
        *,
        toolset: str | None = None,
        offered: Mapping[str, Collection[str]] | None = None,
    ) -> CallResult:
        """The call that the conversation needs next; within `toolset` and of the tools `offered`, where given."""


class Call(Frozen):
    """A tool with its arguments; `tool` is null where none is called."""

    toolset: str
    tool: str | None
    arguments: dict[str, Any] | None


class Answer(Frozen):
    """One turn.

    `answer` is what came without a word on the toolset; `within` what came within the expected toolset, the same where
    the toolset was right. Both are null where the request was refused (`refusal`). `probability` is that of the whole
    `answer`: of toolset, tool and arguments multiplied.
    """

    where: str
    said: str  # the message that the turn answers
    expected: Call
    answer: Call | None
    within: Call | None
    probability: float
    refusal: str = ""
    accepted: dict[str, tuple[Any, ...]] | None = None  # values of BFCL's, in place of the expected arguments

    @property
    def routed(self) -> bool:
        """Whether the toolset is right."""
        return self.answer is not None and self.answer.toolset == self.expected.toolset

    @property
    def named(self) -> bool:
        """Whether the tool within the expected toolset is right, or none is called where none is needed."""
        return self.within is not None and self.within.tool == self.expected.tool

    @property
    def whole(self) -> bool:
        """Whether tool and arguments within the expected toolset are right."""
        return self.named and all(state == "right" for _, state in self.properties())

    @property
    def right(self) -> bool:
        """Whether the answer is: toolset, tool and arguments. Where no tool is needed, no toolset is either."""
        if self.expected.tool is None:
            return self.answer is not None and self.answer.tool is None
        return self.routed and self.whole

    def properties(self) -> Iterator[tuple[str, PropertyState]]:
        """The arguments of a call whose tool is right, by name."""
        if self.within is None or not self.named or self.expected.tool is None:
            return
        expected, found = self.expected.arguments or {}, self.within.arguments or {}
        known = expected if self.accepted is None else self.accepted
        for name in dict.fromkeys((*known, *found)):
            if name not in found:
                if self.accepted is None or OPTIONAL not in self.accepted[name]:
                    yield name, "missing"
            elif name not in known:
                yield name, "extra"
            else:
                yield name, "right" if self._accepts(name, found[name]) else "wrong"

    def _accepts(self, name: str, value: Any) -> bool:
        if self.accepted is not None:
            return accepts(self.accepted[name], value)
        return same((self.expected.arguments or {})[name], value)

    def error(self) -> ErrorKind | None:
        """The first thing that is wrong with the answer, in the order in which it is made; None: it is right."""
        called = self.answer is not None and self.answer.tool is not None
        states = {state for _, state in self.properties()}
        kinds: dict[ErrorKind, bool] = {
            "refused": self.answer is None,
            "a tool where none is needed": self.expected.tool is None,
            "no tool where one is needed": not called,
            "another toolset": not self.routed,
            "another tool": not self.named,
            "arguments with other values": "wrong" in states,
            "arguments missing": "missing" in states,
            "arguments beyond the expected ones": "extra" in states,
        }
        return None if self.right else next(kind for kind, holds in kinds.items() if holds)


def answers(answerer: Answerer, cases: Iterable[Case], tell: Callable[[int], None]) -> list[Answer]:
    """Every case answered; `tell` is given the number of each before it begins.

    Raises:
        EdgeError: something fails other than the one request.

    """
    found = []
    for number, case in enumerate(cases, start=1):
        tell(number)
        found.append(_answer(answerer, case))
    return found


def same(expected: Any, found: Any) -> bool:
    """Whether two JSON values are equal: 1 and 1.0 are, 1 and true are not."""
    if isinstance(expected, bool) or isinstance(found, bool):
        return expected is found
    if isinstance(expected, Mapping) and isinstance(found, Mapping):
        return expected.keys() == found.keys() and all(same(value, found[key]) for key, value in expected.items())
    if isinstance(expected, (list, tuple)) and isinstance(found, (list, tuple)):
        return len(expected) == len(found) and all(map(same, expected, found))
    return bool(expected == found)


def _answer(answerer: Answerer, case: Case) -> Answer:
    request, gold = case.request, case.request.call
    known: dict[str, Any] = {
        "where": request.where,
        "said": request.messages[-1].content,
        "expected": Call(
            toolset=request.toolset, tool=gold.name if gold else None, arguments=gold.arguments if gold else None
        ),
        "accepted": None if case.accepted is None else {name: tuple(case.accepted[name]) for name in case.accepted},
    }
    try:
        free = answerer.call(request.messages, offered=case.offered)
        inside = free if free.toolset == request.toolset else answerer.call(request.messages, toolset=request.toolset)
    except StoppedError:
        raise
    except RequestError as error:
        return Answer(**known, answer=None, within=None, probability=0.0, refusal=_line(error))
    return Answer(**known, answer=_call(free), within=_call(inside), probability=_whole(free))


def _call(result: CallResult) -> Call:
    return Call(toolset=result.toolset, tool=result.tool, arguments=result.arguments)


def _whole(result: CallResult) -> float:
    """The probability of the whole answer, as `min_probability` compares it."""
    factors = (result.toolset_probability, result.probability, result.arguments_probability)
    product = 1.0
    for factor in factors:
        product *= 1.0 if factor is None else factor
    return product


def _line(error: EdgeError) -> str:
    return " ".join(str(error).split())[:300]
