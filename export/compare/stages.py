"""Compares every stage of an export with PEFT in float32."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from dualtune_edge.export.base.checkpoint import Checkpoint
from dualtune_edge.export.compare.cached_reference import CachedReference, LogitsCache
from dualtune_edge.export.compare.calibration import Case
from dualtune_edge.export.compare.metrics import summary
from dualtune_edge.export.compare.prompt import Outcome, compare, compare_before
from dualtune_edge.export.compare.record import Activated, Question
from dualtune_edge.export.compare.sides import Beginning, Graphs, Side
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
    """A case on its way through the stages; the reference's choices fill in its toolset and tool."""

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
    beginnings: Mapping[str, Beginning],
    cache: LogitsCache | None,
    keep: Callable[[StageParity], None],
) -> None:
    """Compare each stage on the conversations made for it, and on the user's own that lead to it.

    First all stages on the bundle's graphs, then all on those before quantization: one base is in memory at a time.

    Args:
        inputs: the exported model; PEFT reads the folders of the checkpoint and the adapters.
        compared: the stages.
        bundle: the graphs of the bundle, or of its first layers.
        before: the graphs before quantization; None: they are not compared.
        room: the most tokens of arguments.
        calibration: the user's own conversations.
        beginnings: name of a stage → its static prefix, where that is read by itself.
        cache: logits of earlier comparisons of the same stages; None: this is the only comparison.
        keep: called with the outcome of each stage.

    Raises:
        RequestError: a conversation is longer than the context.
        TemplateError: a template cannot render one.

    """
    walkers = [Walker(case.messages, case.toolset, case.tool) for case in calibration]
    base = bundle.base
    renderer = Renderer(base, room)
    outcomes: list[list[Outcome]] = []
    references = CachedReference(lambda: open_reference(inputs, base), base.vocab_size, base.context_length, cache)
    with references, Side(bundle) as side:
        for subject in compared:
            stage, own = subject.stage, list[Outcome]()
            beginning = beginnings.get(stage.name)
            read = (beginning.adapter, beginning.tokens) if beginning and beginning.shared else (stage.adapter_name, ())
            with references.of(stage.name, *read) as reference, side.under(stage.adapter_name, beginning) as engine:
                for question, walker in renderer.questions(subject, walkers):
                    own.append(compare(question, engine, reference))
                    if walker:
                        _lead_on(walker, subject, own[-1].chosen)
            outcomes.append(own)
            if before is None:
                keep(summary(stage.name, stage.adapter_name, [outcome.comparison for outcome in own]))
    if before:
        other_depth = before.base is not bundle.base
        _compare_before(inputs, compared, outcomes, before, other_depth=other_depth, keep=keep)


def _compare_before(
    inputs: Inputs,
    compared: Sequence[Subject],
    outcomes: Sequence[Sequence[Outcome]],
    before: Graphs,
    *,
    other_depth: bool,
    keep: Callable[[StageParity], None],
) -> None:
    """`other_depth`: the outcomes are of other layers, so the reference reads their tokens again."""
    with contextlib.ExitStack() as opened:
        reference = opened.enter_context(open_reference(inputs, before.base)) if other_depth else None
        side = opened.enter_context(Side(before))
        for subject, own in zip(compared, outcomes, strict=True):
            adapter = subject.stage.adapter_name
            if reference:
                reference.forget_adapters()
                reference.use(adapter)
            with side.under(adapter) as engine:
                comparisons = [compare_before(outcome, engine, reference) for outcome in own]
            keep(summary(subject.stage.name, adapter, comparisons))


class Renderer:
    """Renders conversations for stages, as the device does."""

    def __init__(self, checkpoint: Checkpoint, room: int) -> None:
        self._checkpoint, self._room = checkpoint, room
        self._tokenizer = open_tokenizer(
            (checkpoint.tokenizer_folder / "tokenizer.json").read_text(encoding="utf-8"),
            vocab_size=checkpoint.vocab_size,
            end_of_turn=checkpoint.end_of_turn,
        )

    def questions(self, subject: Subject, walkers: Sequence[Walker]) -> Iterator[tuple[Question, Walker | None]]:
        """The questions of a stage; those of the user's own conversations with their walker."""
        plan, checkpoint = subject.stage.plan, self._checkpoint
        template = ChatTemplate(plan.template, where=subject.stage.name, bos=checkpoint.bos, eos=checkpoint.eos)
        prompter = Prompter.of(plan, template, checkpoint.tokenizer, subject.stage.all_toolsets)
        tool = next((tool for tool in plan.tools if tool.name == plan.tool), None)
        grammar = compile_grammar(tool, plan.frame, self._tokenizer) if tool and plan.frame else None
        end = checkpoint.end_of_turn if plan.stage == "answer" else None
        adapter = subject.stage.adapter
        activated = Activated(adapter.name, adapter.invocation) if adapter and adapter.invocation else None
        for messages, walker in _conversations(subject, walkers):
            tokens = prompter.tokens(messages)
            yield Question(tokens, plan.completions, grammar, self._room, activated, end), walker


def _conversations(subject: Subject, walkers: Sequence[Walker]) -> Iterator[tuple[Conversation, Walker | None]]:
    yield from ((messages, None) for messages in subject.messages)
    if subject.extra:
        return
    for walker in walkers:
        here = subject.toolset is None or walker.toolset == subject.toolset
        if here and subject.tool in {None, walker.tool}:
            yield walker.messages, walker


def _lead_on(walker: Walker, subject: Subject, chosen: str) -> None:
    """Fill in toolset or tool after a choice, if the case does not name it."""
    if subject.tool is not None:
        return
    if subject.toolset is None:
        walker.toolset = walker.toolset or chosen
    else:
        walker.tool = walker.tool or chosen
