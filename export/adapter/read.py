"""A PEFT adapter's folder → its low-rank pairs, or a refusal that names what stands in the way.

PEFT itself says what the adapter must hold (`structure`). Where PEFT only warns of a missing or unknown tensor, this
refuses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from peft import LoraConfig

from dualtune_edge.export.adapter.config import CONFIG, has_residual_base, mathematics, read_config, read_object
from dualtune_edge.export.adapter.structure import AdapterStructure, inject
from dualtune_edge.export.adapter.tables import is_tied_copy, replaced_tables, table_copies
from dualtune_edge.export.adapter.tensors import WEIGHTS, incomplete, read_tensors
from dualtune_edge.export.adapter.vocabulary import TOKENIZER, check_tokens, read_tokens
from dualtune_edge.export.base import modules
from dualtune_edge.export.base.chat_template import TOKENIZER_CONFIG, TemplateText, read_template
from dualtune_edge.export.base.checkpoint import Checkpoint
from dualtune_edge.export.base.content import require_content
from dualtune_edge.export.base.modules import Extra
from dualtune_edge.export.base.safetensors_file import FLOATS, SafetensorError, StoredTensor, digest
from dualtune_edge.export.base.weights import pad, read_rows
from dualtune_edge.toolkit.bundle.adapters import Mode
from dualtune_edge.toolkit.errors import AdapterError

BASE_FINGERPRINT: Final = "base_fingerprint.txt"  # our fine-tuning writes it: one line, `Checkpoint.fingerprint`
_TABLES: Final = (modules.HEAD, "embed_tokens")


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
    _check_base(folder, checkpoint)
    check_tokens(folder, checkpoint)
    structure = inject(folder, config, checkpoint)
    tensors = read_tensors(folder, checkpoint)
    _check_tying(folder, config, structure, checkpoint)
    _check_invocation(folder, config, checkpoint)
    if mode == "external":
        _check_slotted(folder, structure, checkpoint)
    else:
        _check_mergeable(folder, config, structure, checkpoint)
    _compare(folder, tensors.stored, structure, checkpoint)
    tables = replaced_tables(folder / WEIGHTS, tensors.stored, structure.shapes, checkpoint)
    if tables and mode == "external":
        raise _other_table(next(iter(tables.values())))
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
        knows_added_tokens=checkpoint.added_tokens.items() <= _tokens(folder, checkpoint).items(),
        invocation=tuple(config.alora_invocation_tokens) if config.alora_invocation_tokens else None,
        warnings=(*read.warnings, *tensors.warnings),
    )


def _read_tokenizer_config(folder: Path) -> Mapping[str, object]:
    path = folder / TOKENIZER_CONFIG
    require_content(path, AdapterError)
    return read_object(path) if path.is_file() else {}


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


def _compare(
    folder: Path, tensors: Mapping[str, StoredTensor], structure: AdapterStructure, checkpoint: Checkpoint
) -> None:
    path, fewest = folder / WEIGHTS, _fewest_rows(folder, checkpoint)
    width = checkpoint.config.hidden_size
    copies = {copy.name for found in table_copies(tensors, structure.shapes).values() for copy in found}
    for name, tensor in tensors.items():
        if is_tied_copy(name, tensors, checkpoint):
            continue
        shape = (checkpoint.vocab_size, width) if tensor.name in copies else structure.shapes.get(name)
        if shape is None:
            raise AdapterError(
                f"{path}, {tensor.name}",
                found="a tensor for which the config has no place",
                expected="only what adapter_config.json describes",
                fix="Check that the config and the weights are of one adapter, and that it was trained on this base.",
            )
        if tensor.dtype not in FLOATS or not _fits(tensor.shape, shape, fewest, checkpoint.vocab_size):
            raise AdapterError(
                f"{path}, {tensor.name}",
                found=f"{tensor.dtype} {list(tensor.shape)}",
                expected=f"{'/'.join(FLOATS)} {list(shape)}, as this base needs",
                fix="Export it with the base that it was trained on.",
            )
    if missing := sorted(structure.shapes.keys() - tensors.keys()):
        raise AdapterError(
            str(path),
            found=f"no {missing[0]}",
            expected=f"all {len(structure.shapes)} tensors that adapter_config.json describes",
            fix="Check that the config and the weights are of one adapter, and that it was trained on this base.",
        )


def _fewest_rows(folder: Path, checkpoint: Checkpoint) -> int:
    """The rows that a table of this adapter has at least: one for each token that it knows."""
    return 1 + max(_tokens(folder, checkpoint).values())


def _tokens(folder: Path, checkpoint: Checkpoint) -> Mapping[str, int]:
    """The tokens of the tokenizer beside an adapter; without one those of the base, without added ones."""
    known: Mapping[str, int] = checkpoint.tokenizer.get_vocab(with_added_tokens=True)
    if (folder / TOKENIZER).is_file():
        return read_tokens(folder, checkpoint) or known
    return {token: number for token, number in known.items() if token not in checkpoint.added_tokens}


def _fits(shape: tuple[int, ...], expected: tuple[int, ...], fewest: int, vocabulary: int) -> bool:
    """Whether a tensor has a shape, or as many tokens fewer as a resized vocabulary may have."""
    return len(shape) == len(expected) and all(
        size == wanted or (wanted == vocabulary and fewest <= size < vocabulary)
        for size, wanted in zip(shape, expected, strict=True)
    )


def _other_table(tensor: StoredTensor) -> AdapterError:
    return AdapterError(
        f"{tensor.path}, {tensor.name}",
        found="another table than the base's",
        expected="the base's, or none",
        fix="Export this adapter with `mode: merged`, which takes its table; or with the base that it was trained on.",
    )


def _check_tying(folder: Path, config: LoraConfig, structure: AdapterStructure, checkpoint: Checkpoint) -> None:
    """Refuse ensure_weight_tying where PEFT would tie an adapter's changes of embedding and head."""
    tables = {module.path for module in structure.modules} | set(config.modules_to_save or ())
    tied = config.ensure_weight_tying and checkpoint.tied
    if tied and (config.trainable_token_indices or any(path.endswith(_TABLES) for path in tables)):
        raise AdapterError(
            f"{folder / CONFIG}, ensure_weight_tying",
            found="True, with changes of the table that this base's embedding and head share",
            expected="False, or neither of the two among the targets",
            fix="Train an adapter without ensure_weight_tying; this one cannot be exported exactly.",
        )


def _check_invocation(folder: Path, config: LoraConfig, checkpoint: Checkpoint) -> None:
    """Refuse an invocation that can never occur."""
    odd = [
        token
        for token in config.alora_invocation_tokens or ()
        if type(token) is not int or not 0 <= token < checkpoint.vocab_size
    ]
    if odd:
        raise AdapterError(
            f"{folder / CONFIG}, alora_invocation_tokens",
            found=f"{odd[0]!r}, no token of {checkpoint.name}",
            expected=f"numbers of tokens, 0 to {checkpoint.vocab_size - 1}",
            fix="Export it with the base that it was trained on.",
        )


def _check_slotted(folder: Path, structure: AdapterStructure, checkpoint: Checkpoint) -> None:
    packed = checkpoint.architecture.packed
    for module in structure.modules:
        if not module.pair or not modules.is_slotted(module.path, packed=packed):
            names = dict.fromkeys(name for parts in modules.in_layer(packed=packed).values() for name in parts)
            raise AdapterError(
                f"{folder / CONFIG}, target_modules",
                found=f"LoRA on {module.path}",
                expected=f"modules of {checkpoint.architecture.name} only: {', '.join(names)}, embed_tokens, lm_head",
                fix="Export this adapter with `mode: merged`, which folds it into the base.",
            )


def _check_mergeable(folder: Path, config: LoraConfig, structure: AdapterStructure, checkpoint: Checkpoint) -> None:
    """Refuse what PEFT would refuse to merge, or would merge into another table than it was trained on."""
    if config.alora_invocation_tokens:
        raise AdapterError(
            f"{folder / CONFIG}, alora_invocation_tokens",
            found="an activated adapter, whose tokens before the invocation are the base's",
            expected="a plain one: merged weights are the same for all tokens",
            fix="Export this adapter with `mode: external`, for profiles with dynamic graphs.",
        )
    without = next((module.path for module in structure.modules if module.biased and not module.base_biased), None)
    if without:
        raise AdapterError(
            f"{folder / CONFIG}, lora_bias",
            found=f"a bias for {without}, which has none in the base",
            expected="modules that have a bias, into which it is merged",
            fix="Export this adapter with `mode: external`.",
        )
    tables = {module.path for module in structure.modules} | set(config.modules_to_save or ())
    if config.trainable_token_indices and checkpoint.tied and any(path.endswith(_TABLES) for path in tables):
        raise AdapterError(
            f"{folder / CONFIG}, trainable_token_indices",
            found="rows of the table that this base's embedding and head share, and another change of one of the two",
            expected="one of these changes",
            fix="Train an adapter without trainable_token_indices; this one cannot be exported exactly.",
        )


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
