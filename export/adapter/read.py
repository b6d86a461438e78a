"""A PEFT adapter's folder → its low-rank pairs, or a refusal that names what stands in the way.

PEFT itself says what the adapter must hold (`structure`). Where PEFT only warns of a missing or unknown tensor, this
refuses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from peft import LoraConfig

from dualtune_edge.export.adapter.checks import (
    check_base,
    check_invocation,
    check_mergeable,
    check_slotted,
    check_tensors,
    check_tying,
    known_tokens,
    other_table,
)
from dualtune_edge.export.adapter.config import has_residual_base, mathematics, read_config, read_object
from dualtune_edge.export.adapter.structure import AdapterStructure, inject
from dualtune_edge.export.adapter.tables import replaced_tables
from dualtune_edge.export.adapter.tensors import WEIGHTS, incomplete, read_tensors
from dualtune_edge.export.adapter.vocabulary import check_tokens
from dualtune_edge.export.base import modules
from dualtune_edge.export.base.chat_template import TOKENIZER_CONFIG, TemplateText, read_template
from dualtune_edge.export.base.checkpoint import Checkpoint
from dualtune_edge.export.base.content import require_content
from dualtune_edge.export.base.modules import Extra
from dualtune_edge.export.base.safetensors_file import SafetensorError, StoredTensor, digest
from dualtune_edge.export.base.weights import pad, read_rows
from dualtune_edge.toolkit.bundle.adapters import Mode
from dualtune_edge.toolkit.errors import AdapterError


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
    trains_tied_rows: bool  # of the one table that the base's embedding and head share
    tables: frozenset[str]  # the base's tables that others take the place of: model.embed_tokens.weight
    knows_added_tokens: bool  # those that the adapters of its bundle add to the base's tokenizer
    invocation: tuple[int, ...] | None  # tokens from whose last occurrence on it is active; None: from the first on
    warnings: tuple[str, ...] = ()  # what of the folder is read differently from how it stands

    @property
    def extras(self) -> frozenset[Extra]:
        """The slots that it needs besides those of the layers' modules."""
        needs: dict[Extra, bool] = {
            "head": modules.HEAD in self.pairs,
            "embedding": modules.EMBEDDING in self.pairs,
            "bias": any(pair.bias is not None for pair in self.pairs.values()),
        }
        return frozenset(extra for extra, needed in needs.items() if needed)


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
    read = read_config(folder, mode)
    config = read.lora
    check_base(folder, checkpoint)
    check_tokens(folder, checkpoint)
    structure = inject(folder, config, checkpoint)
    tensors = read_tensors(folder, checkpoint)
    check_tying(folder, config, structure, checkpoint)
    check_invocation(folder, config, checkpoint)
    if mode == "external":
        check_slotted(folder, structure, checkpoint)
    else:
        check_mergeable(folder, config, structure, checkpoint)
    check_tensors(folder, tensors.stored, structure, checkpoint)
    tables = replaced_tables(folder / WEIGHTS, tensors.stored, structure.shapes, checkpoint)
    if tables and mode == "external":
        raise other_table(next(iter(tables.values())))
    scales = {module.path: module.scale for module in structure.modules}
    loaded = {name: tensor for name, tensor in tensors.stored.items() if name in structure.shapes}
    replacing = {tensor.name: tensor for tensor in tables.values()}
    try:
        digested = [*loaded.values(), *replacing.values()]
        sha256, not_finite = digest(digested, {"scales": scales, "config": mathematics(config)})
    except (OSError, SafetensorError) as error:
        raise incomplete(folder / WEIGHTS, error) from None
    if not_finite:
        raise AdapterError(
            f"{folder / WEIGHTS}, {not_finite[0]}",
            found="an infinity or NaN",
            expected="numbers",
            fix="The training diverged: take an earlier checkpoint, or train again.",
        )
    pairs = {} if has_residual_base(config) else dict(_pairs(loaded, structure))
    if not tables:
        _check_trained(folder, config, pairs)
    return AdapterWeights(
        folder=folder,
        rank=config.r,
        scale=config.lora_alpha / (config.r**0.5 if config.use_rslora else config.r),
        pairs=pairs,
        sha256=sha256,
        chat_template=read_template(folder, _read_tokenizer_config(folder)),
        base_model=config.base_model_name_or_path or None,
        trains_tied_rows=checkpoint.tied and bool(config.trainable_token_indices),
        plain=not tables and len(loaded) == sum(2 + (pair.bias is not None) for pair in pairs.values()),
        tables=frozenset(tables),
        knows_added_tokens=checkpoint.added_tokens.items() <= known_tokens(folder, checkpoint).items(),
        invocation=tuple(config.alora_invocation_tokens) if config.alora_invocation_tokens else None,
        warnings=(*read.warnings, *tensors.warnings),
    )


def _read_tokenizer_config(folder: Path) -> Mapping[str, object]:
    path = folder / TOKENIZER_CONFIG
    require_content(path, AdapterError)
    return read_object(path) if path.is_file() else {}


def _pairs(tensors: Mapping[str, StoredTensor], structure: AdapterStructure) -> Iterator[tuple[str, LoraPair]]:
    def array(name: str) -> NDArray[np.float32]:
        values: NDArray[np.float32] = pad(read_rows(tensors[name]), structure.shapes[name]).numpy()
        return values

    for module in sorted(structure.modules, key=lambda module: module.path):
        if module.pair:
            a, b, bias = module.pair
            yield module.path, LoraPair(array(a), array(b), module.scale, array(bias) if bias else None)


def _check_trained(folder: Path, config: LoraConfig, pairs: Mapping[str, LoraPair]) -> None:
    """LoRA starts with B at zero, where it changes nothing."""
    others = mathematics(config).keys() - {"lora_bias", "alora_invocation_tokens"}
    if pairs and not others and not any(map(_changes, pairs.values())):
        raise AdapterError(
            str(folder / WEIGHTS),
            found="A, B or the scale zero in every module, so that the adapter changes nothing",
            expected="a trained adapter",
            fix="Train it, or leave the adapter out: the base then answers.",
        )


def _changes(pair: LoraPair) -> bool:
    return pair.scale != 0 and bool((pair.a.any() and pair.b.any()) or (pair.bias is not None and pair.bias.any()))
