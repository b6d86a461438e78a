"""What the inputs of the linear modules have in common, on prompts made from the tools: GPTQ rounds by it.

The reference in float32 is measured, under the base and every adapter. All graphs are rounded by one set of moments.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch

from dualtune_edge.export.build.measured_prompts import MeasuredPrompt
from dualtune_edge.export.plan.inputs import Inputs
from dualtune_edge.export.quantize.gptq import Moments, moments
from dualtune_edge.export.quantize.input_moments import write_moments
from dualtune_edge.export.reference.open import open_reference

# Inputs that compensate one another. With 1,024 the moments of a model of 7B would take 3 GB of memory, so 0.8; the
# divergence on the kit is the same.
REACH: Final = 256


def measure_inputs(inputs: Inputs, prompts: Sequence[MeasuredPrompt], path: Path, advance: Callable[[], None]) -> None:
    """Read every prompt, and write the moments to a file; `advance` is called after each prompt."""
    sums = _Sums()
    with open_reference(inputs, inputs.checkpoint) as reference:
        for adapter, tokens in prompts:
            if reference.adapter != adapter:
                reference.forget_adapters()
                reference.use(adapter)
            reference.begin(tokens)
            reference.rewind(0)  # the beginning that the prompt shares with the last one counts once
            with sums.watching(reference.linear_modules()):
                reference.forward(tokens)
            advance()
    write_moments(sums.moments, path)


class _Sums:
    """Moments by the modules that read the input.

    The first of these leads: its input is summed up, for the others as well. Which they are is seen at the first
    forward of each, and stays.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Moments] = {}  # by the leader
        self._leaders: dict[str, str] = {}
        self._last: tuple[str, torch.Tensor] | None = None  # the modules that read one input run one after the other

    @property
    def moments(self) -> Mapping[tuple[str, ...], Moments]:
        return {
            tuple(name for name, leader in self._leaders.items() if leader == leading): seconds
            for leading, seconds in self._sums.items()
        }

    @contextlib.contextmanager
    def watching(self, linear_modules: Mapping[str, torch.nn.Module]) -> Iterator[None]:
        """Inside the block the forwards of these modules, by their names in the checkpoint, are added."""
        handles = [
            module.register_forward_pre_hook(lambda _, inputs, name=name: self._add(name, inputs[0]))
            for name, module in linear_modules.items()
        ]
        try:
            yield
        finally:
            self._last = None
            for handle in handles:
                handle.remove()

    def _add(self, name: str, values: torch.Tensor) -> None:
        shared = self._last is not None and self._last[1] is values
        leader = self._leaders.setdefault(name, self._last[0] if self._last and shared else name)
        self._last = (leader, values)
        if leader != name:
            return
        seen = moments(values.reshape(-1, values.shape[-1]).float().numpy(), REACH)
        before = self._sums.get(name)
        self._sums[name] = tuple(map(np.add, before, seen)) if before else seen
