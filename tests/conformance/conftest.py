"""One tiny model, made by the export wing once a session: an fp32 and an int4 graph, adapters external and merged."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, get_args

import pytest
from bare_adapter import bare_adapter

from dualtune_edge.profiles.schema import SessionSettings
from dualtune_edge.runtime.bundle.model_source import AdapterSource, ModelSource
from dualtune_edge.runtime.engines.engine import Engine, EngineKind, open_engine
from dualtune_edge.runtime.levers import NAIVE, Levers
from dualtune_edge.runtime.pipeline import Agent
from dualtune_edge.toolkit.bundle.graph_form import StaticGraph
from dualtune_edge.toolkit.bundle.quantization import QdqQuantization, Quantization

if TYPE_CHECKING:
    from export_desk import Exported

    from dualtune_edge.export.base.checkpoint import Checkpoint

Driver = Literal["ort", "genai", "static", "ort int8 cache", "genai int8 cache"]
_PREFIXES: Final = {"static": "static_"}  # of the fixtures that make a driver's graphs
_SUFFIXES: Final = {"ort int8 cache": "_int8_cache", "genai int8 cache": "_int8_cache"}
STATIC: Final = StaticGraph(chunks=(1, 32), kv_length=512)
SETTINGS = SessionSettings(intra_op_threads=1)
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model, and two adapters: `wide` (rsLoRA r=8, all modules) and `narrow` (r=4, attention only)."""
    from dualtune_edge_kit.random_checkpoint import MODULES, SHAPES, write_adapter, write_checkpoint
    from peft import LoraConfig

    root = tmp_path_factory.mktemp("tiny")
    write_checkpoint(root / "base", SHAPES["tiny"])
    wide = LoraConfig(r=8, lora_alpha=16, use_rslora=True, target_modules=list(MODULES), task_type="CAUSAL_LM")
    narrow = LoraConfig(r=4, lora_alpha=4, target_modules=ATTENTION, task_type="CAUSAL_LM")
    write_adapter(root / "wide", root / "base", wide, seed=1)
    write_adapter(root / "narrow", root / "base", narrow, seed=2)
    return root


@pytest.fixture(scope="session")
def fp32(root: Path) -> ModelSource:
    """The graph in fp32, with `wide` and `narrow` as files, and `wide` folded in as `merged`."""
    return _export(root, "fp32", bits=32)


@pytest.fixture(scope="session")
def int4(root: Path) -> ModelSource:
    return _export(root, "int4", bits=4)


def _export(root: Path, name: str, bits: Literal[4, 32]) -> ModelSource:
    """Folder `name`; beside it `name`-plain, the graph without slots."""
    from dualtune_edge.export.adapter.merge import merge
    from dualtune_edge.export.adapter.read import read_adapter
    from dualtune_edge.export.base.checkpoint import read_checkpoint
    from dualtune_edge.export.graph.adapter_file import write_adapter
    from dualtune_edge.export.graph.build import build_graph
    from dualtune_edge.export.graph.slots import add_slots

    checkpoint = read_checkpoint(root / "base")
    quantization = Quantization(bits=bits)
    build_graph(checkpoint, root / f"{name}-plain", quantization)
    shutil.copytree(root / f"{name}-plain", root / name)
    slots = add_slots(root / name)
    adapters = []
    for adapter in ("wide", "narrow"):
        weights = read_adapter(root / adapter, checkpoint, "external")
        path = root / f"{name}-{adapter}.onnx_adapter"
        write_adapter(weights, slots, path)
        adapters.append(bare_adapter(adapter, path, weights.sha256))
    weights = read_adapter(root / "wide", checkpoint, "merged")
    merged = merge(checkpoint, weights, root / f"{name}-weights")
    build_graph(checkpoint, root / f"{name}-merged", quantization, weights=merged)
    adapters.append(bare_adapter("merged", root / f"{name}-merged", weights.sha256, "merged"))
    return _source(root / name, checkpoint, tuple(adapters))


@pytest.fixture(scope="session")
def fp32_int8_cache(root: Path, fp32: ModelSource) -> ModelSource:
    """The graphs of `fp32` with their KV cache in int8."""
    return _with_int8_cache(root, fp32, fp32)


@pytest.fixture(scope="session")
def int4_int8_cache(root: Path, fp32: ModelSource, int4: ModelSource) -> ModelSource:
    return _with_int8_cache(root, int4, fp32)


def _with_int8_cache(root: Path, source: ModelSource, measured: ModelSource) -> ModelSource:
    import numpy as np

    from dualtune_edge.export.graph.kv_type import store_kv_in_int8

    tokens = np.random.default_rng(3).integers(0, 288, 300).tolist()
    with open_engine(measured, SETTINGS) as engine:
        engine.forward(tokens)
        scales = np.abs(np.asarray(engine.snapshot().state)).max(axis=3) / 100  # of 127: a reserve for other tokens
    copies = {}
    for folder in (source.folder, *(adapter.path for adapter in source.adapters if adapter.mode == "merged")):
        copies[folder] = shutil.copytree(folder, root / f"{folder.name}-int8-cache")
        store_kv_in_int8(copies[folder], scales)
    adapters = tuple(
        adapter.model_copy(update={"path": copies.get(adapter.path, adapter.path)}) for adapter in source.adapters
    )
    cache = source.cache.model_copy(update={"dtype": "int8", "scales": "0" * 64})
    return replace(source, folder=copies[source.folder], adapters=adapters, cache=cache)


@pytest.fixture(scope="session")
def static_fp32(root: Path) -> ModelSource:
    """Static graphs in fp32: `wide` folded in twice, as `wide` and as `merged`, and `narrow`."""
    return _export_static(root, "static-fp32", None)


@pytest.fixture(scope="session")
def static_int4(root: Path) -> ModelSource:
    """The same in integers: int4 weights, 16-bit activations and KV cache."""
    return _export_static(root, "static-int4", QdqQuantization(weight_bits=4, activation_bits=16, block_size=32))


def _export_static(root: Path, name: str, quantization: QdqQuantization | None) -> ModelSource:
    import numpy as np

    from dualtune_edge.export.adapter.merge import merged_weights
    from dualtune_edge.export.adapter.read import read_adapter
    from dualtune_edge.export.base.checkpoint import read_checkpoint
    from dualtune_edge.export.qnn.build import build_static

    checkpoint = read_checkpoint(root / "base")
    prompts = [np.random.default_rng(seed).integers(0, 288, 300).tolist() for seed in range(2)]
    build_static(checkpoint, root / name, STATIC, quantization, prompts=prompts)
    adapters = []
    for adapter, folder in (("wide", "wide"), ("narrow", "narrow"), ("merged", "wide")):
        read = read_adapter(root / folder, checkpoint, "merged")
        path = root / f"{name}-{folder}"
        if not path.exists():
            with merged_weights(checkpoint, read, scratch=root) as weights:
                build_static(checkpoint, path, STATIC, quantization, prompts=prompts, weights=weights)
        adapters.append(bare_adapter(adapter, path, read.sha256 if adapter != "merged" else "another", "merged"))
    cache = checkpoint.cache.model_copy(update={"dtype": "int16" if quantization else "float32"})
    return replace(_source(root / name, checkpoint, tuple(adapters)), graph=STATIC, cache=cache)


def _source(folder: Path, checkpoint: Checkpoint, adapters: tuple[AdapterSource, ...]) -> ModelSource:
    return ModelSource(
        folder=folder,
        fingerprint=checkpoint.fingerprint,
        cache=checkpoint.cache,
        vocab_size=checkpoint.vocab_size,
        context_length=checkpoint.context_length,
        adapters=adapters,
    )


@pytest.fixture(scope="session", params=get_args(Driver))
def driver(request: pytest.FixtureRequest) -> Driver:
    """What drives the graphs: an engine's kind, or static graphs, which have an engine of their own."""
    driver: Driver = request.param
    return driver


@pytest.fixture(scope="session")
def kind(driver: Driver) -> EngineKind:
    return "genai" if driver.startswith("genai") else "ort"


@pytest.fixture(scope="session")
def noise(driver: Driver) -> float:
    """How far logits may be off that are computed in pieces, or token by token: the sums are taken in another order.

    Float32's own, no more; but in an int8 cache it decides which way a value half-way between two steps is rounded.
    """
    return 5e-2 if driver.endswith("int8 cache") else 1e-4


@pytest.fixture(scope="session")
def source(driver: Driver, request: pytest.FixtureRequest) -> ModelSource:
    """The fp32 model."""
    source: ModelSource = request.getfixturevalue(f"{_PREFIXES.get(driver, '')}fp32{_SUFFIXES.get(driver, '')}")
    return source


@pytest.fixture
def engine(source: ModelSource, kind: EngineKind) -> Iterator[Engine]:
    """On the fp32 graph."""
    with open_engine(source, SETTINGS, kind) as engine:
        yield engine


@pytest.fixture
def int4_engine(driver: Driver, kind: EngineKind, request: pytest.FixtureRequest) -> Iterator[Engine]:
    source = request.getfixturevalue(f"{_PREFIXES.get(driver, '')}int4{_SUFFIXES.get(driver, '')}")
    with open_engine(source, SETTINGS, kind) as engine:
        yield engine


@pytest.fixture(scope="module")
def agents(exported: Exported) -> Iterator[dict[str, Agent]]:
    """By what is kept from one call to the next; `naive` begins every prompt at its first token."""
    levers = {"kept": Levers(), "computed": Levers(states=False), "naive": NAIVE}
    opened = {name: Agent.open(exported.bundle, settings=SETTINGS, levers=lever) for name, lever in levers.items()}
    yield opened
    for agent in opened.values():
        agent.close()
