"""A base cut off behind its first layers: what a large one is compared on.

A layer is computed as every other of its kind, so the first ones, with embedding, last norm and head, show whether a
graph is the model, and whether an adapter is in its slots, without reading 30 GB for every prompt.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Final

from transformers import AutoConfig

from dualtune_edge.export.adapter.read import WEIGHTS
from dualtune_edge.export.base.checkpoint import Checkpoint
from dualtune_edge.export.base.safetensors_file import stored_tensors

_LEAST: Final = 2  # layers: the second one reads what the first has written
_BY_LAYER: Final = ("layer_types", "no_rope_layers")  # of config.json: an entry for each layer
_BESIDE_WEIGHTS: Final = frozenset({".jinja", ".json", ".model", ".txt"})
_LAYER: Final = re.compile(r"\.layers\.(\d+)\.")


def enough_layers(checkpoint: Checkpoint, adapters: Iterable[Path]) -> int:
    """How many of the first layers hold each kind of layer, and a module of every adapter: two at least.

    Args:
        checkpoint: the base.
        adapters: folders in PEFT's format. One whose layers begin late takes the others along.

    """
    count = checkpoint.cache.layers
    config = AutoConfig.from_pretrained(checkpoint.folder, local_files_only=True)
    by_layer = [getattr(config, key, None) or [None] * count for key in _BY_LAYER]
    kinds = list(zip(*by_layer, strict=True))
    last_new = max(kinds.index(kind) for kind in kinds)
    return min(count, max(_LEAST, 1 + last_new, *(1 + _first(folder) for folder in adapters)))


def on_tables(adapter: Path) -> bool:
    """Whether an adapter's file has anything for the embedding or the head."""
    return any("embed_tokens" in name or "lm_head" in name for name in stored_tensors(adapter / WEIGHTS))


def first_layers(checkpoint: Checkpoint, count: int, folder: Path) -> Checkpoint:
    """The base's first layers as a base of its own; the weights stay where they are, under the same names.

    Args:
        checkpoint: the base.
        count: of layers.
        folder: a new folder, which gets the config and the tokenizer.

    """
    folder.mkdir()
    for path in checkpoint.folder.iterdir():
        if path.suffix in _BESIDE_WEIGHTS and not path.name.endswith(".index.json"):
            shutil.copyfile(path, folder / path.name)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    own = {key: config[key][:count] for key in _BY_LAYER if config.get(key)}
    text = json.dumps(config | own | {"num_hidden_layers": count})
    (folder / "config.json").write_text(text, encoding="utf-8")
    return replace(checkpoint, folder=folder, cache=checkpoint.cache.model_copy(update={"layers": count}))


def _first(adapter: Path) -> int:
    """The first layer that it is on; 0 if it is on what stands before or behind them."""
    found = [_LAYER.search(name) for name in stored_tensors(adapter / WEIGHTS)]
    return min((int(match[1]) if match else 0 for match in found), default=0)
