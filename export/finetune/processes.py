"""The processes that train one adapter together: `accelerate launch` starts them, each computes a share of a batch."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env

from dualtune_edge.toolkit.errors import SpecError

_Item = TypeVar("_Item")


def speaks() -> bool:
    """Whether this process prints and writes: the first one, or the only one."""
    return os.environ.get("RANK", "0") == "0"


class Processes:
    """Those of this run, and the device of this one: a GPU where PyTorch finds one, else the CPU.

    All hold the same adapter. A step adds up what each has computed, so it is the step of one process that computes the
    whole batch, but for the order of the sums.

    Raises:
        SpecError: more were started than can speak to each other: each would train the whole run.

    """

    def __init__(self) -> None:
        # PartialState joins processes on CPUs only where it is told that these are meant.
        on_cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
        self._state = PartialState(cpu=on_cpu)
        self.device = torch.device(self._state.device)
        self._index, self.count = int(self._state.process_index), int(self._state.num_processes)
        started = int(os.environ.get("WORLD_SIZE", "1"))
        if self.count != started:
            raise SpecError(
                "WORLD_SIZE",
                found=f"{started} processes, of which each stands alone on {self.device.type}",
                expected="processes on GPUs of CUDA, ROCm or XPU, or on CPUs",
                fix="Start one process, or all on CPUs with ACCELERATE_USE_CPU=true.",
            )

    def meet(self) -> None:
        """Wait until all processes have come here."""
        self._state.wait_for_everyone()

    def share(self, batch: Sequence[_Item]) -> Sequence[_Item]:
        """The part of a batch that this process computes; it may be empty."""
        return batch[self._index :: self.count]

    def reseed(self, seed: int) -> None:
        """Let every process but the first draw dropout of its own."""
        if self._index:
            torch.manual_seed(seed + self._index)

    def sum_gradients(self, weights: Iterable[torch.nn.Parameter]) -> None:
        """Add up the gradients of all processes; one that is None counts as zeros."""
        if self.count == 1:
            return
        trained = list(weights)
        gradients = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in trained]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        torch.distributed.all_reduce(flat)
        for weight, part in zip(trained, torch.split(flat, [weight.numel() for weight in trained]), strict=True):
            weight.grad = part.view_as(weight).clone()

    def sums(self, loss: float, tokens: int) -> tuple[float, int]:
        """Loss and tokens of all processes."""
        if self.count == 1:
            return loss, tokens
        both = torch.tensor([loss, tokens], dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(both)
        return float(both[0]), int(both[1])
