"""A compiled variant in simulation, against other engines on the same prompts: logits, choices, arguments."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any

from dualtune_edge.export.parity.messages import request
from dualtune_edge.export.parity.metrics import Comparison, distance, summary
from dualtune_edge.export.parity.record import Question, Record, logits_after, record
from dualtune_edge.runtime.arguments import compile_grammar, open_tokenizer
from dualtune_edge.runtime.bundle import Bundle
from dualtune_edge.runtime.engine import Engine
from dualtune_edge.toolkit.chat_template import ChatTemplate
from dualtune_edge.toolkit.errors import DataError
from dualtune_edge.toolkit.frozen import Frozen
from dualtune_edge.toolkit.manifest import Stage
from dualtune_edge.toolkit.messages import Message, user
from dualtune_edge.toolkit.parity import StageParity
from dualtune_edge.toolkit.prompts import Prompter
from dualtune_edge.toolkit.trajectories import Trajectory
from dualtune_edge.toolkit.validation import listing

_ROOM = 96  # the most tokens of arguments


@dataclass(frozen=True)
class Case:
    """A conversation at a stage. `tool` and `arguments`: what is right, where that is known."""

    stage: Stage
    messages: tuple[Message, ...]
    tool: str | None = None  # the right choice
    arguments: Mapping[str, Any] | None = None  # the right ones


class Against(Frozen):
    """The simulation compared with one engine, the `reference` of each number."""

    reference: str
    stages: tuple[StageParity, ...]
    choices: int
    agreed: int  # choices that are the reference's
    arguments: int
    same: int  # arguments that are wholly the reference's
    right: int  # of its own answers, those that are the held-out ones


class Verification(Frozen):
    """What `verify --json` prints. Seconds are of this machine, which simulates."""

    profile: str
    compiler: str  # whose simulation it was
    prompts: int
    known: int  # of these, those whose right answer is known: held-out turns
    right: int  # answers of the simulation that are right
    forwards: int
    seconds: float
    against: tuple[Against, ...]


@dataclass(frozen=True)
class Answered:
    """A case, what was asked, and what the simulation answered."""

    case: Case
    question: Question
    record: Record

    @property
    def is_choice(self) -> bool:
        """Whether it is a choice, and not arguments."""
        return self.question.grammar is None


def made_up_cases(bundle: Bundle, each: int) -> Iterator[Case]:
    """For every stage of a toolset, so many requests made from its tools."""
    for entry in bundle.manifest.toolsets:
        tools = entry.toolset.tools
        for index in range(each):
            tool = tools[index * len(tools) // each % len(tools)]
            yield Case(entry.selection, (user(request(tool, index)),))
        for name, stage in entry.arguments.items():
            tool = next(tool for tool in tools if tool.name == name)
            yield from (Case(stage, (user(request(tool, variant)),)) for variant in range(each))


def heldout_cases(bundle: Bundle, conversations: Iterable[Trajectory]) -> Iterator[Case]:
    """The choice at every turn of the assistant's, and the arguments at those that call a tool which takes some.

    Raises:
        DataError: a conversation names no toolset of the bundle; with one toolset it need not name it.

    """
    entries = {entry.toolset.name: entry for entry in bundle.manifest.toolsets}
    only = next(iter(entries)) if len(entries) == 1 else ""
    for conversation in conversations:
        name = conversation.toolset or only
        if name not in entries:
            found = repr(conversation.toolset) if conversation.toolset else "no toolset"
            fix = "Leave the line out, or name the toolset that it is for."
            raise DataError(conversation.where, found=found, expected=listing(entries), fix=fix)
        entry = entries[name]
        for index, message in enumerate(conversation.messages):
            if message.role != "assistant":
                continue
            called = message.tool_calls[0].function if message.tool_calls else None
            before = conversation.messages[:index]
            yield Case(entry.selection, before, called.name if called else bundle.manifest.no_tool)
            if called and called.name in entry.arguments:
                yield Case(entry.arguments[called.name], before, arguments=called.arguments)


class Verifier:
    """Answers cases in simulation once, and compares with any number of engines.

    Args:
        bundle: seen through the variant's model.
        simulated: an engine on it.

    """

    def __init__(self, bundle: Bundle, simulated: Engine) -> None:
        self._bundle, self._simulated = bundle, simulated
        self.seconds, self.forwards = 0.0, 0

    def answer(self, cases: Sequence[Case], tell: Callable[[], None]) -> list[Answered]:
        """Simulate; cases of one stage should follow one another, then its prefix is read once.

        Args:
            cases: what is asked.
            tell: called after each.

        """
        answered = []
        for case in cases:
            question = self._question(case)
            self._use(self._simulated, case.stage.adapter)
            start = time.perf_counter()
            found = record(self._simulated, question)
            self.seconds += time.perf_counter() - start
            self.forwards += len(found.logits)
            answered.append(Answered(case, question, found))
            tell()
        return answered

    def compare(self, name: str, reference: Engine, answered: Sequence[Answered]) -> Against:
        """Have the reference read what the simulation read, and answer for itself."""
        stages, own = [], []
        for stage, group in groupby(answered, key=lambda each: each.case.stage):
            self._use(reference, stage.adapter)
            comparisons = []
            for each in group:
                theirs = record(reference, each.question)
                comparisons.append(_comparison(each, theirs, reference))
                own.append(_is_right(each.case, theirs))
            stages.append(summary(stage.prompt, stage.adapter, comparisons))
        return Against(
            reference=name,
            stages=tuple(stages),
            choices=sum(stage.choices for stage in stages),
            agreed=sum(stage.choices - stage.flips for stage in stages),
            arguments=sum(stage.arguments for stage in stages),
            same=sum(stage.exact for stage in stages),
            right=sum(own),
        )

    @staticmethod
    def _use(engine: Engine, adapter: str | None) -> None:
        """Activate an adapter, which drops what is held, only where another is in use."""
        if engine.adapter != adapter or not engine.tokens:
            engine.use(adapter)

    def _question(self, case: Case) -> Question:
        plan, tokenizer = self._bundle.plan(case.stage), self._bundle.manifest.tokenizer
        template = ChatTemplate(plan.template, where=case.stage.prompt, bos=tokenizer.bos, eos=tokenizer.eos)
        prompter = Prompter(template, self._bundle.tokenizer, plan.tools, plan.tool)
        tool = next((tool for tool in plan.tools if tool.name == plan.tool), None)
        grammar = compile_grammar(tool, plan.frame, self._tokenizer) if tool and plan.frame else None
        return Question(prompter.tokens(case.messages), plan.completions, grammar, _ROOM)

    @cached_property
    def _tokenizer(self) -> Any:
        base = self._bundle.manifest.base
        return open_tokenizer(self._bundle.tokenizer_json, vocab_size=base.vocab_size, end_of_turn=base.end_of_turn)


def right(answered: Iterable[Answered]) -> int:
    """How many of the simulation's answers are known to be right."""
    return sum(_is_right(each.case, each.record) for each in answered)


def is_known(case: Case) -> bool:
    """Whether its right answer is known."""
    return case.tool is not None or case.arguments is not None


def _comparison(each: Answered, theirs: Record, reference: Engine) -> Comparison:
    """Of the simulation's logits and answer with the reference's."""
    ours = each.record
    distances = tuple(
        distance(theirs.logits[path] if path in theirs.logits else logits_after(reference, path), logits)
        for path, logits in ours.logits.items()
    )
    same = (
        ours.choice.winner == theirs.choice.winner
        if ours.choice and theirs.choice
        else ours.arguments == theirs.arguments and ours.path == theirs.path
    )
    sure = theirs.choice.probability if theirs.choice else None
    finished = ours.choice is not None or ours.arguments is not None
    return Comparison(distances, before=None, same=same, sure=sure, finished=finished)


def _is_right(case: Case, found: Record) -> bool:
    if case.tool is not None:
        return found.choice is not None and found.choice.winner == case.tool
    return case.arguments is not None and found.arguments == dict(case.arguments)
