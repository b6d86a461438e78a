"""The small files of a base model's folder: its tokenizer and special tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import transformers
from tokenizers import Tokenizer

from dualtune_edge.export.base.content import require_content
from dualtune_edge.toolkit import strict_json
from dualtune_edge.toolkit.errors import CheckpointError
from dualtune_edge.toolkit.prompts.tokenizer_file import TokenizerError, load_tokenizer, refuse_harmful

_SMALL: Final = frozenset({".jinja", ".json", ".model", ".txt"})


def small_files(folder: Path) -> tuple[Path, ...]:
    """The files of a checkpoint beside its weights, by name: configs, tokenizer and templates."""
    return tuple(path for path in sorted(folder.iterdir()) if path.suffix in _SMALL and path.is_file())


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        CheckpointError: no such file, or it holds something else.

    """
    require_content(path, CheckpointError)
    try:
        value = strict_json.loads(path.read_bytes())
    except FileNotFoundError:
        raise CheckpointError(
            str(path), found="no such file", expected="a Hugging Face model folder", fix="Check the path of the base."
        ) from None
    except (OSError, strict_json.JsonError) as error:
        raise CheckpointError(
            str(path), found=str(error), expected="a JSON object", fix="Download or save the base again."
        ) from None
    if not isinstance(value, dict):
        raise CheckpointError(str(path), found="no JSON object", expected="one", fix="Download or save the base again.")
    return value


def read_tokenizer(folder: Path, vocab_size: int) -> Tokenizer:
    """Read tokenizer.json.

    Raises:
        CheckpointError: there is none, or it has ids that the model's table lacks.

    """
    path = folder / "tokenizer.json"
    require_content(path, CheckpointError)
    if not path.is_file():
        raise CheckpointError(
            str(path),
            found="no such file",
            expected="a fast tokenizer",
            fix="Save it: transformers.AutoTokenizer.from_pretrained(…).save_pretrained(…).",
        )
    try:
        text = path.read_text(encoding="utf-8")
        refuse_harmful(text)
        tokenizer = load_tokenizer(text).tokenizer
    except (OSError, TokenizerError, UnicodeDecodeError) as error:
        raise CheckpointError(
            str(path), found=str(error), expected="a tokenizer", fix="Download or save the base again."
        ) from None
    highest = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
    if not 0 <= highest < vocab_size:
        raise CheckpointError(
            str(path),
            found=f"token ids up to {highest}",
            expected=f"ids below the model's vocab_size {vocab_size}",
            fix="Use the tokenizer that the base was trained with.",
        )
    return tokenizer


def special_token(tokenizer_config: dict[str, Any], key: str) -> str:
    """A special token's text: a string, or an object that holds it as `content`; "" where there is none."""
    value = tokenizer_config.get(key)
    text = value.get("content") if isinstance(value, dict) else value
    return text if isinstance(text, str) else ""


def end_of_turn(folder: Path, config: transformers.PretrainedConfig, tokenizer: Tokenizer, eos: str) -> tuple[int, ...]:
    """The tokenizer's `eos_token`, then what generation_config.json (or else config.json) names.

    Raises:
        CheckpointError: none, or an id outside the vocabulary.

    """
    first = tokenizer.token_to_id(eos) if eos else None
    path = folder / "generation_config.json"
    require_content(path, CheckpointError)
    named = (read_json(path).get("eos_token_id") if path.is_file() else None) or config.eos_token_id
    tokens = [first, *(named if isinstance(named, list) else [named])]
    ends = tuple(dict.fromkeys(token for token in tokens if token is not None))
    if not ends or not all(isinstance(token, int) and 0 <= token < config.vocab_size for token in ends):
        raise CheckpointError(
            str(path if path.is_file() else folder / "config.json"),
            found=f"end-of-sequence tokens {list(ends)}",
            expected="at least one id of the vocabulary",
            fix="Name `eos_token` in tokenizer_config.json or `eos_token_id` in generation_config.json.",
        )
    return ends
