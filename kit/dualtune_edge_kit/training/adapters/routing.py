"""The adapter that chooses the toolset, made by `finetune` from both kinds of conversations."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from dualtune_edge.export.finetune.settings import FinetuneSettings, ToolsetSource
from dualtune_edge.export.finetune.train import finetune
from dualtune_edge.toolkit.prompts.no_tool import NO_TOOL
from dualtune_edge_kit import FOLDER
from dualtune_edge_kit.training.adapters.runs import RANK, resumed
from dualtune_edge_kit.training.data import toolsets, trajectories
from dualtune_edge_kit.training.data.typed import conversations

_SEED: Final = 21
_TYPED: Final = 1700  # conversations as people type
_PLAIN: Final = 700  # of the kind that the other adapters learn from
_STEPS: Final = 160
_BATCH: Final = 16
_KEEP: Final = {NO_TOOL: 0.35}  # of the turns without a call
_LENGTH: Final = 900  # tokens of a sample; longer ones are dropped


def make(base: Path, data: Path, out: Path, say: Callable[[str], None]) -> None:
    """Train the adapter into ``out``, on the conversations in ``data``, which are made if missing."""
    if out.exists():
        return
    if not data.exists():
        drawn = conversations.conversations(_SEED, "train", _TYPED)
        views = [view for messages in drawn for view in conversations.views(messages)]
        trajectories.write(data, [*views, *trajectories.generate(1000 + _SEED, "train", _PLAIN)])
    report = finetune(resumed(_settings(base, data, out)))
    say(f"toolset: {report.samples} samples, loss {report.losses[0]:.3f} -> {report.losses[-1]:.4f}")


def _settings(base: Path, data: Path, out: Path) -> FinetuneSettings:
    sources = tuple(
        ToolsetSource(
            name=name,
            description=toolsets.load(name).toolset.description,
            tools=toolsets.servers_file(name),
            data=data,
        )
        for name in toolsets.NAMES
    )
    return FinetuneSettings(
        objective="toolset",
        base=base,
        toolsets=sources,
        output=out,
        template=FOLDER / "templates" / "base.jinja",
        rank=RANK,
        alpha=2.0 * RANK,
        dtype="float16",
        learning_rate=4e-3,
        epochs=100,
        keep=_KEEP,
        max_steps=_STEPS,
        batch_size=_BATCH,
        warm_up_steps=8,
        weight_decay=0.0,
        max_length=_LENGTH,
        too_long="drop",
        seed=_SEED,
        threads=1,
    )
