"""What graphs of a bundle never hold: loops and branches, functions, other operator sets, weights of other folders.

onnxruntime would run a loop of 2⁶² turns. A decoder is a chain of nodes, and none of its attributes is a graph.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from dualtune_edge.runtime.bundle.protobuf import fields

_OPERATOR_SETS: Final = frozenset({b"", b"ai.onnx", b"com.microsoft"})
# Numbers of fields in onnx/onnx.proto3.
_MODEL_GRAPH: Final = 7
_MODEL_OTHERS: Final = {20: "a training graph", 25: "a function"}
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_SPARSE = 1, 5, 15
_NODE_TYPE, _NODE_ATTRIBUTE, _NODE_DOMAIN = 4, 5, 7
_ATTRIBUTE_GRAPHS: Final = frozenset({6, 11})  # one graph, or several
_ATTRIBUTE_TENSORS: Final = frozenset({5, 10})
_TENSOR_EXTERNAL: Final = 13
_ENTRY_KEY, _ENTRY_VALUE = 1, 2


def graph_faults(model: bytes, beside: frozenset[str]) -> Iterator[str]:
    """What is wrong with a graph, each fault in a few words.

    Args:
        model: bytes of a ModelProto.
        beside: names of the files in its folder, which may hold its weights.

    """
    try:
        for number, value, _ in fields(memoryview(model)):
            if number in _MODEL_OTHERS:
                yield _MODEL_OTHERS[number]
            elif number == _MODEL_GRAPH:
                yield from _faults(value, beside)
    except ValueError as error:
        yield f"no ONNX graph: {error}"


def _faults(graph: memoryview, beside: frozenset[str]) -> Iterator[str]:
    for number, value, _ in fields(graph):
        if number == _GRAPH_NODE:
            yield from _node_faults(value, beside)
        elif number == _GRAPH_INITIALIZER:
            yield from _tensor_faults(value, beside)
        elif number == _GRAPH_SPARSE:
            yield "sparse weights"


def _node_faults(node: memoryview, beside: frozenset[str]) -> Iterator[str]:
    kind = domain = b""
    holds_graph = False
    for number, value, _ in fields(node):
        if number == _NODE_TYPE:
            kind = bytes(value)
        elif number == _NODE_DOMAIN:
            domain = bytes(value)
        elif number == _NODE_ATTRIBUTE:
            for inner, part, _ in fields(value):
                holds_graph = holds_graph or inner in _ATTRIBUTE_GRAPHS
                if inner in _ATTRIBUTE_TENSORS:
                    yield from _tensor_faults(part, beside)
    name = kind[:80].decode(errors="replace")
    if holds_graph:
        yield f"the operator {name}, which runs a graph"
    if domain not in _OPERATOR_SETS:
        yield f"the operator {name} of {domain[:80].decode(errors='replace')!r}"


def _tensor_faults(tensor: memoryview, beside: frozenset[str]) -> Iterator[str]:
    location = _location(tensor)
    if location is not None and location not in beside:
        yield f"weights in {location[:80]!r}, which is no file beside it"


def _location(tensor: memoryview) -> str | None:
    """Where a tensor's values lie; None: in the tensor itself."""
    for number, value, _ in fields(tensor):
        if number == _TENSOR_EXTERNAL:
            entry = {inner: bytes(text) for inner, text, _ in fields(value)}
            if entry.get(_ENTRY_KEY) == b"location":
                return entry.get(_ENTRY_VALUE, b"").decode(errors="replace")
    return None
