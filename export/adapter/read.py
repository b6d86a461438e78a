"""A PEFT adapter's folder → its low-rank pairs, or a refusal that names what stands in the way.

PEFT itself says what the adapter must hold: it is injected into the base on the meta device, where tensors have shapes
and no bytes. Where PEFT only warns (a missing or unknown tensor, a config field of another version), this refuses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from peft import LoraConfig
from safetensors import safe_open
from safetensors.torch import load_file
from tokenizers import Tokenizer

from dualtune_edge.export.adapter.config import CONFIG, mathematics, read_config, read_object, rebases
from dualtune_edge.export.adapter.expected import Expected, expect
from dualtune_edge.export.base import modules
from dualtune_edge.export.base.chat_template import TOKENIZER_CONFIG, TemplateText, own_template
from dualtune_edge.export.base.checkpoint import Checkpoint, stored_weights
from dualtune_edge.export.base.modules import Extra
from dualtune_edge.export.base.safetensors_file import FLOATS, SafetensorError, StoredTensor, digest, stored_tensors
from dualtune_edge.toolkit.bundle.manifest import Mode
from dualtune_edge.toolkit.errors import AdapterError
from dualtune_edge.toolkit.files import sha256_file

WEIGHTS: Final = "adapter_model.safetensors"
BASE_FINGERPRINT: Final = "base_fingerprint.txt"  # our fine-tuning writes it: one line, `Checkpoint.fingerprint`
_ROOT: Final = "base_model.model."  # what PEFT puts before a module's path
_TABLES: Final = (modules.HEAD, "embed_tokens")
# PEFT saves the base's embeddings too where LoRA is on one of them.
_EMBEDDING_COPIES: Final = frozenset(
    f"{_ROOT}{module}{part}.weight" for module in ("model.embed_tokens", "lm_head") for part in ("", ".base_layer")
)


@dataclass(frozen=True)
class LoraPair:
    """One module's low-rank update: W x + scale · (B A x + bias); of an embedding, x is a token's unit vector."""

    a: NDArray[np.float32]  # (r, K)
    b: NDArray[np.float32]  # (N, r)
    scale: float
    bias: NDArray[np.float32] | None = None  # (N,)


@dataclass(frozen=True)
class AdapterWeights:
    """An adapter that is known to fit its base. `rank` and `scale` are the config's; patterns may change them."""

    folder: Path
    rank: int
    scale: float
    pairs: Mapping[str, LoraPair]  # by module path in the base: model.layers.0.self_attn.q_proj; plain LoRA only
    sha256: str  # over the tensors and what of the config changes the mathematics
    chat_template: TemplateText | None
    base_model: str | None  # what the config calls its base
    plain: bool  # `pairs` are all that it does
    ties: bool  # it trains rows of the one table that the base's embedding and head share

    @property
    def extras(self) -> frozenset[Extra]:
        """What a graph needs for it besides the slots of the layers' modules."""
        found: dict[Extra, bool] = {
            "head": modules.HEAD in self.pairs,
            "embedding": modules.EMBEDDING in self.pairs,
            "bias": any(pair.bias is not None for pair in self.pairs.values()),
        }
        return frozenset(extra for extra, needed in found.items() if needed)


def read_adapter(folder: Path, checkpoint: Checkpoint, mode: Mode) -> AdapterWeights:
    """Read and check an adapter.

    Args:
        folder: what PEFT's `save_pretrained` wrote.
        checkpoint: the base.
        mode: external adapters must be plain LoRA on linear modules or the embedding; merged ones may be what PEFT
            merges.

    Raises:
        AdapterError: the adapter is damaged, untrained, of another base, or uses what `mode` cannot do exactly.
        TemplateError: its chat template cannot be read.

    """
    config = read_config(folder, mode)
    _check_base(folder, checkpoint)
    _check_tokenizer(folder / "tokenizer.json", checkpoint)
    expected = expect(folder, config, checkpoint)
    tensors = _stored(folder)
    if mode == "external":
        _check_slotted(folder, expected, checkpoint)
    else:
        _check_mergeable(folder, config, expected, checkpoint)
    _compare(tensors, expected, optional=_EMBEDDING_COPIES)
    _check_copies(tensors, expected, checkpoint)
    scales = {place.path: place.scale for place in expected.places}
    own = [tensor for name, tensor in tensors.items() if name in expected.shapes]
    try:
        sha256, wrong = digest(own, {"scales": scales, "config": mathematics(config)})
    except (OSError, SafetensorError) as error:
        raise _incomplete(folder / WEIGHTS, error) from None
    if wrong:
        raise AdapterError(
            f"{folder / WEIGHTS}, {wrong[0]}",
            found="an infinity or NaN",
            expected="numbers",
            fix="The training diverged: take an earlier checkpoint, or train again.",
        )
    pairs = {} if rebases(config) else dict(_pairs(folder, expected))
    _check_trained(folder, config, pairs)
    words = folder / TOKENIZER_CONFIG
    return AdapterWeights(
        folder=folder,
        rank=config.r,
        scale=config.lora_alpha / (config.r**0.5 if config.use_rslora else config.r),
        pairs=pairs,
        sha256=sha256,
        chat_template=own_template(folder, read_object(words) if words.is_file() else {}),
        base_model=config.base_model_name_or_path or None,
        ties=checkpoint.tied and bool(config.trainable_token_indices),
        plain=len(own) == sum(2 + (pair.bias is not None) for pair in pairs.values()),
    )


def _check_base(folder: Path, checkpoint: Checkpoint) -> None:
    path = folder / BASE_FINGERPRINT
    if not path.is_file():
        return
    trained_on = path.read_text(encoding="utf-8", errors="replace").strip()
    if trained_on != checkpoint.fingerprint:
        raise AdapterError(
            str(path),
            found=f"an adapter of the base {trained_on[:12]}…",
            expected=f"one of {checkpoint.name}, {checkpoint.fingerprint[:12]}…",
            fix="Export it with the base that it was trained on.",
        )


def _check_tokenizer(path: Path, checkpoint: Checkpoint) -> None:
    """Trainers save the tokenizer beside the adapter; of its bytes only what a token's number is counts here."""
    if not path.is_file() or sha256_file(path) == checkpoint.tokenizer_sha256:
        return
    try:
        own = Tokenizer.from_file(str(path)).get_vocab(with_added_tokens=True)
    except Exception as error:  # noqa: BLE001 - tokenizers raises plain Exception
        raise AdapterError(
            str(path), found=str(error), expected="a tokenizer", fix="Copy or save the adapter again."
        ) from None
    base = checkpoint.tokenizer.get_vocab(with_added_tokens=True)
    if odd := sorted(token for token, number in own.items() if base.get(token) != number):
        raise AdapterError(
            str(path),
            found=f"{len(odd)} tokens that the base lacks or numbers otherwise: {', '.join(map(repr, odd[:3]))}",
            expected="the base's tokenizer, as prompts are written by that",
            fix="Export it with the base that it was trained on; where no prompt holds these tokens, remove this file.",
        )


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
        raise _incomplete(path, error) from None


def _incomplete(path: Path, error: Exception) -> AdapterError:
    return AdapterError(
        str(path), found=str(error), expected="a complete safetensors file", fix="Copy or save the adapter again."
    )


def _compare(tensors: dict[str, StoredTensor], expected: Expected, *, optional: frozenset[str]) -> None:
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


def _check_copies(tensors: dict[str, StoredTensor], expected: Expected, checkpoint: Checkpoint) -> None:
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


def _check_slotted(folder: Path, expected: Expected, checkpoint: Checkpoint) -> None:
    for place in expected.places:
        if not place.pair or not modules.is_slotted(place.path, packed=checkpoint.architecture.packed):
            layer = dict.fromkeys(
                module for parts in modules.in_layer(packed=checkpoint.architecture.packed).values() for module in parts
            )
            raise AdapterError(
                f"{folder / CONFIG}, target_modules",
                found=f"LoRA on {place.path}",
                expected=f"modules of {checkpoint.architecture.name} only: {', '.join(layer)}, embed_tokens, lm_head",
                fix="Export this adapter with `mode: merged`, which folds it into the base.",
            )


def _check_mergeable(folder: Path, config: LoraConfig, expected: Expected, checkpoint: Checkpoint) -> None:
    """Refuse what PEFT would refuse to merge, or would merge into another table than it was trained on."""
    without = next((place.path for place in expected.places if place.biased and not place.base_biased), None)
    if without:
        raise AdapterError(
            f"{folder / CONFIG}, lora_bias",
            found=f"a bias for {without}, which has none in the base",
            expected="modules that have a bias, into which it is merged",
            fix="Export this adapter with `mode: external`.",
        )
    tables = {place.path for place in expected.places} | set(config.modules_to_save or ())
    if config.trainable_token_indices and checkpoint.tied and any(each.endswith(_TABLES) for each in tables):
        raise AdapterError(
            f"{folder / CONFIG}, trainable_token_indices",
            found="rows of the table that this base's embedding and head share, and another change of one of the two",
            expected="one of these changes",
            fix="Train an adapter without trainable_token_indices; this one cannot be exported exactly.",
        )


def _pairs(folder: Path, expected: Expected) -> Iterator[tuple[str, LoraPair]]:
    tensors = load_file(folder / WEIGHTS)

    def array(name: str) -> NDArray[np.float32]:
        values: NDArray[np.float32] = tensors[name].to(torch.float32).numpy()
        return values

    for place in sorted(expected.places, key=lambda each: each.path):
        if place.pair:
            a, b, bias = place.pair
            yield place.path, LoraPair(array(a), array(b), place.scale, array(bias) if bias else None)


def _check_trained(folder: Path, config: LoraConfig, pairs: Mapping[str, LoraPair]) -> None:
    """LoRA starts with B at zero, where it changes nothing."""
    others = mathematics(config).keys() - {"lora_bias"}
    if pairs and not others and not any(map(_changes, pairs.values())):
        raise AdapterError(
            str(folder / WEIGHTS),
            found="A, B or the scale zero in every module, so that the adapter changes nothing",
            expected="a trained adapter",
            fix="Train it, or leave the adapter out: the base then answers.",
        )


def _changes(pair: LoraPair) -> bool:
    return pair.scale != 0 and bool((pair.a.any() and pair.b.any()) or (pair.bias is not None and pair.bias.any()))
