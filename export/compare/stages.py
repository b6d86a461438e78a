"""Every stage of an export against PEFT in float32."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from dualtune_edge.export.base.checkpoint import Checkpoint
from dualtune_edge.export.compare.calibration import Case
from dualtune_edge.export.compare.metrics import summary
from dualtune_edge.export.compare.prompt import Outcome, compare, compare_before
from dualtune_edge.export.compare.record import Question
from dualtune_edge.export.compare.remembered import Memory, Remembering
from dualtune_edge.export.compare.sides import Graphs, Side
from dualtune_edge.export.plan.inputs import Inputs
from dualtune_edge.export.plan.messages import Conversation
from dualtune_edge.export.plan.subjects import Subject
from dualtune_edge.export.reference.open import open_reference
from dualtune_edge.runtime.grammar.grammar import compile_grammar, open_tokenizer
from dualtune_edge.toolkit.bundle.parity import StageParity
from dualtune_edge.toolkit.prompts.chat_template import ChatTemplate
from dualtune_edge.toolkit.prompts.prompter import Prompter


@dataclass
class Walker:
    """A case on its way through the stages: what it does not say is filled in as the reference chooses."""

    messages: Conversation
    toolset: str | None
    tool: str | None


def compare_stages(
    inputs: Inputs,
    compared: Sequence[Subject],
    bundle: Graphs,
    before: Graphs | None,
    *,
    room: int,
    calibration: Sequence[Case],
    memory: Memory | None,
    keep: Callable[[StageParity], None],
) -> None:
    """Compare each stage on the conversations made for it and on those of the user's that lead to it.

    First all stages on the bundle's graphs, then all on those before quantization: one base is in memory at a time.

    Args:
        inputs: what is exported; PEFT reads the checkpoint and the adapters from their own folders.
        compared: the stages.
        bundle: the graphs of the bundle, or of its first layers.
        before: those before quantization; None: they are not compared.
        room: the most tokens of arguments.
        calibration: the user's own conversations.
        memory: of earlier comparisons of the same stages; None: this is the only one.
        keep: given each stage's outcome.

    Raises:
        RequestError: a conversation is longer than the context.
        TemplateError: a template cannot render one.

    """
    walkers = [Walker(case.messages, case.toolset, case.tool) for case in calibration]
    base = bundle.base
    ask = Asker(base, room)
    outcomes: list[list[Outcome]] = []
    asked = Remembering(lambda: open_reference(inputs, base), base.vocab_size, base.context_length, memory)
    with asked, Side(bundle) as side:
        for subject in compared:
            found: list[Outcome] = []
            adapter = _adapter(subject)
            with asked.of(subject.stage.name, adapter) as reference, side.under(adapter) as engine:
                for question, walker in ask.questions(subject, walkers):
                    found.append(compare(question, engine, reference))
                    if walker:
                        _lead_on(walker, subject, found[-1].chosen)
            outcomes.append(found)
            if before is None:
                keep(summary(subject.stage.name, adapter, [each.comparison for each in found]))
    if before:
        _compare_before(inputs, compared, outcomes, before, anew=before.base is not bundle.base, keep=keep)


def _compare_before(
    inputs: Inputs,
    compared: Sequence[Subject],
    outcomes: Sequence[Sequence[Outcome]],
    before: Graphs,
    *,
    anew: bool,
    keep: Callable[[StageParity], None],
) -> None:
    """`anew`: the outcomes are of another depth, so the reference reads their tokens again."""
    with contextlib.ExitStack() as opened:
        reference = opened.enter_context(open_reference(inputs, before.base)) if anew else None
        side = opened.enter_context(Side(before))
        for subject, found in zip(compared, outcomes, strict=True):
            adapter = _adapter(subject)
            if reference:
                reference.forget_adapters()
                reference.use(adapter)
            with side.under(adapter) as engine:
                comparisons = [compare_before(each, engine, reference) for each in found]
            keep(summary(subject.stage.name, adapter, comparisons))


def _adapter(subject: Subject) -> str | None:
    return subject.stage.adapter.name if subject.stage.adapter else None


class Asker:
    """Renders conversations for stages, as the device does."""

    def __init__(self, checkpoint: Checkpoint, room: int) -> None:
        self._checkpoint, self._room = checkpoint, room
        self._tokenizer = open_tokenizer(
            (checkpoint.tokenizer_folder / "tokenizer.json").read_text(encoding="utf-8"),
            vocab_size=checkpoint.vocab_size,
            end_of_turn=checkpoint.end_of_turn,
        )

    def questions(self, subject: Subject, walkers: Sequence[Walker]) -> Iterator[tuple[Question, Walker | None]]:
        """The stage's prompts; with each of the user's own conversations, itself."""
        plan, checkpoint = subject.stage.plan, self._checkpoint
        template = ChatTemplate(plan.template, where=subject.stage.name, bos=checkpoint.bos, eos=checkpoint.eos)
        prompter = Prompter(template, checkpoint.tokenizer, plan.tools, plan.tool)
        tool = next((tool for tool in plan.tools if tool.name == plan.tool), None)
        grammar = compile_grammar(tool, plan.frame, self._tokenizer) if tool and plan.frame else None
        for messages, walker in _conversations(subject, walkers):
            yield Question(prompter.tokens(messages), plan.completions, grammar, self._room), walker


def _conversations(subject: Subject, walkers: Sequence[Walker]) -> Iterator[tuple[Conversation, Walker | None]]:
    yield from ((messages, None) for messages in subject.messages)
    if subject.extra:
        return
    for walker in walkers:
        here = subject.toolset is None or walker.toolset == subject.toolset
        if here and subject.stage.plan.tool in {None, walker.tool}:
            yield walker.messages, walker


def _lead_on(walker: Walker, subject: Subject, chosen: str) -> None:
    """After a choice, fill in what the case does not say."""
    if subject.toolset is None:
        walker.toolset = walker.toolset or chosen
    elif subject.stage.plan.tool is None:
        walker.tool = walker.tool or chosen
