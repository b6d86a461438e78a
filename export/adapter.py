"""A PEFT adapter's folder → its low-rank pairs, or a refusal that names what stands in the way.

PEFT itself says what the adapter must hold: it is injected into the base on the meta device, where tensors have shapes
and no bytes. Where PEFT only warns (a missing or unknown tensor, a config field of another version), this refuses.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from peft.tuners.lora import Linear, LoraLayer
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from dualtune_edge.export import modules
from dualtune_edge.export.adapter_config import mathematics, read_config
from dualtune_edge.export.checkpoint import Checkpoint, stored_weights
from dualtune_edge.export.safetensors_file import FLOATS, SafetensorError, StoredTensor, digest, stored_tensors
from dualtune_edge.toolkit.chat_template import CHAT_TEMPLATE
from dualtune_edge.toolkit.errors import AdapterError
from dualtune_edge.toolkit.manifest import Mode

WEIGHTS: Final = "adapter_model.safetensors"
BASE_FINGERPRINT: Final = "base_fingerprint.txt"  # our fine-tuning writes it: one line, `Checkpoint.fingerprint`
_ROOT: Final = "base_model.model."  # what PEFT puts before a module's path
# PEFT saves the base's embeddings too where LoRA is on one of them.
_EMBEDDING_COPIES: Final = frozenset(
    f"{_ROOT}{module}{part}.weight" for module in ("model.embed_tokens", "lm_head") for part in ("", ".base_layer")
)


@dataclass(frozen=True)
class LoraPair:
    """One module's low-rank update: W x + scale · B A x."""

    a: NDArray[np.float32]  # (r, K)
    b: NDArray[np.float32]  # (N, r)
    scale: float


@dataclass(frozen=True)
class AdapterWeights:
    """An adapter that is known to fit its base. `rank` and `scale` are the config's; patterns may change them."""

    folder: Path
    rank: int
    scale: float
    pairs: Mapping[str, LoraPair]  # by module path in the base: model.layers.0.self_attn.q_proj
    sha256: str  # over the tensors and what of the config changes the mathematics
    chat_template: Path | None
    base_model: str | None  # what the config calls its base


@dataclass(frozen=True)
class _Expected:
    """What PEFT would load."""

    shapes: dict[str, tuple[int, ...]]  # of every tensor that must be there
    scales: dict[str, float]  # by module path
    linear: frozenset[str]  # paths of the modules that are linear


def read_adapter(folder: Path, checkpoint: Checkpoint, mode: Mode) -> AdapterWeights:
    """Read and check an adapter.

    Args:
        folder: what PEFT's `save_pretrained` wrote.
        checkpoint: the base.
        mode: external adapters must be plain LoRA on the layers' linear modules; merged ones may be what PEFT merges.

    Raises:
        AdapterError: the adapter is damaged, untrained, of another base, or uses what `mode` cannot do exactly.

    """
    config = read_config(folder, mode)
    _check_base(folder, checkpoint)
    expected = _expected(folder, config, checkpoint)
    tensors = _stored(folder)
    if mode == "external":
        _check_slotted(folder, expected)
    _compare(tensors, expected, optional=_EMBEDDING_COPIES if mode == "merged" else frozenset())
    _check_copies(tensors, expected, checkpoint)
    sha256, wrong = digest(tensors.values(), {"scales": expected.scales, "config": mathematics(config)})
    if wrong:
        raise AdapterError(
            f"{folder / WEIGHTS}, {wrong[0]}",
            found="an infinity or NaN",
            expected="numbers",
            fix="The training diverged: take an earlier checkpoint, or train again.",
        )
    pairs = dict(_pairs(folder, expected))
    _check_trained(folder, config, pairs)
    template = folder / CHAT_TEMPLATE
    return AdapterWeights(
        folder=folder,
        rank=config.r,
        scale=config.lora_alpha / (config.r**0.5 if config.use_rslora else config.r),
        pairs=pairs,
        sha256=sha256,
        chat_template=template if template.is_file() else None,
        base_model=config.base_model_name_or_path or None,
    )


def _check_base(folder: Path, checkpoint: Checkpoint) -> None:
    path = folder / BASE_FINGERPRINT
    if path.is_file() and (trained_on := path.read_text(encoding="utf-8").strip()) != checkpoint.fingerprint:
        raise AdapterError(
            str(path),
            found=f"an adapter of the base {trained_on[:12]}…",
            expected=f"one of {checkpoint.name}, {checkpoint.fingerprint[:12]}…",
            fix="Export it with the base that it was trained on.",
        )


def _expected(folder: Path, config: LoraConfig, checkpoint: Checkpoint) -> _Expected:
    try:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of untied embeddings and the like: checked here by other means
            base = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(checkpoint.folder))
            model = get_peft_model(base, copy.deepcopy(config))  # it writes the base's name into its config
            # Without copies of the base's embeddings, for which PEFT would ask the hub.
            tensors = get_peft_model_state_dict(model, save_embedding_layers=False)
    except Exception as error:  # noqa: BLE001 - PEFT raises ValueError, TypeError, NotImplementedError, …
        raise AdapterError(
            str(folder / "adapter_config.json"),
            found=f"{type(error).__name__}: {error}",
            expected=f"an adapter that PEFT can put on {checkpoint.name}",
            fix="Export it with the base that it was trained on.",
        ) from None
    layers = dict(_layers(model))
    return _Expected(
        shapes={name: tuple(tensor.shape) for name, tensor in tensors.items()},
        scales={path: float(layer.scaling["default"]) for path, layer in layers.items()},
        linear=frozenset(path for path, layer in layers.items() if isinstance(layer, Linear)),
    )


def _layers(model: PeftModel) -> Iterator[tuple[str, LoraLayer]]:
    for path, module in model.base_model.model.named_modules():
        if isinstance(module, LoraLayer):
            yield path, module


def _stored(folder: Path) -> dict[str, StoredTensor]:
    path = folder / WEIGHTS
    try:
        return stored_tensors(path)
    except FileNotFoundError:
        pickled = (folder / "adapter_model.bin").is_file()
        raise AdapterError(
            str(folder),
            found="adapter_model.bin, which is a pickle" if pickled else f"no {WEIGHTS}",
            expected=f"weights as {WEIGHTS}",
            fix="Save it again with a present PEFT: model.save_pretrained(…).",
        ) from None
    except (OSError, SafetensorError) as error:
        raise AdapterError(
            str(path), found=str(error), expected="a complete safetensors file", fix="Copy or save the adapter again."
        ) from None


def _compare(tensors: dict[str, StoredTensor], expected: _Expected, *, optional: frozenset[str]) -> None:
    for name, tensor in tensors.items():
        shape = expected.shapes.get(name)
        if shape is None and name not in optional:
            raise AdapterError(
                f"{tensor.path}, {name}",
                found="a tensor for which the config has no place",
                expected="only what adapter_config.json describes",
                fix="Check that the config and the weights are of one adapter, and that it was trained on this base.",
            )
        if tensor.dtype not in FLOATS or (shape is not None and tensor.shape != shape):
            raise AdapterError(
                f"{tensor.path}, {name}",
                found=f"{tensor.dtype} {list(tensor.shape)}",
                expected=f"{'/'.join(FLOATS)} {list(shape or tensor.shape)}, as this base needs",
                fix="Export it with the base that it was trained on.",
            )
    if missing := sorted(expected.shapes.keys() - tensors.keys()):
        raise AdapterError(
            f"{next(iter(tensors.values())).path if tensors else WEIGHTS}",
            found=f"no {missing[0]}",
            expected=f"all {len(expected.shapes)} tensors that adapter_config.json describes",
            fix="Check that the config and the weights are of one adapter, and that it was trained on this base.",
        )


def _check_copies(tensors: dict[str, StoredTensor], expected: _Expected, checkpoint: Checkpoint) -> None:
    """Refuse an embedding of the adapter's own: PEFT would load it into the base, where all adapters share one."""
    copies = (tensors.keys() & _EMBEDDING_COPIES) - expected.shapes.keys()
    weights = stored_weights(checkpoint.folder) if copies else {}
    for name in sorted(copies):
        own = weights.get(name.removeprefix(_ROOT).replace(".base_layer", "")) or weights["model.embed_tokens.weight"]
        if not torch.equal(_load(tensors[name]), _load(own)):
            raise AdapterError(
                f"{tensors[name].path}, {name}",
                found="another table than the base's",
                expected="the base's own, or none",
                fix="Export it with the base that it was trained on; a table trained along is not supported.",
            )


def _load(stored: StoredTensor) -> torch.Tensor:
    with safe_open(stored.path, framework="pt") as file:
        tensor: torch.Tensor = file.get_tensor(stored.name).to(torch.float32)
    return tensor


def _check_slotted(folder: Path, expected: _Expected) -> None:
    for path in expected.scales:
        if path not in expected.linear or not modules.is_slotted(path):
            raise AdapterError(
                f"{folder / 'adapter_config.json'}, target_modules",
                found=f"LoRA on {path}",
                expected=f"modules of the layers only: {', '.join(modules.BLOCKS)}",
                fix="Export this adapter with `mode: merged`, which folds it into the base.",
            )


def _pairs(folder: Path, expected: _Expected) -> Iterator[tuple[str, LoraPair]]:
    tensors = load_file(folder / WEIGHTS)
    for path in sorted(expected.linear):
        a, b = (tensors[f"{_ROOT}{path}.lora_{half}.weight"].to(torch.float32).numpy() for half in "AB")
        yield path, LoraPair(a, b, expected.scales[path])


def _check_trained(folder: Path, config: LoraConfig, pairs: Mapping[str, LoraPair]) -> None:
    """LoRA starts with B at zero, where it changes nothing."""
    others = config.modules_to_save or config.use_dora or config.target_parameters
    if pairs and not others and not any(pair.b.any() for pair in pairs.values()):
        raise AdapterError(
            str(folder / WEIGHTS),
            found="B zero in every module, so that the adapter changes nothing",
            expected="a trained adapter",
            fix="Train it, or leave the adapter out: the base then answers.",
        )
