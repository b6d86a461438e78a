"""`dualtune-edge trace`: a base's ONNX graph by Optimum's exporter, in the environment of the extra `export-optimum`.

Optimum's exporter works with transformers 4, the rest of the build side with transformers 5. So nothing of the build
side is imported here; `export --graph` reads the graph there.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Final

import typer

from dualtune_edge.export.work.quiet import captured
from dualtune_edge.toolkit import console
from dualtune_edge.toolkit.errors import CheckpointError, MissingExtraError
from dualtune_edge.toolkit.files import published_folder
from dualtune_edge.toolkit.frozen import Frozen

TASK: Final = "text-generation-with-past"
_LONG: Final = ("short_factor", "long_factor")  # beside its type, all that transformers 4 reads of long RoPE


class TraceReport(Frozen):
    """A graph's folder, and its size in bytes."""

    path: str
    size: int


def trace(
    base: Annotated[Path, typer.Argument(metavar="BASE", help="The base model's folder, in Hugging Face format.")],
    *,
    output: Annotated[Path, typer.Option("-o", "--output", help="The graph's folder; nothing may be there yet.")],
    as_json: console.AsJson = False,
) -> None:
    """Export a base's graph by Optimum, for `export --graph`.

    It needs the extra `export-optimum` in a separate environment: that exporter works with transformers 4. The
    whole base is in memory in float32.

    Example:
        dualtune-edge trace qwen2.5-0.5b -o qwen2.5-0.5b-onnx
        dualtune-edge export --base qwen2.5-0.5b --graph qwen2.5-0.5b-onnx --tools filesystem.json -o bundle

    """
    export = _exporter()
    config = _config(base)
    typer.echo(f"Optimum exports {base}: without a progress bar", err=True)
    with published_folder(output) as workspace, TemporaryDirectory() as scratch:
        copy = Path(scratch)
        for path in base.iterdir():
            if path.is_file() and path.name != "config.json":
                _link(path, copy / path.name)
        (copy / "config.json").write_text(json.dumps(legacy(config), indent=2), encoding="utf-8")
        with captured():
            try:
                export(
                    str(copy),
                    output=str(workspace),
                    task=TASK,
                    dtype="fp32",
                    local_files_only=True,
                    do_validation=False,
                )
            except (ValueError, KeyError, OSError, RuntimeError) as error:
                raise CheckpointError(
                    str(base),
                    found=f"{type(error).__name__}: {error}".splitlines()[0],
                    expected="a base that Optimum exports",
                    fix="Leave the graph out: `export` then builds it with onnxruntime-genai's builder.",
                ) from None
    size = sum(path.stat().st_size for path in output.iterdir())
    console.result(TraceReport(path=str(output), size=size), f"{output}: {size / 1e6:.1f} MB", as_json=as_json)


def legacy(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config.json as transformers 4 reads it: the rotary embedding's parameters stand outside `rope_parameters`.

    Without this it would take its default angles, and say nothing.
    """
    value = dict(config)
    parameters = value.pop("rope_parameters", None) or {}
    if "full_attention" in parameters:  # Gemma 3: a set for each type of layer
        value["rope_local_base_freq"] = parameters["sliding_attention"]["rope_theta"]
        parameters = parameters["full_attention"]
    rope = dict(parameters)
    for key in ("rope_theta", "partial_rotary_factor"):
        if key in rope:
            value[key] = rope.pop(key)
    if rope.get("rope_type") == "longrope":
        value["rope_scaling"] = {"type": "longrope"} | {key: rope[key] for key in _LONG}
    elif rope.get("rope_type", "default") != "default":
        value["rope_scaling"] = rope
    return value


def _link(path: Path, target: Path) -> None:
    try:
        target.symlink_to(path.resolve())
    except OSError:  # Windows allows it to few
        shutil.copyfile(path, target)


def _config(base: Path) -> dict[str, Any]:
    path = base / "config.json"
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            str(path), found=str(error), expected="the base's config.json", fix="Check the path."
        ) from None
    if not isinstance(value, dict):
        raise CheckpointError(
            str(path), found="no mapping", expected="the base's config", fix="Download the base again."
        )
    return value


def _exporter() -> Any:
    os.environ["HF_HUB_OFFLINE"] = "1"  # all input is local; read as huggingface_hub is imported
    try:
        from optimum.exporters.onnx import main_export  # noqa: PLC0415 - only this command needs it
        from optimum.utils import logging  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtraError(
            "dualtune-edge trace",
            found=str(error),
            expected="Optimum's exporter, in a separate environment",
            fix="Make another environment and run there: pip install 'dualtune-edge[export-optimum]'",
        ) from None
    logging.set_verbosity_error()
    return main_export
