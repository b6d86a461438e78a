"""W + scale · B A by hand, weight by weight."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch

from dualtune_edge.export.adapter.merged_weights import MergedWeights
from dualtune_edge.export.adapter.read import LoraPair
from dualtune_edge.export.base.modules import EMBEDDING, HEAD
from dualtune_edge.export.base.weights import ALL_ROWS

Q, UP = "model.layers.0.self_attn.q_proj", "model.layers.0.mlp.up_proj"


@dataclass
class Stored:
    """A base's weights of 3 outputs and 2 inputs; a table of 3 rows."""

    reads: list[str] = field(default_factory=list)

    def read(self, name: str, rows: slice = ALL_ROWS) -> torch.Tensor:
        self.reads.append(name)
        size = (3,) if name.endswith("bias") else (3, 2)
        return torch.arange(float(np.prod(size))).reshape(size)[rows].clone()


@dataclass
class Base:
    weights: Stored
    tied: bool = True


@dataclass
class Adapter:
    pairs: dict[str, LoraPair]


def pair(outputs: int, inputs: int, *, bias: bool = False) -> LoraPair:
    a = np.linspace(-1, 1, inputs, dtype=np.float32)[np.newaxis]
    b = np.linspace(1, 3, outputs, dtype=np.float32)[:, np.newaxis]
    return LoraPair(a, b, 0.5, np.ones(outputs, dtype=np.float32) if bias else None)


def merged(pairs: dict[str, LoraPair], *, tied: bool = True) -> MergedWeights:
    base: Any = Base(Stored(), tied)
    adapter: Any = Adapter(pairs)
    return MergedWeights(base, adapter)


W = torch.arange(6.0).reshape(3, 2)


def test_a_weight_gets_its_product_and_another_does_not() -> None:
    weights = merged({Q: pair(3, 2)})
    expected = W + 0.5 * torch.tensor([[-1.0, 1.0], [-2.0, 2.0], [-3.0, 3.0]])
    assert torch.equal(weights.read(f"{Q}.weight"), expected)
    assert torch.equal(weights.read(f"{Q}.weight", slice(1, 2)), expected[1:2])
    assert torch.equal(weights.read(f"{UP}.weight"), W)
    assert torch.equal(weights.read(f"{UP}.weight", slice(2, 3)), W[2:3])


def test_a_table_is_indexed_by_its_inputs() -> None:
    weights = merged({EMBEDDING: pair(2, 3)})  # 3 tokens, 2 values
    product = torch.tensor([[-1.0, 0.0, 1.0], [-3.0, 0.0, 3.0]])
    assert torch.equal(weights.read(f"{EMBEDDING}.weight"), W + 0.5 * product.T)


def test_a_bias_is_added_with_the_scale_where_there_is_one() -> None:
    weights = merged({Q: pair(3, 2, bias=True), UP: pair(3, 2)})
    assert torch.equal(weights.read(f"{Q}.bias"), torch.arange(3.0) + 0.5)
    assert torch.equal(weights.read(f"{UP}.bias"), torch.arange(3.0))


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        (f"{Q}.weight", True),
        (f"{Q}.bias", True),
        (f"{UP}.weight", True),
        (f"{UP}.bias", False),
        ("model.layers.1.self_attn.q_proj.weight", False),
        ("model.norm.weight", False),
    ],
)
def test_what_may_differ_from_the_base_is_known(name: str, *, changed: bool) -> None:
    assert merged({Q: pair(3, 2, bias=True), UP: pair(3, 2)}).changed(name) == changed


@pytest.mark.parametrize(
    ("module", "tied", "expected"),
    [(Q, True, True), (HEAD, True, False), (EMBEDDING, True, False), (Q, False, False), (HEAD, False, False)],
)
def test_tables_stay_one_only_where_neither_changes(module: str, *, tied: bool, expected: bool) -> None:
    assert merged({module: pair(3, 2)}, tied=tied).tied is expected


def test_a_weight_is_computed_once_for_all_of_its_rows() -> None:
    weights = merged({Q: pair(3, 2), UP: pair(3, 2)})
    parts = [weights.read(f"{Q}.weight", slice(row, row + 1)) for row in range(3)]
    assert torch.equal(torch.cat(parts), weights.read(f"{Q}.weight"))
    other = weights.read(f"{UP}.weight")
    assert torch.equal(other, weights.read(f"{UP}.weight"))
    again = weights.read(f"{Q}.weight")
    assert torch.equal(again, torch.cat(parts))
    assert weights._base.reads == [f"{Q}.weight", f"{UP}.weight", f"{Q}.weight"]  # type: ignore[attr-defined]
