"""Engines against transformers and PEFT, and against each other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from dualtune_edge.profiles.schema import SessionSettings
from dualtune_edge.runtime.bundle.model_source import ModelSource
from dualtune_edge.runtime.engines.engine import Engine, open_engine

SETTINGS = SessionSettings(intra_op_threads=1)
TOKENS = tuple(int(token) for token in np.random.default_rng(1).integers(0, 288, 120))
ADAPTERS = (None, "wide", "narrow", "merged")
# Whose KV cache holds what the reference's does: tests/export/test_kv_scales.py compares one in int8.
in_full = pytest.mark.parametrize("driver", ["ort", "genai", "static"], indirect=True, scope="session")


@pytest.fixture(scope="module")
def reference(root: Path) -> dict[str | None, NDArray[np.float32]]:
    """Logits after each of TOKENS, in float32; `merged` is `wide`, whose mathematics it has."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(root / "base", dtype=torch.float32).eval()
    model = PeftModel.from_pretrained(base, root / "wide", adapter_name="wide")
    model.load_adapter(root / "narrow", adapter_name="narrow")
    ids = torch.tensor([TOKENS])
    found: dict[str | None, NDArray[np.float32]] = {}
    with torch.no_grad():
        for name in ("wide", "narrow"):
            model.set_adapter(name)
            found[name] = model(ids).logits[0].numpy()
        with model.disable_adapter():
            found[None] = model(ids).logits[0].numpy()
    return {**found, "merged": found["wide"]}


@in_full
@pytest.mark.parametrize("name", ADAPTERS)
def test_the_fp32_graph_computes_what_peft_does(
    engine: Engine, reference: dict[str | None, NDArray[np.float32]], name: str | None
) -> None:
    engine.use(name)
    np.testing.assert_allclose(engine.forward(TOKENS), reference[name][-1], atol=1e-3, rtol=0)


@in_full
@pytest.mark.parametrize("name", ADAPTERS)
def test_the_int4_graph_is_nearest_to_its_own_adapter(
    int4_engine: Engine, reference: dict[str | None, NDArray[np.float32]], name: str | None
) -> None:
    """Random weights amplify int4's error, so single positions stray; the median does not."""
    int4_engine.use(name)
    logits = np.stack([int4_engine.forward([token]) for token in TOKENS[:40]])
    cosine = {
        other: np.median(
            (logits * expected[:40]).sum(1) / np.linalg.norm(logits, axis=1) / np.linalg.norm(expected[:40], axis=1)
        )
        for other, expected in reference.items()
    }
    assert cosine[name] == max(cosine.values())
    assert cosine[name] > 0.7


@pytest.mark.parametrize("name", ADAPTERS)
def test_engines_agree(int4: ModelSource, name: str | None) -> None:
    answers = []
    for kind in ("ort", "genai"):
        with open_engine(int4, SETTINGS, kind) as engine:
            engine.use(name)
            answers.append(
                [engine.forward(TOKENS[:100]), engine.forward(TOKENS[100:101]), engine.forward(TOKENS[101:])]
            )
    np.testing.assert_allclose(*answers, atol=1e-4, rtol=0)


@in_full
def test_empty_slots_add_nothing(engine: Engine, root: Path, fp32: ModelSource) -> None:
    with open_engine(replace(fp32, folder=root / "fp32-plain", adapters=()), SETTINGS) as plain:
        np.testing.assert_allclose(engine.forward(TOKENS), plain.forward(TOKENS), atol=1e-5, rtol=0)
