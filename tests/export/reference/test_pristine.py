"""Whatever an adapter does to the base, the next stage is compared with the base itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from peft import PeftModel
from transformers import AutoModelForCausalLM

from dualtune_edge.export.adapter.read import read_adapter
from dualtune_edge.export.base.checkpoint import Checkpoint
from dualtune_edge.export.reference.first_layers import on_tables
from dualtune_edge.export.reference.streamed import streamed_model
from dualtune_edge.export.reference.torch_engine import TorchEngine

TOKENS = (257, 72, 105, 40, 11, 99, 3, 258, 17)
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "biases of its modules": {"bias": "lora_only"},
    "all biases": {"bias": "all"},
    "biases in LoRA": {"target_modules": ["q_proj", "k_proj"], "lora_bias": True},
    "a head": {"modules_to_save": ["lm_head"]},
    "an embedding": {"modules_to_save": ["embed_tokens"]},
    "both tables": {"modules_to_save": ["embed_tokens", "lm_head"]},
    "norms": {"modules_to_save": ["norm", "input_layernorm"]},
    "a matrix of each layer": {"target_modules": ["q_proj"], "modules_to_save": ["down_proj"]},
    "whole layers of attention": {"target_modules": ["up_proj"], "modules_to_save": ["self_attn"]},
    "pissa": {"init_lora_weights": "pissa"},
    "olora": {"init_lora_weights": "olora"},
    "pissa with a head": {"init_lora_weights": "pissa", "modules_to_save": ["lm_head"]},
    "dora": {"use_dora": True},
    "LoRA on the tables": {"target_modules": ["embed_tokens", "q_proj", "lm_head"]},
    "rows of the embedding": {"trainable_token_indices": [72, 257]},
    "parameters": {"target_modules": ["q_proj"], "target_parameters": ["mlp.up_proj.weight"]},
}
STARTS = ("pissa", "olora")
ON_TABLES = ("a head", "an embedding", "both tables", "LoRA on the tables", "rows of the embedding")
CASES = [*((kind, "untied") for kind in KINDS), *((kind, "tiny") for kind in ON_TABLES)]


def logits(base: Checkpoint, adapter: Path | None) -> NDArray[np.float32]:
    """PEFT's on a model that was never used before."""
    model = AutoModelForCausalLM.from_pretrained(base.folder, dtype=torch.float32)
    if adapter:
        model = PeftModel.from_pretrained(model, adapter)
    with torch.no_grad():
        row: NDArray[np.float32] = model.eval()(torch.tensor([TOKENS])).logits[0, -1].numpy()
    return row


@pytest.fixture
def base(request: pytest.FixtureRequest) -> Checkpoint:
    checkpoint: Checkpoint = request.getfixturevalue(request.node.callspec.params["table"])
    return checkpoint


@pytest.fixture
def folders(base: Checkpoint, make_adapter: Any, request: pytest.FixtureRequest) -> dict[str, Path]:
    """An adapter of the kind, and a plain one."""
    fields = dict(KINDS[request.node.callspec.params["kind"]])
    start = fields.get("init_lora_weights")
    if start in STARTS:
        del fields["init_lora_weights"]  # PEFT would compute it as it makes the adapter, on a base without numbers
    odd = make_adapter(base, **fields)
    if start in STARTS:
        path = odd / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"init_lora_weights": start}), encoding="utf-8")
    read_adapter(odd, base, "merged")
    return {"odd": odd, "plain": make_adapter(base, seed=1)}


@pytest.mark.parametrize(("kind", "table"), CASES)
def test_every_stage_after_it_is_exact(base: Checkpoint, folders: dict[str, Path], kind: str, table: str) -> None:
    expected = {None: logits(base, None)} | {name: logits(base, folder) for name, folder in folders.items()}
    assert np.abs(expected["odd"] - expected[None]).max() > 0.01, f"{kind} does nothing on {table}"
    with TorchEngine(base, folders) as reference:
        first = reference.forward(TOKENS)
        for name, forget in (
            ("odd", False),
            ("plain", False),
            (None, False),
            ("odd", True),
            (None, True),
            ("plain", True),
        ):
            if forget:
                reference.forget_adapters()
            reference.use(name)
            np.testing.assert_allclose(reference.forward(TOKENS), expected[name], atol=1e-5, err_msg=str(name))
        reference.use(None)
        np.testing.assert_array_equal(reference.forward(TOKENS), first)


@pytest.mark.parametrize(("kind", "table"), CASES)
def test_so_it_is_where_the_base_is_streamed(base: Checkpoint, folders: dict[str, Path], kind: str, table: str) -> None:
    """Its weights are not in memory when PEFT reads, copies or replaces them."""
    tables = any(on_tables(folder, base) for folder in folders.values())
    with TorchEngine(base, folders, model=streamed_model(base, whole_tables=tables)) as reference:
        for name in ("odd", "plain", None, "odd"):
            reference.use(name)
            expected = logits(base, folders[name] if name else None)
            message = f"{name} after {kind} on {table}"
            np.testing.assert_allclose(reference.forward(TOKENS), expected, atol=1e-5, err_msg=message)
