"""The graphs of a static model, opened: one session for each chunk length, and the tables that the host looks up in.

docs/bundle-format.md describes the folder. By a provider for NPUs the compiled contexts are loaded in place of the
graphs; everything but the last DequantizeLinear, which makes logits of integers, runs in them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from dualtune_edge.profiles.schema import CPU_PROVIDER, SessionSettings
from dualtune_edge.runtime.bundle.model_source import ModelSource
from dualtune_edge.runtime.engines.ort_graph import failed
from dualtune_edge.runtime.result import Placement
from dualtune_edge.toolkit.bundle.graph_form import StaticGraph
from dualtune_edge.toolkit.bundle.kv_states import CacheShape
from dualtune_edge.toolkit.errors import EngineError

Array: TypeAlias = NDArray[Any]
TABLES: Final = ("hidden", "cos", "sin")
_FAR: Final = -1e9  # below any score: its share is 0


@dataclass(frozen=True)
class Static:
    """An open model: sessions by chunk length, tables by the graph's input, and who runs it."""

    sessions: Mapping[int, onnxruntime.InferenceSession]
    tables: Mapping[str, Array]
    placement: Placement


Opened: TypeAlias = tuple[Mapping[int, onnxruntime.InferenceSession], Placement]  # by chunk length
OpenStatic: TypeAlias = Callable[[Path, StaticGraph], Opened]  # given the folder of the graphs


def open_static(folder: Path, source: ModelSource, form: StaticGraph, open_sessions: OpenStatic) -> Static:
    """Open a folder's graphs and tables.

    Raises:
        EngineError: they are not as expected.

    """
    try:
        sessions, placement = open_sessions(folder, form)
        tables = {name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in TABLES}
    except EngineError:
        raise
    except Exception as error:  # onnxruntime's errors share no base class
        raise failed(str(folder), error) from error
    for tokens, session in sessions.items():
        _check(session, tables, source, tokens, where=f"{folder}, chunk of {tokens}")
    return Static(sessions, tables, placement)


def by_cpu(settings: SessionSettings) -> OpenStatic:
    """Opens the graphs themselves by the CPU provider: slow, and exact as to what the compiled ones should compute."""

    def open_sessions(folder: Path, form: StaticGraph) -> tuple[Mapping[int, onnxruntime.InferenceSession], Placement]:
        options = static_options(settings)
        pairs = zip(form.chunks, form.files, strict=True)
        sessions = {
            tokens: onnxruntime.InferenceSession(folder / file, options, providers=[CPU_PROVIDER])
            for tokens, file in pairs
        }
        return sessions, Placement(instead=settings.instead)

    return open_sessions


def static_options(settings: SessionSettings) -> onnxruntime.SessionOptions:
    """For sessions of static graphs."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = settings.intra_op_threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if settings.spinning else "0")
    # onnxruntime fuses the pairs to int4 products, by default with int8 activations.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    options.log_severity_level = 3
    return options


def mask_of(held: int, tokens: int, kv_length: int, kind: np.dtype[Any]) -> Array:
    """What each token of a chunk sees, shape (1, 1, tokens, kv_length): the `held` tokens, its own and those between.

    The chunk's tokens stand in the last places, whatever is held.
    """
    sees = np.zeros((tokens, kv_length), dtype=bool)
    sees[:, :held] = True
    sees[:, kv_length - tokens :] = np.tri(tokens, dtype=bool)
    hidden = np.iinfo(np.int16).min if kind == np.int16 else _FAR
    return np.where(sees, 0, hidden).astype(kind)[np.newaxis, np.newaxis]


def on_cpu(session: onnxruntime.InferenceSession) -> dict[str, int]:
    """Operators that the CPU provider runs, each with its number of nodes; the session must record assignments."""
    parts = session.get_provider_graph_assignment_info()
    return dict(Counter(node.op_type for part in parts if part.ep_name == CPU_PROVIDER for node in part.get_nodes()))


_TYPES: Final = {"float32": "tensor(float)", "int16": "tensor(int16)"}


def _check(
    session: onnxruntime.InferenceSession,
    tables: Mapping[str, Array],
    source: ModelSource,
    tokens: int,
    *,
    where: str,
) -> None:
    assert isinstance(source.graph, StaticGraph)  # noqa: S101 - the engine has checked it
    cache, kind, kv_length = source.cache, _TYPES.get(source.cache.dtype), source.graph.kv_length
    expected = _shapes(cache, tokens, kv_length, source.vocab_size)
    found = {value.name: (value.type, value.shape) for value in (*session.get_inputs(), *session.get_outputs())}
    expected["hidden"] = (1, tokens, tables["hidden"].shape[1])
    expected["cos"] = expected["sin"] = (1, tokens, 1, tables["cos"].shape[1])
    if odd := sorted(found.keys() ^ expected.keys()):
        raise _misfit(where, f"unknown or missing: {', '.join(odd[:3])}", "a decoder's inputs and outputs")
    for name, shape in expected.items():
        wanted = {"logits": "tensor(float)", "logits_at": "tensor(int64)"}.get(name, kind)
        if found[name] != (wanted, list(shape)):
            raise _misfit(where, f"{name} {found[name][0]} {found[name][1]}", f"{wanted} {list(shape)}")
    rows = {"hidden": source.vocab_size, "cos": kv_length, "sin": kv_length}
    for name, count in rows.items():
        if tables[name].shape[0] != count or tables[name].dtype != cache.dtype:
            raise _misfit(
                where, f"{name}.npy {tables[name].dtype} {tables[name].shape}", f"{cache.dtype}, {count} rows"
            )


def _shapes(cache: CacheShape, tokens: int, kv_length: int, vocabulary: int) -> dict[str, Sequence[int]]:
    shapes: dict[str, Sequence[int]] = {"mask": (1, 1, tokens, kv_length), "logits": (1, 1, vocabulary)}
    for layer in range(cache.layers):
        for half in ("key", "value"):
            shapes[f"past.{layer}.{half}"] = (1, kv_length - tokens, cache.heads, cache.head_dim)
            shapes[f"present.{layer}.{half}"] = (1, tokens, cache.heads, cache.head_dim)
    return shapes | ({"logits_at": (1,)} if tokens > 1 else {})


def _misfit(where: str, found: str, expected: str) -> EngineError:
    return EngineError(where, found=found, expected=expected, fix="Export the bundle again.")
