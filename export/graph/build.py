"""The base graph, by onnxruntime-genai's model builder: quantized or not, QKV packed, logits where asked for."""

from __future__ import annotations

import logging
import shutil
import tempfile
from pathlib import Path
from typing import Final

from transformers import AutoConfig

from dualtune_edge.export.checkpoint import Checkpoint
from dualtune_edge.export.graph import builder_config
from dualtune_edge.export.graph.checks import check_build
from dualtune_edge.export.graph.genai_config import write_genai_config
from dualtune_edge.export.graph.logits import add_logits_rows
from dualtune_edge.export.quiet import captured
from dualtune_edge.toolkit.errors import GraphError
from dualtune_edge.toolkit.manifest import Quantization

_PRECISIONS: Final = {4: "int4", 8: "int8", 32: "fp32"}
_QUANTIZER: Final = "onnxruntime.quantization"  # logs a line a node


def build_graph(checkpoint: Checkpoint, out: Path, quantization: Quantization, *, weights: Path | None = None) -> None:
    """Write model.onnx, model.onnx.data, genai_config.json and the tokenizer's files.

    Args:
        checkpoint: the base model.
        out: an empty or new folder.
        quantization: how weights are stored; 32 bits: as they are, in fp32.
        weights: a folder with other weights for the same config, such as `merge` writes.

    While it runs, `sys.stdout` and `sys.stderr` lead to a log: the builder prints.

    Raises:
        GraphError: the builder failed, or what it built is not what was asked for.

    """
    out.mkdir(parents=True, exist_ok=True)
    source = weights or checkpoint.folder
    with tempfile.TemporaryDirectory() as cache:
        _run_builder(source, out, Path(cache), quantization)
    shutil.copyfile(checkpoint.folder / "tokenizer.json", out / "tokenizer.json")  # transformers writes another form
    write_genai_config(checkpoint, out)
    # A merged adapter of the head or the embedding has untied them.
    config = AutoConfig.from_pretrained(source, local_files_only=True)
    builder_config.mend(out, config)
    check_build(out, quantization, tied=config.tie_word_embeddings)
    add_logits_rows(out)


def options(quantization: Quantization) -> list[str]:
    """The builder's `key=value` options. It ignores a name that it does not know, hence the checks."""
    always = ["hf_token=false", "hf_remote=false", "prune_lm_head=true", "fuse_qkv=true", *builder_config.OPTIONS]
    if quantization.bits == 32:
        return always
    return [
        *always,
        f"accuracy_level={quantization.accuracy_level}",
        f"block_size={quantization.block_size}",
        f"algo_config={quantization.algorithm}",
    ]


def _run_builder(source: Path, out: Path, cache: Path, quantization: Quantization) -> None:
    precision = _PRECISIONS[quantization.bits]
    place = (source.name, str(source), str(out), precision, "cpu", str(cache))
    logger = logging.getLogger(_QUANTIZER)
    level = logger.level
    with captured() as log:
        try:
            from onnxruntime_genai.models import builder  # noqa: PLC0415 - it prints as it is imported

            logger.setLevel(logging.WARNING)
            extra = builder.parse_extra_options(*place, options(quantization))
            builder_config.adapt(extra["hf_details"]["hf_config"])
            builder.create_model(*place, **extra)
        except Exception as error:
            said = log.getvalue().strip().splitlines()
            raise GraphError(
                f"onnxruntime-genai's builder on {source}",
                found=f"{type(error).__name__}: {error}" + (f" (after {said[-1]!r})" if said else ""),
                expected="a graph",
                fix="Check that the checkpoint loads in transformers, and the free memory: 5 times the checkpoint.",
            ) from error
        finally:
            logger.setLevel(level)
