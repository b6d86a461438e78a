"""tokenizer.json: read, and what it may say. It splits text in bounded time, and makes not much more of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from tokenizers import Tokenizer

from dualtune_edge.toolkit.expressions import ExpressionError, refuse_backtracking
from dualtune_edge.toolkit.native import catch_panics

_PARTS: Final = ("normalizer", "pre_tokenizer", "post_processor", "decoder")
_STEPS: Final = 64  # normalizers, splits and so on, in all
_GROWTH: Final = 64  # characters that a normalizer may make of one


class TokenizerError(ValueError):
    """Why a text is no tokenizer; the caller makes its own `EdgeError` of it."""


class LoadedTokenizer(NamedTuple):
    """A tokenizer, and the text of its tokenizer.json for another library to read."""

    tokenizer: Tokenizer
    text: str


def load_tokenizer(text: str) -> LoadedTokenizer:
    """Read a tokenizer.json. What comes of it neither cuts nor pads, though a trainer may have left it so.

    Raises:
        TokenizerError: the text is none.

    """
    try:
        with catch_panics():
            tokenizer = Tokenizer.from_str(text)
    except Exception as error:  # noqa: BLE001 - tokenizers raises plain Exception
        raise TokenizerError(str(error)) from None
    if tokenizer.truncation is None and tokenizer.padding is None:
        return LoadedTokenizer(tokenizer, text)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return LoadedTokenizer(tokenizer, tokenizer.to_str())


def refuse_harmful(text: str | bytes) -> None:
    """Look into a tokenizer.json before it is read.

    Raises:
        TokenizerError: it would take time or memory without bound.

    """
    for fault in tokenizer_faults(text):
        raise TokenizerError(fault)


def tokenizer_faults(text: str | bytes) -> Iterator[str]:
    """What is wrong with a tokenizer, each fault in a few words."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        yield f"no JSON: {error}"
        return
    if not isinstance(value, dict) or not isinstance(value.get("model"), dict):
        yield "no tokenizer with a model"
        return
    if value["model"].get("dropout"):
        yield "dropout: tokens that are drawn by lot"
    steps = [step for part in _PARTS for step in _steps(value.get(part))]
    if len(steps) > _STEPS:
        yield f"{len(steps)} steps, over the {_STEPS} allowed"
        return
    for step in steps:
        yield from _step_faults(step)
    if (growth := _growth(value.get("normalizer"))) > _GROWTH:
        yield f"a normalizer that makes {growth} characters of one"


def _steps(part: object) -> Iterator[dict[str, Any]]:
    """Every step of a part, and what a sequence of them holds."""
    stack = [part]
    while stack:
        step = stack.pop()
        if isinstance(step, dict):
            yield step
            stack += [value for value in step.values() if isinstance(value, (dict, list))]
        elif isinstance(step, list):
            stack += step


def _step_faults(step: dict[str, Any]) -> Iterator[str]:
    if step.get("type") == "Precompiled":
        yield "a normalizer of compiled tables, which no base that is supported has"
    if isinstance(source := step.get("Regex"), str):
        try:
            refuse_backtracking(source)
        except ExpressionError as error:
            yield f"the expression {source[:60]!r}: {error}"


def _growth(normalizer: object) -> int:
    """The most characters that replacing and prepending make of one, step by step."""
    growth = 1
    for step in _steps(normalizer):
        if step.get("type") == "Prepend":
            growth += len(str(step.get("prepend", "")))
        elif step.get("type") == "Replace":
            pattern = step.get("pattern")
            text = pattern.get("String") if isinstance(pattern, dict) else None
            least = len(text) if isinstance(text, str) else 0  # an expression may match nothing
            written = len(str(step.get("content", "")))
            growth *= -(-max(written, 1) // least) if least else 1 + written
    return growth
