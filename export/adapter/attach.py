"""An adapter on a model, by PEFT: for the reference, and to be merged."""

from __future__ import annotations

import warnings
from pathlib import Path

from peft import PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from transformers import PreTrainedModel

from dualtune_edge.export.adapter.config import read_config
from dualtune_edge.export.adapter.tables import replaced_tables
from dualtune_edge.export.adapter.tensors import WEIGHTS, read_tensors
from dualtune_edge.export.base.checkpoint import Checkpoint
from dualtune_edge.export.base.weights import TABLES, pad, read_rows


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
    stored = read_tensors(folder, checkpoint).stored
    parameters = {table: model.get_parameter(table) for table in TABLES}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tied tables and the like: checked when the adapter was read
        adapted: PeftModel = get_peft_model(model, config, adapter_name=name)
        expected = get_peft_model_state_dict(adapted, adapter_name=name, save_embedding_layers=False)
        for table, tensor in replaced_tables(folder / WEIGHTS, stored, expected, checkpoint).items():
            base = parameters[table]
            base.data = pad(read_rows(tensor), tuple(base.shape))  # PEFT would write into the base's memory
        # PEFT makes some buffers as it injects, and saves none of these.
        loaded = {
            tensor: pad(read_rows(stored[tensor]), tuple(wanted.shape))
            for tensor, wanted in expected.items()
            if tensor in stored
        }
        set_peft_model_state_dict(adapted, loaded, adapter_name=name)
    adapted.eval()
    return adapted
