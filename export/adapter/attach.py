"""An adapter on a model, by PEFT: for the reference, and to be merged."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from peft import PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import safe_open
from transformers import PreTrainedModel

from dualtune_edge.export.adapter.config import read_config
from dualtune_edge.export.adapter.tensors import read_tensors
from dualtune_edge.export.base.checkpoint import Checkpoint
from dualtune_edge.export.base.safetensors_file import StoredTensor


def attach(model: PreTrainedModel, folder: Path, checkpoint: Checkpoint, name: str = "default") -> PeftModel:
    """Put an adapter on a model, which PEFT changes: its modules, and of some adapters its weights.

    Args:
        model: the base's, or that of its first layers.
        folder: of an adapter that `read_adapter` has read for the merged mode.
        checkpoint: the base.
        name: the adapter's name in PEFT, without dots.

    Raises:
        AdapterError: the folder has changed since it was read.

    """
    config = read_config(folder, "merged").lora
    config.inference_mode = True
    tensors = read_tensors(folder, checkpoint).stored
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tied tables and the like: checked when the adapter was read
        adapted: PeftModel = get_peft_model(model, config, adapter_name=name)
        expected = get_peft_model_state_dict(adapted, adapter_name=name, save_embedding_layers=False)
        # No other tensor: a copy of the base's embedding would be written into the base.
        loaded = {tensor: _load(tensors[tensor]) for tensor in expected}
        set_peft_model_state_dict(adapted, loaded, adapter_name=name)
    adapted.eval()
    return adapted


def _load(stored: StoredTensor) -> torch.Tensor:
    with safe_open(stored.path, framework="pt") as file:
        tensor: torch.Tensor = file.get_tensor(stored.name)
    return tensor
