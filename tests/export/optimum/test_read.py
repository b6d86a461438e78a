"""Optimum's graphs are lowered to the builder's, and a graph in which anything is otherwise is refused by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from transformers import AutoModelForCausalLM

from dualtune_edge.export.base.architectures import ARCHITECTURES
from dualtune_edge.export.base.checkpoint import Checkpoint, read_checkpoint
from dualtune_edge.export.graph.build import build_graph
from dualtune_edge.export.optimum.read import read_folder
from dualtune_edge.toolkit.bundle.quantization import Quantization
from dualtune_edge.toolkit.errors import GraphError

TOKENS = tuple(int(token) for token in np.random.default_rng(1).integers(0, 256, 40))  # windows of 16 slide
NUMBERS = ("/model/constants/", "cos_cache", "sin_cache")
Change = Callable[[ir.Graph, dict[str, ir.Node]], Any]


def nodes(graph: ir.Graph) -> Iterator[tuple[Any, ...]]:
    """What every node is and reads; tables of angles and constants by what they hold."""
    for node in sorted((node for node in graph if node.op_type != "Constant"), key=lambda node: node.name or ""):
        attributes = {name: attribute.value for name, attribute in node.attributes.items()}
        inputs = [value.name for value in node.inputs if value and not (value.name or "").startswith(NUMBERS)]
        yield node.name, node.op_type, node.domain, attributes, inputs, [str(value.shape) for value in node.outputs]


def weights(graph: ir.Graph) -> dict[str, bytes]:
    return {
        name: value.const_value.numpy().tobytes()
        for name, value in graph.initializers.items()
        if value.const_value is not None and not name.startswith(NUMBERS)
    }


def logits(folder: Path, checkpoint: Checkpoint, tokens: tuple[int, ...] = TOKENS) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(folder / "model.onnx", options)
    ids = np.array([tokens], dtype=np.int64)
    feed = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    empty = np.zeros((1, checkpoint.cache.heads, 0, checkpoint.cache.head_dim), dtype=np.float32)
    feed |= {value.name: empty for value in session.get_inputs() if value.name.startswith("past_key_values")}
    return session.run(["logits"], feed)[0][0, -1]


NAMES = ("gemma", "gemma3", "llama", "llama3", "mistral-window", "phi3", "phi4-mini", "qwen2", "qwen3", "smollm3")


@pytest.mark.parametrize("name", NAMES)
def test_both_sources_agree(name: str, make_traced: Any, tmp_path: Path) -> None:
    traced = make_traced(name)
    decoder = read_folder(traced.folder, traced.checkpoint)
    for place, quantization in (("float", Quantization(bits=32)), ("int4", Quantization())):
        build_graph(traced.checkpoint, tmp_path / place, quantization, decoder=decoder)
    build_graph(traced.checkpoint, tmp_path / "builder", Quantization())
    lowered, built = (ir.load(tmp_path / folder / "model.onnx").graph for folder in ("int4", "builder"))
    skipped = ("/model/rope_caches_subgraph",)  # Phi-4-mini: the choice between short and long factors, none here
    assert list(nodes(lowered)) == [node for node in nodes(built) if not node[0].startswith(skipped)]
    assert weights(lowered) == weights(built)
    with torch.no_grad():
        model = AutoModelForCausalLM.from_pretrained(traced.checkpoint.folder, dtype=torch.float32)
        expected = model(torch.tensor([TOKENS])).logits[0, -1].numpy()
    np.testing.assert_allclose(logits(tmp_path / "float", traced.checkpoint), expected, atol=1e-4)


def test_every_architecture_is_tried(make_traced: Any) -> None:
    names = {make_traced(name).checkpoint.architecture.name for name in NAMES}
    assert names == {name for name, row in ARCHITECTURES.items() if row.optimum}


def _bit(graph: ir.Graph, _: dict[str, ir.Node]) -> None:
    weight = next(value for value in graph.initializers.values() if value.const_value.shape == (128, 64))
    data = weight.const_value.numpy().copy()
    data.view(np.int32)[5, 7] ^= 1
    weight.const_value = ir.Tensor(data, name=weight.name)


def _constant(node: str, index: int, number: float) -> Change:
    def change(_: ir.Graph, found: dict[str, ir.Node]) -> None:
        producer = found[node].inputs[index].producer()
        old = producer.attributes["value"].as_tensor().numpy()
        producer.attributes["value"] = ir.AttrTensor("value", ir.Tensor(np.full_like(old, number)))

    return change


def _swap(first: tuple[str, int], second: tuple[str, int]) -> Change:
    def change(_: ir.Graph, found: dict[str, ir.Node]) -> None:
        one, other = (found[name].inputs[index] for name, index in (first, second))
        found[first[0]].replace_input_with(first[1], other)
        found[second[0]].replace_input_with(second[1], one)

    return change


def _operator(node: str, op_type: str) -> Change:
    def change(_: ir.Graph, found: dict[str, ir.Node]) -> None:
        found[node].op_type = op_type

    return change


def _insert(node: str, index: int, op_type: str) -> Change:
    def change(graph: ir.Graph, found: dict[str, ir.Node]) -> None:
        new = ir.node(op_type, [found[node].inputs[index]], name=f"{node}/{op_type}")
        graph.insert_before(found[node], new)
        found[node].replace_input_with(index, new.outputs[0])

    return change


def _attribute(node: str, name: str, value: Any) -> Change:
    def change(_: ir.Graph, found: dict[str, ir.Node]) -> None:
        found[node].attributes[name] = (
            ir.AttrInt64s(name, value) if isinstance(value, list) else ir.AttrInt64(name, value)
        )

    return change


def _drop(name: str) -> Change:
    def change(graph: ir.Graph, _: dict[str, ir.Node]) -> None:
        graph.outputs[:] = [value for value in graph.outputs if value.name != name]

    return change


def _half(graph: ir.Graph, _: dict[str, ir.Node]) -> None:
    for value in graph.inputs:
        if value.name.startswith("past"):
            value.dtype = ir.DataType.FLOAT16


ATTENTION, MLP = "/model/layers.1/self_attn", "/model/layers.1/mlp"
CHANGES: dict[str, tuple[Change, str]] = {
    "one bit of a weight": (_bit, "other numbers; expected the checkpoint's .*bit for bit"),
    "another epsilon": (_constant("/model/layers.1/input_layernorm/Add", 1, 1e-5), "layer 1.*an ε of 1e-06"),
    "the mean over other values": (
        _constant("/model/layers.1/input_layernorm/ReduceMean", 1, -2),
        "layer 1.*the mean over the last axis",
    ),
    "another scale": (_constant(f"{ATTENTION}/Mul_8", 1, 0.4), "a scale of 0.2"),
    "a window of another size": (_constant("/model/Sub", 1, 15), "a mask by which a token sees all before it or 16"),
    "no mask": (_constant(f"{ATTENTION}/Where_2", 2, 0.0), "layer 1.*a mask by which"),
    "cosines and sines exchanged": (
        _swap((f"{ATTENTION}/Mul", 1), (f"{ATTENTION}/Mul_1", 1)),
        "layer 1.*q and k rotated alike",
    ),
    "halves of a head exchanged": (
        _swap((f"{ATTENTION}/Neg", 0), (f"{ATTENTION}/Concat_3", 1)),
        "layer 1.*a slice from",
    ),
    "other angles": (_constant("/model/rotary_emb/Mul_1", 1, 1.5), "layer 0.*other rotary angles"),
    "heads repeated otherwise": (_attribute(f"{ATTENTION}/Transpose_4", "perm", [0, 1, 2, 3]), "layer 1.*perm"),
    "the cache of another layer": (
        _swap((f"{ATTENTION}/Concat_5", 0), ("/model/layers.2/self_attn/Concat_5", 0)),
        "layer [12].*past_key_values",
    ),
    "softmax over the queries": (_attribute(f"{ATTENTION}/Softmax", "axis", -2), "layer 1.*axis -1"),
    "gate and up exchanged": (_swap((f"{MLP}/gate_proj/MatMul", 1), (f"{MLP}/up_proj/MatMul", 1)), "other numbers"),
    "another activation": (_operator(f"{MLP}/act_fn/Sigmoid", "Tanh"), "layer 1.*found"),
    "one operator more": (_insert(f"{MLP}/down_proj/MatMul", 0, "Relu"), f"layer 1, node {MLP}.*found Relu"),
    "another residual": (
        _swap(("/model/layers.1/Add", 0), ("/model/layers.1/Add_1", 0)),
        "layer 1",
    ),
    "a part left out": (_insert("/model/layers.2/Add", 1, "Sin"), "layer 2.*found Sin"),
    "no cache": (_drop("present.1.value"), "output present.1.value: found missing.*text-generation-with-past"),
    "half precision": (_half, "past_key_values.*FLOAT16.*fp32"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_another_graph_is_refused_by_the_name_of_its_node(name: str, make_traced: Any, tmp_path: Path) -> None:
    traced = make_traced("qwen2")
    change, said = CHANGES[name]
    model = ir.load(traced.folder / "model.onnx")
    change(model.graph, {node.name or "": node for node in model.graph})
    ir.save(model, tmp_path / "model.onnx")
    with pytest.raises(GraphError, match=said):
        read_folder(tmp_path, traced.checkpoint)


def test_another_checkpoints_graph_is_refused(make_traced: Any, tmp_path: Path) -> None:
    traced = make_traced("qwen2")
    other = Path(shutil.copytree(traced.checkpoint.folder, tmp_path / "other"))
    config = json.loads((other / "config.json").read_text(encoding="utf-8"))
    config["rope_parameters"]["rope_theta"] = 10_000.0
    (other / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(GraphError, match=r"layer 0: found other rotary angles.*dualtune-edge trace"):
        read_folder(traced.folder, read_checkpoint(other))
    with pytest.raises(GraphError, match="expected"):
        read_folder(traced.folder, make_traced("qwen3").checkpoint)


def test_a_folder_without_a_graph_is_refused(make_traced: Any, tmp_path: Path) -> None:
    checkpoint = make_traced("qwen2").checkpoint
    with pytest.raises(GraphError, match="no model"):
        read_folder(tmp_path, checkpoint)
    (tmp_path / "model.onnx").write_bytes(b"\xff no protobuf")
    with pytest.raises(GraphError, match="an ONNX model"):
        read_folder(tmp_path, checkpoint)
