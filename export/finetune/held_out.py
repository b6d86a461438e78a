"""What the adapter makes of conversations that it does not learn, after some of the steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from dualtune_edge.export.finetune.batches import base_state, micro_batches, right_and_loss, shared_prefix
from dualtune_edge.export.finetune.processes import Processes
from dualtune_edge.export.finetune.report import Score
from dualtune_edge.export.finetune.samples.masks import Sample
from dualtune_edge.export.finetune.settings import FinetuneSettings


class HeldOut:
    """The held-out samples of a run, and when they are measured.

    Args:
        settings: of the run.
        samples: none: nothing is measured.
        epoch: steps of one.
        processes: each measures a share.
        invocation: of an activated adapter.

    """

    def __init__(
        self,
        settings: FinetuneSettings,
        samples: Sequence[Sample],
        epoch: int,
        processes: Processes,
        invocation: tuple[int, ...] | None,
    ) -> None:
        self._settings, self._processes, self._invocation = settings, processes, invocation
        self._samples, self._every = samples, settings.measure_every or epoch
        self.prefix = shared_prefix(samples, invocation) if samples else ()

    def due(self, step: int, steps: int) -> bool:
        """Whether the samples are measured after this step, counted from 1: the last one always."""
        return bool(self._samples) and step > 0 and (step % self._every == 0 or step == steps)

    def parts(self) -> tuple[list[list[Sample]], int]:
        """The samples that this process measures, in parts that are computed together; as `Processes.parts`."""
        return self._processes.parts(self._samples, self._cut)

    def _cut(self, share: Sequence[Sample]) -> list[list[Sample]]:
        size, most = self._settings.micro_batch or self._settings.batch_size, self._settings.micro_batch
        ordered = sorted(share, key=lambda sample: len(sample.tokens))
        batches = (ordered[start : start + size] for start in range(0, len(ordered), size))
        return [part for batch in batches for part in micro_batches(batch, len(self.prefix), most)]

    def score(self, model: Any, step: int) -> Score:
        """Measure all samples; the model is left in evaluation mode."""
        model.eval()
        right, loss = 0, 0.0
        with torch.autocast(model.device.type, torch.bfloat16, enabled=self._settings.autocast):
            state = base_state(model, self.prefix, self._invocation)
        parts, counted = self.parts()
        for index, part in enumerate(parts):
            with (
                torch.no_grad(),
                torch.autocast(model.device.type, torch.bfloat16, enabled=self._settings.autocast),
            ):
                more_right, more_loss = right_and_loss(model, self.prefix, part, self._invocation, state)
            if index < counted:
                right, loss = right + more_right, loss + more_loss
        loss, right = self._processes.sums(loss, right)
        learnt = sum(sample.learnt for sample in self._samples)
        return Score(step=step, right=right, samples=len(self._samples), loss=loss / learnt)


def best(scores: Sequence[Score]) -> Score:
    """The one with most samples right; of several the one of the lowest loss, then the earliest."""
    return min(scores, key=lambda score: (-score.right, score.loss, score.step))
