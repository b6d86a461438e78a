"""The slots of a graph, and the modules whose LoRA they take."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

# What A is applied to: the input of a linear module; the token ids, where A is a table; the constant 1, where the pair
# is a bias.
Operand: TypeAlias = Literal["hidden", "ids", "one"]


@dataclass(frozen=True)
class Part:
    """A module of a slot, and its columns of the slot's output."""

    module: str  # its path in the model: model.layers.0.self_attn.q_proj
    start: int
    width: int
    first: int = 0  # the module's output in column `start`; 0 unless the graph splits the module


@dataclass(frozen=True)
class Slot:
    """A place for one low-rank pair: x A B, with r columns between A and B."""

    name: str  # lora.<layer>.<module as the graph has it>
    inputs: int  # K
    outputs: int  # N
    parts: tuple[Part, ...]
    operand: Operand = "hidden"
    transposed: bool = True  # as stored

    @property
    def a(self) -> str:
        """The graph input for A."""
        return f"{self.name}.A"

    @property
    def b(self) -> str:
        """The graph input for B."""
        return f"{self.name}.B"

    @property
    def rank(self) -> str:
        """The symbolic dimension that A and B share."""
        return f"{self.name}.r"

    @property
    def a_shape(self) -> tuple[int | str, int | str]:
        """A as stored: `[r, inputs]` if transposed; `[inputs, r]` if not, and where token ids pick its rows."""
        flat = self.transposed and self.operand != "ids"
        return (self.rank, self.inputs) if flat else (self.inputs, self.rank)

    @property
    def b_shape(self) -> tuple[int | str, int | str]:
        """B as stored: `[outputs, r]` if transposed, `[r, outputs]` if not."""
        return (self.outputs, self.rank) if self.transposed else (self.rank, self.outputs)


@dataclass(frozen=True)
class SlotMap:
    """All slots of a graph, in the graph's order."""

    slots: tuple[Slot, ...]

    @property
    def modules(self) -> frozenset[str]:
        """The paths of all modules that have a slot."""
        return frozenset(part.module for slot in self.slots for part in slot.parts)

    @property
    def biased(self) -> frozenset[str]:
        """The paths of the modules whose LoRA may have a bias."""
        return frozenset(part.module for slot in self.slots if slot.operand == "one" for part in slot.parts)

    @property
    def outputs(self) -> Mapping[str, int]:
        """The number of outputs of every module, by path; a module may be split over several slots."""
        outputs: Counter[str] = Counter()
        for slot in self.slots:
            if slot.operand != "one":
                outputs.update({part.module: part.width for part in slot.parts})
        return outputs
