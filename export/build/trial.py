"""Single forwards of a graph in onnxruntime, without a history."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from dualtune_edge.toolkit.bundle.kv_states import CacheShape
from dualtune_edge.toolkit.errors import GraphError

Logits: TypeAlias = NDArray[np.float32]  # (vocabulary,)


class Trial:
    """An open graph.

    Args:
        folder: holds `model.onnx`.
        cache: the shape of its KV cache.

    Raises:
        GraphError: onnxruntime does not open it.

    """

    def __init__(self, folder: Path, cache: CacheShape) -> None:
        self._folder, self._cache = folder, cache
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # noqa: BLE001 - onnxruntime's own classes have no public root
            raise self._refusal(str(error).splitlines()[0]) from None

    def logits(self, tokens: Sequence[int], adapter: Path | None = None) -> Logits:
        """Logits after the last token, under an `.onnx_adapter` file or none.

        Raises:
            GraphError: the forward fails, or a logit is no finite number.

        """
        options = onnxruntime.RunOptions()
        try:
            if adapter:
                active = onnxruntime.LoraAdapter()
                active.Load(str(adapter))
                options.add_active_adapter(active)
            (logits,) = self._session.run(["logits"], self._feeds(tokens), options)
        except Exception as error:  # noqa: BLE001
            raise self._refusal(f"{adapter.name if adapter else 'a forward'}: {error}".splitlines()[0]) from None
        last: Logits = np.asarray(logits, dtype=np.float32).reshape(-1, logits.shape[-1])[-1]
        if not np.isfinite(last).all():
            under = f" under {adapter.name}" if adapter else ""
            raise self._refusal(f"{int((~np.isfinite(last)).sum())} logits that are NaN or infinite{under}")
        return last

    def _feeds(self, tokens: Sequence[int]) -> dict[str, NDArray[np.generic]]:
        ids = np.asarray([tokens], dtype=np.int64)  # (1, tokens)
        positions = np.arange(len(tokens), dtype=np.int64)[np.newaxis]
        known = {"input_ids": ids, "attention_mask": np.ones_like(ids), "position_ids": positions}
        empty = np.zeros((1, self._cache.heads, 0, self._cache.head_dim), dtype=self._cache.dtype)
        return {value.name: known.get(value.name, empty) for value in self._session.get_inputs()}

    def _refusal(self, found: str) -> GraphError:
        return GraphError(
            str(self._folder),
            found=found,
            expected="a graph that opens in onnxruntime and gives finite logits",
            fix="See whether PEFT's logits of the checkpoint, and of the adapter on it, are; if so, report it.",
        )


def refuse_without_effect(name: str, before: Logits, after: Logits) -> None:
    """Raise `GraphError` if an adapter changed no logit."""
    if np.array_equal(before, after):
        raise GraphError(
            f"adapter {name}",
            found="logits that are bit for bit those of the base",
            expected="an adapter that changes them",
            fix="Check that it was trained: a fresh LoRA adapter has lora_B = 0.",
        )
