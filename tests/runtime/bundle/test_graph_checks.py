"""Graphs that would run for ever, or read elsewhere, are refused before onnxruntime sees them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from dualtune_edge.runtime.bundle.graph_checks import graph_faults
from dualtune_edge.runtime.bundle.opening import open_bundle
from dualtune_edge.toolkit.errors import BundleError

FLOAT = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
BODY = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "body", [FLOAT], [])
FUNCTION = helper.make_function("own", "F", ["x"], ["y"], [helper.make_node("Identity", ["x"], ["y"])], [])


def model(*nodes: onnx.NodeProto, weights: tuple[onnx.TensorProto, ...] = (), **more: Any) -> onnx.ModelProto:
    return helper.make_model(helper.make_graph(list(nodes), "g", [FLOAT], [], list(weights)), **more)


def external(location: str, name: str = "w") -> onnx.TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    return tensor


def node(kind: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, ["x"], ["y"], **attributes)


def sparse() -> onnx.ModelProto:
    made = model()
    made.graph.sparse_initializer.add()
    return made


def training() -> onnx.ModelProto:
    made = model()
    made.training_info.add().algorithm.CopyFrom(BODY)
    return made


BAD: dict[str, tuple[onnx.ModelProto, str]] = {
    "loop": (model(node("Loop", body=BODY)), "Loop, which runs a graph"),
    "if": (model(node("If", then_branch=BODY, else_branch=BODY)), "If, which runs a graph"),
    "scan": (model(node("Scan", body=BODY, num_scan_inputs=1)), "Scan, which runs a graph"),
    "by another name": (model(node("MatMul", anything=BODY)), "MatMul, which runs a graph"),
    "several": (model(node("Whatever", bodies=[BODY, BODY])), "Whatever, which runs a graph"),
    "functions": (model(functions=[FUNCTION]), "a function"),
    "training": (training(), "a training graph"),
    "sparse": (sparse(), "sparse weights"),
    "another operator set": (model(node("Own", domain="com.evil")), "of 'com.evil'"),
    "weights elsewhere": (model(weights=(external("../other/model.onnx.data"),)), "no file beside it"),
    "weights anywhere": (model(weights=(external("/etc/passwd"),)), "no file beside it"),
    "weights not there": (model(weights=(external("absent"),)), "no file beside it"),
    "a constant elsewhere": (model(node("Constant", value=external("/dev/zero"))), "no file beside it"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_no_decoder_has_is_refused(name: str) -> None:
    graph, complaint = BAD[name]
    assert complaint in "; ".join(graph_faults(graph.SerializeToString(), frozenset({"model.onnx.data"})))


def test_what_a_decoder_has_is_not() -> None:
    graph = model(
        node("MatMulNBits", domain="com.microsoft", K=1, name="n" * 500),
        node("Gather", axis=0),
        node("Constant", value=external("model.onnx.data")),
        weights=(external("model.onnx.data"), helper.make_tensor("v", TensorProto.FLOAT, [2], [1.0, 2.0])),
    )
    assert list(graph_faults(graph.SerializeToString(), frozenset({"model.onnx.data"}))) == []


@pytest.mark.parametrize(
    "data", [b"\xff", b"\x3a\xff\xff\xff\xff\x0f", b"\x0b\x0c", b"\x80" * 100, b"text, and no graph"]
)
def test_what_is_no_graph_is_told(data: bytes) -> None:
    assert "no ONNX graph" in "; ".join(graph_faults(data, frozenset()))


@pytest.mark.parametrize("where", ["model", "merged"])
def test_a_graph_with_a_loop_though_its_hash_is_right(bundle: Path, reseal: Callable[[], None], where: str) -> None:
    (path,) = bundle.glob("model/model.onnx") if where == "model" else bundle.glob("merged/*/model.onnx")
    graph = onnx.load(path, load_external_data=False)
    graph.graph.node.insert(0, node("Loop", body=BODY))
    path.write_bytes(graph.SerializeToString())
    reseal()
    for verify in ("always", "once"):
        with pytest.raises(BundleError, match=r"model\.onnx: found the operator Loop"):
            open_bundle(bundle, verify=verify)
