"""Which slot of the graph takes the LoRA of which module."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

# What A is applied to: the input of a linear module, the token ids (A is a table then), or the constant 1 (the pair
# is then a bias).
Operand: TypeAlias = Literal["hidden", "ids", "one"]


@dataclass(frozen=True)
class Part:
    """One module of a slot: the columns of the slot's output that are its own."""

    module: str  # its path in the model: model.layers.0.self_attn.q_proj
    start: int
    width: int
    first: int = 0  # the module's output that stands in column `start`; 0 unless the graph splits the module


@dataclass(frozen=True)
class Slot:
    """A place for one low-rank pair: x A B, of r columns between A and B."""

    name: str  # lora.<layer>.<module as the graph has it>
    inputs: int  # K
    outputs: int  # N
    parts: tuple[Part, ...]
    operand: Operand = "hidden"
    transposed: bool = True  # how A and B are stored

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
        """A as stored: `[r, inputs]` if transposed, else `[inputs, r]`, as where token ids pick its rows."""
        flat = self.transposed and self.operand != "ids"
        return (self.rank, self.inputs) if flat else (self.inputs, self.rank)

    @property
    def b_shape(self) -> tuple[int | str, int | str]:
        """B as stored: `[outputs, r]` if transposed, else `[r, outputs]`."""
        return (self.outputs, self.rank) if self.transposed else (self.rank, self.outputs)


@dataclass(frozen=True)
class SlotMap:
    """Every slot of a graph, in the graph's order."""

    slots: tuple[Slot, ...]

    @property
    def modules(self) -> frozenset[str]:
        """Paths of all modules that have a place in a slot."""
        return frozenset(part.module for slot in self.slots for part in slot.parts)

    @property
    def biased(self) -> frozenset[str]:
        """Paths of the modules whose LoRA may have a bias."""
        return frozenset(part.module for slot in self.slots if slot.operand == "one" for part in slot.parts)

    @property
    def outputs(self) -> Mapping[str, int]:
        """How many outputs of each module the slots hold; a module may be split over several."""
        found: Counter[str] = Counter()
        for slot in self.slots:
            if slot.operand != "one":
                found.update({part.module: part.width for part in slot.parts})
        return found
