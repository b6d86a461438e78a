"""Writes adapter-matrix.md: each field of PEFT's LoRA, alone and in pairs, exported in both modes and measured.

Every cell is tried on a tiny seeded checkpoint: an adapter with all its tensors drawn is read, written for the graph or
merged, and its logits are compared with PEFT's. tests/docs/test_adapter_matrix.py runs the same.
"""

from __future__ import annotations

import copy
import itertools
import json
import re
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

import numpy as np
import onnxruntime
import torch
from dualtune_edge_kit.random_checkpoint import MODULES, Shape, write_adapter, write_checkpoint
from numpy.typing import NDArray
from peft import LoraConfig, PeftModel
from transformers import AutoModelForCausalLM, PreTrainedModel

from dualtune_edge.export.adapter.merge import merged_weights
from dualtune_edge.export.adapter.read import AdapterWeights, read_adapter
from dualtune_edge.export.base.checkpoint import Checkpoint, read_checkpoint
from dualtune_edge.export.graph.adapter_file import write_adapter as write_file
from dualtune_edge.export.graph.build import build_graph
from dualtune_edge.export.graph.slot_map import SlotMap
from dualtune_edge.export.graph.slots import add_slots
from dualtune_edge.runtime.reuse.activation import base_part
from dualtune_edge.toolkit.bundle.adapters import Mode
from dualtune_edge.toolkit.bundle.quantization import Quantization
from dualtune_edge.toolkit.errors import AdapterError

PAGE: Final = Path(__file__).with_name("adapter-matrix.md")
TOLERANCE: Final = 1e-3  # of a logit, before quantization
EXACT: Final = "exact"
_SHAPE: Final = Shape(64, 128, 2, 4, 2, 288, 512, tied=False)  # Qwen2: q, k and v have biases
_TOKENS: Final = (257, 72, 105, 40, 11, 99, 3, 258, 17)
_FIELD: Final = re.compile(r"adapter_config\.json, (\w+)$")
_Fields = Mapping[str, Any]
_Arrays = Mapping[str, NDArray[np.float32]]  # by name in the graph

SINGLE: Final[dict[str, _Fields]] = {
    "nothing but the defaults": {},
    "r: 1": {"r": 1},
    "lora_alpha": {"lora_alpha": 3},
    "lora_dropout": {"lora_dropout": 0.1},
    "use_rslora": {"use_rslora": True},
    "rank_pattern": {"rank_pattern": {"layers.0.self_attn.q_proj": 2, "down_proj": 6}},
    "alpha_pattern": {"alpha_pattern": {"up_proj": 32, "layers.1.self_attn.q_proj": 1}},
    "target_modules: q and v": {"target_modules": ["q_proj", "v_proj"]},
    "target_modules: a regex": {"target_modules": r".*layers\.1\.(self_attn\.(k|o)_proj|mlp\.gate_proj)"},
    "target_modules: all-linear": {"target_modules": "all-linear"},
    "target_modules: lm_head": {"target_modules": ["q_proj", "lm_head"]},
    "target_modules: embed_tokens": {"target_modules": ["q_proj", "embed_tokens"]},
    "exclude_modules": {"exclude_modules": ["layers.1.self_attn.q_proj"]},
    "exclude_modules: a regex": {"exclude_modules": r".*layers\.0\..*"},
    "layers_to_transform": {"layers_to_transform": [1]},
    "layers_to_transform, layers_pattern": {"layers_to_transform": 0, "layers_pattern": "layers"},
    "lora_bias": {"lora_bias": True},
    "lora_bias on modules with a bias": {"lora_bias": True, "target_modules": ["q_proj", "k_proj"]},
    "fan_in_fan_out": {"fan_in_fan_out": True},
    "bias: lora_only": {"bias": "lora_only"},
    "bias: all": {"bias": "all"},
    "use_dora": {"use_dora": True},
    "modules_to_save: lm_head": {"modules_to_save": ["lm_head"]},
    "modules_to_save: norm": {"modules_to_save": ["norm"]},
    "modules_to_save: embed_tokens": {"modules_to_save": ["embed_tokens"]},
    "trainable_token_indices": {"trainable_token_indices": [72, 257]},
    "trainable_token_indices: of the head": {"trainable_token_indices": {"embed_tokens": [72], "lm_head": [17]}},
    "target_parameters": {"target_modules": ["q_proj"], "target_parameters": ["mlp.up_proj.weight"]},
    "init_lora_weights: gaussian": {"init_lora_weights": "gaussian"},
    "init_lora_weights: orthogonal": {"init_lora_weights": "orthogonal"},
    "init_lora_weights: eva": {"init_lora_weights": "eva"},
    "init_lora_weights: olora": {"init_lora_weights": "olora"},
    "init_lora_weights: pissa": {"init_lora_weights": "pissa"},
    "init_lora_weights: pissa_niter_4": {"init_lora_weights": "pissa_niter_4"},
    "init_lora_weights: mica": {"init_lora_weights": "mica"},
    "init_lora_weights: loftq": {"init_lora_weights": "loftq", "loftq_config": {"loftq_bits": 4}},
    "init_lora_weights: corda": {"init_lora_weights": "corda", "corda_config": {"corda_method": "ipm"}},
    "init_lora_weights: lora_ga": {"init_lora_weights": "lora_ga", "lora_ga_config": {"direction": "ArB2r"}},
    "use_qalora": {"use_qalora": True},
    "use_bdlora": {
        "target_modules": ["q_proj", "down_proj"],
        "use_bdlora": {"target_modules_bd_a": ["q_proj"], "target_modules_bd_b": ["down_proj"], "nblocks": 2},
    },
    "kasa_config": {"kasa_config": {"beta": 1e-4, "gamma": 1e-3}},
    "monteclora_config": {"monteclora_config": {"num_samples": 4}},
    "velora_config": {"velora_config": {"num_groups": 4}},
    "alora_invocation_tokens": {"alora_invocation_tokens": [105, 40]},
    "arrow_config": {"arrow_config": {"top_k": 1}},
    "layer_replication": {"layer_replication": [[0, 2], [1, 2]]},
    "ensure_weight_tying": {"ensure_weight_tying": True},
    "megatron_config": {"megatron_config": {"hidden_size": 64}},
}
# What is paired: one setting of each field that either mode can hold and that changes something.
_PAIRED: Final = (
    "use_rslora",
    "rank_pattern",
    "alpha_pattern",
    "exclude_modules",
    "layers_to_transform",
    "lora_bias on modules with a bias",
    "target_modules: lm_head",
    "target_modules: embed_tokens",
    "use_dora",
    "bias: all",
    "alora_invocation_tokens",
)
_FEWER: Final = ("q_proj", "up_proj", "down_proj")  # PEFT takes its time for each module


def _pairs() -> Iterator[tuple[str, _Fields]]:
    for one, other in itertools.combinations(_PAIRED, 2):
        if not SINGLE[one].keys() & SINGLE[other].keys():
            yield f"{one} + {other}", {"target_modules": list(_FEWER), **SINGLE[one], **SINGLE[other]}


CONFIGS: Final[dict[str, _Fields]] = {**SINGLE, **dict(_pairs())}


@dataclass(frozen=True)
class Bench:
    """A base with its graph, on which adapters are tried."""

    folder: Path
    checkpoint: Checkpoint
    model: PreTrainedModel
    slots: SlotMap
    session: onnxruntime.InferenceSession

    def outcomes(self, name: str) -> dict[Mode, str]:
        """Of a configuration in each mode: EXACT, `refused: FIELD`, or by how much a logit is off."""
        adapter = self._write(name)
        found: dict[Mode, str] = {}
        reference: NDArray[np.float32] | None = None
        for mode in get_args(Mode):
            try:
                weights = read_adapter(adapter, self.checkpoint, mode)
                logits = self._external(weights) if mode == "external" else self._merged(weights)
            except AdapterError as error:
                found[mode] = _refusal(error, CONFIGS[name])
                continue
            reference = self._peft(adapter) if reference is None else reference
            found[mode] = self._verdict(logits, reference)
        return found

    def _verdict(self, logits: NDArray[np.float32], reference: NDArray[np.float32]) -> str:
        off = float(np.abs(logits - reference).max())
        if np.abs(reference - _logits(self.model)).max() < 0.01:
            return "an adapter without effect"
        return EXACT if off <= TOLERANCE else f"off by {off:.2e}"

    def _write(self, name: str) -> Path:
        """An adapter with every tensor drawn; where PEFT cannot make one, its config says what was asked for."""
        folder = self.folder / f"adapter-{len(list(self.folder.glob('adapter-*')))}"
        fields = {"r": 4, "lora_alpha": 8, "target_modules": list(MODULES), "task_type": "CAUSAL_LM"} | CONFIGS[name]
        said = fields.keys() & _UNMADE
        if {"use_dora", "lora_bias"} <= fields.keys():
            said.add("lora_bias")  # PEFT refuses to make both
        config = LoraConfig(**{key: value for key, value in fields.items() if key not in said})
        write_adapter(folder, self.checkpoint.folder, config, seed=7)
        path = folder / "adapter_config.json"
        values = json.loads(path.read_text(encoding="utf-8")) | {key: fields[key] for key in said}
        path.write_text(json.dumps(values), encoding="utf-8")
        return folder

    def _external(self, weights: AdapterWeights) -> NDArray[np.float32]:
        path = weights.folder / "adapter.onnx_adapter"
        write_file(weights, self.slots, path)
        parameters = onnxruntime.AdapterFormat.read_adapter(str(path)).get_parameters()
        tensors = {name: value.numpy() for name, value in parameters.items()}
        cache = self.checkpoint.cache
        names = [value.name for value in self.session.get_inputs() if value.name.startswith("past_key_values")]
        past = dict.fromkeys(names, np.zeros((1, cache.heads, 0, cache.head_dim), dtype=np.float32))
        border = base_part(_TOKENS, weights.invocation) if weights.invocation else 0
        if border:
            past = self._run(_TOKENS[:border], past, {})[1]
        return self._run(_TOKENS[border:], past, tensors)[0]

    def _run(self, tokens: Sequence[int], past: _Arrays, adapter: _Arrays) -> tuple[NDArray[np.float32], _Arrays]:
        """The logits after some tokens, and the KV cache with them."""
        held = next(iter(past.values())).shape[2]
        mask = np.ones((1, held + len(tokens)), dtype=np.int64)
        feed = {"input_ids": np.array([tokens], dtype=np.int64), "attention_mask": mask, **past, **adapter}
        outputs = [name.replace("past_key_values", "present") for name in past]
        logits, *present = self.session.run(["logits", *outputs], feed)
        return logits[0, -1], dict(zip(past, present, strict=True))

    def _merged(self, weights: AdapterWeights) -> NDArray[np.float32]:
        model = copy.deepcopy(self.model)
        with merged_weights(self.checkpoint, weights, scratch=self.folder) as merged:
            model.load_state_dict({name: merged.read(name) for name in model.state_dict()})
        return _logits(model)

    def _peft(self, adapter: Path) -> NDArray[np.float32]:
        return _logits(PeftModel.from_pretrained(copy.deepcopy(self.model), adapter))


# Fields with which PEFT makes no adapter from nothing: they are written into the config of a plain one.
_UNMADE: Final = (
    "init_lora_weights",
    "loftq_config",
    "corda_config",
    "lora_ga_config",
    "use_qalora",
    "alora_invocation_tokens",
    "arrow_config",
    "layer_replication",
    "ensure_weight_tying",
    "megatron_config",
)


@contextmanager
def bench() -> Iterator[Bench]:
    """Make the base and its graph; both are gone afterwards."""
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT's, of what is measured here
        folder = Path(name)
        write_checkpoint(folder / "base", _SHAPE, dtype=torch.float32)
        checkpoint = read_checkpoint(folder / "base")
        build_graph(checkpoint, folder / "graph", Quantization(bits=32))
        slots = add_slots(folder / "graph", extras=frozenset({"head", "embedding", "bias"}))
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(folder / "graph" / "model.onnx", options)
        model = AutoModelForCausalLM.from_pretrained(checkpoint.folder, dtype=torch.float32)
        yield Bench(folder, checkpoint, model, slots, session)


def page(outcomes: Mapping[str, Mapping[Mode, str]]) -> str:
    """The page, from the outcomes of every configuration."""
    rows = {name: f"| {name} | {cells['external']} | {cells['merged']} |" for name, cells in outcomes.items()}
    exact = {mode: sum(cells[mode] == EXACT for cells in outcomes.values()) for mode in get_args(Mode)}
    head = "| | external | merged |\n|---|---|---|\n"
    return f"""# Which adapters are exact

Generated by `make docs`; a test measures every cell again. Each row is an adapter with random weights on a tiny Qwen2
with a head of its own. *Exact*: its logits are within {TOLERANCE:g} of PEFT's, before quantization. *Refused*: the
export ends before any work, naming this field of adapter_config.json. Of {len(outcomes)} configurations
{exact["external"]} are exact in external mode and {exact["merged"]} in merged mode; the others are refused.

## Each field alone

{head}{_lines(rows[name] for name in SINGLE)}

## In pairs

{head}{_lines(row for name, row in rows.items() if name not in SINGLE)}
"""


def _lines(rows: Iterable[str]) -> str:
    return "\n".join(rows)


def _refusal(error: AdapterError, fields: _Fields) -> str:
    """By the field that the error is about, or that PEFT names in it."""
    field = _FIELD.search(error.where)
    named = field[1] if field else next((name for name in fields if name in error.found), None)
    return f"refused: {named}" if named else f"refused without a field: {error}"


def _logits(model: torch.nn.Module) -> NDArray[np.float32]:
    with torch.no_grad():
        logits: NDArray[np.float32] = model.eval()(torch.tensor([_TOKENS])).logits[0, -1].numpy()
    return logits


if __name__ == "__main__":
    with bench() as made:
        PAGE.write_text(page({name: made.outcomes(name) for name in CONFIGS}), encoding="utf-8", newline="\n")
