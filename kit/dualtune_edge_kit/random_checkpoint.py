"""Checkpoints and adapters of real shapes with seeded random weights, to measure speed, memory and exactness.

    python -m dualtune_edge_kit.random_checkpoint OUT --shape qwen2.5-0.5b --rank 32

writes `OUT/base`, a Hugging Face folder in bfloat16, and `OUT/adapter`, an rsLoRA adapter on all seven modules in
PEFT's format. The tokenizer is byte-level BPE without merges, with ChatML's three tokens, and no
chat template: an export takes the built-in ones.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final

import torch
import typer
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

MODULES: Final = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
CHATML: Final = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_END_OF_TURN: Final = 258  # the id of <|im_end|>: after 256 bytes, the third


@dataclass(frozen=True)
class Shape:
    """The sizes of a decoder; a head has `hidden / heads` values."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int
    context: int
    tied: bool = True
    model_type: str = "qwen2"
    settings: Mapping[str, Any] = field(default_factory=dict)  # further fields of config.json

    def config(self) -> PretrainedConfig:
        """The config of transformers."""
        settings = {
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.hidden // self.heads,
            "vocab_size": self.vocabulary,
            "max_position_embeddings": self.context,
            "tie_word_embeddings": self.tied,
            "sliding_window": None,  # Mistral has one by default
            "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0},
            "bos_token_id": _END_OF_TURN - 2,
            "eos_token_id": _END_OF_TURN,
        }
        return AutoConfig.for_model(self.model_type, **settings | dict(self.settings))


SHAPES: Final = {
    "tiny": Shape(64, 128, 2, 4, 2, 288, 512),
    # From the published config.json files.
    "qwen2.5-0.5b": Shape(896, 4864, 24, 14, 2, 151_936, 32_768),
    "qwen2.5-1.5b": Shape(1536, 8960, 28, 12, 2, 151_936, 32_768),
    "qwen2.5-7b": Shape(3584, 18_944, 28, 28, 4, 152_064, 32_768, tied=False),
}


def write_checkpoint(
    folder: Path, shape: Shape, *, seed: int = 0, dtype: torch.dtype = torch.bfloat16, shard: int = 2_000_000_000
) -> None:
    """Write a base model. All weights are random, biases and norms too, so a missing part changes the output.

    At most one file of `shard` bytes is in memory: a machine that exports this shape can make it too.
    """
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(shape.config(), dtype=dtype)
    folder.mkdir(parents=True, exist_ok=True)
    _write_config(folder, model)
    _write_weights(folder, dict(model.named_parameters()), shard, torch.Generator().manual_seed(seed))
    _tokenizer().save(str(folder / "tokenizer.json"))
    _write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": None,
            "eos_token": CHATML[2],
            "pad_token": CHATML[0],
        },
    )


def _write_config(folder: Path, model: PreTrainedModel) -> None:
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)
    if model.generation_config:
        model.generation_config.save_pretrained(folder)


def _write_weights(
    folder: Path, parameters: Mapping[str, torch.Tensor], shard: int, generator: torch.Generator
) -> None:
    """Draw weights of these shapes one after the other, and write a file once its weights are drawn."""
    shards = list(_shards(parameters, shard))
    files = [f"model-{index:05d}-of-{len(shards):05d}.safetensors" for index in range(1, len(shards) + 1)]
    if len(shards) == 1:
        files = ["model.safetensors"]
    for file, names in zip(files, shards, strict=True):
        drawn = {name: _draw(name, parameters[name], generator) for name in names}
        save_file(drawn, folder / file, metadata={"format": "pt"})
        del drawn  # before the next is made
    if len(shards) > 1:
        weight_map = {name: file for file, names in zip(files, shards, strict=True) for name in names}
        metadata = {"total_size": sum(parameter.nbytes for parameter in parameters.values())}
        _write_json(folder / "model.safetensors.index.json", {"metadata": metadata, "weight_map": weight_map})


def _shards(parameters: Mapping[str, torch.Tensor], most: int) -> Iterator[list[str]]:
    """The names in order, in groups of at most `most` bytes; a larger weight is a group of its own."""
    names: list[str] = []
    size = 0
    for name, parameter in parameters.items():
        if names and size + parameter.nbytes > most:
            yield names
            names, size = [], 0
        names.append(name)
        size += parameter.nbytes
    yield names


def _draw(name: str, like: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    weight = torch.empty(like.shape, dtype=like.dtype)
    if weight.dim() == 1:  # biases around 0, norms around 1
        return weight.normal_(float("norm" in name), 0.1, generator=generator)
    return weight.normal_(0.0, weight.shape[1] ** -0.5, generator=generator)


def write_adapter(folder: Path, base: Path, config: LoraConfig, *, seed: int = 0) -> None:
    """Write an adapter for `base`. All tensors are random, where PEFT initializes B with zeros."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(base))
        tensors = get_peft_model_state_dict(get_peft_model(model, config), save_embedding_layers=False)
    generator = torch.Generator().manual_seed(seed)
    drawn = {
        name: torch.empty(tensor.shape).normal_(0.0, tensor.shape[-1] ** -0.5, generator=generator)
        for name, tensor in tensors.items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file(drawn, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config.base_model_name_or_path = base.name  # a name, where PEFT would write this machine's path
    config.save_pretrained(folder)


def main(
    out: Annotated[Path, typer.Argument(help="Folder that gets base/ and adapter/.")],
    shape: Annotated[str, typer.Option(help=f"One of {', '.join(SHAPES)}.")] = "qwen2.5-0.5b",
    rank: Annotated[int, typer.Option(help="The adapter's rank; its alpha is twice that.")] = 32,
    seed: Annotated[int, typer.Option(help="Of all weights.")] = 0,
) -> None:
    """Write a random checkpoint of a published shape, and an rsLoRA adapter for it."""
    write_checkpoint(out / "base", SHAPES[shape], seed=seed)
    config = LoraConfig(
        r=rank, lora_alpha=2 * rank, use_rslora=True, target_modules=list(MODULES), task_type="CAUSAL_LM"
    )
    write_adapter(out / "adapter", out / "base", config, seed=seed + 1)


def _tokenizer() -> Tokenizer:
    """Byte-level BPE without merges: a token is a byte."""
    letters = sorted(ByteLevel.alphabet())
    tokenizer = Tokenizer(BPE({letter: index for index, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = ByteLevelDecoder()
    tokenizer.add_special_tokens(list(CHATML))
    return tokenizer


def _write_json(path: Path, value: Mapping[str, object]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8", newline="\n")


if __name__ == "__main__":
    typer.run(main)
