"""What is written weight by weight is what onnxruntime-genai's builder writes by itself, bit for bit."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest
from dualtune_edge_kit.random_checkpoint import Shape, write_checkpoint

from dualtune_edge.export.adapter.merge import merge
from dualtune_edge.export.adapter.merged_weights import MergedWeights
from dualtune_edge.export.adapter.read import read_adapter
from dualtune_edge.export.base.checkpoint import Checkpoint, read_checkpoint
from dualtune_edge.export.graph import builder_config, streaming
from dualtune_edge.export.graph.build import build_graph
from dualtune_edge.export.graph.builder import options, run_builder
from dualtune_edge.export.graph.slots import add_slots
from dualtune_edge.export.graph.streaming import WeightSource
from dualtune_edge.export.work.quiet import captured
from dualtune_edge.toolkit.bundle.quantization import Quantization

RECIPES = (
    Quantization(),
    Quantization(algorithm="rtn"),
    Quantization(algorithm="k_quant", block_size=16),
    Quantization(block_size=128, accuracy_level=0),
    Quantization(bits=8, algorithm="rtn"),
    Quantization(bits=8),
    Quantization(algorithm="rtn", block_size=64, lm_head_bits=8),
    Quantization(algorithm="k_quant", block_size=64, lm_head_bits=8, sensitive_bits=8),
    Quantization(bits=32),
)
BASES = (("qwen2", True), ("qwen2", False), ("llama", True), ("llama", False))


@dataclass(frozen=True)
class Written:
    """All that a graph is, but for where in model.onnx.data a tensor lies."""

    nodes: dict[str, tuple[Any, ...]]
    tensors: dict[str, tuple[Any, ...]]
    interface: list[tuple[Any, ...]]
    about: tuple[Any, ...]


def written(folder: Path) -> Written:
    model = ir.load(folder / "model.onnx")
    graph = model.graph
    version = (model.producer_version or "").partition("+")[0]  # without the commit of a repository around it
    return Written(
        nodes={node.name: _described(node) for node in graph},
        tensors={
            name: (value.dtype, value.shape, value.const_value.tobytes()) for name, value in graph.initializers.items()
        },
        interface=[(value.name, value.dtype, str(value.shape)) for value in (*graph.inputs, *graph.outputs)],
        about=(model.ir_version, model.producer_name, version, dict(graph.opset_imports), graph.name),
    )


def _described(node: ir.Node) -> tuple[Any, ...]:
    attributes = sorted((attribute.name, str(attribute.value)) for attribute in node.attributes.values())
    outputs = [(value.name, value.dtype, str(value.shape)) for value in node.outputs]
    return node.domain, node.op_type, [value.name if value else None for value in node.inputs], outputs, attributes


def build_plainly(checkpoint: Checkpoint, source: Path, out: Path, quantization: Quantization, *, tied: bool) -> None:
    """By the builder alone."""
    precision = {4: "int4", 8: "int8", 32: "fp32"}[quantization.bits]
    with captured(), tempfile.TemporaryDirectory() as cache:
        from onnxruntime_genai.models import builder

        place = (checkpoint.name, str(source), str(out), precision, "cpu", cache)
        extra = builder.parse_extra_options(*place, options(quantization, tied=tied))
        builder_config.adapt(extra["hf_details"]["hf_config"])
        builder.create_model(*place, **extra)


@pytest.fixture(scope="session", params=BASES, ids=lambda base: f"{base[0]}-{'tied' if base[1] else 'untied'}")
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    model_type, tied = request.param
    folder = tmp_path_factory.mktemp("base") / "base"
    shape = Shape(128, 192, 1, 4, 2, 288, 512, tied=tied, model_type=model_type)
    write_checkpoint(folder, shape, seed=3)  # in bfloat16
    return read_checkpoint(folder)


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every weight in several pieces, the last one of another width."""
    monkeypatch.setattr(streaming, "_PIECE", 128 * 50)


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.line(layers=1))
def test_the_graph_is_the_builders(recipe: Quantization, base: Checkpoint, tmp_path: Path) -> None:
    build_plainly(base, base.folder, tmp_path / "plain", recipe, tied=base.tied)
    (tmp_path / "ours").mkdir()
    run_builder(base, WeightSource(base.weights), tmp_path / "ours", recipe, decoder=None)
    assert written(tmp_path / "ours") == written(tmp_path / "plain")
    # Even the layout of the data is: what opens one opens the other.
    for name in ("model.onnx.data", "genai_config.json"):
        assert (tmp_path / "ours" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes(), name


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("modules", [["q_proj", "down_proj"], ["q_proj", "lm_head"], ["o_proj", "embed_tokens"]])
@pytest.mark.parametrize("recipe", RECIPES[0:3:2], ids=lambda recipe: recipe.algorithm)
def test_a_merged_graph_is_the_builders_of_what_peft_merged(
    recipe: Quantization, modules: list[str], tiny: Checkpoint, make_adapter: Any, tmp_path: Path
) -> None:
    adapter = read_adapter(make_adapter(tiny, target_modules=modules, use_rslora=True), tiny, "merged")
    assert adapter.plain
    merge(tiny, adapter, tmp_path / "weights")
    tied = not {"lm_head", "embed_tokens"} & set(modules)
    build_plainly(tiny, tmp_path / "weights", tmp_path / "plain", recipe, tied=tied)
    build_graph(tiny, tmp_path / "base", recipe)
    add_slots(tmp_path / "base")
    (tmp_path / "ours").mkdir()
    source = WeightSource(MergedWeights(tiny, adapter), tmp_path / "base")
    run_builder(tiny, source, tmp_path / "ours", recipe, decoder=None)
    assert written(tmp_path / "ours") == written(tmp_path / "plain")


def test_only_what_an_adapter_changes_is_quantized_again(
    tiny: Checkpoint, int4_graph: Any, make_adapter: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = read_adapter(make_adapter(tiny, target_modules=["v_proj", "down_proj"]), tiny, "merged")
    quantized: list[str] = []
    quantize = streaming.GraphWriter._quantize

    def note(self: Any, node: ir.Node, source: Any) -> Any:
        quantized.append(node.name)
        return quantize(self, node, source)

    monkeypatch.setattr(streaming.GraphWriter, "_quantize", note)
    build_graph(tiny, tmp_path / "graph", Quantization(), weights=MergedWeights(tiny, adapter), base=int4_graph.folder)
    assert quantized == [
        f"/model/layers.{layer}/{module}/MatMul" for layer in (0, 1) for module in ("attn/qkv_proj", "mlp/down_proj")
    ]
