"""llguidance's view of a tokenizer that is open already: the bytes of its tokens, and nothing read a second time.

llguidance reads tokenizer.json into its own tokenizer, and names every row that the vocabulary leaves free. For
150,000 tokens that is 80 MB, and 62 MB where nearly all rows are free. A byte-level vocabulary needs neither.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Final

from llguidance import LLTokenizer, TokenizerWrapper
from tokenizers import Tokenizer

# The characters that stand for bytes: those that print, as they are, and 256 on for the others (GPT-2's encoder.py).
_PRINTED: Final = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
_OTHERS: Final = tuple(byte for byte in range(256) if byte not in _PRINTED)
_BYTES: Final = {chr(byte): byte for byte in _PRINTED} | {chr(256 + at): byte for at, byte in enumerate(_OTHERS)}
_TAG: Final = re.compile("<.*>", re.DOTALL)


class _Shared:
    """What llguidance asks a tokenizer for; it copies the tokens."""

    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer, tokens: Sequence[bytes], eos: int, special: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self.tokens, self.eos_token_id, self.special_token_ids = tokens, eos, special

    def __call__(self, text: str | bytes) -> list[int]:
        written = text.decode() if isinstance(text, bytes) else text
        return self._tokenizer.encode(written, add_special_tokens=False).ids


def share_tokenizer(tokenizer: Tokenizer, *, vocab_size: int, end_of_turn: Sequence[int]) -> LLTokenizer | None:
    """The tokenizer for constraints; None where its tokens' bytes are not simply its characters.

    Args:
        tokenizer: the base's.
        vocab_size: width of the logits.
        end_of_turn: tokens that end the assistant's turn.

    Raises:
        ValueError: llguidance takes these tokens for none of a tokenizer.

    """
    added = tokenizer.get_added_tokens_decoder()
    if any(not token.content.isascii() for token in added.values() if not token.special):
        return None
    # llguidance takes an added token of this form for a special one (toktrie_hf_tokenizers/src/lib.rs).
    special = [number for number, token in added.items() if token.special or _TAG.fullmatch(token.content)]
    tokens = _token_bytes(tokenizer, special)
    if tokens is None or not end_of_turn or len(tokens) > vocab_size:
        return None
    wrapper = TokenizerWrapper(_Shared(tokenizer, tokens, end_of_turn[0], special))
    shared = LLTokenizer(wrapper, eos_token=list(end_of_turn))
    wrapper.tokens = wrapper._gtokenizer.tokens = ()  # noqa: SLF001 - copied; 10 MB for 150,000
    return shared


def _token_bytes(tokenizer: Tokenizer, special: Sequence[int]) -> list[bytes] | None:
    """By number; None where one is not written in the characters of a byte-level vocabulary, or a number is free."""
    if _type(tokenizer.decoder) != "ByteLevel" or "Prepend" in str(_state(tokenizer.normalizer)):
        return None
    named, tokens = frozenset(special), list[bytes]()
    for number in range(tokenizer.get_vocab_size(with_added_tokens=True)):
        text = tokenizer.id_to_token(number)
        if text is not None and number in named:
            tokens.append(text.encode())
        elif text is not None and all(character in _BYTES for character in text):
            tokens.append(bytes(_BYTES[character] for character in text))
        else:
            return None
    return tokens


def _type(part: Any) -> str:
    return str(_state(part).get("type", ""))


def _state(part: Any) -> dict[str, Any]:
    state: dict[str, Any] = json.loads(part.__getstate__()) if part else {}
    return state
