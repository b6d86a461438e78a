"""What a recipe stores is near the checkpoint's weights, and onnxruntime computes with what numpy dequantizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from dualtune_edge_kit.random_checkpoint import Shape, write_checkpoint
from numpy.typing import NDArray

from dualtune_edge.export.base.checkpoint import Checkpoint, read_checkpoint
from dualtune_edge.export.graph.build import build_graph
from dualtune_edge.export.quantize import k_quant
from dualtune_edge.toolkit.bundle.quantization import Quantization, sensitive_layers

RECIPES = (
    Quantization(block_size=128, accuracy_level=0),
    Quantization(algorithm="rtn", block_size=64, accuracy_level=0),
    Quantization(algorithm="k_quant", block_size=128, accuracy_level=0),  # an odd number of blocks: 1 or 3
    Quantization(algorithm="k_quant", block_size=32, accuracy_level=0),
    Quantization(algorithm="rtn", block_size=32, lm_head_bits=8, accuracy_level=0),
    Quantization(algorithm="k_quant", block_size=64, lm_head_bits=8, sensitive_bits=8, accuracy_level=0),
    Quantization(bits=8, algorithm="rtn", accuracy_level=0),
)
ROWS = (2, 5, 287)  # of the embedding


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """Four layers, of which 0 and 2 are sensitive; K is 128 or 384."""
    folder = tmp_path_factory.mktemp("wide") / "base"
    write_checkpoint(folder, Shape(128, 384, 4, 4, 2, 288, 512), seed=5)
    return read_checkpoint(folder)


def dequantized(node: ir.Node) -> NDArray[np.float32]:
    """[K, N], by the definition of MatMulNBits."""
    depth, bits = node.attributes["K"].as_int(), node.attributes["bits"].as_int()
    quants, scales, *zeros = (value.const_value.numpy() for value in node.inputs[1:] if value)
    width, blocks, _ = quants.shape
    q = _unpacked(quants, bits).astype(np.float32)
    zero = _unpacked(zeros[0].reshape(width, -1), bits)[:, :blocks] if zeros else np.float32(2 ** (bits - 1))
    values = (q - np.reshape(zero, (width, blocks, 1) if zeros else ())) * scales.reshape(width, blocks, 1)
    return np.ascontiguousarray(values.reshape(width, -1)[:, :depth].T)


def _unpacked(values: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    if bits == 8:
        return values
    return np.stack([values % 16, values // 16], axis=-1).reshape(*values.shape[:-1], -1)


def weight_of(node: ir.Node, base: Checkpoint) -> NDArray[np.float32]:
    """[K, N], of the checkpoint."""
    weights = base.weights
    name = (node.name or "").removeprefix("/").rpartition("/MatMul")[0].replace("/", ".")
    if name == "lm_head":
        parts = ["model.embed_tokens.weight"]
    elif name.endswith("qkv_proj"):
        parts = [f"{name.replace('attn', 'self_attn').replace('qkv', part)}.weight" for part in "qkv"]
    else:
        parts = [f"{name.replace('attn', 'self_attn')}.weight"]
    return torch.cat([weights.read(part) for part in parts]).T.numpy()


def run(node: ir.Node, feeds: dict[int, NDArray[Any]], width: int) -> NDArray[np.float32]:
    """What onnxruntime makes of the node alone, its inputs by position where they are no constants."""
    given = [
        feeds.get(at, value.const_value.numpy() if value.const_value else None) for at, value in enumerate(node.inputs)
    ]
    names = [f"x{at}" for at in range(len(given))]
    types = [onnx.helper.np_dtype_to_tensor_dtype(array.dtype) for array in given]
    inputs = [
        onnx.helper.make_tensor_value_info(name, type_, array.shape)
        for name, type_, array in zip(names, types, given, strict=True)
    ]
    outputs = [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [None, None, width])]
    attributes = {attribute.name: attribute.as_int() for attribute in node.attributes.values()}
    alone = onnx.helper.make_node(node.op_type, names, ["y"], domain=node.domain, **attributes)
    opsets = [onnx.helper.make_opsetid("", 21), onnx.helper.make_opsetid("com.microsoft", 1)]
    model = onnx.helper.make_model(
        onnx.helper.make_graph([alone], "one", inputs, outputs), opset_imports=opsets, ir_version=10
    )
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (result,) = session.run(None, dict(zip(names, given, strict=True)))
    return np.asarray(result)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.line(layers=4))
def test_every_weight_is_near_the_checkpoints(recipe: Quantization, wide: Checkpoint, tmp_path: Path) -> None:
    build_graph(wide, tmp_path / "graph", recipe)
    graph = ir.load(tmp_path / "graph" / "model.onnx").graph
    x = np.random.default_rng(0).normal(size=(1, 3, 384)).astype(np.float32)
    nodes = [node for node in graph if node.op_type == "MatMulNBits"]
    assert len(nodes) == 4 * 5 + 1
    for node in nodes:
        found, wanted = dequantized(node), weight_of(node, wide)
        step = np.abs(wanted).max() / (7.5 if node.attributes["bits"].as_int() == 4 else 127.5)
        assert np.abs(found - wanted).max() <= 1.5 * step, node.name
        if node is nodes[-1] or node.name.startswith("/model/layers.2/"):
            feed = x[..., : wanted.shape[0]]
            np.testing.assert_allclose(run(node, {0: feed}, wanted.shape[1]), feed @ found, atol=1e-4)
    head = dequantized(nodes[-1]).T  # the embedding reads the same table
    table = next((node for node in graph if node.op_type == "GatherBlockQuantized"), None)
    if table is None:
        assert recipe.bits == 8
        return
    stored = nodes[-1].inputs[1].const_value.numpy()
    rows = run(table, {0: stored.reshape(len(stored), -1), 1: np.array([ROWS])}, head.shape[1])
    np.testing.assert_allclose(rows[0], head[list(ROWS)], rtol=1e-6)


def test_bits_are_recorded_as_they_are(wide: Checkpoint, tmp_path: Path) -> None:
    build_graph(wide, tmp_path / "graph", RECIPES[5])
    graph = ir.load(tmp_path / "graph" / "model.onnx").graph
    found = {node.name: node.attributes["bits"].as_int() for node in graph if node.op_type == "MatMulNBits"}
    eight = {
        f"/model/layers.{layer}/{module}/MatMul_Q8" for layer in (0, 2) for module in ("attn/qkv_proj", "mlp/down_proj")
    }
    assert {name for name, bits in found.items() if bits == 8} == eight | {"/lm_head/MatMul_Q8"}


@pytest.mark.parametrize(
    ("layers", "sensitive"), [(1, (0,)), (4, (0, 2)), (24, (0, 1, 2, 5, 8, 11, 14, 17, 20, 21, 22, 23))]
)
def test_sensitive_layers(layers: int, sensitive: tuple[int, ...]) -> None:
    assert sensitive_layers(layers) == sensitive


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("depth", [32, 64, 80])
def test_a_block_of_one_sign_is_not_lost(bits: int, sign: int, depth: int) -> None:
    from onnxruntime.quantization.neural_compressor.weight_only import quant_tensor_k_quant_cpu

    rng = np.random.default_rng(1)
    matrix = rng.normal(size=(depth, 6)).astype(np.float32)
    matrix[:32, 1] = sign * rng.uniform(0.5, 1, 32)
    matrix[:32, 2] = sign * 0.75
    padded = k_quant.even(torch.from_numpy(matrix), 32).numpy()
    q, scale, zero = quant_tensor_k_quant_cpu(padded.T, bits, 32)
    blocks = len(padded) // 32
    raw = k_quant.Blocks(
        bits,
        k_quant._packed(q.reshape(6, blocks, 32), bits),
        scale.reshape(6, blocks).astype(np.float32),
        k_quant._packed(zero.reshape(6, blocks), bits),
    )
    corrected = k_quant.corrected(raw, matrix)
    count = -(-depth // 32)
    assert (corrected.quants.shape, corrected.scales.shape) == ((6, count, 32 * bits // 8), (6, count))
    values = k_quant._unpacked(corrected.quants, bits).astype(np.float32)
    values = (values - k_quant._unpacked(corrected.zeros, bits)[:, :count, None]) * corrected.scales[..., None]
    found = values.reshape(6, -1)[:, :depth].T
    assert np.abs(found - matrix).max() <= np.abs(matrix).max() / (2 ** (bits - 1) - 0.5)
    np.testing.assert_allclose(found[:32, 2], matrix[:32, 2], rtol=1e-6)
    others = [0, 3, 4, 5]  # as k-quant has them
    np.testing.assert_array_equal(corrected.quants[others], raw.quants[others, :count])
