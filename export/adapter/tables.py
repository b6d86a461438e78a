"""Embedding and head in an adapter's file: the base's, or others in their place.

PEFT saves both where LoRA is on one of them, or the vocabulary was resized, and writes what it finds into the base.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

import torch

from dualtune_edge.export.adapter.tensors import ROOT
from dualtune_edge.export.base.checkpoint import Checkpoint
from dualtune_edge.export.base.safetensors_file import StoredTensor
from dualtune_edge.export.base.weights import ROWS, TABLES, read_rows, same_values
from dualtune_edge.toolkit.errors import AdapterError

# Where PEFT leaves the base's table: under LoRA, under a trained module, and under trained rows.
_INSIDE: Final = ("", "base_layer.", "original_module.", "token_adapter.base_layer.")
_ROWS_OF_EMBEDDING, _ROWS_OF_HEAD = (
    f"{ROOT}{table.removesuffix('weight')}token_adapter.trainable_tokens_delta" for table in TABLES
)


def table_copies(stored: Mapping[str, StoredTensor], expected: Collection[str]) -> dict[str, tuple[StoredTensor, ...]]:
    """The base's tables in an adapter's file, by their names in the base.

    Args:
        stored: the tensors of the file, by PEFT's names.
        expected: those that the config describes: a table among them is a module that was trained.

    """
    copies = {}
    for table in TABLES:
        names = [f"{ROOT}{table.removesuffix('weight')}{inside}weight" for inside in _INSIDE]
        if found := tuple(stored[name] for name in names if name in stored and name not in expected):
            copies[table] = found
    return copies


def replaced_tables(
    path: Path, stored: Mapping[str, StoredTensor], expected: Collection[str], checkpoint: Checkpoint
) -> dict[str, StoredTensor]:
    """The tables that take the place of the base's, by their names in the base.

    Of a base whose tables are tied both names are there.

    Raises:
        AdapterError: a tied base, and two tables that differ.

    """
    copies = table_copies(stored, expected)
    if checkpoint.tied and copies:
        copies = dict.fromkeys(TABLES, tuple(tensor for tensors in copies.values() for tensor in tensors))
    replaced = {}
    for name, (tensor, *others) in copies.items():
        if different := [other for other in others if not same_values(tensor, other)]:
            raise AdapterError(
                f"{path}, {different[0].name}",
                found=f"another table than {tensor.name}",
                expected="one table, as the base has it in this place"
                + (" and for the head" if checkpoint.tied else ""),
                fix="Save the adapter again with PEFT, with embedding and head tied as they were in training.",
            )
        if not _is_of_base(tensor, name, checkpoint):
            replaced[name] = tensor
    return replaced


def is_tied_copy(name: str, stored: Mapping[str, StoredTensor], checkpoint: Checkpoint) -> bool:
    """Whether a tensor holds the embedding's trained rows once more, for the head that is tied to it."""
    embedding = stored.get(_ROWS_OF_EMBEDDING)
    return name == _ROWS_OF_HEAD and checkpoint.tied and embedding is not None and same_values(stored[name], embedding)


def _is_of_base(tensor: StoredTensor, name: str, checkpoint: Checkpoint) -> bool:
    """Whether a table's rows are the base's; those of a resized one may be fewer."""
    weights = checkpoint.weights
    starts = range(0, tensor.shape[0], ROWS)
    parts = (slice(start, min(start + ROWS, tensor.shape[0])) for start in starts)
    return all(torch.equal(read_rows(tensor, rows), weights.read(name, rows)) for rows in parts)
