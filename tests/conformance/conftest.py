"""One tiny model, made by the export wing once a session: an fp32 and an int4 graph, adapters external and merged."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from dualtune_edge.profiles.schema import SessionSettings
from dualtune_edge.runtime.engine import AdapterSource, Engine, EngineKind, ModelSource, open_engine
from dualtune_edge.toolkit.manifest import Quantization

SETTINGS = SessionSettings(intra_op_threads=1)
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model, and two adapters: `wide` (rsLoRA r=8, all modules) and `narrow` (r=4, attention only)."""
    from peft import LoraConfig

    from dualtune_edge.export.random_checkpoint import MODULES, SHAPES, write_adapter, write_checkpoint

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
    from dualtune_edge.export.adapter import read_adapter
    from dualtune_edge.export.checkpoint import read_checkpoint
    from dualtune_edge.export.graph.adapter_file import write_adapter
    from dualtune_edge.export.graph.build import build_graph
    from dualtune_edge.export.graph.slots import add_slots
    from dualtune_edge.export.merge import merge
    from dualtune_edge.export.weights import StoredWeights

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
        adapters.append(AdapterSource(adapter, "external", path, weights.sha256))
    weights = read_adapter(root / "wide", checkpoint, "merged")
    merge(checkpoint, weights, root / f"{name}-weights")
    build_graph(
        checkpoint, root / f"{name}-merged", quantization, weights=StoredWeights(root / f"{name}-weights", merged=True)
    )
    adapters.append(AdapterSource("merged", "merged", root / f"{name}-merged", weights.sha256))
    return ModelSource(
        folder=root / name,
        fingerprint=checkpoint.fingerprint,
        cache=checkpoint.cache,
        vocab_size=checkpoint.vocab_size,
        context_length=checkpoint.context_length,
        adapters=tuple(adapters),
    )


@pytest.fixture(scope="session", params=["ort", "genai"])
def kind(request: pytest.FixtureRequest) -> EngineKind:
    kind: EngineKind = request.param
    return kind


@pytest.fixture
def engine(fp32: ModelSource, kind: EngineKind) -> Iterator[Engine]:
    """On the fp32 graph."""
    with open_engine(fp32, SETTINGS, kind) as engine:
        yield engine


@pytest.fixture
def int4_engine(int4: ModelSource, kind: EngineKind) -> Iterator[Engine]:
    with open_engine(int4, SETTINGS, kind) as engine:
        yield engine
