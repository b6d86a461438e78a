"""A simulated variant compared with other engines on the same prompts: logits, choices, arguments."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeAlias

from dualtune_edge.export.compare.metrics import Comparison, distance, summary
from dualtune_edge.export.compare.record import Question, Record, logits_after, record
from dualtune_edge.export.plan.messages import request
from dualtune_edge.runtime.bundle.folder import Bundle
from dualtune_edge.runtime.engines.engine import Engine, Snapshot
from dualtune_edge.runtime.grammar.grammar import compile_grammar, open_tokenizer
from dualtune_edge.toolkit.bundle.manifest import Stage
from dualtune_edge.toolkit.bundle.verification import Against
from dualtune_edge.toolkit.errors import DataError
from dualtune_edge.toolkit.prompts.chat_template import ChatTemplate
from dualtune_edge.toolkit.prompts.messages import Message, user
from dualtune_edge.toolkit.prompts.prompter import Prompter
from dualtune_edge.toolkit.prompts.trajectories import Trajectory
from dualtune_edge.toolkit.validation import listing

_ROOM = 96  # the largest number of tokens of arguments


@dataclass(frozen=True)
class Case:
    """A conversation at a stage, with the right answer where it is known."""

    stage: Stage
    messages: tuple[Message, ...]
    tool: str | None = None  # the right choice
    arguments: Mapping[str, Any] | None = None  # the right arguments
    call: int | None = None  # number of the held-out call that it is part of


Turn: TypeAlias = tuple[Case, ...]  # a choice, and the arguments where the right tool is known


@dataclass(frozen=True)
class Answered:
    """A case, the question made of it, and an engine's answer."""

    case: Case
    question: Question
    record: Record

    @property
    def is_choice(self) -> bool:
        """Whether a choice was asked for, and not arguments."""
        return self.question.grammar is None


def made_up_turns(bundle: Bundle, count: int) -> Iterator[Turn]:
    """`count` requests made from the tools, for every stage of every toolset."""
    for entry in bundle.manifest.toolsets:
        tools = entry.toolset.tools
        for index in range(count):
            tool = tools[index * len(tools) // count % len(tools)]
            yield (Case(entry.selection, (user(request(tool, index)),)),)
        for name, stage in entry.arguments.items():
            tool = next(tool for tool in tools if tool.name == name)
            yield from ((Case(stage, (user(request(tool, variant)),)),) for variant in range(count))


def heldout_turns(bundle: Bundle, conversations: Iterable[Trajectory]) -> Iterator[Turn]:
    """The choice at every assistant's turn, with the arguments where it calls a tool that takes some.

    Raises:
        DataError: a conversation does not name a toolset of the bundle; it may name none where there is one.

    """
    entries = {entry.toolset.name: entry for entry in bundle.manifest.toolsets}
    only = next(iter(entries)) if len(entries) == 1 else ""
    numbers = itertools.count()
    for conversation in conversations:
        name = conversation.toolset or only
        if name not in entries:
            raise DataError(
                conversation.where,
                found=repr(conversation.toolset) if conversation.toolset else "no toolset",
                expected=listing(entries),
                fix="Leave the line out, or name the toolset that it is for.",
            )
        entry = entries[name]
        for index, message in enumerate(conversation.messages):
            if message.role != "assistant":
                continue
            call = message.tool_calls[0].function if message.tool_calls else None
            before = conversation.messages[:index]
            if call is None:
                yield (Case(entry.selection, before, bundle.manifest.no_tool),)
                continue
            number = next(numbers)
            choice = Case(entry.selection, before, call.name, call=number)
            stage = entry.arguments.get(call.name)
            yield (choice, Case(stage, before, arguments=call.arguments, call=number)) if stage else (choice,)


class Verifier:
    """Answers cases in simulation, and compares the answers with those of other engines.

    Args:
        bundle: on the variant's model.
        simulated: an engine on that model.

    """

    def __init__(self, bundle: Bundle, simulated: Engine) -> None:
        self._bundle, self._simulated = bundle, simulated
        self._prefixes: dict[str, Snapshot] = {}  # by the stage's prompt
        self.seconds, self.forwards = 0.0, 0

    def answer(self, turns: Iterable[Turn], advance: Callable[[], None]) -> list[Answered]:
        """Simulate the turns. Where the user interrupts it, the answers so far.

        Args:
            turns: in this order.
            advance: called after every turn.

        Raises:
            KeyboardInterrupt: before the first turn was answered.

        """
        answered: list[Answered] = []
        for turn in turns:
            try:
                answered += [self._answer(case) for case in turn]
            except KeyboardInterrupt:
                if not answered:
                    raise
                break
            advance()
        return answered

    def _answer(self, case: Case) -> Answered:
        question, engine, start = self._question(case), self._simulated, time.perf_counter()
        if engine.adapter != case.stage.adapter:
            engine.use(case.stage.adapter)
        kept, prefix = self._prefixes.get(case.stage.prompt), self._bundle.plan(case.stage).prefix
        if kept and engine.tokens[: len(prefix)] != prefix:
            engine.restore(kept)
        answer = record(engine, question)
        if not kept and engine.tokens[: len(prefix)] == prefix:
            engine.rewind(len(prefix))
            self._prefixes[case.stage.prompt] = engine.snapshot()
        self.seconds += time.perf_counter() - start
        self.forwards += len(answer.logits)
        return Answered(case, question, answer)

    def compare(self, name: str, reference: Engine, answered: Sequence[Answered]) -> Against:
        """Compare the simulation with a reference that answers the same questions."""
        stages, of_reference = [], []
        by_stage = sorted(answered, key=lambda answer: answer.case.stage.prompt)
        for stage, group in itertools.groupby(by_stage, key=lambda answer: answer.case.stage):
            self._use(reference, stage.adapter)
            comparisons = []
            for answer in group:
                other = record(reference, answer.question)
                comparisons.append(_comparison(answer.record, other, reference))
                of_reference.append(replace(answer, record=other))
            stages.append(summary(stage.prompt, stage.adapter, comparisons))
        return Against(
            reference=name,
            stages=tuple(stages),
            choices=sum(stage.choices for stage in stages),
            agreed=sum(stage.choices - stage.flips for stage in stages),
            arguments=sum(stage.arguments for stage in stages),
            same=sum(stage.exact for stage in stages),
            right=right(of_reference),
            whole=whole(of_reference),
        )

    @staticmethod
    def _use(engine: Engine, adapter: str | None) -> None:
        """Activate an adapter if another is in use: it drops the held tokens."""
        if engine.adapter != adapter or not engine.tokens:
            engine.use(adapter)

    def _question(self, case: Case) -> Question:
        plan, tokenizer = self._bundle.plan(case.stage), self._bundle.manifest.tokenizer
        template = ChatTemplate(plan.template, where=case.stage.prompt, bos=tokenizer.bos, eos=tokenizer.eos)
        prompter = Prompter.of(plan, template, self._bundle.tokenizer, self._bundle.all_toolsets)
        tool = next((tool for tool in plan.tools if tool.name == plan.tool), None)
        grammar = compile_grammar(tool, plan.frame, self._tokenizer) if tool and plan.frame else None
        return Question(prompter.tokens(case.messages), plan.completions, grammar, _ROOM)

    @cached_property
    def _tokenizer(self) -> Any:
        base = self._bundle.manifest.base
        return open_tokenizer(self._bundle.tokenizer_json, vocab_size=base.vocab_size, end_of_turn=base.end_of_turn)


def right(answered: Iterable[Answered]) -> int:
    """The number of answers that are known to be right."""
    return sum(_is_right(answer) for answer in answered)


def whole(answered: Sequence[Answered]) -> int:
    """The number of held-out calls with the right tool and exactly the right arguments."""
    return len(calls(answered) - calls(answer for answer in answered if not _is_right(answer)))


def calls(answered: Iterable[Answered]) -> frozenset[int]:
    """The numbers of the held-out calls among the answers."""
    return frozenset(answer.case.call for answer in answered if answer.case.call is not None)


def is_known(case: Case) -> bool:
    """Whether the right answer is known."""
    return case.tool is not None or case.arguments is not None


def _comparison(ours: Record, theirs: Record, reference: Engine) -> Comparison:
    """Compare logits and answer of the simulation (`ours`) with those of the reference."""
    distances = tuple(
        distance(theirs.logits[path] if path in theirs.logits else logits_after(reference, path), logits)
        for path, logits in ours.logits.items()
    )
    sure = theirs.choice.probability if theirs.choice else None
    return Comparison(distances, before=None, same=ours.answer == theirs.answer, sure=sure, finished=ours.finished)


def _is_right(answered: Answered) -> bool:
    case, answer = answered.case, answered.record
    if case.tool is not None:
        return answer.choice is not None and answer.choice.winner == case.tool
    return case.arguments is not None and answer.arguments == dict(case.arguments)
