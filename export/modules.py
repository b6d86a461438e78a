"""The linear modules of a decoder layer that a LoRA adapter may change, by their names in transformers."""

from __future__ import annotations

import re
from typing import Final

BLOCKS: Final = {  # module → the block of the layer that holds it
    "q_proj": "self_attn",
    "k_proj": "self_attn",
    "v_proj": "self_attn",
    "o_proj": "self_attn",
    "gate_proj": "mlp",
    "up_proj": "mlp",
    "down_proj": "mlp",
}
_PATH: Final = re.compile(r"model\.layers\.\d+\.(?P<block>\w+)\.(?P<module>\w+)")


def path(layer: int, module: str) -> str:
    """Where a module stands in the model, as transformers and PEFT name it."""
    return f"model.layers.{layer}.{BLOCKS[module]}.{module}"


def is_slotted(name: str) -> bool:
    """Whether the graph has a LoRA slot for the module of this path."""
    match = _PATH.fullmatch(name)
    return match is not None and BLOCKS.get(match["module"]) == match["block"]
