"""The processes that train one adapter together: `accelerate launch` starts them, each computes a share of a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import torch
from accelerate import PartialState

from dualtune_edge.export.finetune import launcher
from dualtune_edge.toolkit.errors import SpecError

_Item = TypeVar("_Item")


def speaks() -> bool:
    """Whether this process prints and writes: the first one, or the only one."""
    return launcher.rank() == 0


class Processes:
    """Those of this run, and the device of this one: a GPU where PyTorch finds one, else the CPU.

    All hold the same adapter. A step adds up what each has computed, so it is the step of one process that computes the
    whole batch, but for the order of the sums.

    `shards_base`: they hold one base together, and have to make the same passes.

    Raises:
        SpecError: more were started than can speak to each other: each would train the whole run. Or what started them
            asks for something that is not done.

    """

    def __init__(self) -> None:
        self.shards_base = launcher.shards_base()
        started = launcher.started()
        # PartialState joins processes on CPUs only where it is told that these are meant.
        self._state = PartialState(cpu=launcher.on_cpu() or not torch.accelerator.is_available())
        self.device = torch.device(self._state.device)
        self._index, self.count = int(self._state.process_index), int(self._state.num_processes)
        if self.count != started:
            raise SpecError(
                "WORLD_SIZE",
                found=f"{started} processes, of which each stands alone on {self.device.type}",
                expected="processes on GPUs of CUDA, ROCm or XPU, or on CPUs",
                fix="Start one process, or all on CPUs with ACCELERATE_USE_CPU=true.",
            )
        if self.shards_base and self.count == 1:
            raise SpecError(
                "ACCELERATE_USE_FSDP",
                found="one process",
                expected="several, which share the base",
                fix="Start more by --num_processes, or leave out --use_fsdp.",
            )

    def meet(self) -> None:
        """Wait until all processes have come here."""
        self._state.wait_for_everyone()

    def parts(
        self, batch: Sequence[_Item], cut: Callable[[Sequence[_Item]], list[list[_Item]]]
    ) -> tuple[list[list[_Item]], int]:
        """What this process computes of a batch, and how many of these parts count.

        Processes that share a base compute equally many: behind its own, one repeats an item, and that counts nothing.

        Args:
            batch: of all processes.
            cut: a process's share of it, which may be empty, into parts.

        """
        if not self.shards_base:
            own = cut(batch[self._index :: self.count])
            return own, len(own)
        shares = [cut(batch[index :: self.count]) for index in range(self.count)]
        own, most = shares[self._index], max(map(len, shares))
        return [*own, *([batch[0]] for _ in range(most - len(own)))], len(own)

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

    def largest(self, value: float) -> float:
        """The largest one of all processes': what they decide by it, they decide alike."""
        if self.count == 1:
            return value
        largest = torch.tensor(value, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(largest, torch.distributed.ReduceOp.MAX)
        return float(largest)

    def sums(self, loss: float, tokens: int) -> tuple[float, int]:
        """Loss and tokens of all processes."""
        if self.count == 1:
            return loss, tokens
        both = torch.tensor([loss, tokens], dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(both)
        return float(both[0]), int(both[1])
