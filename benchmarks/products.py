"""Prints how fast onnxruntime computes one matrix product of a shape, by how its weights are stored.

    python benchmarks/products.py [--inputs 896] [--outputs 4864]

One thread, and its CPU time, so that other work on the machine counts little; the best of several runs. The product is
there twelve times, so that weights come out of memory and not out of a cache. Operations are multiplications and
additions, in billions a second.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Annotated, Final

import numpy as np
import onnxruntime
import typer
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

_COPIES: Final = 12
_ROWS: Final = (1, 8, 128)  # tokens in a forward
_SECONDS: Final = 0.4  # of runs for each figure
_RANDOM: Final = np.random.default_rng(0)
_MICROSOFT: Final = "com.microsoft"


def main(
    inputs: Annotated[int, typer.Option(help="Of the product; default: Qwen2.5-0.5B's gate.")] = 896,
    outputs: Annotated[int, typer.Option(help="Of the product.")] = 4864,
) -> None:
    """Print the table as Markdown."""
    print("| weights | " + " | ".join(f"{rows} rows" for rows in _ROWS) + " |")
    print("|---|" + "---:|" * len(_ROWS))
    for block in (16, 32, 64, 128, 256):
        show(f"int4, blocks of {block}", in_blocks(inputs, outputs, 4, block))
    for block in (32, 128):
        show(f"int4, blocks of {block}, zero points", in_blocks(inputs, outputs, 4, block, zero_points=True))
    show("int4, blocks of 128, float32 activations", in_blocks(inputs, outputs, 4, 128, level=0))
    for block in (32, 128):
        show(f"int8, blocks of {block}", in_blocks(inputs, outputs, 8, block))
    show("int8, a scale a column: MatMulInteger", by_column(inputs, outputs, fused=False))
    show("int8, a scale a column: DynamicQuantizeMatMul", by_column(inputs, outputs, fused=True))
    show("float32", in_float32(inputs, outputs))


def show(name: str, model: ModelProto) -> None:
    """Print a row of the table."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    columns, outputs = model.graph.input[0].type.tensor_type.shape.dim[1].dim_value, session.run(None, _fed(1, model))
    operations = 2 * columns * outputs[0].shape[-1] * _COPIES
    cells = (f"{rows * operations / best(session, rows, model) / 1e9:.0f}" for rows in _ROWS)
    print(f"| {name} | {' | '.join(cells)} |", flush=True)


def best(session: onnxruntime.InferenceSession, rows: int, model: ModelProto) -> float:
    """The least seconds of CPU time that a run on so many rows took."""
    fed, taken = _fed(rows, model), list[float]()
    while len(taken) < 3 or sum(taken) < _SECONDS:
        start = time.process_time()
        session.run(None, fed)
        taken.append(time.process_time() - start)
    return min(taken)


def in_blocks(
    inputs: int, outputs: int, bits: int, block: int, *, level: int = 4, zero_points: bool = False
) -> ModelProto:
    """MatMulNBits, as bundles have it; level 4: int8 activations."""
    blocks = -(-inputs // block)
    nodes, weights = [], []
    for copy in range(_COPIES):
        names = [f"w{copy}", f"s{copy}", *([f"z{copy}"] if zero_points else [])]
        weights += [_integers(names[0], outputs, blocks, block * bits // 8), _scales(names[1], outputs * blocks)]
        weights += [_integers(name, outputs * ((blocks * bits + 7) // 8)) for name in names[2:]]
        settings = {"K": inputs, "N": outputs, "bits": bits, "block_size": block, "accuracy_level": level}
        nodes.append(helper.make_node("MatMulNBits", ["x", *names], [f"y{copy}"], domain=_MICROSOFT, **settings))
    return _model(inputs, nodes, weights)


def by_column(inputs: int, outputs: int, *, fused: bool) -> ModelProto:
    """Activations in uint8 with one scale for a forward, weights in int8 with one a column."""
    nodes = [] if fused else [helper.make_node("DynamicQuantizeLinear", ["x"], ["xq", "xs", "xz"])]
    weights = []
    for copy in range(_COPIES):
        weight, scale, out = f"w{copy}", f"s{copy}", f"y{copy}"
        weights += [
            numpy_helper.from_array(_RANDOM.integers(-127, 128, (inputs, outputs), np.int8), weight),
            _scales(scale, outputs),
        ]
        nodes += [_fused(weight, scale, out)] if fused else _in_steps(weight, scale, out)
    return _model(inputs, nodes, weights)


def _fused(weight: str, scale: str, out: str) -> NodeProto:
    return helper.make_node("DynamicQuantizeMatMul", ["x", weight, scale], [out], domain=_MICROSOFT)


def _in_steps(weight: str, scale: str, out: str) -> Iterator[NodeProto]:
    yield helper.make_node("MatMulInteger", ["xq", weight, "xz"], [f"{out}.integers"])
    yield helper.make_node("Cast", [f"{out}.integers"], [f"{out}.floats"], to=TensorProto.FLOAT)
    yield helper.make_node("Mul", ["xs", scale], [f"{out}.scale"])
    yield helper.make_node("Mul", [f"{out}.floats", f"{out}.scale"], [out])


def in_float32(inputs: int, outputs: int) -> ModelProto:
    """MatMul."""
    nodes = [helper.make_node("MatMul", ["x", f"w{copy}"], [f"y{copy}"]) for copy in range(_COPIES)]
    values = [_RANDOM.standard_normal((inputs, outputs), np.float32) for _ in range(_COPIES)]
    return _model(inputs, nodes, [numpy_helper.from_array(value, f"w{copy}") for copy, value in enumerate(values)])


def _model(inputs: int, nodes: list[NodeProto], weights: list[TensorProto]) -> ModelProto:
    given = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", inputs])]
    found = [helper.make_tensor_value_info(f"y{copy}", TensorProto.FLOAT, None) for copy in range(_COPIES)]
    graph = helper.make_graph(nodes, "products", given, found, weights)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid(_MICROSOFT, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def _fed(rows: int, model: ModelProto) -> dict[str, np.ndarray]:
    columns = model.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    return {"x": np.random.default_rng(rows).standard_normal((rows, columns)).astype(np.float32)}


def _integers(name: str, *shape: int) -> TensorProto:
    return numpy_helper.from_array(_RANDOM.integers(0, 256, shape, np.uint8), name)


def _scales(name: str, count: int) -> TensorProto:
    return numpy_helper.from_array(_RANDOM.random(count, np.float32) / 100, name)


if __name__ == "__main__":
    typer.run(main)
