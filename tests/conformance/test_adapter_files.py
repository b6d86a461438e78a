"""What may be in an .onnx_adapter file, and that all else is refused before a prompt runs."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from bare_adapter import bare_adapter
from numpy.typing import NDArray

from dualtune_edge.profiles.schema import SessionSettings
from dualtune_edge.runtime.bundle.model_source import ModelSource
from dualtune_edge.runtime.engines.engine import EngineKind, open_engine
from dualtune_edge.toolkit.errors import EngineError

SETTINGS = SessionSettings(intra_op_threads=1)
TOKENS = (5, 6, 7)
Tensors = dict[str, NDArray[Any]]

A, B = "lora.1.down_proj.A", "lora.1.down_proj.B"  # [r, 96] and [64, r]


def pair(rank_a: int = 3, rank_b: int = 3, inputs: int = 96, outputs: int = 64, dtype: type = np.float32) -> Tensors:
    random = np.random.default_rng(0)
    return {A: random.random((rank_a, inputs)).astype(dtype), B: random.random((outputs, rank_b)).astype(dtype)}


def write(path: Path, tensors: Tensors) -> None:
    values = {name: onnxruntime.OrtValue.ortvalue_from_numpy(array) for name, array in tensors.items()}
    file = onnxruntime.AdapterFormat()
    file.set_adapter_version(1)
    file.set_model_version(1)
    file.set_parameters(values)
    file.export_adapter(str(path))


def with_adapter(source: ModelSource, path: Path) -> ModelSource:
    return replace(source, adapters=(bare_adapter("odd", path, "content"),))


def test_slots_that_a_file_leaves_out_add_nothing(fp32: ModelSource, kind: EngineKind, tmp_path: Path) -> None:
    """`narrow` fills the attention's slots only; its file names the others too, at rank 0."""
    narrow = fp32.adapter("narrow")
    stored = onnxruntime.AdapterFormat.read_adapter(str(narrow.path)).get_parameters()
    write(tmp_path / "short", {name: value.numpy() for name, value in stored.items() if 0 not in value.shape()})
    answers = []
    for source, name in ((fp32, "narrow"), (with_adapter(fp32, tmp_path / "short"), "odd")):
        with open_engine(source, SETTINGS, kind) as engine:
            engine.use(name)
            answers.append(engine.forward(TOKENS))
    np.testing.assert_array_equal(*answers)


BAD: dict[str, Callable[[], Tensors]] = {
    "a slot that the graph lacks": lambda: {"lora.9.down_proj.A": pair()[A], "lora.9.down_proj.B": pair()[B]},
    "another input of the graph": lambda: {**pair(), "input_ids": np.zeros((1, 1), np.int64)},
    "another width": lambda: pair(outputs=65),
    "another height": lambda: pair(inputs=95),
    "transposed": lambda: {A: pair()[A].T.copy(), B: pair()[B].T.copy()},
    "ranks that differ": lambda: pair(rank_a=3, rank_b=4),
    "half a pair": lambda: {A: pair()[A]},
    "the other half": lambda: {B: pair()[B]},
    "another type": lambda: pair(dtype=np.float16),
    "three dimensions": lambda: {name: array[np.newaxis] for name, array in pair().items()},
}


@pytest.mark.parametrize("case", BAD)
def test_a_tensor_that_does_not_fit_is_refused(fp32: ModelSource, kind: EngineKind, tmp_path: Path, case: str) -> None:
    path = tmp_path / "odd.onnx_adapter"
    write(path, BAD[case]())
    # onnxruntime refuses as it opens, genai as the adapter is activated: both before a prompt.
    with pytest.raises(EngineError, match="odd"), open_engine(with_adapter(fp32, path), SETTINGS, kind) as engine:
        engine.use("odd")


@pytest.mark.parametrize("content", [None, b"", b"no adapter at all" * 100])
def test_a_file_that_is_no_adapter_is_refused(
    fp32: ModelSource, kind: EngineKind, tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "odd.onnx_adapter"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(EngineError, match="odd"), open_engine(with_adapter(fp32, path), SETTINGS, kind) as engine:
        engine.use("odd")


def test_a_refused_adapter_stays_refused_and_leaves_the_rest_usable(fp32: ModelSource, tmp_path: Path) -> None:
    """genai: onnxruntime refuses to open at all."""
    path = tmp_path / "odd.onnx_adapter"
    write(path, pair(outputs=65))
    odd = bare_adapter("odd", path, "content")
    with open_engine(replace(fp32, adapters=(*fp32.adapters, odd)), SETTINGS, "genai") as engine:
        engine.use("wide")
        expected = engine.forward(TOKENS)
        for _ in range(2):
            with pytest.raises(EngineError, match="odd"):
                engine.use("odd")
        assert (engine.adapter, engine.tokens) == ("wide", TOKENS)
        engine.use("wide")
        np.testing.assert_array_equal(engine.forward(TOKENS), expected)


@pytest.mark.parametrize("kept", [None, "model.onnx"])
def test_a_graph_that_cannot_be_opened_is_refused(
    fp32: ModelSource, kind: EngineKind, tmp_path: Path, kept: str | None
) -> None:
    if kept:
        (tmp_path / kept).write_bytes(b"no graph")
    with (
        pytest.raises(EngineError, match=tmp_path.name),
        open_engine(replace(fp32, folder=tmp_path, adapters=()), SETTINGS, kind) as engine,
    ):
        engine.use(None)


def test_a_graph_of_another_vocabulary_is_refused(fp32: ModelSource, kind: EngineKind) -> None:
    source = replace(fp32, vocab_size=300, adapters=())
    with pytest.raises(EngineError, match="300"), open_engine(source, SETTINGS, kind) as engine:
        engine.use(None)


@pytest.mark.parametrize("field", ["layers", "heads"])
def test_a_graph_of_another_cache_is_refused(fp32: ModelSource, field: str) -> None:
    """onnxruntime only: genai allocates its cache itself."""
    cache = fp32.cache.model_copy(update={field: 1})
    with (
        pytest.raises(EngineError, match=r"past_key_values|present"),
        open_engine(replace(fp32, cache=cache, adapters=()), SETTINGS) as engine,
    ):
        engine.use(None)


def test_the_layout_is_the_graphs(fp32: ModelSource, root: Path, kind: EngineKind, tmp_path: Path) -> None:
    """Not transposed, as for arm64 and in earlier bundles, A and B give the same; a file of the other is refused."""
    from dualtune_edge.export.adapter.read import read_adapter
    from dualtune_edge.export.base.checkpoint import read_checkpoint
    from dualtune_edge.export.graph.adapter_file import write_adapter
    from dualtune_edge.export.graph.slots import add_slots

    folder = Path(shutil.copytree(root / "fp32-plain", tmp_path / "other"))
    slots = add_slots(folder, transposed=False)
    write_adapter(read_adapter(root / "wide", read_checkpoint(root / "base"), "external"), slots, tmp_path / "wide")
    other = replace(with_adapter(fp32, tmp_path / "wide"), folder=folder)
    answers = []
    for source, name in ((fp32, "wide"), (other, "odd")):
        with open_engine(source, SETTINGS, kind) as engine:
            engine.use(name)
            answers.append(engine.forward(TOKENS))
    np.testing.assert_allclose(*answers, atol=1e-5)
    for source in (replace(fp32, folder=folder), replace(other, folder=fp32.folder)):
        with pytest.raises(EngineError), open_engine(source, SETTINGS, kind) as engine:
            engine.use(source.adapters[0].name)
