"""What PEFT loads for an adapter: its tensors' names and shapes, the modules that it is on, and their scales.

PEFT says it itself: the adapter is injected into the base on the meta device, where tensors have shapes and no bytes.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import NoneType

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from peft.tuners.lora import Embedding, Linear, LoraLayer
from peft.tuners.lora.variants import ALoraLinearVariant

from dualtune_edge.export.adapter.config import CONFIG
from dualtune_edge.export.base.checkpoint import Checkpoint
from dualtune_edge.export.base.models import meta_model
from dualtune_edge.toolkit.errors import AdapterError

_ADAPTER = "default"  # PEFT's name for an adapter without one


@dataclass(frozen=True)
class LoraModule:
    """A module that the adapter is on."""

    path: str  # in the base: model.layers.0.self_attn.q_proj
    scale: float
    pair: tuple[str, str, str | None] | None  # names of A, B and B's bias; None: not plain LoRA
    biased: bool  # B has a bias
    base_biased: bool  # the module has one


@dataclass(frozen=True)
class AdapterStructure:
    """What PEFT loads."""

    shapes: Mapping[str, tuple[int, ...]]  # of every tensor that must be there
    modules: tuple[LoraModule, ...]


def inject(folder: Path, config: LoraConfig, checkpoint: Checkpoint) -> AdapterStructure:
    """Let PEFT put the adapter on the base, and see what it needs.

    Raises:
        AdapterError: PEFT cannot put the adapter on this base.

    """
    try:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of untied embeddings and the like: checked by other means
            model = get_peft_model(meta_model(checkpoint), _without_start(config))
            # Without copies of the base's embeddings, for which PEFT would ask the hub. It renames the tensors that it
            # is given, so a parameter leads to the name under which it is saved.
            saved = get_peft_model_state_dict(
                model, state_dict=dict(_state(model)), save_embedding_layers=False, adapter_name=_ADAPTER
            )
    except Exception as error:  # noqa: BLE001 - PEFT raises ValueError, TypeError, NotImplementedError, …
        raise AdapterError(
            str(folder / CONFIG),
            found=f"{type(error).__name__}: {error}",
            expected=f"an adapter that PEFT can put on {checkpoint.name}",
            fix="Export it with the base that it was trained on.",
        ) from None
    names = {id(tensor): name for name, tensor in saved.items()}
    return AdapterStructure(
        shapes={name: tuple(tensor.shape) for name, tensor in saved.items()},
        modules=tuple(_modules(model, names)),
    )


def _without_start(config: LoraConfig) -> LoraConfig:
    """A copy, since PEFT writes the base's name into its config; the file has the weights, so none are drawn."""
    result = copy.deepcopy(config)
    result.init_lora_weights = False
    return result


def _state(model: PeftModel) -> Iterator[tuple[str, torch.Tensor]]:
    """`state_dict`, with the very tensors of the model where it gives views of them."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name, tensor in model.state_dict().items():
        yield name, parameters.get(name, tensor)


def _modules(model: PeftModel, names: Mapping[int, str]) -> Iterator[LoraModule]:
    for path, layer in model.base_model.model.named_modules():
        if isinstance(layer, LoraLayer):
            yield LoraModule(
                path=path,
                scale=float(layer.scaling[_ADAPTER]),
                pair=_pair(layer, names),
                biased=bool(layer.lora_bias[_ADAPTER]),
                base_biased=getattr(layer.get_base_layer(), "bias", None) is not None,
            )


def _pair(layer: LoraLayer, names: Mapping[int, str]) -> tuple[str, str, str | None] | None:
    if not isinstance(layer.lora_variant.get(_ADAPTER), (NoneType, ALoraLinearVariant)):  # DoRA and the like
        return None
    if isinstance(layer, Linear):
        a, b = layer.lora_A[_ADAPTER], layer.lora_B[_ADAPTER]
        return names[id(a.weight)], names[id(b.weight)], None if b.bias is None else names[id(b.bias)]
    if isinstance(layer, Embedding):
        return names[id(layer.lora_embedding_A[_ADAPTER])], names[id(layer.lora_embedding_B[_ADAPTER])], None
    return None
