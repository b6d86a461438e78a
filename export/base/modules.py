"""Which module of the model is which node of the graph, and so where a LoRA adapter finds a slot."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

HEAD: Final = "lm_head"
EMBEDDING: Final = "model.embed_tokens"
# Slots that a graph has only where an adapter fills them: each would cost time in every forward.
Extra: TypeAlias = Literal["head", "embedding", "bias"]

_SHARED: Final = {"o_proj": ("self_attn.o_proj",), "down_proj": ("mlp.down_proj",)}
_SEPARATE: Final = {
    "qkv_proj": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "gate_proj": ("mlp.gate_proj",),
    "up_proj": ("mlp.up_proj",),
    **_SHARED,
}
_PACKED: Final = {
    "qkv_proj": ("self_attn.qkv_proj",),
    "gate_proj": ("mlp.gate_up_proj",),
    "up_proj": ("mlp.gate_up_proj",),
    **_SHARED,
}
_PATH: Final = re.compile(r"model\.layers\.\d+\.(?P<module>\w+\.\w+)")


def in_layer(*, packed: bool) -> Mapping[str, tuple[str, ...]]:
    """Linear node of a layer, as the builder names it → modules of the layer, in the order of the node's columns.

    Args:
        packed: the model has one module for q, k and v, and one for gate and up, as Phi-3 does.

    """
    return _PACKED if packed else _SEPARATE


def path(layer: int, module: str) -> str:
    """Where a module stands in the model, as transformers and PEFT name it."""
    return f"model.layers.{layer}.{module}"


def is_slotted(name: str, *, packed: bool) -> bool:
    """Whether a graph can have a LoRA slot for the module of this path."""
    match = _PATH.fullmatch(name)
    known = {module for parts in in_layer(packed=packed).values() for module in parts}
    return name in (HEAD, EMBEDDING) or (match is not None and match["module"] in known)
