"""The processes that train one adapter together: `accelerate launch` starts them, each computes a share of a batch."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import TypeVar

import torch
from accelerate import PartialState

_Item = TypeVar("_Item")


def speaks() -> bool:
    """Whether this process prints and writes: the first one, or the only one."""
    return os.environ.get("RANK", "0") == "0"


class Processes:
    """Those of this run, and the device of this one: a GPU where PyTorch finds one, else the CPU.

    All hold the same adapter. A step adds up what each has computed, so it is the step of one process that computes the
    whole batch, but for the order of the sums.
    """

    def __init__(self) -> None:
        state = PartialState()
        self.device = torch.device(state.device)
        self._index, self._count = int(state.process_index), int(state.num_processes)

    def share(self, batch: Sequence[_Item]) -> Sequence[_Item]:
        """The part of a batch that this process computes; it may be empty."""
        return batch[self._index :: self._count]

    def reseed(self, seed: int) -> None:
        """Let every process but the first draw dropout of its own."""
        if self._index:
            torch.manual_seed(seed + self._index)

    def sum_gradients(self, weights: Iterable[torch.nn.Parameter]) -> None:
        """Add up the gradients of all processes; one that is None counts as zeros."""
        if self._count == 1:
            return
        trained = list(weights)
        gradients = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in trained]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        torch.distributed.all_reduce(flat)
        for weight, part in zip(trained, torch.split(flat, [weight.numel() for weight in trained]), strict=True):
            weight.grad = part.view_as(weight).clone()

    def sums(self, loss: float, tokens: int) -> tuple[float, int]:
        """Loss and tokens of all processes."""
        if self._count == 1:
            return loss, tokens
        both = torch.tensor([loss, tokens], dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(both)
        return float(both[0]), int(both[1])
