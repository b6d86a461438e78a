"""A deferred tensor has the values that the same operations give on the weight itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import torch

from dualtune_edge.export.graph.deferred import Deferred, columns, deferred, evaluate, names, rows

ALL = slice(None)


@dataclass
class Source:
    """Weights `one` and `two`, and what was read of them."""

    tied: bool = False
    reads: list[tuple[str, slice]] = field(default_factory=list)

    def read(self, name: str, rows: slice = ALL) -> torch.Tensor:
        self.reads.append((name, rows))
        return weight(name)[rows]

    def changed(self, name: str) -> bool:
        raise NotImplementedError


def weight(name: str) -> torch.Tensor:
    return torch.arange(24, dtype=torch.float32).reshape(6, 4) + (100 if name == "two" else 0)


@pytest.fixture
def source() -> Source:
    return Source()


def parameter(name: str, source: Source) -> torch.nn.Parameter:
    made = deferred(name, torch.empty(6, 4, dtype=torch.bfloat16, device="meta"), source)
    return torch.nn.Parameter(made, requires_grad=False)


OPERATIONS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "nothing": lambda one, _: one,
    "transposed": lambda one, _: one.T,
    "joined": lambda one, two: torch.cat([one, two, one], dim=0).reshape(18, 4).T,
    "flat": lambda one, two: torch.cat([one, two], dim=0).flatten(),
    "a part": lambda one, _: torch.nn.Parameter(one[2:5, :], requires_grad=False).T,
    "shifted": lambda one, _: one + 1,
    "another type": lambda one, _: one.to(torch.float16),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_values_are_those_of_the_operations(name: str, source: Source) -> None:
    operation = OPERATIONS[name]
    late = operation(parameter("one", source), parameter("two", source))
    assert isinstance(late, Deferred)
    assert source.reads == []
    expected = operation(weight("one"), weight("two"))
    assert (late.shape, late.dtype) == (expected.shape, expected.dtype)
    assert torch.equal(evaluate(late), expected)
    assert names(late) == {name for name, _ in source.reads}


@pytest.mark.parametrize("width", [1, 4, 5, 6, 100])
@pytest.mark.parametrize("name", ["transposed", "joined", "a part"])
def test_columns_are_those_of_the_whole(name: str, width: int, source: Source) -> None:
    late = OPERATIONS[name](parameter("one", source), parameter("two", source))
    pieces = list(columns(late, width))
    assert all(piece.shape[1] == width for piece in pieces[:-1])
    assert torch.equal(torch.cat(pieces, dim=1), OPERATIONS[name](weight("one"), weight("two")))


def test_of_a_transposed_weight_only_the_piece_is_read(source: Source) -> None:
    pieces = columns(parameter("one", source).T, 4)
    next(pieces)
    assert source.reads == [("one", slice(0, 4))]


@pytest.mark.parametrize("count", [1, 4, 5, 100])
@pytest.mark.parametrize("name", OPERATIONS)
def test_rows_are_those_of_the_whole(name: str, count: int, source: Source) -> None:
    pieces = list(rows(OPERATIONS[name](parameter("one", source), parameter("two", source)), count))
    assert all(piece.shape[0] == count for piece in pieces[:-1])
    assert torch.equal(torch.cat(pieces), OPERATIONS[name](weight("one"), weight("two")))


def test_of_a_weight_only_the_rows_are_read(source: Source) -> None:
    next(rows(parameter("one", source), 4))
    assert source.reads == [("one", slice(0, 4))]


def test_a_question_about_values_is_answered(source: Source) -> None:
    assert torch.count_nonzero(parameter("one", source)) > 0
    assert source.reads == [("one", ALL)]


def test_a_tensor_of_torchs_own_is_itself() -> None:
    plain = torch.ones(2)
    assert evaluate(plain) is plain
    assert names(plain) == frozenset()
