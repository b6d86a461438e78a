"""An adapter's pairs → the `.onnx_adapter` file that onnxruntime maps, for the graph's slots.

The file has A and B of every slot, of rank 0 where the adapter has nothing for the module. So no tensor of an adapter
used before can stay in place.
"""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from dualtune_edge.export.adapter.read import AdapterWeights, LoraPair
from dualtune_edge.export.graph.checks import check_adapter
from dualtune_edge.export.graph.slot_map import Part, Slot, SlotMap
from dualtune_edge.toolkit.errors import AdapterError

_VERSION: Final = 1  # of adapter and model; the manifest identifies both by their hashes


def write_adapter(weights: AdapterWeights, slots: SlotMap, path: Path) -> None:
    """Write the file and check it.

    Raises:
        AdapterError: a module of the adapter has no slot, or a shape that differs from its slot's.
        GraphError: the file is not what the slots need.
        OSError: it cannot be written.

    """
    if without_slot := sorted(weights.pairs.keys() - slots.modules):
        raise AdapterError(
            f"{weights.folder}, {without_slot[0]}",
            found="LoRA on a module without a slot in the graph",
            expected="modules that the base's graph has",
            fix="Export this adapter with `mode: merged`, which folds it into the base.",
        )
    _check_whole(weights, slots)
    parameters: dict[str, onnxruntime.OrtValue] = {}
    for slot in slots.slots:
        a, b = pack(weights, slot)
        parameters[slot.a] = onnxruntime.OrtValue.ortvalue_from_numpy(a)
        parameters[slot.b] = onnxruntime.OrtValue.ortvalue_from_numpy(b)
    file = onnxruntime.AdapterFormat()
    file.set_adapter_version(_VERSION)
    file.set_model_version(_VERSION)
    file.set_parameters(parameters)
    path.parent.mkdir(parents=True, exist_ok=True)
    _export(file, path, sum(value.tensor_size_in_bytes() for value in parameters.values()))
    check_adapter(path, slots)


def pack(weights: AdapterWeights, slot: Slot) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A and B as a slot stores them: the A of its parts one below the other, their scaled B block-diagonal.

    For a bias A is 1 and B the parts' scaled biases; both have rank 0 where no part has one.
    """
    parts = [(part, weights.pairs[part.module]) for part in slot.parts if part.module in weights.pairs]
    a, b = _pack_bias(parts, slot) if slot.operand == "one" else _pack_pairs(parts, slot)
    stored = (a if slot.a_shape[0] == slot.rank else a.T, b.T if slot.b_shape[0] == slot.rank else b)
    return np.ascontiguousarray(stored[0]), np.ascontiguousarray(stored[1])


def _export(file: onnxruntime.AdapterFormat, path: Path, size: int) -> None:
    """Write a file whose tensors have `size` bytes.

    onnxruntime leaves out why the system refuses a write. So as many bytes are written by Python: that says it, or the
    file is written again, if the disk has room again.
    """
    try:
        file.export_adapter(str(path))
    except RuntimeError:
        path.write_bytes(bytes(size))
    else:
        return
    try:
        file.export_adapter(str(path))
    except RuntimeError as error:
        raise OSError(errno.EIO, str(error), str(path)) from None


def _pack_pairs(parts: list[tuple[Part, LoraPair]], slot: Slot) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A `[r, inputs]` and B `[outputs, r]`, as PEFT has them."""
    rank = sum(pair.a.shape[0] for _, pair in parts)
    a = np.zeros((rank, slot.inputs), dtype=np.float32)
    b = np.zeros((slot.outputs, rank), dtype=np.float32)
    row = 0
    for part, pair in parts:
        rows = slice(row, row := row + pair.a.shape[0])
        a[rows] = pair.a
        b[part.start : part.start + part.width, rows] = (
            np.float32(pair.scale) * pair.b[part.first : part.first + part.width]
        )
    return a, b


def _pack_bias(parts: list[tuple[Part, LoraPair]], slot: Slot) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A `[r, 1]` and B `[outputs, r]`; r is 1 or 0."""
    rank = int(any(pair.bias is not None for _, pair in parts))
    b = np.zeros((slot.outputs, rank), dtype=np.float32)
    for part, pair in parts:
        if pair.bias is not None:
            bias = pair.bias[part.first : part.first + part.width]
            b[part.start : part.start + part.width, 0] = np.float32(pair.scale) * bias
    return np.ones((rank, 1), dtype=np.float32), b


def _check_whole(weights: AdapterWeights, slots: SlotMap) -> None:
    """Refuse a pair that the slots do not hold as a whole."""
    inputs = {part.module: slot.inputs for slot in slots.slots if slot.operand != "one" for part in slot.parts}
    for module, pair in weights.pairs.items():
        sizes, expected = (pair.a.shape[1], pair.b.shape[0]), (inputs[module], slots.outputs[module])
        if sizes != expected:
            raise AdapterError(
                f"{weights.folder}, {module}",
                found=f"a pair of {sizes[0]} inputs and {sizes[1]} outputs",
                expected=f"{expected[0]} and {expected[1]}, as the graph's slot",
                fix="Export it with the base that it was trained on.",
            )
        if pair.bias is not None and module not in slots.biased:
            raise AdapterError(
                f"{weights.folder}, {module}",
                found="a bias, for which the graph has no slot",
                expected="a graph with slots for biases",
                fix="Build the graph for this adapter.",
            )
