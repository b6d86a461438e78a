"""Weights mapped from the cache folder give every bit that packed ones give, or they are packed again."""

from __future__ import annotations

import dataclasses
import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from dualtune_edge.profiles import detect
from dualtune_edge.profiles.schema import SessionSettings
from dualtune_edge.runtime.bundle.model_source import ModelSource
from dualtune_edge.runtime.cache import compiled as compiled_cache
from dualtune_edge.runtime.cache.folder import BUDGET_VARIABLE, CACHE_VARIABLE
from dualtune_edge.runtime.engines import mapped_weights
from dualtune_edge.runtime.engines.engine import EngineKind, PlacedEngine, open_engine
from dualtune_edge.runtime.result import Placement

PLAIN = SessionSettings(intra_op_threads=1)
MAPPED = SessionSettings(intra_op_threads=1, weights="mapped")
ADAPTERS = (None, "wide", "narrow", "merged", "wide")
PIECES = ((5, 6, 7, 8, 9, 10, 11), (12,), (13, 14))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def answers(source: ModelSource, settings: SessionSettings, kind: EngineKind) -> tuple[Placement, NDArray[np.float32]]:
    """Logits after prefill, step and a short run, under each adapter."""
    with open_engine(source, settings, kind) as engine:
        logits = []
        for adapter in ADAPTERS:
            engine.use(adapter)
            logits += [engine.forward(piece) for piece in PIECES]
        assert isinstance(engine, PlacedEngine)
        return engine.placement, np.stack(logits)


def entries(cache: Path) -> list[Path]:
    return sorted(path for path in cache.iterdir() if len(path.name) == 64)


ENGINES = pytest.mark.parametrize("kind", ["ort", "genai"])


@ENGINES
@pytest.mark.parametrize("bits", ["fp32", "int4"])
def test_every_bit_is_that_of_packed_weights(
    bits: str, kind: EngineKind, cache: Path, request: pytest.FixtureRequest
) -> None:
    source: ModelSource = request.getfixturevalue(bits)
    placement, expected = answers(source, PLAIN, kind)
    assert placement.weights == "memory"
    for _ in range(2):  # made, and found
        placement, found = answers(source, MAPPED, kind)
        assert (placement.weights, placement.not_mapped) == ("mapped", "")
        np.testing.assert_array_equal(found, expected)
    base, _merged = entries(cache)
    assert {path.name for path in base.iterdir()} == {"model.onnx", "model.onnx.data", "sha256"}


def test_it_is_made_once(int4: ModelSource, cache: Path) -> None:
    with open_engine(int4, MAPPED):
        pass
    (entry,) = entries(cache)
    inode = (entry / "model.onnx.data").stat().st_ino
    with open_engine(int4, MAPPED):
        pass
    assert (entry / "model.onnx.data").stat().st_ino == inode


def test_another_machine_version_or_graph_is_another_entry(
    int4: ModelSource, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def names() -> set[str]:
        mapped_weights.mapped_graph(int4.folder, int4)
        return {path.name for path in entries(cache)}

    one = names()
    machine = detect.detect()
    other = dataclasses.replace(machine, cpu=dataclasses.replace(machine.cpu, features=("avx2",)))
    with monkeypatch.context() as patch:
        patch.setattr(mapped_weights, "detect", lambda: other)
        two = names()
    with monkeypatch.context() as patch:
        patch.setattr(onnxruntime, "__version__", "9.9")
        three = names()
    graph = int4.folder / "model.onnx"
    int4 = dataclasses.replace(int4, hashes={graph: "another"})
    four = names()
    assert one < two < three < four
    assert len(four) == 4


@pytest.mark.parametrize("name", ["model.onnx", "model.onnx.data", "sha256"])
def test_a_damaged_entry_is_made_anew(int4: ModelSource, cache: Path, name: str) -> None:
    _, expected = answers(int4, MAPPED, "ort")
    for entry in entries(cache):
        whole = (entry / name).read_bytes()
        (entry / name).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    placement, found = answers(int4, MAPPED, "ort")
    assert placement.weights == "mapped"
    np.testing.assert_array_equal(found, expected)
    for entry in entries(cache):
        assert compiled_cache._whole(entry)


def test_an_entry_that_does_not_open_goes(int4: ModelSource, cache: Path) -> None:
    """One that is whole by its own hashes, which another version of this package may have written."""
    entry = mapped_weights.mapped_graph(int4.folder, int4)
    (entry / "sha256").unlink()
    (entry / "model.onnx").write_bytes(b"no graph")
    compiled_cache._seal(entry)
    with open_engine(int4, MAPPED) as engine:
        assert isinstance(engine, PlacedEngine)
        assert engine.placement.weights == "memory"
        assert engine.placement.not_mapped
    assert entries(cache) == []


def test_other_logits_are_never_used(int4: ModelSource, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def logits(session: onnxruntime.InferenceSession, _source: ModelSource, count: int) -> bytes:
        return f"{id(session)} {count}".encode()

    monkeypatch.setattr(mapped_weights, "_logits", logits)
    placement, found = answers(int4, MAPPED, "ort")
    assert placement.weights == "memory"
    assert "gives other logits from them on this CPU" in placement.not_mapped
    np.testing.assert_array_equal(found, answers(int4, PLAIN, "ort")[1])
    assert list(cache.iterdir()) == []


@ENGINES
def test_without_a_place_to_write_they_are_packed(int4: ModelSource, cache: Path, kind: EngineKind) -> None:
    cache.write_text("a file where the folder should be", encoding="utf-8")
    placement, found = answers(int4, MAPPED, kind)
    assert placement.weights == "memory"
    assert str(cache) in placement.not_mapped
    np.testing.assert_array_equal(found, answers(int4, PLAIN, kind)[1])


@ENGINES
def test_beyond_the_budget_they_are_packed(
    int4: ModelSource, cache: Path, kind: EngineKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(BUDGET_VARIABLE, "0")
    placement, _ = answers(int4, MAPPED, kind)
    assert placement.weights == "memory"
    assert placement.not_mapped.endswith("and the cache may take 0")
    assert list(cache.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what each mapping holds")
def test_nothing_of_what_is_mapped_is_copied(int4: ModelSource, cache: Path) -> None:
    with open_engine(int4, MAPPED) as engine:
        engine.use("wide")
        engine.forward(PIECES[0])
        (entry,) = entries(cache)
        for path in (entry / "model.onnx.data", int4.adapter("wide").path):
            parts = Path("/proc/self/smaps").read_text(encoding="utf-8").split("VmFlags:")
            ours = [part for part in parts if str(path) in part]
            assert ours
            assert all("\nAnonymous:             0 kB" in part for part in ours)


PROCESS = """\
import hashlib, sys
from pathlib import Path
from dualtune_edge.profiles.schema import SessionSettings
from dualtune_edge.runtime.engines.engine import open_engine
from dualtune_edge.runtime.bundle.model_source import ModelSource
from dualtune_edge.toolkit.bundle.manifest import CacheShape
folder, layers, heads, head_dim, vocab = sys.argv[1], *map(int, sys.argv[2:])
cache = CacheShape(layers=layers, heads=heads, head_dim=head_dim, dtype="float32")
source = ModelSource(Path(folder), "base", cache, vocab, 2048)
with open_engine(source, SessionSettings(1, weights="mapped")) as engine:
    logits = engine.forward([5, 6, 7])
    print(engine.placement.weights, hashlib.sha256(logits.tobytes()).hexdigest())
"""


def test_processes_that_make_it_at_once_agree(int4: ModelSource, cache: Path) -> None:
    with open_engine(dataclasses.replace(int4, adapters=()), PLAIN) as engine:
        logits = engine.forward([5, 6, 7])
    shape = int4.cache
    numbers = (shape.layers, shape.heads, shape.head_dim, int4.vocab_size)
    command = [sys.executable, "-c", PROCESS, str(int4.folder), *map(str, numbers)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    outputs = [process.communicate()[0].split() for process in running]

    assert outputs == [["mapped", hashlib.sha256(logits.tobytes()).hexdigest()]] * 3
    assert len(entries(cache)) == 1
    assert [path for path in cache.iterdir() if path.name.endswith(".partial")] == []
