"""The steps of a run: from where it stands to its end, or to a signal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import islice

import torch
from peft import PeftModel
from torch.nn.utils import clip_grad_norm_

from dualtune_edge.export.finetune.batches import batches, learning_rate, micro_batches, shared_prefix, summed_loss
from dualtune_edge.export.finetune.masks import Sample
from dualtune_edge.export.finetune.processes import Processes, speaks
from dualtune_edge.export.finetune.report import Interruption, OnEvent, Step
from dualtune_edge.export.finetune.run_state import RunState, StateFile
from dualtune_edge.export.finetune.settings import FinetuneSettings
from dualtune_edge.export.work.signals import Signals
from dualtune_edge.toolkit.errors import SpecError


class Trainer:
    """Makes the steps that a run has not made yet.

    Args:
        settings: of the run.
        adapted: the base with the adapter, at its initial values.
        samples: what the adapter learns.
        state: where the run stands.
        processes: those of the run.
        invocation: of an activated adapter.

    """

    def __init__(
        self,
        settings: FinetuneSettings,
        adapted: PeftModel,
        samples: Sequence[Sample],
        state: RunState,
        *,
        processes: Processes,
        invocation: tuple[int, ...] | None = None,
    ) -> None:
        self._settings, self._samples, self._state, self._invocation = settings, samples, state, invocation
        self._processes = processes
        # The adapter's layers are in the base model; PEFT alone says to activated ones where they begin.
        self._model = adapted if invocation else adapted.get_base_model()
        self._trained = {name: weight for name, weight in adapted.named_parameters() if weight.requires_grad}
        self._optimizer = torch.optim.AdamW(self._trained.values(), weight_decay=settings.weight_decay, fused=True)
        # Gradient checkpointing computes a forward twice, and a KV cache would have grown by then.
        self._prefix = () if settings.gradient_checkpointing else shared_prefix(samples, invocation)
        steps = settings.epochs * math.ceil(len(samples) / settings.batch_size)
        self.steps = min(steps, settings.max_steps or steps)
        self._restore()

    def run(self, file: StateFile, on_event: OnEvent) -> None:
        """Make the steps. Where a signal ends them, the state after the last whole step is saved.

        Raises:
            SpecError: the loss is no longer finite.
            OutputError: the state cannot be saved.
            KeyboardInterrupt, SystemExit: a signal came.

        """
        settings, state = self._settings, self._state
        order = batches(self._samples, settings.batch_size, settings.seed)
        self._model.train()
        with Signals() as signals:
            try:
                for batch in islice(order, len(state.losses), self.steps):
                    loss, tokens = self._accumulate(batch)
                    if not math.isfinite(loss):
                        file.remove()  # a run that goes on from there diverges too
                        raise _divergence(loss, len(state.losses) + 1)
                    with signals.held():
                        self._update()
                        state.losses.append(loss)
                        state.tokens += tokens
                        state.learnt += sum(sample.learnt for sample in batch)
                        if file.due(len(state.losses)):
                            self._save(file)
                    on_event(Step(len(state.losses), self.steps, loss))
            except (KeyboardInterrupt, SystemExit):
                with signals.held():
                    if state.losses:
                        self._save(file)
                    on_event(Interruption(len(state.losses), self.steps))
                raise
        self._model.eval()

    def _accumulate(self, batch: Sequence[Sample]) -> tuple[float, int]:
        """Add up the batch's gradient, of all processes; its loss in nats a learnt token, and the tokens fed."""
        learnt, loss, tokens = sum(sample.learnt for sample in batch), 0.0, 0
        self._optimizer.zero_grad()
        for part in micro_batches(self._processes.share(batch), len(self._prefix), self._settings.micro_batch):
            with torch.autocast(self._model.device.type, torch.bfloat16, enabled=self._settings.autocast):
                mean = summed_loss(self._model, self._prefix, part, self._invocation) / learnt
            torch.autograd.backward(mean)
            loss += mean.item()
            tokens += len(self._prefix) + sum(len(sample.tokens) - len(self._prefix) for sample in part)
        self._processes.sum_gradients(self._trained.values())
        return self._processes.sums(loss, tokens)

    def _update(self) -> None:
        settings, step = self._settings, len(self._state.losses)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(step, self.steps, peak=settings.learning_rate, warm_up=settings.warm_up_steps)
        clip_grad_norm_(self._trained.values(), settings.max_grad_norm)
        self._optimizer.step()
        self._state.random = torch.get_rng_state()

    def _save(self, file: StateFile) -> None:
        self._state.adapter = {name: weight.detach().cpu() for name, weight in self._trained.items()}
        self._state.optimizer = self._optimizer.state_dict()
        if speaks():
            file.save(self._state)

    def _restore(self) -> None:
        if self._state.random is None:
            return
        with torch.no_grad():
            for name, weight in self._trained.items():
                weight.copy_(self._state.adapter[name])
        self._optimizer.load_state_dict(self._state.optimizer)
        torch.set_rng_state(self._state.random)


def _divergence(loss: float, step: int) -> SpecError:
    return SpecError(
        "learning_rate",
        found=f"a loss of {loss} at step {step}",
        expected="a finite loss",
        fix="Lower the learning rate, or warm up over more steps.",
    )
