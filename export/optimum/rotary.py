"""Rotary tables: the graph computes the cosines and sines of every position, and they are those of config.json."""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM, PretrainedConfig

from dualtune_edge.export.base.checkpoint import Checkpoint
from dualtune_edge.export.optimum.claims import Claims, Probe
from dualtune_edge.export.optimum.cursor import Cursor
from dualtune_edge.export.optimum.description import Rotary
from dualtune_edge.toolkit.errors import GraphError

Tables: TypeAlias = tuple[ir.Value, ir.Value]  # cosines and sines, [B, S, rotated]
_ROUNDING: Final = (1e-5, 3e-7)  # of cosines, and a position more: float32 rounds the angle, which is as large


def run_tables(claims: Claims, tables: list[Tables], probes: tuple[Probe, ...], context: int) -> dict[Tables, Rotary]:
    """The cosines and sines of all positions of a context, as the graph computes them.

    Raises:
        GraphError: they depend on more than the position, or differ between the halves of a head.

    """
    if not tables:
        return {}
    values = list(dict.fromkeys(value for pair in tables for value in pair))
    ((_, whole),) = claims.run(values, [Probe(1, 0, context)])
    for probe, outputs in claims.run(values, probes):
        for value in values:
            expected = whole[value][:, probe.past : probe.past + probe.new]
            if not np.array_equal(np.broadcast_to(expected, outputs[value].shape), outputs[value]):
                raise claims.cursor.refusal(value, "angles that depend on the position alone")
    for value in values:
        half = whole[value].shape[-1] // 2
        if not np.array_equal(whole[value][..., :half], whole[value][..., half:]):
            raise claims.cursor.refusal(value, "the angles twice, for both halves of a head")
    return {(cos, sin): Rotary(_half(whole[cos]), _half(whole[sin])) for cos, sin in dict.fromkeys(tables)}


def check_angles(
    cursor: Cursor, config: PretrainedConfig, checkpoint: Checkpoint, rotaries: list[Rotary | None]
) -> None:
    """Compare each layer's table with transformers': another version may read config.json differently.

    Raises:
        GraphError: names the layer.

    """
    with torch.device("meta"):
        kind: Any = type(AutoModelForCausalLM.from_config(config).model.rotary_emb)
    module = kind(config)
    positions = torch.tensor([[0, 1, 2, 3, 7, 63, checkpoint.context_length - 1]])
    rotates = getattr(config, "no_rope_layers", None) or [1] * len(rotaries)
    several = "full_attention" in (getattr(config, "rope_parameters", None) or {})
    for layer, rotary in enumerate(rotaries):
        with torch.no_grad():
            expected = module(torch.zeros(1), positions, *([config.layer_types[layer]] if several else []))
        rotated = bool(rotates[layer])
        if (rotary is not None) != rotated or (rotary and not _alike(rotary, positions[0].numpy(), expected)):
            raise GraphError(
                f"{cursor.path}, layer {layer}",
                found="other rotary angles" if rotated else "rotary angles",
                expected="those that config.json of the base asks for" if rotated else "none, by no_rope_layers",
                fix="transformers 4 does not read what transformers 5 writes: export it with `dualtune-edge trace`.",
            )


def _half(table: NDArray[np.generic]) -> NDArray[np.float32]:
    return np.ascontiguousarray(table[0, :, : table.shape[-1] // 2], dtype=np.float32)


def _alike(rotary: Rotary, positions: NDArray[np.int64], expected: tuple[torch.Tensor, torch.Tensor]) -> bool:
    near = _ROUNDING[0] + _ROUNDING[1] * positions[:, np.newaxis]
    for angles, table in zip((rotary.cos, rotary.sin), expected, strict=True):
        half = table[0].numpy()[:, : table.shape[-1] // 2]
        if angles.shape[1] != half.shape[1] or not (np.abs(angles[positions] - half) <= near).all():
            return False
    return True
