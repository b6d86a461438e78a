"""The reference: checkpoint and PEFT adapters in PyTorch float32, driven exactly as the device's engines are."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftModel
from transformers import AutoModelForCausalLM, DynamicCache

from dualtune_edge.runtime.engine import Snapshot, check_identity, check_rewind, check_tokens


class TorchEngine:
    """An `Engine` on PyTorch; see there. Adapters are PEFT folders by name."""

    def __init__(self, base: Path, adapters: Mapping[str, Path]) -> None:
        self._model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, local_files_only=True)
        names = list(adapters)
        if names:
            self._model = PeftModel.from_pretrained(self._model, adapters[names[0]], adapter_name=_key(names[0]))
        for name in names[1:]:
            self._model.load_adapter(adapters[name], adapter_name=_key(name))
        self._model.eval()
        self._names = set(names)
        config = self._model.config
        self.vocab_size = int(config.vocab_size)
        self.context_length = int(config.max_position_embeddings)
        self.adapter: str | None = None
        self.tokens: tuple[int, ...] = ()
        self._cache = DynamicCache()

    @property
    def identity(self) -> str:
        """The adapter's name: one engine has one base."""
        return f"torch/{self.adapter}"

    def use(self, adapter: str | None) -> None:
        """Activate an adapter (None: the base) and drop the KV state."""
        if adapter is not None:
            self._model.set_adapter(_key(adapter))
        self.adapter, self.tokens, self._cache = adapter, (), DynamicCache()

    def forward(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Append tokens; logits after the last, (vocab_size,)."""
        array = check_tokens(
            tokens, held=len(self.tokens), vocab_size=self.vocab_size, context_length=self.context_length
        )
        ids = torch.from_numpy(array)
        with torch.inference_mode():
            if self.adapter is None and self._names:
                with self._model.disable_adapter():
                    output = self._model(input_ids=ids, past_key_values=self._cache, logits_to_keep=1)
            else:
                output = self._model(input_ids=ids, past_key_values=self._cache, logits_to_keep=1)
        self._cache = output.past_key_values
        self.tokens += tuple(tokens)
        logits: NDArray[np.float32] = output.logits[0, -1].float().numpy()
        return logits

    def rewind(self, length: int) -> None:
        """Keep the first `length` tokens only."""
        check_rewind(length, held=len(self.tokens))
        if length < len(self.tokens):
            self._cache.crop(length - len(self.tokens))  # a negative number: tokens to take off
        self.tokens = self.tokens[:length]

    def snapshot(self) -> Snapshot:
        """The tokens alone: restoring computes their state again."""
        return Snapshot(self.identity, self.tokens, None)

    def restore(self, snapshot: Snapshot) -> None:
        """Compute the snapshot's state again."""
        check_identity(snapshot, self.identity)
        self.rewind(0)
        self.forward(snapshot.tokens)

    def close(self) -> None:
        """Nothing is held besides memory."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _key(name: str) -> str:
    """PEFT's adapter names must be module names: no dots."""
    return name.replace(".", "__")
