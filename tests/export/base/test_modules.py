"""Which modules have a slot."""

from __future__ import annotations

import pytest

from dualtune_edge.export.base import modules

SEPARATE = ["self_attn.q_proj", "self_attn.v_proj", "mlp.gate_proj", "mlp.up_proj"]
PACKED = ["self_attn.qkv_proj", "mlp.gate_up_proj"]
SHARED = ["self_attn.o_proj", "mlp.down_proj"]


@pytest.mark.parametrize("packed", [False, True])
def test_the_layers_own_modules_have_one(*, packed: bool) -> None:
    own, others = (PACKED, SEPARATE) if packed else (SEPARATE, PACKED)
    for module in own + SHARED:
        assert modules.is_slotted(modules.path(11, module), packed=packed)
    for module in others:
        assert not modules.is_slotted(modules.path(11, module), packed=packed)


@pytest.mark.parametrize(
    "name",
    ["model.layers.0.mlp.q_proj", "model.layers.x.mlp.up_proj", "layers.0.mlp.up_proj", "model.norm", "mlp.up_proj"],
)
def test_another_path_has_none(name: str) -> None:
    assert not modules.is_slotted(name, packed=False)


@pytest.mark.parametrize("name", [modules.HEAD, modules.EMBEDDING])
def test_head_and_embedding_can_have_one(name: str) -> None:
    assert modules.is_slotted(name, packed=False)
    assert modules.is_slotted(name, packed=True)
