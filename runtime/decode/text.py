"""Text by the model, token by token: the answer that a user reads."""

from __future__ import annotations

from collections.abc import Collection, Generator, Sequence
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from dualtune_edge.runtime.engines.engine import Engine
from dualtune_edge.toolkit.errors import EngineError


class TextEnd(NamedTuple):
    """Where a text ends: the tokens written, and whether the model ended it or a limit did."""

    tokens: int
    ended: bool


def write_tokens(
    engine: Engine,
    pending: Sequence[int],
    *,
    end: Collection[int],
    max_tokens: int,
    temperature: float = 0.0,
    seed: int = 0,
) -> Generator[int, None, TextEnd]:
    """The tokens of the text that `write_text` writes, without those that end it; the engine reads each behind it.

    Raises:
        RequestError, EngineError: as for `write_text`.

    """
    generator = np.random.default_rng(seed % 2**64)
    logits = engine.forward(pending)
    most = min(max_tokens, engine.context_length - len(engine.tokens))
    for count in range(most):
        token = _pick(logits, temperature, generator)
        if token in end:
            return TextEnd(count, ended=True)
        yield token
        logits = engine.forward([token])
    return TextEnd(most, ended=False)


def write_text(
    engine: Engine,
    pending: Sequence[int],
    tokenizer: Tokenizer,
    *,
    end: Collection[int],
    max_tokens: int,
    temperature: float = 0.0,
    seed: int = 0,
) -> Generator[str, None, TextEnd]:
    """Append `pending` to what the engine holds, then yield the text that the model writes behind it.

    Args:
        engine: the prompt so far under the right adapter.
        pending: the rest of the prompt, one token or more.
        tokenizer: the base's.
        end: ids of the tokens that end the turn.
        max_tokens: the most tokens that are written.
        temperature: divides the logits; 0 takes the most probable token.
        seed: of the samples.

    Returns:
        What ended the text, once all of it was taken.

    Raises:
        RequestError: the context is full before the prompt is read.
        EngineError: the model's logits are not finite.

    """
    stream = DecodeStream(skip_special_tokens=True)
    tokens = write_tokens(engine, pending, end=end, max_tokens=max_tokens, temperature=temperature, seed=seed)
    while True:
        try:
            token = next(tokens)
        except StopIteration as stopped:
            return cast("TextEnd", stopped.value)
        if piece := stream.step(tokenizer, token):
            yield piece


def _pick(logits: NDArray[np.float32], temperature: float, generator: np.random.Generator) -> int:
    if not np.isfinite(logits).all():
        raise EngineError(
            "logits", found="values that are not finite", expected="numbers", fix="Export the bundle again."
        )
    if temperature == 0:
        return int(logits.argmax())
    weights = np.exp((logits - logits.max()).astype(np.float64) / temperature)
    return int(generator.choice(weights.size, p=weights / weights.sum()))
