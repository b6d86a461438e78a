"""Results too long for the conversation: beginning and end stay, and a line says what is left out between them."""

from __future__ import annotations

from tokenizers import Tokenizer


def shorten(text: str, most_tokens: int, tokenizer: Tokenizer) -> tuple[str, int]:
    """The text within about `most_tokens` tokens, and the number of characters that are left out of it.

    The first two thirds of the tokens and the last third stay; cuts are at borders of tokens.
    """
    encoding = tokenizer.encode(text, add_special_tokens=False)
    if len(encoding.ids) <= most_tokens:
        return text, 0
    head, tail = most_tokens - most_tokens // 3, most_tokens // 3
    first, last = encoding.offsets[head - 1][1], encoding.offsets[len(encoding.ids) - tail][0] if tail else len(text)
    left_out = last - first
    return f"{text[:first]}\n[… {left_out} of {len(text)} characters are left out here …]\n{text[last:]}", left_out
