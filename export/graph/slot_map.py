"""Which slot of the graph takes the LoRA of which module."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """One module of a slot: the columns of the output that are its own."""

    module: str  # its path in the model: model.layers.0.self_attn.q_proj
    start: int
    width: int


@dataclass(frozen=True)
class Slot:
    """A place for one low-rank pair: A `[inputs, r]`, B `[r, outputs]`."""

    name: str  # lora.<layer>.<module as the graph has it>
    inputs: int  # K
    outputs: int  # N
    parts: tuple[Part, ...]

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


@dataclass(frozen=True)
class SlotMap:
    """Every slot of a graph, in the graph's order."""

    slots: tuple[Slot, ...]

    @property
    def modules(self) -> frozenset[str]:
        """Paths of all modules that have a place in a slot."""
        return frozenset(part.module for slot in self.slots for part in slot.parts)
