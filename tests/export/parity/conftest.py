"""A tiny random base with two adapters, and the reference on them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from peft import LoraConfig

from dualtune_edge.export.checkpoint import Checkpoint, read_checkpoint
from dualtune_edge.export.parity.torch_engine import TorchEngine
from dualtune_edge.export.random_checkpoint import MODULES, SHAPES, write_adapter, write_checkpoint


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    folder = tmp_path_factory.mktemp("desk") / "base"
    write_checkpoint(folder, SHAPES["tiny"])
    return read_checkpoint(folder)


@pytest.fixture(scope="session")
def adapters(checkpoint: Checkpoint) -> dict[str, Path]:
    """Two, of different ranks and targets."""
    desk = checkpoint.folder.parent
    wide = LoraConfig(r=4, lora_alpha=8, use_rslora=True, target_modules=list(MODULES), task_type="CAUSAL_LM")
    narrow = LoraConfig(r=2, lora_alpha=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    write_adapter(desk / "wide", checkpoint.folder, wide, seed=1)
    write_adapter(desk / "narrow", checkpoint.folder, narrow, seed=2)
    return {"a.wide": desk / "wide", "a.narrow": desk / "narrow"}


@pytest.fixture
def reference(checkpoint: Checkpoint, adapters: dict[str, Path]) -> Iterator[TorchEngine]:
    with TorchEngine(checkpoint.folder, adapters) as engine:
        yield engine
