"""Tiny seeded checkpoints and adapters, graphs built once a session, and logits by PEFT and by onnxruntime."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import onnxruntime
import pytest
import torch
from dualtune_edge_kit.random_checkpoint import MODULES, SHAPES, Shape, write_adapter, write_checkpoint
from export_desk import Desk, Exported
from numpy.typing import NDArray
from peft import LoraConfig, PeftModel
from transformers import AutoModelForCausalLM

from dualtune_edge.export import models, run
from dualtune_edge.export.base.checkpoint import Checkpoint, read_checkpoint
from dualtune_edge.export.build import graphs
from dualtune_edge.export.graph.build import build_graph
from dualtune_edge.export.graph.slot_map import SlotMap
from dualtune_edge.export.graph.slots import add_slots
from dualtune_edge.export.plan.inputs import Inputs, read_inputs
from dualtune_edge.export.reference.torch_engine import TorchEngine
from dualtune_edge.toolkit.bundle.parity import ParityReport
from dualtune_edge.toolkit.bundle.quantization import Quantization

TOKENS = (257, 72, 105, 40, 11, 99, 3, 258, 17)  # a prompt: any ids will do

Logits: TypeAlias = NDArray[np.float32]  # (vocabulary,)
MakeAdapter: TypeAlias = Callable[..., Path]


@dataclass(frozen=True)
class Graph:
    """A built graph with slots."""

    checkpoint: Checkpoint
    folder: Path
    slots: SlotMap

    def logits(self, adapter: Path | None = None, tokens: Sequence[int] = TOKENS) -> Logits:
        """After the last token, by plain onnxruntime with A and B as ordinary inputs."""
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(self.folder / "model.onnx", options)
        ids = np.array([tokens], dtype=np.int64)
        feed = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        shape = (1, self.checkpoint.cache.heads, 0, self.checkpoint.cache.head_dim)
        for value in session.get_inputs():
            if value.name.startswith("past_key_values"):
                feed[value.name] = np.zeros(shape, dtype=np.float32)
        if adapter:
            parameters = onnxruntime.AdapterFormat.read_adapter(str(adapter)).get_parameters()
            feed |= {name: value.numpy() for name, value in parameters.items()}
        return session.run(["logits"], feed)[0][0, -1]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """Qwen2 with grouped queries and a tied table, in fp32."""
    folder = tmp_path_factory.mktemp("tiny") / "base"
    write_checkpoint(folder, SHAPES["tiny"], dtype=torch.float32)
    return read_checkpoint(folder)


@pytest.fixture(scope="session")
def untied(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """The same with a head of its own, in bfloat16 and in shards."""
    folder = tmp_path_factory.mktemp("untied") / "base"
    write_checkpoint(folder, Shape(64, 128, 2, 4, 2, 288, 512, tied=False), seed=1, shard=100_000)
    return read_checkpoint(folder)


@pytest.fixture(scope="module")
def base_and_adapters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the module's own with a small `base` and two adapters for it, `one` and `two`."""
    folder = tmp_path_factory.mktemp("desk")
    write_checkpoint(folder / "base", Shape(64, 96, 2, 4, 2, 288, 2048))
    config = LoraConfig(r=4, target_modules=list(MODULES), task_type="CAUSAL_LM")
    for seed, name in enumerate(("one", "two")):
        write_adapter(folder / name, folder / "base", config, seed=seed)
    return folder


@pytest.fixture(scope="session")
def float_graph(tiny: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Graph:
    """Of `tiny`, not quantized."""
    return _build(tiny, tmp_path_factory.mktemp("float"), Quantization(bits=32))


@pytest.fixture(scope="session")
def untied_graph(untied: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Graph:
    """Of `untied`, not quantized."""
    return _build(untied, tmp_path_factory.mktemp("untied-float"), Quantization(bits=32))


@pytest.fixture(scope="session")
def int4_graph(tiny: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Graph:
    """Of `tiny`, as the default quantization has it."""
    return _build(tiny, tmp_path_factory.mktemp("int4"), Quantization())


def _build(checkpoint: Checkpoint, folder: Path, quantization: Quantization) -> Graph:
    build_graph(checkpoint, folder, quantization)
    return Graph(checkpoint, folder, add_slots(folder))


@pytest.fixture
def make_adapter(tmp_path_factory: pytest.TempPathFactory) -> MakeAdapter:
    """`make_adapter(checkpoint, **LoraConfig's fields)` → folder."""

    def make(checkpoint: Checkpoint, *, seed: int = 7, **fields: object) -> Path:
        settings = {"r": 4, "lora_alpha": 8, "target_modules": list(MODULES), "task_type": "CAUSAL_LM"} | fields
        folder = tmp_path_factory.mktemp("adapter")
        write_adapter(folder, checkpoint.folder, LoraConfig(**settings), seed=seed)
        return folder

    return make


@pytest.fixture(scope="session")
def peft_logits() -> Callable[[Path, Path | None], Logits]:
    """`peft_logits(base, adapter or None)` → logits after the last of TOKENS, in fp32."""

    def logits(base: Path, adapter: Path | None) -> Logits:
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        if adapter:
            model = PeftModel.from_pretrained(model, adapter)
        with torch.no_grad():
            return model.eval()(torch.tensor([TOKENS])).logits[0, -1].numpy()

    return logits


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
    with TorchEngine(checkpoint, adapters) as engine:
        yield engine


@pytest.fixture(scope="session")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    return Desk.write_to(tmp_path_factory.mktemp("desk"))


@pytest.fixture
def own_desk(desk: Desk, tmp_path: Path) -> Desk:
    """A desk that a test may damage."""
    return desk.copy(tmp_path / "desk")


@pytest.fixture(scope="session")
def external(desk: Desk, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return desk.export("external", tmp_path_factory.mktemp("external") / "bundle")


@pytest.fixture(scope="session")
def mixed(desk: Desk, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return desk.export("mixed", tmp_path_factory.mktemp("mixed") / "bundle")


@pytest.fixture(params=["external", "mixed"])
def exported(request: pytest.FixtureRequest) -> Exported:
    exported: Exported = request.getfixturevalue(request.param)
    return exported


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail if anything is built."""

    def build_graph(*_: object, **__: object) -> None:
        pytest.fail("the work began")

    monkeypatch.setattr(graphs, "build_graph", build_graph)


@pytest.fixture(scope="session")
def mixed_inputs(desk: Desk) -> Inputs:
    return read_inputs(desk.spec("mixed"))


@pytest.fixture(scope="session")
def built(mixed_inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built") / "model"
    build_graph(mixed_inputs.checkpoint, folder, Quantization())
    return folder


@pytest.fixture
def quick_work(mixed_inputs: Inputs, built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading, building and comparing done before, for tests of what happens around them."""

    def build(_: object, out: Path, *__: object, **___: object) -> None:
        shutil.copytree(built, out)

    monkeypatch.setattr(run, "read_inputs", lambda _: mixed_inputs)
    monkeypatch.setattr(models, "compare_bundle", lambda *_, **__: ParityReport(skipped="a test"))
    monkeypatch.setattr(graphs, "build_graph", build)
