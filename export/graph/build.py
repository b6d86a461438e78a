"""The base graph, by onnxruntime-genai's model builder: quantized or not, QKV packed, logits where asked for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from transformers import AutoConfig

from dualtune_edge.export.base.checkpoint import Checkpoint
from dualtune_edge.export.base.weights import StoredWeights, Weights
from dualtune_edge.export.graph import builder_config
from dualtune_edge.export.graph.builder import run_builder
from dualtune_edge.export.graph.checks import check_build
from dualtune_edge.export.graph.genai_config import write_genai_config
from dualtune_edge.export.graph.logits import add_logits_rows
from dualtune_edge.export.optimum.description import Decoder
from dualtune_edge.toolkit.bundle.manifest import Quantization


def build_graph(
    checkpoint: Checkpoint,
    out: Path,
    quantization: Quantization,
    *,
    weights: Weights | None = None,
    base: Path | None = None,
    decoder: Decoder | None = None,
) -> None:
    """Write model.onnx, model.onnx.data, genai_config.json and the tokenizer's files.

    Args:
        checkpoint: the base model.
        out: an empty or new folder.
        quantization: how weights are stored; 32 bits: as they are, in fp32.
        weights: others than the checkpoint's, such as `merge` makes.
        base: a folder with the graph of the checkpoint's own weights, quantized alike; it may have slots by now. What
            is unchanged in `weights` is copied from there; the checkpoint may be its first layers.
        decoder: what was read of Optimum's graph, to be lowered; without it the graph is the builder's.

    While it runs, `sys.stdout` and `sys.stderr` lead to a log: the builder prints.

    Raises:
        GraphError: the builder failed, or what it built is not what was asked for.

    """
    out.mkdir(parents=True, exist_ok=True)
    source = weights or StoredWeights(checkpoint.folder)
    run_builder(checkpoint, source, out, quantization, base, decoder=decoder)
    shutil.copyfile(checkpoint.folder / "tokenizer.json", out / "tokenizer.json")  # transformers writes another form
    _forget_how_it_was_read(out / "tokenizer_config.json")
    write_genai_config(checkpoint, out)
    config = AutoConfig.from_pretrained(checkpoint.folder, local_files_only=True)
    builder_config.correct(out, checkpoint.architecture, config)
    check_build(out, quantization, tied=source.tied, like=base)
    add_logits_rows(out)


def _forget_how_it_was_read(path: Path) -> None:
    """Transformers notes in a tokenizer's config whether it might have used the network: the same base, other bytes."""
    value = json.loads(path.read_text(encoding="utf-8"))
    kept = {key: each for key, each in value.items() if key not in {"is_local", "local_files_only"}}
    path.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")
