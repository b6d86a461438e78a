"""The steps of a run: from where it stands to its end, or to a signal."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice

import torch
from peft import PeftModel
from torch.nn.utils import clip_grad_norm_

from dualtune_edge.export.finetune.batches import (
    base_state,
    batches,
    learning_rate,
    micro_batches,
    shared_prefix,
    summed_loss,
)
from dualtune_edge.export.finetune.held_out import HeldOut, best
from dualtune_edge.export.finetune.loading.low_bits import adamw_8bit, moments_bytes
from dualtune_edge.export.finetune.processes import Processes, speaks
from dualtune_edge.export.finetune.report import Interruption, Measurement, OnEvent, Score, Step
from dualtune_edge.export.finetune.run_state import RunState, StateFile
from dualtune_edge.export.finetune.samples.make import Samples
from dualtune_edge.export.finetune.samples.masks import Sample
from dualtune_edge.export.finetune.settings import FinetuneSettings
from dualtune_edge.export.work.signals import Signals
from dualtune_edge.toolkit.errors import SpecError


class Trainer:
    """Makes the steps that a run has not made yet.

    Args:
        settings: of the run.
        adapted: the base with the adapter, at its initial values.
        samples: what the adapter learns, and what it is measured with.
        state: where the run stands.
        processes: those of the run.
        invocation: of an activated adapter.

    """

    def __init__(
        self,
        settings: FinetuneSettings,
        adapted: PeftModel,
        samples: Samples,
        state: RunState,
        *,
        processes: Processes,
        invocation: tuple[int, ...] | None = None,
    ) -> None:
        self._settings, self._state, self.invocation = settings, state, invocation
        self._samples, self.processes = samples.samples, processes
        # The adapter's layers are in the base model; PEFT alone says to activated ones where they begin.
        self.model = adapted if invocation else adapted.get_base_model()
        self._trained = {name: weight for name, weight in adapted.named_parameters() if weight.requires_grad}
        self._optimizer = _optimizer(settings, self._trained.values())
        # Gradient checkpointing computes a forward twice, and a KV cache would have grown by then.
        self.prefix = () if settings.gradient_checkpointing else shared_prefix(self._samples, invocation)
        with torch.autocast(self.model.device.type, torch.bfloat16, enabled=settings.autocast):
            self.base_state = base_state(self.model, self.prefix, invocation)
        epoch = math.ceil(len(self._samples) / settings.batch_size)
        self.steps = min(settings.epochs * epoch, settings.max_steps or settings.epochs * epoch)
        self.held_out = HeldOut(settings, samples.held, epoch, processes, invocation)
        self._restore()

    def run(self, file: StateFile, on_event: OnEvent) -> None:
        """Make the steps; the weights at the end are those of the best measurement, or of the last step.

        Where a signal ends them, the state after the last whole step is saved.

        Raises:
            SpecError: the loss is no longer finite.
            OutputError: the state cannot be saved.
            KeyboardInterrupt, SystemExit: a signal came.

        """
        state = self._state
        self.model.train()
        with Signals() as signals:
            try:
                self._measure(on_event)  # of a run that was stopped in it
                for batch in self._remaining():
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
                    self._measure(on_event)
            except (KeyboardInterrupt, SystemExit):
                with signals.held():
                    if state.losses:
                        self._save(file)
                    on_event(Interruption(len(state.losses), self.steps))
                raise
        self.model.eval()
        self._load(state.best)

    @property
    def scores(self) -> tuple[Score, ...]:
        """Of the measurements so far."""
        return tuple(
            Score(step=step, right=right, samples=samples, loss=loss)
            for step, right, samples, loss in self._state.scores
        )

    @property
    def done(self) -> int:
        """The number of steps that are made."""
        return len(self._state.losses)

    @property
    def later_bytes(self) -> int:
        """What the run will hold besides: the optimizer's moments, and the best step's weights."""
        in_8_bits = self._settings.optimizer == "adamw-8bit"
        trained = self._trained.values()
        return sum(moments_bytes(weight, in_8_bits=in_8_bits) + 4 * weight.numel() for weight in trained)

    def schedule(self, count: int) -> list[list[list[Sample]]]:
        """The parts that this process computes in each of the next steps, so many at most."""
        return [self._parts(batch)[0] for batch in islice(self._remaining(), count)]

    def _remaining(self) -> Iterator[list[Sample]]:
        """The batches of the steps that are not made yet."""
        order = batches(self._samples, self._settings.batch_size, self._settings.seed)
        return islice(order, self.done, self.steps)

    def _parts(self, batch: Sequence[Sample]) -> tuple[list[list[Sample]], int]:
        """As `Processes.parts`."""
        most = self._settings.micro_batch
        return self.processes.parts(batch, lambda share: micro_batches(share, len(self.prefix), most))

    def _measure(self, on_event: OnEvent) -> None:
        """Measure what is held out if it is due after the last step, and keep the weights of the best one."""
        state, step = self._state, len(self._state.losses)
        if not self.held_out.due(step, self.steps) or (state.scores and state.scores[-1][0] == step):
            return
        score = self.held_out.score(self.model, step)
        self.model.train()
        state.scores.append((score.step, score.right, score.samples, score.loss))
        if best(self.scores) == score:
            state.best = {name: weight.detach().cpu().clone() for name, weight in self._trained.items()}
        on_event(Measurement(score))

    def _accumulate(self, batch: Sequence[Sample]) -> tuple[float, int]:
        """Add up the batch's gradient, of all processes; its loss in nats a learnt token, and the tokens fed."""
        learnt, loss, tokens = sum(sample.learnt for sample in batch), 0.0, 0
        self._optimizer.zero_grad()
        parts, counted = self._parts(batch)
        for index, part in enumerate(parts):
            with torch.autocast(self.model.device.type, torch.bfloat16, enabled=self._settings.autocast):
                summed = summed_loss(self.model, self.prefix, part, self.invocation, self.base_state)
                mean = summed / learnt if index < counted else 0.0 * summed
            torch.autograd.backward(mean)
            loss += mean.item()
            if index < counted:
                tokens += len(self.prefix) + sum(len(sample.tokens) - len(self.prefix) for sample in part)
        self.processes.sum_gradients(self._trained.values())
        return self.processes.sums(loss, tokens)

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
        self._load(self._state.adapter)
        self._optimizer.load_state_dict(self._state.optimizer)
        torch.set_rng_state(self._state.random)

    def _load(self, adapter: Mapping[str, torch.Tensor]) -> None:
        with torch.no_grad():
            for name, tensor in adapter.items():
                self._trained[name].copy_(tensor)


def _optimizer(settings: FinetuneSettings, weights: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
    if settings.optimizer == "adamw-8bit":
        return adamw_8bit(weights, settings.weight_decay)
    return torch.optim.AdamW(weights, weight_decay=settings.weight_decay, fused=True)


def _divergence(loss: float, step: int) -> SpecError:
    return SpecError(
        "learning_rate",
        found=f"a loss of {loss} at step {step}",
        expected="a finite loss",
        fix="Lower the learning rate, or warm up over more steps.",
    )
