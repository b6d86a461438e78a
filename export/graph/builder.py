"""onnxruntime-genai's model builder on deferred weights: it makes the graph, and never sees a number."""

from __future__ import annotations

import contextlib
import copy
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import torch
from transformers import PreTrainedModel

from dualtune_edge.export.base.checkpoint import Checkpoint
from dualtune_edge.export.base.models import meta_model
from dualtune_edge.export.base.weights import UntiedWeights, Weights
from dualtune_edge.export.graph import builder_config
from dualtune_edge.export.graph.deferred import deferred
from dualtune_edge.export.graph.head_rows import keep_rows
from dualtune_edge.export.graph.streaming import GraphWriter, WeightSource
from dualtune_edge.export.optimum.description import Decoder
from dualtune_edge.export.optimum.lower import lower
from dualtune_edge.export.work.quiet import captured
from dualtune_edge.toolkit.bundle.quantization import Quantization
from dualtune_edge.toolkit.errors import GraphError

_PRECISIONS: Final = {4: "int4", 8: "int8", 32: "fp32"}
_QUANTIZER: Final = "onnxruntime.quantization"  # a logger with a line a node


def run_builder(
    checkpoint: Checkpoint, source: WeightSource, out: Path, quantization: Quantization, *, decoder: Decoder | None
) -> None:
    """Write model.onnx, model.onnx.data, and the builder's genai_config.json and tokenizer files.

    Args:
        checkpoint: gives the config and the tokenizer.
        source: where the model's weights come from.
        out: an empty folder.
        quantization: how weights are stored.
        decoder: what was read of another exporter's graph; it replaces the builder's.

    The builder prints: while it runs, `sys.stdout` and `sys.stderr` lead to a log.

    Raises:
        GraphError: the builder failed.

    """
    logger = logging.getLogger(_QUANTIZER)
    level = logger.level
    with captured() as log, tempfile.TemporaryDirectory() as cache:
        folder = checkpoint.folder
        place = (folder.name, str(folder), str(out), _PRECISIONS[quantization.bits], "cpu", cache)
        try:
            from onnxruntime_genai.models import builder  # noqa: PLC0415 - it prints as it is imported

            logger.setLevel(logging.WARNING)
            extra = builder.parse_extra_options(*place, options(quantization, tied=source.weights.tied))
            # The text model's: it may be part of a model with images, whose config the builder has read.
            extra["hf_details"]["hf_config"] = config = copy.deepcopy(checkpoint.config)
            extra["hf_details"]["hf_name"] = config._name_or_path = str(checkpoint.tokenizer_folder)  # noqa: SLF001
            builder_config.adapt(config)
            with _streaming(builder.Model, checkpoint, source, decoder):
                builder.create_model(*place, **extra)
        except Exception as error:
            lines = log.getvalue().strip().splitlines()
            raise GraphError(
                f"onnxruntime-genai's builder on {folder}",
                found=f"{type(error).__name__}: {error}" + (f" (after {lines[-1]!r})" if lines else ""),
                expected="a graph",
                fix="Check that the checkpoint loads in transformers, and the free space on the disk.",
            ) from error
        finally:
            logger.setLevel(level)


def options(quantization: Quantization, *, tied: bool) -> list[str]:
    """The builder's `key=value` options. It ignores unknown names; `checks` looks at what came of them."""
    always = ["hf_token=false", "hf_remote=false", "prune_lm_head=true", "fuse_qkv=true", *builder_config.OPTIONS]
    always.append(f"shared_embeddings={str(tied).lower()}")
    if quantization.bits == 32:
        return always
    groups = {"last_matmul": quantization.lm_head_bits, "mixed_layers": quantization.sensitive_bits}
    mixed = ",".join(f"{group}:int{bits}" for group, bits in groups.items() if bits)
    return [
        *always,
        f"accuracy_level={quantization.accuracy_level}",
        f"block_size={quantization.block_size}",
        f"algo_config={builders_algorithm(quantization)}",
        *([f"matmul_mixed_precision={mixed}"] if mixed else []),
    ]


def builders_algorithm(quantization: Quantization) -> str:
    """The algorithm that the builder is asked for: what GPTQ rounds has the form of its `default`."""
    return "default" if quantization.algorithm == "gptq" else quantization.algorithm


def _model(checkpoint: Checkpoint, weights: Weights) -> PreTrainedModel:
    """The model of transformers with deferred parameters."""
    model = meta_model(checkpoint)
    for path, module in model.named_modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            value = deferred(f"{path}.{name}", parameter, weights)
            setattr(module, name, torch.nn.Parameter(value, requires_grad=False))
    return model


@contextlib.contextmanager
def _streaming(
    model_class: Any, checkpoint: Checkpoint, source: WeightSource, decoder: Decoder | None
) -> Iterator[None]:
    """Inside the block the builder takes a deferred model where it would load one, and saves by `GraphWriter`."""
    load, save = model_class.load_weights, model_class.save_model
    weights, names = source.weights, checkpoint.architecture.builders
    model = _model(checkpoint, weights)

    def write(builder: Any, out: str) -> None:
        if type(builder).__name__ not in names:
            raise TypeError(f"{type(builder).__name__} builds {checkpoint.architecture.name}, not {' or '.join(names)}")
        if decoder:
            lower(builder, model, decoder)
        if isinstance(weights, UntiedWeights):
            keep_rows(builder.model.graph, one_table=weights.weights.tied)
        GraphWriter(builder, source).write(Path(out))

    model_class.load_weights = lambda _builder, _path: model
    model_class.save_model = write
    try:
        yield
    finally:
        model_class.load_weights, model_class.save_model = load, save
