"""Where an activated adapter begins to act: at the last occurrence of its invocation in the prompt, as in PEFT."""

from __future__ import annotations

from collections.abc import Sequence


def base_part(prompt: Sequence[int], invocation: tuple[int, ...]) -> int:
    """The number of tokens before the last occurrence of the invocation, which the base computes.

    Without an occurrence these are all tokens: the adapter is never active. What is written behind the prompt later
    changes nothing.
    """
    length, first = len(invocation), invocation[0]
    for start in range(len(prompt) - length, -1, -1):
        if prompt[start] == first and tuple(prompt[start : start + length]) == invocation:
            return start
    return len(prompt)
