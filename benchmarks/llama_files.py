"""A checkpoint of Qwen2's architecture and its LoRA adapters as GGUF files.

    python benchmarks/llama_files.py OUT/base OUT/r32 OUT/r32b -o OUT/llama

llama.cpp's own converters refuse a tokenizer that they do not know, and read an rsLoRA adapter's scale as α/r. These
files hold the same numbers as the bundle: Q4_0 in every matrix (its `--pure`), adapters in 16 bits with α/√r, an
activated one with its invocation.
Needs the package `gguf`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final

import gguf
import numpy as np
import typer
from numpy.typing import NDArray
from safetensors import safe_open

_NAMES: Final = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}
_POST_NORM: Final = "post_attention_norm"
_LAYER: Final = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def main(
    base: Annotated[Path, typer.Argument(help="The checkpoint's folder.")],
    adapters: Annotated[list[Path], typer.Argument(help="Folders of PEFT adapters.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the GGUF files.")],
) -> None:
    """Write base.gguf and one file an adapter."""
    output.mkdir(parents=True)
    write_base(base, output / "base.gguf")
    for adapter in adapters:
        write_adapter(adapter, base, output / f"{adapter.name}.gguf")


def write_base(folder: Path, path: Path) -> None:
    """The base in Q4_0, norms and biases in fp32."""
    config = _config(folder)
    writer = gguf.GGUFWriter(path, _architecture(config))
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    if "head_dim" in config:
        writer.add_key_length(config["head_dim"])
        writer.add_value_length(config["head_dim"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_0)
    add_tokenizer(writer, folder, config["vocab_size"], config["eos_token_id"])
    for file in sorted(folder.glob("*.safetensors")):
        for name, tensor in tensors(file):
            new_name = _renamed(name, config)
            if tensor.ndim == 1:
                writer.add_tensor(new_name, tensor)
            else:
                kind = gguf.GGMLQuantizationType.Q4_0
                writer.add_tensor(new_name, gguf.quantize(tensor, kind), raw_dtype=kind)
    _close(writer)


def write_adapter(folder: Path, base: Path, path: Path) -> None:
    """A LoRA adapter of the base in a folder; llama.cpp takes its scale to be alpha / rank."""
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    rank, alpha = config["r"], config["lora_alpha"]
    writer = gguf.GGUFWriter(path, _architecture(_config(base)))
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha * math.sqrt(rank) if config["use_rslora"] else alpha)
    if invocation := config.get("alora_invocation_tokens"):
        key = gguf.Keys.Adapter.ALORA_INVOCATION_TOKENS
        writer.add_key_value(key, invocation, gguf.GGUFValueType.ARRAY, gguf.GGUFValueType.UINT32)
    for name, tensor in tensors(folder / "adapter_model.safetensors"):
        module, _, half = name.removeprefix("base_model.model.").removesuffix(".weight").rpartition(".")
        writer.add_tensor(f"{_renamed(f'{module}.weight', _config(base))}.{half.lower()}", tensor.astype(np.float16))
    _close(writer)


def add_tokenizer(writer: gguf.GGUFWriter, folder: Path, vocabulary: int, end_of_turn: int) -> None:
    """The BPE of tokenizer.json, filled up to the width of the logits."""
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    special = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    known = {number: text for text, number in (tokenizer["model"]["vocab"] | special).items()}
    kinds = [
        gguf.TokenType.UNUSED
        if number not in known
        else gguf.TokenType.CONTROL
        if known[number] in special
        else gguf.TokenType.NORMAL
        for number in range(vocabulary)
    ]
    merges = tokenizer["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([known.get(number, f"[PAD{number}]") for number in range(vocabulary)])
    writer.add_token_types(kinds)
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    writer.add_eos_token_id(end_of_turn)


def tensors(path: Path) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Every tensor of a safetensors file by name, in fp32."""
    with safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 - no mapping
            yield name, file.get_tensor(name).float().numpy()


def _config(base: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((base / "config.json").read_text(encoding="utf-8"))
    return config


def _architecture(config: dict[str, Any]) -> str:
    """llama.cpp's name for Qwen2; heads unlike the hidden state in width need Seed-OSS, which is alike but for that."""
    width = config["num_attention_heads"] * config.get("head_dim", 0)
    return "qwen2" if width in {0, config["hidden_size"]} else "seed_oss"


def _renamed(name: str, config: dict[str, Any]) -> str:
    """A tensor's name in llama.cpp."""
    module, _, suffix = name.rpartition(".")
    if module in _NAMES:
        return f"{_NAMES[module]}.{suffix}"
    _, _, layer, part = module.split(".", 3)
    new = _POST_NORM if part == "post_attention_layernorm" and _architecture(config) == "seed_oss" else _LAYER[part]
    return f"blk.{layer}.{new}.{suffix}"


def _close(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    typer.run(main)
