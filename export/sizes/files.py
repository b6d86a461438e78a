"""The sizes of a bundle's files, from safetensors headers and configs alone; no weight is read.

They are upper bounds: what a format adds around the numbers is rounded up.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from dualtune_edge.export.adapter.tensors import read_tensors
from dualtune_edge.export.base import modules
from dualtune_edge.export.base.architectures import rope_parameters
from dualtune_edge.export.base.checkpoint import Checkpoint
from dualtune_edge.export.base.tokenizer import small_files
from dualtune_edge.toolkit.bundle.quantization import Quantization

_FLOAT: Final = 4  # bytes of a float32
_NODES: Final = 24_000  # bytes of model.onnx for a layer's nodes, slots included; measured: 8,000 to 16,000
_TENSOR: Final = 128  # bytes around a tensor of an .onnx_adapter
_SMALL: Final = 100_000  # bytes: configs, a graph without layers
_LAYERS: Final = "model.layers."


@dataclass(frozen=True)
class BaseShape:
    """The sizes of a base's weights. `linear`: (outputs, inputs) of each matrix of the layers."""

    layers: int
    linear: tuple[tuple[int, int], ...]
    table: tuple[int, int]  # (vocabulary, hidden)
    tied: bool
    vectors: int  # numbers in norms and biases
    rope: int  # bytes of the rotary embedding's tables
    stored: int  # bytes of the checkpoint's weights
    texts: int  # bytes of tokenizer and configs

    @property
    def weights(self) -> int:
        """Numbers in all matrices; a tied table counts once."""
        return sum(n * k for n, k in self.linear) + math.prod(self.table) * (1 if self.tied else 2)

    def first(self, layers: int) -> BaseShape:
        """The base cut off behind its first layers."""
        return replace(self, layers=layers, linear=self.linear[: len(self.linear) * layers // self.layers])

    @property
    def layer(self) -> int:
        """Numbers in the matrices of one layer."""
        return sum(n * k for n, k in self.linear) // self.layers


def base_shape(checkpoint: Checkpoint) -> BaseShape:
    """The sizes of a checkpoint."""
    stored, config = checkpoint.stored, checkpoint.config
    ropes = rope_parameters(config)
    tables = 2 if ropes[0].get("rope_type") == "longrope" else len(ropes)
    named = {name: weight.shape for name, weight in stored.items()}
    matrices = [name for name, shape in named.items() if name.startswith(_LAYERS) and len(shape) == 2]
    return BaseShape(
        layers=checkpoint.cache.layers,
        linear=tuple((named[name][0], named[name][1]) for name in sorted(matrices, key=_layer)),
        table=(named[f"{modules.EMBEDDING}.weight"][0], named[f"{modules.EMBEDDING}.weight"][1]),
        tied=checkpoint.tied,
        vectors=sum(math.prod(shape) for shape in named.values() if len(shape) == 1),
        rope=tables * config.max_position_embeddings * checkpoint.cache.head_dim * _FLOAT,  # half cosines, half sines
        stored=sum(weight.size for weight in stored.values()),
        texts=sum(path.stat().st_size for path in small_files(checkpoint.folder)),
    )


def _layer(name: str) -> int:
    return int(name.removeprefix(_LAYERS).split(".")[0])


def graph_bytes(base: BaseShape, quantization: Quantization, *, tied: bool | None = None) -> int:
    """Bytes of a graph's folder; `tied`: whether embedding and head are one table, by default as in the checkpoint."""
    shared = (base.tied if tied is None else tied) and quantization.bits != 8
    count, width = base.table
    linear = sum(_matrix(n, k, quantization, quantization.sensitive_bits) for n, k in base.linear)
    numbers = linear + _matrix(count, width, quantization, quantization.lm_head_bits)
    table = 0 if shared else count * width * _FLOAT
    around = base.layers * _NODES + _SMALL + 2 * base.texts
    return numbers + table + base.vectors * _FLOAT + base.rope + around


def _matrix(outputs: int, inputs: int, quantization: Quantization, other: int | None) -> int:
    """Bytes of a matrix; `other`: the bits that some matrices have, which counts for all of them."""
    if quantization.bits == 32:
        return outputs * inputs * _FLOAT
    size, bits = quantization.block_size, other or quantization.bits
    blocks = math.ceil(inputs / size)
    zero_points = math.ceil(blocks * bits / 8) if quantization.algorithm == "k_quant" else 0
    return outputs * (blocks * (size * bits // 8 + _FLOAT) + zero_points)


def adapter_bytes(folder: Path, checkpoint: Checkpoint, base: BaseShape) -> int:
    """Bytes of the file of an external adapter."""
    return sum(_slots(folder, checkpoint, base))


def _slots(folder: Path, checkpoint: Checkpoint, base: BaseShape) -> Iterator[int]:
    """Bytes of each slot's pair: the A of its parts side by side, and a block of B for each part."""
    weights = {name: tensor.shape for name, tensor in checkpoint.stored.items()}
    ranks = _ranks(folder, checkpoint)
    biased = any(name.endswith("lora_B.bias") for name in read_tensors(folder, checkpoint).stored)
    for layer in range(base.layers):
        for name, parts in modules.in_layer(packed=checkpoint.architecture.packed).items():
            paths = [modules.path(layer, part) for part in parts]
            outputs = sum(weights[f"{path}.weight"][0] for path in paths)
            split = 2 if parts == ("mlp.gate_up_proj",) and name != "qkv_proj" else 1
            rank = sum(ranks.get(path, 0) for path in paths)
            yield _FLOAT * rank * (weights[f"{paths[0]}.weight"][1] + outputs // split)
            yield 2 * _TENSOR + (2 * _TENSOR + _FLOAT * outputs if biased else 0)
    for path in (modules.HEAD, modules.EMBEDDING):
        yield 2 * _TENSOR + _FLOAT * ranks.get(path, 0) * sum(base.table)


def _ranks(folder: Path, checkpoint: Checkpoint) -> dict[str, int]:
    """Module → rank, by the tensors of PEFT's file."""
    ranks = {}
    for name, tensor in read_tensors(folder, checkpoint).stored.items():
        module, _, rest = name.removeprefix("base_model.model.").partition(".lora_")
        if rest.startswith(("A", "embedding_A")):
            ranks[module] = tensor.shape[0]
    return ranks


def adapter_stored(folder: Path, checkpoint: Checkpoint) -> int:
    """Bytes of an adapter's tensors, as PEFT wrote them."""
    return sum(tensor.size for tensor in read_tensors(folder, checkpoint).stored.values())
