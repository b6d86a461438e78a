"""An adapter's folder as PEFT writes it, with the chat template and the record of the training."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import save_file

from dualtune_edge.export.adapter.config import CONFIG
from dualtune_edge.export.adapter.read import BASE_FINGERPRINT
from dualtune_edge.export.adapter.tensors import WEIGHTS
from dualtune_edge.export.finetune.report import RECORD, Record
from dualtune_edge.toolkit.prompts.chat_template import CHAT_TEMPLATE, ChatTemplate


def write_adapter_folder(
    folder: Path, adapted: PeftModel, dtype: torch.dtype, template: ChatTemplate, record: Record
) -> None:
    """Write all files. Equal adapters give equal bytes."""
    tensors = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    save_file(
        {name: tensor.to(dtype).contiguous() for name, tensor in sorted(tensors.items())},
        folder / WEIGHTS,
        metadata={"format": "pt"},
    )
    config = adapted.peft_config["default"].to_dict() | {"inference_mode": True}
    plain = {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}
    _write(folder / CONFIG, json.dumps(plain, indent=2, sort_keys=True))
    _write(folder / CHAT_TEMPLATE, template.source, end="")
    _write(folder / RECORD, record.model_dump_json(indent=1))
    _write(folder / BASE_FINGERPRINT, record.base_fingerprint)


def _write(path: Path, text: str, *, end: str = "\n") -> None:
    path.write_text(text + end, encoding="utf-8", newline="\n")
