"""A decoder graph in plain onnxruntime: opened, checked against its source, and an adapter bound to its LoRA slots."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from dualtune_edge.profiles.schema import CPU_PROVIDER, SessionSettings
from dualtune_edge.runtime.bundle.model_source import ModelSource
from dualtune_edge.runtime.engines.adapter_file import map_adapter
from dualtune_edge.runtime.engines.huge_pages import huge_pages
from dualtune_edge.runtime.engines.mapped_weights import GRAPH, NotMapped, open_mapped
from dualtune_edge.runtime.engines.providers import Graph, open_session
from dualtune_edge.runtime.result import Placement
from dualtune_edge.toolkit.errors import EngineError, ProfileError

KV: Final = (("key", 0), ("value", 1))  # half of a layer's cache: its name in the graph, its index in the buffer
_SLOT: Final = re.compile(r"(?P<slot>.+)\.(?P<half>[AB])")
_Expected = dict[str, tuple[str, tuple[int | None, ...]]]  # name → type and shape; None: any size
Slots: TypeAlias = Mapping[str, tuple[str, tuple[int | str | None, ...]]]  # name of an input → its type and shape
Tensors: TypeAlias = Mapping[str, NDArray[np.generic]]
_ORT_TYPES: Final = {"float32": "tensor(float)", "float16": "tensor(float16)", "int8": "tensor(int8)"}


def open_graph(folder: Path, source: ModelSource, settings: SessionSettings) -> Graph:
    """Open the graph of a folder and check its inputs and outputs against the source.

    Raises:
        EngineError: it cannot be opened, or is not as expected.

    """
    path = folder / GRAPH
    try:
        graph = _open(folder, source, settings)
    except ProfileError:
        raise
    except Exception as error:  # onnxruntime's errors share no base class
        raise failed(str(path), error) from error
    _check_graph(graph.session, source, str(path))
    return graph


def _open(folder: Path, source: ModelSource, settings: SessionSettings) -> Graph:
    def options() -> onnxruntime.SessionOptions:
        return _session_options(settings)

    not_mapped = ""
    if settings.weights == "mapped" and settings.provider == CPU_PROVIDER:
        try:
            session = open_mapped(folder, source, options())
        except NotMapped as reason:
            not_mapped = str(reason)
        else:
            return Graph(session, Placement(instead=settings.instead, weights="mapped"))
    with huge_pages():
        graph = open_session(folder / GRAPH, options, settings, int8=source.int8_activations)
    return replace(graph, placement=graph.placement.model_copy(update={"not_mapped": not_mapped}))


def bind_no_adapter(session: onnxruntime.InferenceSession, io: onnxruntime.IOBinding) -> None:
    """Bind rank 0 to the slots that are plain inputs: they have no default, and rank 0 adds nothing."""
    for value in session.get_inputs():
        if _SLOT.fullmatch(value.name):
            shape = [size if isinstance(size, int) else 0 for size in value.shape]
            empty = onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, np.float32)
            io.bind_ortvalue_input(value.name, empty)


def slots_of(session: onnxruntime.InferenceSession) -> Slots:
    """The inputs of a graph, by name."""
    return {value.name: (value.type, tuple(value.shape)) for value in _inputs(session)}


def fitting_tensors(slots: Slots, path: Path) -> Tensors:
    """The tensors of an .onnx_adapter file, which fit the graph's slots.

    Raises:
        EngineError: the file cannot be read, or a tensor does not fit the graph.

    """
    where, tensors = str(path), map_adapter(path)
    for name, tensor in tensors.items():
        if name not in slots:
            raise _misfit(where, f"tensor {name}", "a LoRA slot of the graph")
        (slot_type, slot_shape), shape = slots[name], list(tensor.shape)
        tensor_type = _ORT_TYPES.get(tensor.dtype.name, f"tensor({tensor.dtype.name})")
        if tensor_type != slot_type or not _fits(
            shape, [size if isinstance(size, int) else None for size in slot_shape]
        ):
            raise _misfit(where, f"{name} {tensor_type} {shape}", f"{slot_type} {list(slot_shape)}")
        half = _other_half(name)
        if half not in tensors or _rank(slot_shape, tensor) != _rank(slots[half][1], tensors[half]):
            raise _misfit(where, f"{name} {shape} alone", "an A and a B of one rank")
    return tensors


def bind_adapter(io: onnxruntime.IOBinding, tensors: Tensors) -> tuple[onnxruntime.OrtValue, ...]:
    """Bind an adapter's tensors to their slots; returns what must outlive every run."""
    values = {name: ortvalue(array) for name, array in tensors.items()}
    for name, value in values.items():
        io.bind_ortvalue_input(name, value)
    return tuple(values.values())


def ortvalue(array: NDArray[np.generic]) -> onnxruntime.OrtValue:
    """A view of the array. An IOBinding does not keep it alive: the array must outlive every run with it."""
    return onnxruntime.OrtValue.ortvalue_from_numpy(array)


def failed(where: str, error: Exception) -> EngineError:
    """What onnxruntime said, its first line."""
    found = (str(error).strip() or type(error).__name__).splitlines()[0]
    no_proc = "procfs" in found and not Path("/proc/self").exists()
    return EngineError(
        where,
        found=found,
        expected="onnxruntime to work on it",
        fix="Mount /proc: onnxruntime opens weights by it." if no_proc else "Export the bundle again.",
    )


def _misfit(where: str, found: str, expected: str) -> EngineError:
    return EngineError(where, found=found, expected=expected, fix="Export the bundle again.")


def _session_options(settings: SessionSettings) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = settings.intra_op_threads
    options.inter_op_num_threads = 1  # a decoder is one chain of nodes
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if settings.spinning else "0")
    if not settings.packing:
        options.add_session_config_entry("session.disable_prepacking", "1")
    options.enable_mem_pattern = False  # patterns are kept for each input shape, and every step has a new one
    options.log_severity_level = 3  # errors: a warning for each overridable slot says nothing new
    return options


def _check_graph(session: onnxruntime.InferenceSession, source: ModelSource, where: str) -> None:
    cache = source.cache
    kv = (_ORT_TYPES[cache.dtype], (None, cache.heads, None, cache.head_dim))
    halves = [f"{layer}.{half}" for layer in range(cache.layers) for half, _ in KV]
    ids = ("tensor(int64)", (None, None))
    inputs: _Expected = {"input_ids": ids, "attention_mask": ids, **{f"past_key_values.{half}": kv for half in halves}}
    outputs: _Expected = {
        "logits": ("tensor(float)", (None, 1, source.vocab_size)),
        "logits_rows": ("tensor(float)", (None, None, source.vocab_size)),
        **{f"present.{half}": kv for half in halves},
    }
    inputs["logits_at"] = ("tensor(int64)", (None,))
    ours = [value for value in _inputs(session) if not _SLOT.fullmatch(value.name)]
    signature = ((ours, inputs), (session.get_outputs(), outputs))
    for found, expected in signature:
        if odd := {value.name for value in found} ^ set(expected):
            raise _misfit(where, f"unknown or missing: {', '.join(sorted(odd)[:3])}", "a decoder's inputs and outputs")
        for value in found:
            kind, shape = expected[value.name]
            if value.type != kind or not _fits(value.shape, shape):
                raise _misfit(where, f"{value.name} {value.type} {value.shape}", f"{kind} {list(shape)}")


def _inputs(session: onnxruntime.InferenceSession) -> list[onnxruntime.NodeArg]:
    """Inputs with a default, and those without: what has one on the CPU provider has none on another."""
    return [*session.get_inputs(), *session.get_overridable_initializers()]


def _fits(found: Sequence[int | str | None], expected: Sequence[int | None]) -> bool:
    """Whether shapes agree where both give a number."""
    return len(found) == len(expected) and all(
        one is None or not isinstance(other, int) or one == other for other, one in zip(found, expected, strict=True)
    )


def _other_half(name: str) -> str:
    """The name of a slot's B for its A, and the other way round."""
    match = _SLOT.fullmatch(name)
    return f"{match['slot']}.{'B' if match['half'] == 'A' else 'A'}" if match else ""


def _rank(slot: Sequence[object], tensor: NDArray[np.generic]) -> int:
    """The size where the graph's input, [rank, inputs] or [outputs, rank], has no number."""
    sizes = zip(tensor.shape, slot, strict=False)  # another number of dimensions is refused elsewhere
    return next((found for found, size in sizes if not isinstance(size, int)), -1)
