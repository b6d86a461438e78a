"""genai_config.json with known keys only: `onnxruntime_genai.Model` follows it, and other keys could load code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from dualtune_edge.export.base.checkpoint import Checkpoint
from dualtune_edge.toolkit.errors import GraphError

GENAI_CONFIG: Final = "genai_config.json"
# The keys that are kept. Any other, as of a sliding window, stands for a graph that the runtime does not know.
_MODEL: Final = {"bos_token_id", "context_length", "decoder", "eos_token_id", "pad_token_id", "type", "vocab_size"}
_DECODER: Final = {
    "session_options",
    "filename",
    "head_size",
    "hidden_size",
    "inputs",
    "outputs",
    "num_attention_heads",
    "num_hidden_layers",
    "num_key_value_heads",
}
_SPECIAL: Final = {
    "bot_token_id",
    "eot_token_id",
    "bor_token_id",
    "eor_token_id",
}  # unused: <tool_call> and the like


def write_genai_config(checkpoint: Checkpoint, folder: Path) -> None:
    """Replace the builder's genai_config.json in `folder` by one with known keys only.

    Raises:
        GraphError: the builder's has another key, or a shorter context than the checkpoint.

    """
    path = folder / GENAI_CONFIG
    model = json.loads(path.read_text(encoding="utf-8"))["model"]
    decoder = model["decoder"]
    _refuse(path, set(model) - _MODEL - _SPECIAL, "model")
    _refuse(path, set(decoder) - _DECODER, "model.decoder")
    if model["context_length"] < checkpoint.context_length or model["vocab_size"] != checkpoint.vocab_size:
        raise GraphError(
            str(path),
            found=f"context_length {model['context_length']}, vocab_size {model['vocab_size']}",
            expected=f"{checkpoint.context_length} or more and {checkpoint.vocab_size}, as the checkpoint has",
            fix="Report this: the builder read another config.",
        )
    value = {"model": _model(checkpoint, model), "search": _search(checkpoint)}
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8", newline="\n")


def _model(checkpoint: Checkpoint, built: dict[str, Any]) -> dict[str, Any]:
    end, *_ = checkpoint.end_of_turn
    decoder = {key: built["decoder"][key] for key in _DECODER}
    # Severity 3 is errors. At 2 onnxruntime warns of every slot's default as the session opens.
    decoder["session_options"] = {"log_id": "onnxruntime-genai", "log_severity_level": 3, "provider_options": []}
    return {
        "bos_token_id": built["bos_token_id"],
        "context_length": checkpoint.context_length,
        "decoder": decoder,
        "eos_token_id": list(checkpoint.end_of_turn),
        "pad_token_id": end,  # a batch of one is never padded
        "type": built["type"],
        "vocab_size": checkpoint.vocab_size,
    }


def _search(checkpoint: Checkpoint) -> dict[str, Any]:
    """Greedy search, whatever generation_config.json says, with one buffer for past and present."""
    return {
        "do_sample": False,
        "max_length": checkpoint.context_length,
        "min_length": 0,
        "num_beams": 1,
        "num_return_sequences": 1,
        "past_present_share_buffer": True,
        "repetition_penalty": 1.0,
        "temperature": 1.0,
        "top_k": 1,
        "top_p": 1.0,
    }


def _refuse(path: Path, unknown: set[str], where: str) -> None:
    if unknown:
        raise GraphError(
            f"{path}, {where}",
            found=", ".join(sorted(unknown)),
            expected="a plain decoder",
            fix="Choose a base of a supported architecture.",
        )
