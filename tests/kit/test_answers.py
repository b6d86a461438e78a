"""The built-in kit, exported: PEFT's logits for every adapter, and the same calls through both engines."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from dualtune_edge_kit import FOLDER
from dualtune_edge_kit.training.data import toolsets
from dualtune_edge_kit.training.measuring import evaluate, specs
from numpy.typing import NDArray

from dualtune_edge.export import run
from dualtune_edge.profiles.schema import SessionSettings
from dualtune_edge.runtime import Agent, open_bundle, open_engine
from dualtune_edge.runtime.engines.engine import Engine
from dualtune_edge.runtime.levers import NAIVE
from dualtune_edge.toolkit.bundle.quantization import Quantization

SETTINGS = SessionSettings(intra_op_threads=1, spinning=False)
TOKENS = tuple(range(40, 72))
EVERY = 16  # of the held-out turns: the part `engines` of training/make.py compares all


@pytest.fixture(scope="module")
def unquantized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not compared by the export: the first test does so, under every adapter."""
    update = {"quantization": Quantization(bits=32), "parity": None}
    bundle = tmp_path_factory.mktemp("kit") / "fp32"
    run.run(specs.spec("decoupled", "external").model_copy(update=update), bundle)
    return bundle


@pytest.fixture(scope="module")
def engine(unquantized: Path) -> Iterator[Engine]:
    with open_engine(open_bundle(unquantized).model, SETTINGS) as opened:
        yield opened


def logits(engine: Engine, adapter: str | None) -> NDArray[np.float32]:
    engine.use(adapter)
    return engine.forward(TOKENS)


def test_every_adapter_gives_pefts_logits_on_an_unquantized_graph(unquantized: Path, engine: Engine) -> None:
    names = [entry.name for entry in open_bundle(unquantized).manifest.adapters]
    assert len(names) == 28
    with evaluate.reference_engine(FOLDER, "decoupled") as reference:
        for name in (None, *names):
            np.testing.assert_allclose(logits(engine, name), logits(reference, name), atol=1e-3, rtol=0)


def test_swapping_there_and_back_changes_no_bit(unquantized: Path, engine: Engine) -> None:
    first, *others = [entry.name for entry in open_bundle(unquantized).manifest.adapters]
    before = logits(engine, first)
    for other in others:
        assert (logits(engine, other) != before).any(), other
        assert (logits(engine, first) == before).all(), other


def test_both_engines_make_the_same_calls(kit_bundle: Path) -> None:
    turns = evaluate.read_turns(FOLDER / "heldout.jsonl", toolsets.NAMES)[::EVERY]
    with (
        Agent.open(kit_bundle, engine="ort", settings=SETTINGS) as one,
        Agent.open(kit_bundle, engine="genai", settings=SETTINGS) as other,
    ):
        lines: list[str] = []
        assert evaluate.differences(one, other, turns, lines.append) == 0, lines


def test_no_lever_changes_a_call(kit_bundle: Path) -> None:
    """Every token a forward and every prompt from its first token on, against all that makes a call quick.

    int8 activations make steps of the kernels' last bits, so that a choice between equals may fall the other way.
    """
    turns = evaluate.read_turns(FOLDER / "heldout.jsonl", toolsets.NAMES)[:: 2 * EVERY]
    with (
        Agent.open(kit_bundle, settings=SETTINGS) as quick,
        Agent.open(kit_bundle, settings=SETTINGS, levers=NAIVE) as naive,
    ):
        lines: list[str] = []
        assert evaluate.differences(quick, naive, turns, lines.append) == 0, lines
