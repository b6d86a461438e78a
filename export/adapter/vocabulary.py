"""Tokens that adapters add to the base's tokenizer, and the rows that they add to its tables.

Trainers resize embedding and head for new tokens, or to the length of the tokenizer, and save both with the tokenizer
beside the adapter. A bundle has one tokenizer: the one with all added tokens.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from tokenizers import Tokenizer

from dualtune_edge.export.adapter.config import read_object
from dualtune_edge.export.adapter.tables import table_copies
from dualtune_edge.export.adapter.tensors import read_tensors
from dualtune_edge.export.base.chat_template import TOKENIZER_CONFIG
from dualtune_edge.export.base.checkpoint import Checkpoint
from dualtune_edge.export.base.content import require_content
from dualtune_edge.export.base.tokenizer import special_token
from dualtune_edge.toolkit.errors import AdapterError
from dualtune_edge.toolkit.files import sha256_file

TOKENIZER: Final = "tokenizer.json"


def read_tokens(folder: Path, checkpoint: Checkpoint) -> Mapping[str, int] | None:
    """The vocabulary of the tokenizer beside an adapter, token → number; None: there is none, or it is the base's.

    Raises:
        AdapterError: it cannot be read.

    """
    path = folder / TOKENIZER
    require_content(path, AdapterError)
    if not path.is_file() or sha256_file(path) == checkpoint.tokenizer_sha256:
        return None
    tokens: Mapping[str, int] = _read_tokenizer(path).get_vocab(with_added_tokens=True)
    return tokens


def check_tokens(folder: Path, checkpoint: Checkpoint) -> None:
    """Refuse a tokenizer that numbers tokens differently; trainers save the base's in other bytes.

    Raises:
        AdapterError: it has a token that the checkpoint's tokenizer lacks or numbers differently, or cannot be read.

    """
    known = checkpoint.tokenizer.get_vocab(with_added_tokens=True)
    tokens = read_tokens(folder, checkpoint) or {}
    if different := sorted(token for token, number in tokens.items() if known.get(token) != number):
        some = ", ".join(map(repr, different[:3]))
        raise AdapterError(
            str(folder / TOKENIZER),
            found=f"{len(different)} tokens that {_owner(checkpoint)} lacks or numbers differently: {some}",
            expected=f"the tokens of {_owner(checkpoint)}, as prompts are written by that",
            fix="Export it with the base that it was trained on; where no prompt holds these tokens, remove this file.",
        )


def with_added_tokens(checkpoint: Checkpoint, folders: Iterable[Path]) -> Checkpoint:
    """The base with the tokenizer and the table rows that its adapters need; rows that it lacks are zero.

    Args:
        checkpoint: the base.
        folders: of all adapters of a bundle.

    Raises:
        AdapterError: a token has no row.

    """
    folders = tuple(folders)
    rows = max((checkpoint.vocab_size, *(_table_rows(folder, checkpoint) for folder in folders)))
    added = {folder: _added(folder, checkpoint) for folder in folders}
    owner = max(folders, key=lambda folder: len(added[folder]), default=None)
    if owner is None or not added[owner]:
        return checkpoint if rows == checkpoint.vocab_size else _resized(checkpoint, rows)
    token, number = max(added[owner].items(), key=lambda item: item[1])
    if number >= rows:
        raise AdapterError(
            str(owner / TOKENIZER),
            found=f"the token {token!r} with the number {number}",
            expected=f"numbers below {rows}, the rows of the embedding",
            fix="Save the resized embedding with the adapter: PEFT's save_embedding_layers=True.",
        )
    settings = read_object(owner / TOKENIZER_CONFIG)
    tokenizer = _read_tokenizer(owner / TOKENIZER)
    eos = special_token(settings, "eos_token") or checkpoint.eos
    end = tokenizer.token_to_id(eos) if eos else None
    ends = (*([] if end is None else [end]), *checkpoint.end_of_turn)
    warning = (
        f"{owner}: {len(added[owner])} tokens that the base lacks, such as {token!r}: its tokenizer is the bundle's"
    )
    return replace(
        _resized(checkpoint, rows),
        tokenizer=tokenizer,
        tokenizer_sha256=sha256_file(owner / TOKENIZER),
        tokenizer_folder=owner,
        bos=special_token(settings, "bos_token") or checkpoint.bos,
        eos=eos,
        end_of_turn=tuple(dict.fromkeys(ends)),
        added_tokens=added[owner],
        warnings=(*checkpoint.warnings, warning),
    )


def _resized(checkpoint: Checkpoint, rows: int) -> Checkpoint:
    config = copy.deepcopy(checkpoint.config)
    config.vocab_size = rows
    return replace(checkpoint, config=config, vocab_size=rows)


def _added(folder: Path, checkpoint: Checkpoint) -> dict[str, int]:
    """Tokens beside an adapter that the base lacks; none of a tokenizer that `check_tokens` refuses."""
    known = checkpoint.tokenizer.get_vocab(with_added_tokens=True)
    try:
        tokens = read_tokens(folder, checkpoint) or {}
    except AdapterError:
        return {}
    if any(token not in tokens or tokens[token] != number for token, number in known.items()):
        return {}
    return {token: number for token, number in tokens.items() if token not in known}


def _table_rows(folder: Path, checkpoint: Checkpoint) -> int:
    """The rows of the largest table in an adapter's file; 0: it holds none, or `read_adapter` refuses it."""
    try:
        copies = table_copies(read_tensors(folder, checkpoint).stored, ())
    except AdapterError:
        return 0
    return max((tensor.shape[0] for tensors in copies.values() for tensor in tensors if tensor.shape), default=0)


def _owner(checkpoint: Checkpoint) -> str:
    return str(checkpoint.tokenizer_folder) if checkpoint.added_tokens else "the base"


def _read_tokenizer(path: Path) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # noqa: BLE001 - tokenizers raises plain Exception
        raise AdapterError(
            str(path), found=str(error), expected="a tokenizer", fix="Copy or save the adapter again."
        ) from None
