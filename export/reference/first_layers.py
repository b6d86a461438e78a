"""A base cut off behind its first layers: a large one is compared on these.

A layer is computed as every other of its kind, so the first ones, with embedding, last norm and head, show whether a
graph is the model, and whether an adapter is in its slots, without reading 30 GB for every prompt.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Final

from dualtune_edge.export.adapter.tensors import read_tensors
from dualtune_edge.export.base.checkpoint import Checkpoint

_LEAST: Final = 2  # layers: the second one reads what the first has written
_BY_LAYER: Final = ("layer_types", "no_rope_layers")  # lists in config.json, with an entry for each layer
_LAYER: Final = re.compile(r"\.layers\.(\d+)\.")


def enough_layers(checkpoint: Checkpoint, adapters: Iterable[Path]) -> int:
    """The number of first layers that hold each kind of layer, and a module of every adapter: two at least.

    Args:
        checkpoint: the base.
        adapters: folders in PEFT's format. One whose layers begin late takes the others along.

    """
    count = checkpoint.cache.layers
    by_layer = [getattr(checkpoint.config, key, None) or [None] * count for key in _BY_LAYER]
    kinds = list(zip(*by_layer, strict=True))
    last_new = max(kinds.index(kind) for kind in kinds)
    return min(count, max(_LEAST, 1 + last_new, *(1 + _first(folder, checkpoint) for folder in adapters)))


def on_tables(adapter: Path, checkpoint: Checkpoint) -> bool:
    """Whether an adapter's file has anything for the embedding or the head."""
    return any("embed_tokens" in name or "lm_head" in name for name in read_tensors(adapter, checkpoint).stored)


def first_layers(checkpoint: Checkpoint, count: int) -> Checkpoint:
    """The base's first layers as a base; the weights stay where they are, under the same names."""
    values = checkpoint.config.to_dict()
    cut = {key: values[key][:count] for key in _BY_LAYER if values.get(key)}
    config = type(checkpoint.config).from_dict(values | cut | {"num_hidden_layers": count})
    return replace(checkpoint, config=config, cache=checkpoint.cache.model_copy(update={"layers": count}))


def _first(adapter: Path, checkpoint: Checkpoint) -> int:
    """The first layer that it is on; 0 if it is on the embedding, the last norm or the head."""
    matches = [_LAYER.search(name) for name in read_tensors(adapter, checkpoint).stored]
    return min((int(match[1]) if match else 0 for match in matches), default=0)
