"""Every graph opens in onnxruntime, and every adapter changes something: tried before a bundle is compared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, TypeAlias

from dualtune_edge.export.build.graphs import BundleGraphs
from dualtune_edge.export.build.trial import Logits, Trial, refuse_without_effect
from dualtune_edge.export.plan.inputs import Inputs
from dualtune_edge.export.plan.layout import BundledAdapter
from dualtune_edge.export.plan.prompts import Plans
from dualtune_edge.export.work.folder import Work
from dualtune_edge.export.work.phases import PhaseName
from dualtune_edge.export.work.progress import Progress
from dualtune_edge.toolkit.prompts.prompt_plan import PromptPlan

_TOKENS: Final = 16  # of a stage's own prompt: enough for every layer to attend to something
Tokens: TypeAlias = tuple[int, ...]


def try_out(inputs: Inputs, graphs: BundleGraphs, plans: Plans, work: Work, progress: Progress) -> None:
    """Run a forward of the base, of the base under each external adapter, and of each merged graph.

    Raises:
        GraphError: a forward fails, or an adapter changes nothing.

    """
    prompts = {stage.adapter.name: _first_tokens(stage.plan) for stage in plans.stages if stage.adapter}
    with progress.phase(PhaseName.TRIAL, 1 + len(graphs.external) + len(graphs.merged)) as phase:
        base = work.folder / inputs.layout.model
        for _ in _try_base(base, graphs, work, _first_tokens(next(plans.stages).plan), prompts):
            phase.advance()
        for bundled in graphs.merged:  # each graph is as large as the base: one is open at a time
            tokens = prompts[bundled.adapter.name]
            step = graphs.tried(bundled, tokens)
            if not work.has(step):
                Trial(work.folder / bundled.path, graphs.cache).logits(tokens)
                work.keep(step)
            phase.advance()


def _try_base(
    folder: Path, graphs: BundleGraphs, work: Work, tokens: Tokens, prompts: dict[str, Tokens]
) -> Iterator[None]:
    """Yields after the base, and after each external adapter."""
    base: Trial | None = None
    plain: dict[Tokens, Logits] = {}  # of the base: adapters whose prompts begin alike share its forward
    adapters: Sequence[BundledAdapter | None] = (None, *graphs.external)
    for bundled in adapters:
        read = tokens if bundled is None else prompts[bundled.adapter.name]
        step = graphs.tried(bundled, read)
        if not work.has(step):
            base = base or Trial(folder, graphs.cache)
            plain[read] = plain[read] if read in plain else base.logits(read)
            if bundled:
                under_adapter = base.logits(read, work.folder / bundled.path)
                refuse_without_effect(bundled.adapter.name, plain[read], under_adapter)
            work.keep(step)
        yield


def _first_tokens(plan: PromptPlan) -> Tokens:
    """The beginning of the static prefix; any token where a template begins with the message."""
    return plan.prefix[:_TOKENS] or (0,)
