"""Slots of head, embedding and biases: adapters that need them share a graph with those that do not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnxruntime_genai
import pytest
from numpy.typing import NDArray

from dualtune_edge.export.adapter.read import read_adapter
from dualtune_edge.export.base.checkpoint import Checkpoint
from dualtune_edge.export.base.modules import Extra
from dualtune_edge.export.graph.adapter_file import write_adapter
from dualtune_edge.export.graph.build import build_graph
from dualtune_edge.export.graph.slots import add_slots
from dualtune_edge.toolkit.bundle.quantization import Quantization
from dualtune_edge.toolkit.errors import AdapterError

MakeAdapter: TypeAlias = Callable[..., Path]
PeftLogits: TypeAlias = Callable[[Path, Path | None], NDArray[np.float32]]

TOKENS = (257, 72, 105, 40, 11, 99, 3, 258, 17)  # the fixtures' prompt
ALL: frozenset[Extra] = frozenset({"head", "embedding", "bias"})
ADAPTERS: dict[str, dict[str, Any]] = {
    "plain": {"r": 3},
    "head": {"r": 2, "target_modules": ["lm_head"]},
    "embedding": {"r": 5, "target_modules": ["embed_tokens", "down_proj"]},
    "bias": {"lora_bias": True, "use_rslora": True},
    "a bias for one of three": {"lora_bias": True, "target_modules": ["k_proj"], "layers_to_transform": [1]},
}


@pytest.fixture(scope="module", params=[32, 4])
def graph(request: pytest.FixtureRequest, tiny: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Of `tiny`, whose head and embedding are one table, with all extras."""
    like = request.getfixturevalue("float_graph")
    folder = tmp_path_factory.mktemp("extras")
    build_graph(tiny, folder, Quantization(bits=request.param))
    return type(like)(tiny, folder, add_slots(folder, extras=ALL))


@pytest.fixture(scope="module")
def plain(graph: Any, request: pytest.FixtureRequest) -> Any:
    """The same without extras."""
    quantized = any(
        path.name == "model.onnx" and b"MatMulNBits" in path.read_bytes() for path in graph.folder.iterdir()
    )
    return request.getfixturevalue("int4_graph" if quantized else "float_graph")


def test_without_an_adapter_extras_add_nothing(graph: Any, plain: Any) -> None:
    np.testing.assert_array_equal(graph.logits(), plain.logits())


def test_adapters_of_several_ranks_and_targets_share_the_graph(
    graph: Any, tiny: Checkpoint, make_adapter: MakeAdapter, peft_logits: PeftLogits, tmp_path: Path
) -> None:
    base = peft_logits(tiny.folder, None)
    files = {}
    for name, fields in ADAPTERS.items():
        folder = make_adapter(tiny, **fields)
        files[name] = tmp_path / f"{name}.onnx_adapter"
        write_adapter(read_adapter(folder, tiny, "external"), graph.slots, files[name])
        found, reference = graph.logits(files[name]), peft_logits(tiny.folder, folder)
        if any(slot.operand == "ids" for slot in graph.slots.slots) and np.abs(graph.logits() - base).max() < 1e-4:
            np.testing.assert_allclose(found, reference, atol=1e-4, err_msg=name)  # the graph in fp32
        else:
            assert np.corrcoef(found, reference)[0, 1] > 0.8, name
    model = onnxruntime_genai.Model(str(graph.folder))
    adapters = onnxruntime_genai.Adapters(model)
    for name in ("head", "embedding", "bias"):
        adapters.load(str(files[name]), name)
        params = onnxruntime_genai.GeneratorParams(model)
        params.set_search_options(max_length=32)
        generator = onnxruntime_genai.Generator(model, params)
        generator.set_active_adapter(adapters, name)
        generator.append_tokens(list(TOKENS))
        np.testing.assert_allclose(generator.get_logits()[0, -1], graph.logits(files[name]), atol=1e-4, err_msg=name)


def test_a_graph_without_the_slot_refuses_the_adapter(
    tiny: Checkpoint, float_graph: Any, make_adapter: MakeAdapter, tmp_path: Path
) -> None:
    for name, said in (("head", "lm_head: found LoRA on a module without a slot"), ("bias", "found a bias")):
        weights = read_adapter(make_adapter(tiny, **ADAPTERS[name]), tiny, "external")
        with pytest.raises(AdapterError, match=said):
            write_adapter(weights, float_graph.slots, tmp_path / "a")
        assert not (tmp_path / "a").exists()
