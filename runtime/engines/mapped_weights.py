"""A graph whose weights lie on the disk as the kernels read them, mapped: they take no memory of the process's own.

onnxruntime packs int4 weights whenever it opens a graph, into memory that no other process shares: 1.4 times the
file. It can also write what it packed, beside the optimized graph, and map that afterwards. The layout depends on the
CPU, so this is made on the machine that runs it, once, and kept in the cache folder under the name of all that it
depends on. Before an entry is kept, its logits are compared with those of the plain graph, bit by bit.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime

from dualtune_edge.profiles.detect import detect
from dualtune_edge.profiles.schema import CPU_PROVIDER
from dualtune_edge.runtime.bundle.model_source import ModelSource
from dualtune_edge.runtime.cache.compiled import cached_folder
from dualtune_edge.runtime.cache.folder import drop, no_room
from dualtune_edge.toolkit.errors import EdgeError, OutputError
from dualtune_edge.toolkit.files import sha256_file

GRAPH: Final = "model.onnx"
_DATA: Final = "model.onnx.data"
_FORMAT: Final = "mapped weights 1"
_GROWTH: Final = 3  # times the graph's weights: these, packed ones (1.2 to 1.4 for int4), what folding adds
_SMALLEST: Final = 1024  # bytes of a weight that lies in the file: what is smaller is packed at every open
_TRIED: Final = (1, 9)  # tokens of the forwards that are compared: one row and several take different kernels


class NotMapped(Exception):  # noqa: N818 - no error of a user's: the weights are packed in memory instead
    """Why a graph has no mapped weights here; the reason is its text."""


def mapped_graph(folder: Path, source: ModelSource) -> Path:
    """The folder in the cache that holds the graph of `folder` with packed weights; made if it is not there.

    Args:
        folder: of a verified bundle.
        source: the model that it is a graph of.

    Raises:
        NotMapped: it cannot be made, or does not answer as the plain graph does.

    """
    try:
        return cached_folder(_depends_on(folder, source), lambda workspace: _write(folder, workspace, source))
    except OutputError as error:
        raise NotMapped(f"{error.where}: {error.found}") from None
    except (NotMapped, EdgeError):
        raise
    except Exception as error:  # noqa: BLE001 - onnxruntime's errors share no base class
        raise NotMapped(_first_line(error)) from None


def open_mapped(folder: Path, source: ModelSource, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    """A session on the graph of `folder`, its weights mapped. `options` are changed: it is optimized already.

    Raises:
        NotMapped: that is not possible here.

    """
    entry = mapped_graph(folder, source)
    try:
        return _open(entry / GRAPH, _as_written(options))
    except Exception as error:  # noqa: BLE001 - onnxruntime's errors share no base class
        drop(entry)
        raise NotMapped(_first_line(error)) from None


def _as_written(options: onnxruntime.SessionOptions) -> onnxruntime.SessionOptions:
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return options


def _write(folder: Path, workspace: Path, source: ModelSource) -> None:
    if reason := no_room(_GROWTH * sum((folder / name).stat().st_size for name in (GRAPH, _DATA))):
        raise NotMapped(reason)
    saving = _options()
    saving.optimized_model_filepath = str(workspace / GRAPH)
    for name, value in {
        "session.save_external_prepacked_constant_initializers": "1",
        "session.optimized_model_external_initializers_file_name": _DATA,
        "session.optimized_model_external_initializers_min_size_in_bytes": str(_SMALLEST),
    }.items():
        saving.add_session_config_entry(name, value)
    plain = _open(folder / GRAPH, saving)
    mapped = _open(workspace / GRAPH, _as_written(_options()))
    for count in _TRIED:
        if _logits(plain, source, count) != _logits(mapped, source, count):
            raise NotMapped(f"onnxruntime {onnxruntime.__version__} gives other logits from them on this CPU")


def _logits(session: onnxruntime.InferenceSession, source: ModelSource, count: int) -> bytes:
    """Of the base after `count` tokens: every slot of an adapter has rank 0, and no token is held."""
    cache = source.cache
    none = np.empty((1, cache.heads, 0, cache.head_dim), dtype=np.dtype(cache.dtype))
    feeds = {
        graph_input.name: none
        for graph_input in session.get_inputs()
        if graph_input.name.startswith("past_key_values.")
    }
    ids = np.arange(count, dtype=np.int64)[np.newaxis] % source.vocab_size
    feeds |= {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    values: np.ndarray[tuple[int, ...], np.dtype[np.float32]] = session.run(["logits"], feeds)[0]
    return values.tobytes()


def _depends_on(folder: Path, source: ModelSource) -> str:
    """All that the packed bytes depend on. Another build of onnxruntime or another CPU packs differently."""
    machine = detect()
    hashes = [source.hashes.get(folder / name) or sha256_file(folder / name) for name in (GRAPH, _DATA)]
    names = (_FORMAT, *hashes, CPU_PROVIDER, onnxruntime.__version__, onnxruntime.get_build_info())
    return "\n".join((*names, machine.system, machine.architecture, machine.cpu.name, *machine.cpu.features))


def _options() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3  # errors: a warning for each overridable slot says nothing new
    return options


def _open(path: Path, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(path, options, providers=[CPU_PROVIDER])


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
