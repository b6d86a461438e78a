"""The base's graph by onnxruntime-genai's model builder: quantized or not, QKV packed, logits of any position."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Final

import onnx_ir as ir

from dualtune_edge.export.base.checkpoint import Checkpoint
from dualtune_edge.export.base.weights import Weights
from dualtune_edge.export.graph import builder_config
from dualtune_edge.export.graph.builder import run_builder
from dualtune_edge.export.graph.checks import check_build
from dualtune_edge.export.graph.genai_config import write_genai_config
from dualtune_edge.export.graph.logits import add_logits_rows
from dualtune_edge.export.graph.model_files import MODEL, replace_model
from dualtune_edge.export.graph.streaming import WeightSource
from dualtune_edge.export.optimum.description import Decoder
from dualtune_edge.toolkit.bundle.quantization import Quantization

_BUILDERS_NORM: Final = "SimplifiedLayerNormalization"  # onnxruntime's operator, in ONNX's domain
_NORM: Final = "RMSNormalization"  # runs the same kernel
_OPSET: Final = 23  # the first with RMSNormalization


def build_graph(
    checkpoint: Checkpoint,
    out: Path,
    quantization: Quantization,
    *,
    weights: Weights | None = None,
    base: Path | None = None,
    decoder: Decoder | None = None,
    moments: Path | None = None,
) -> None:
    """Write model.onnx, model.onnx.data, genai_config.json and the tokenizer's files.

    Args:
        checkpoint: the base model.
        out: an empty or new folder.
        quantization: how weights are stored; with 32 bits, in fp32.
        weights: instead of the checkpoint's, as those with an adapter merged in.
        base: a folder with the graph of the checkpoint's weights in the same quantization, with slots or without.
            Weights that `weights` does not change are copied from there. The checkpoint may be its first layers.
        decoder: what was read of Optimum's graph, to be lowered; without it the graph is the builder's.
        moments: the file of the inputs' second moments, by which GPTQ rounds what is not copied.

    The builder prints: while it runs, `sys.stdout` and `sys.stderr` lead to a log.

    Raises:
        GraphError: the builder failed, or the graph is not what it should be.

    """
    if (quantization.algorithm == "gptq") != (moments is not None):
        raise ValueError("moments of the inputs for GPTQ, and for nothing else")
    out.mkdir(parents=True, exist_ok=True)
    source = WeightSource(weights or checkpoint.weights, base, moments)
    run_builder(checkpoint, source, out, quantization, decoder=decoder)
    shutil.copyfile(
        checkpoint.tokenizer_folder / "tokenizer.json", out / "tokenizer.json"
    )  # transformers writes another form
    _forget_how_it_was_read(out / "tokenizer_config.json")
    write_genai_config(checkpoint, out)
    builder_config.correct(out, checkpoint.architecture, checkpoint.config)
    check_build(out, quantization, tied=source.weights.tied, like=base)
    add_logits_rows(out)
    _standardize(out)


def _standardize(folder: Path) -> None:
    """Rewrite model.onnx by the rules of ONNX, so that its checker accepts the graph; leaves model.onnx.data."""
    model = ir.load(folder / MODEL)
    for node in model.graph:
        if node.op_type == _BUILDERS_NORM and not node.domain:
            node.op_type = _NORM
        elif node.op_type == "Constant":  # of some the builder notes another shape
            node.outputs[0].shape = node.attributes["value"].as_tensor().shape
    model.graph.opset_imports[""] = max(_OPSET, model.graph.opset_imports[""])
    replace_model(model, folder)


def _forget_how_it_was_read(path: Path) -> None:
    """Remove what transformers notes in a tokenizer's config of how it was loaded: one base, one file."""
    config = json.loads(path.read_text(encoding="utf-8"))
    for key in ("is_local", "local_files_only"):
        config.pop(key, None)
    path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")
