"""The reference: checkpoint and PEFT adapters in PyTorch float32, driven exactly as the device's engines are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftModel
from transformers import AutoModelForCausalLM, DynamicCache

from dualtune_edge.export.work.quiet import captured
from dualtune_edge.runtime.engines.held_sequence import HeldSequence
from dualtune_edge.toolkit.prompts.prompter import common_prefix

CHUNK: Final = 4096  # tokens a forward: activations take 100 KB a token in a 0.5B model, and a prompt may have 31,000


class TorchEngine(HeldSequence):
    """An `Engine` on PyTorch; see there. Adapters are PEFT folders by name, loaded at first use.

    One forward gives the logits of every token in it. So where the next tokens are known beforehand (`expect`), they
    are read along with the prompt, and a step that goes the expected way costs nothing.
    """

    def __init__(self, base: Path, adapters: Mapping[str, Path], *, model: Any = None) -> None:
        """`model`: the base's in float32, if it is not to be loaded whole."""
        with captured():
            self._model: Any = model or AutoModelForCausalLM.from_pretrained(
                base, dtype=torch.float32, local_files_only=True
            )
        self._model.eval()
        self._folders = dict(adapters)
        self._loaded: set[str] = set()
        config = self._model.config
        super().__init__(int(config.vocab_size), int(config.max_position_embeddings), identify)
        self._expected: tuple[int, ...] = ()
        self._cache = DynamicCache()
        self._read: tuple[int, ...] = ()  # the tokens in the cache: `tokens` is a beginning of them, or parts from them
        self._logits: dict[int, NDArray[np.float32]] = {}  # after so many of them

    def use(self, adapter: str | None) -> None:
        """Activate an adapter (None: the base) and drop the KV state."""
        if adapter is not None:
            if adapter not in self._loaded:
                self._load(adapter)
            self._model.set_adapter(_key(adapter))
        super().use(adapter)
        self._cache, self._read, self._logits = DynamicCache(), (), {}

    def forget_adapters(self) -> None:
        """Take all adapters off the base again: dozens would need the memory of another base."""
        if self._loaded:
            self._model = self._model.unload()
            self._loaded.clear()
        self.use(None)

    def expect(self, tokens: Sequence[int]) -> None:
        """What the engine will probably hold before long: a forward that begins like it reads on to its end."""
        self._expected = tuple(tokens)

    def forward(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Append tokens; logits after the last, (vocab_size,)."""
        self._appendable(tokens)
        wanted = (*self.tokens, *tokens)
        if self._read[: len(wanted)] != wanted or len(wanted) not in self._logits:
            self._run(wanted)
        self._tokens = wanted
        logits: NDArray[np.float32] = self._logits[len(wanted)].copy()
        return logits

    def keys_and_values(self) -> NDArray[np.float32]:
        """Of all tokens that are held, or were read besides: (layers, 2, kv_heads, tokens, head_dim), keys rotated."""
        layers = [torch.cat((each.keys, each.values)) for each in self._cache.layers]
        state: NDArray[np.float32] = torch.stack(layers).float().numpy()
        return state

    def _run(self, wanted: tuple[int, ...]) -> None:
        """Bring the KV cache to `wanted`, and beyond it to what is expected; keep the logits from there on."""
        goal = self._expected if self._expected[: len(wanted)] == wanted else wanted
        held = len(common_prefix([self._read, wanted[:-1]]))
        if not held:
            self._cache = DynamicCache()
        elif held < len(self._read):
            self._cache.crop(held - len(self._read))  # a negative number: tokens to take off
        with torch.inference_mode():
            if self.adapter is None and self._loaded:
                with self._model.disable_adapter():
                    logits = self._forward(goal[held:], len(goal) - len(wanted) + 1)
            else:
                logits = self._forward(goal[held:], len(goal) - len(wanted) + 1)
        self._read = goal
        rows: NDArray[np.float32] = logits[0].float().numpy()  # (len(goal) - len(wanted) + 1, vocabulary)
        self._logits = {len(wanted) + index: row for index, row in enumerate(rows)}

    def _forward(self, tokens: Sequence[int], keep: int) -> torch.Tensor:
        """Append tokens to the cache, and the logits after the last `keep` of them, (1, keep, vocabulary)."""
        ids, start = torch.tensor([tokens]), 0  # (1, tokens)
        while start + CHUNK < len(tokens) - keep:
            self._append(ids[:, start : start + CHUNK], 1)
            start += CHUNK
        return self._append(ids[:, start:], keep)

    def _append(self, ids: torch.Tensor, keep: int) -> torch.Tensor:
        output = self._model(input_ids=ids, past_key_values=self._cache, logits_to_keep=keep)
        self._cache = output.past_key_values
        logits: torch.Tensor = output.logits
        return logits

    def _load(self, adapter: str) -> None:
        with captured():
            if self._loaded:
                self._model.load_adapter(self._folders[adapter], adapter_name=_key(adapter))
            else:
                self._model = PeftModel.from_pretrained(
                    self._model, self._folders[adapter], adapter_name=_key(adapter), torch_device="cpu"
                )
        self._model.eval()
        self._loaded.add(adapter)


def identify(adapter: str | None) -> str:
    """The adapter's name: one reference has one base."""
    return f"torch/{adapter}"


def _key(name: str) -> str:
    """PEFT's adapter names must be module names: no dots."""
    return name.replace(".", "__")
