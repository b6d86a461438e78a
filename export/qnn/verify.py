"""A compiled variant in simulation, against other engines on the same prompts: logits, choices, arguments."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import count, groupby
from typing import Any, TypeAlias

from dualtune_edge.export.compare.metrics import Comparison, distance, summary
from dualtune_edge.export.compare.record import Question, Record, logits_after, record
from dualtune_edge.export.plan.messages import request
from dualtune_edge.runtime.bundle.folder import Bundle
from dualtune_edge.runtime.decode.grammar import compile_grammar, open_tokenizer
from dualtune_edge.runtime.engines.engine import Engine, Snapshot
from dualtune_edge.toolkit.bundle.manifest import Stage
from dualtune_edge.toolkit.bundle.verification import Against
from dualtune_edge.toolkit.errors import DataError
from dualtune_edge.toolkit.prompts.chat_template import ChatTemplate
from dualtune_edge.toolkit.prompts.messages import Message, user
from dualtune_edge.toolkit.prompts.prompter import Prompter
from dualtune_edge.toolkit.prompts.trajectories import Trajectory
from dualtune_edge.toolkit.validation import listing

_ROOM = 96  # the most tokens of arguments


@dataclass(frozen=True)
class Case:
    """A conversation at a stage. `tool` and `arguments`: what is right, where that is known."""

    stage: Stage
    messages: tuple[Message, ...]
    tool: str | None = None  # the right choice
    arguments: Mapping[str, Any] | None = None  # the right ones
    call: int | None = None  # number of the held-out call that it is part of


Turn: TypeAlias = tuple[Case, ...]  # a choice, and the arguments where it is known of which tool


@dataclass(frozen=True)
class Answered:
    """A case, what was asked, and what an engine answered."""

    case: Case
    question: Question
    record: Record

    @property
    def is_choice(self) -> bool:
        """Whether it is a choice, and not arguments."""
        return self.question.grammar is None


def made_up_turns(bundle: Bundle, each: int) -> Iterator[Turn]:
    """For every stage of a toolset, so many requests made from its tools."""
    for entry in bundle.manifest.toolsets:
        tools = entry.toolset.tools
        for index in range(each):
            tool = tools[index * len(tools) // each % len(tools)]
            yield (Case(entry.selection, (user(request(tool, index)),)),)
        for name, stage in entry.arguments.items():
            tool = next(tool for tool in tools if tool.name == name)
            yield from ((Case(stage, (user(request(tool, variant)),)),) for variant in range(each))


def heldout_turns(bundle: Bundle, conversations: Iterable[Trajectory]) -> Iterator[Turn]:
    """The choice at every turn of the assistant's, with the arguments where it calls a tool which takes some.

    Raises:
        DataError: a conversation names no toolset of the bundle; with one toolset it need not name it.

    """
    entries = {entry.toolset.name: entry for entry in bundle.manifest.toolsets}
    only = next(iter(entries)) if len(entries) == 1 else ""
    numbers = count()
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
            if called is None:
                yield (Case(entry.selection, before, bundle.manifest.no_tool),)
                continue
            call = next(numbers)
            choice = Case(entry.selection, before, called.name, call=call)
            stage = entry.arguments.get(called.name)
            yield (choice, Case(stage, before, arguments=called.arguments, call=call)) if stage else (choice,)


class Verifier:
    """Answers cases in simulation once, and compares with any number of engines.

    Args:
        bundle: seen through the variant's model.
        simulated: an engine on it.

    """

    def __init__(self, bundle: Bundle, simulated: Engine) -> None:
        self._bundle, self._simulated = bundle, simulated
        self._prefixes: dict[str, Snapshot] = {}  # by the stage's prompt
        self.seconds, self.forwards = 0.0, 0

    def answer(self, turns: Iterable[Turn], tell: Callable[[], None]) -> list[Answered]:
        """Simulate. Where the user interrupts it, what was answered until then is the answer.

        Args:
            turns: what is asked.
            tell: called after each.

        Raises:
            KeyboardInterrupt: before the first was answered.

        """
        answered: list[Answered] = []
        for turn in turns:
            try:
                answered += [self._answer(case) for case in turn]
            except KeyboardInterrupt:
                if not answered:
                    raise
                break
            tell()
        return answered

    def _answer(self, case: Case) -> Answered:
        question, engine, start = self._question(case), self._simulated, time.perf_counter()
        if engine.adapter != case.stage.adapter:
            engine.use(case.stage.adapter)
        kept, prefix = self._prefixes.get(case.stage.prompt), self._bundle.plan(case.stage).prefix
        if kept and engine.tokens[: len(prefix)] != prefix:
            engine.restore(kept)
        found = record(engine, question)
        if not kept and engine.tokens[: len(prefix)] == prefix:
            engine.rewind(len(prefix))
            self._prefixes[case.stage.prompt] = engine.snapshot()
        self.seconds += time.perf_counter() - start
        self.forwards += len(found.logits)
        return Answered(case, question, found)

    def compare(self, name: str, reference: Engine, answered: Sequence[Answered]) -> Against:
        """Have the reference read what the simulation read, and answer for itself."""
        stages, own = [], []
        by_stage = sorted(answered, key=lambda each: each.case.stage.prompt)
        for stage, group in groupby(by_stage, key=lambda each: each.case.stage):
            self._use(reference, stage.adapter)
            comparisons = []
            for each in group:
                theirs = record(reference, each.question)
                comparisons.append(_comparison(each, theirs, reference))
                own.append(replace(each, record=theirs))
            stages.append(summary(stage.prompt, stage.adapter, comparisons))
        return Against(
            reference=name,
            stages=tuple(stages),
            choices=sum(stage.choices for stage in stages),
            agreed=sum(stage.choices - stage.flips for stage in stages),
            arguments=sum(stage.arguments for stage in stages),
            same=sum(stage.exact for stage in stages),
            right=right(own),
            whole=whole(own),
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
    """How many answers are known to be right."""
    return sum(_is_right(each) for each in answered)


def whole(answered: Sequence[Answered]) -> int:
    """How many held-out calls have the right tool and wholly the right arguments."""
    return len(calls(answered) - calls(each for each in answered if not _is_right(each)))


def calls(answered: Iterable[Answered]) -> frozenset[int]:
    """Numbers of the held-out calls among them."""
    return frozenset(each.case.call for each in answered if each.case.call is not None)


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
    sure = theirs.choice.probability if theirs.choice else None
    return Comparison(distances, before=None, same=ours.answer == theirs.answer, sure=sure, finished=ours.finished)


def _is_right(each: Answered) -> bool:
    case, found = each.case, each.record
    if case.tool is not None:
        return found.choice is not None and found.choice.winner == case.tool
    return case.arguments is not None and found.arguments == dict(case.arguments)
