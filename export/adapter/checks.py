"""What of an adapter stands in the way: another base, another shape, or what a mode cannot do exactly."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from peft import LoraConfig

from dualtune_edge.export.adapter.config import CONFIG
from dualtune_edge.export.adapter.structure import AdapterStructure
from dualtune_edge.export.adapter.tables import is_tied_copy, table_copies
from dualtune_edge.export.adapter.tensors import WEIGHTS
from dualtune_edge.export.adapter.training_files import BASE_FINGERPRINT
from dualtune_edge.export.adapter.vocabulary import TOKENIZER, read_tokens
from dualtune_edge.export.base import modules
from dualtune_edge.export.base.checkpoint import Checkpoint
from dualtune_edge.export.base.safetensors_file import FLOATS, StoredTensor
from dualtune_edge.toolkit.errors import AdapterError

_TABLES: Final = (modules.HEAD, "embed_tokens")


def check_base(folder: Path, checkpoint: Checkpoint) -> None:
    """Refuse an adapter whose own note says that it was trained on another base."""
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


def check_tensors(
    folder: Path, tensors: Mapping[str, StoredTensor], structure: AdapterStructure, checkpoint: Checkpoint
) -> None:
    """Refuse a tensor without a place, of another kind or shape, and one that is missing."""
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
    return 1 + max(known_tokens(folder, checkpoint).values())


def known_tokens(folder: Path, checkpoint: Checkpoint) -> Mapping[str, int]:
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


def other_table(tensor: StoredTensor) -> AdapterError:
    """What to say of a table that takes the place of the base's, where it cannot."""
    return AdapterError(
        f"{tensor.path}, {tensor.name}",
        found="another table than the base's",
        expected="the base's, or none",
        fix="Export this adapter with `mode: merged`, which takes its table; or with the base that it was trained on.",
    )


def check_tying(folder: Path, config: LoraConfig, structure: AdapterStructure, checkpoint: Checkpoint) -> None:
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


def check_invocation(folder: Path, config: LoraConfig, checkpoint: Checkpoint) -> None:
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


def check_slotted(folder: Path, structure: AdapterStructure, checkpoint: Checkpoint) -> None:
    """Refuse LoRA on a module for which the graph of external adapters has no slot."""
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


def check_mergeable(folder: Path, config: LoraConfig, structure: AdapterStructure, checkpoint: Checkpoint) -> None:
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
