"""The reference: checkpoint and PEFT adapters in PyTorch float32, driven exactly as the device's engines are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftModel
from peft.tuners.lora.variants import calculate_alora_offsets
from transformers import DynamicCache

from dualtune_edge.export.adapter.attach import attach
from dualtune_edge.export.adapter.config import changes_modules, read_config
from dualtune_edge.export.base.checkpoint import Checkpoint
from dualtune_edge.export.base.models import load_model, twin
from dualtune_edge.export.work.quiet import captured
from dualtune_edge.runtime.engines.held_sequence import HeldSequence
from dualtune_edge.toolkit.prompts.prompter import common_prefix

_NEVER: Final = 1 << 62  # a token that is never reached
_LAYERS: Final = "model.layers."
CHUNK: Final = 4096  # tokens a forward: activations take 100 KB a token in a 0.5B model, and a prompt may have 31,000


class TorchEngine(HeldSequence):
    """An `Engine` on PyTorch; see there. Adapters are PEFT folders by name, loaded at first use.

    PEFT changes the model that it is put on, and takes back less than it changed. So it gets a twin of the base, which
    goes with the adapter; the base itself stays the base.

    One forward gives the logits of every token in it. So where the next tokens are known beforehand (`expect`), they
    are read along with the prompt, and a step that goes the expected way costs nothing.
    """

    def __init__(self, base: Checkpoint, adapters: Mapping[str, Path], *, model: Any = None) -> None:
        """`model`: the base's in float32, if it is not to be loaded whole."""
        self._checkpoint, self._folders = base, dict(adapters)
        self._base: Any = model or load_model(base)
        self._model: Any = self._base  # the one in use
        self._adapted: dict[str, Any] = {}
        super().__init__(base.vocab_size, int(base.config.max_position_embeddings), identify)
        self._expected: tuple[int, ...] = ()
        self._cache = DynamicCache()
        self._read: tuple[int, ...] = ()  # the tokens in the cache: `tokens` is a beginning of them, or parts from them
        self._logits: dict[int, NDArray[np.float32]] = {}  # after so many of them
        self._prompt: tuple[int, ...] = ()
        self._start = 0  # the first token under the adapter
        self._begun: tuple[int, ...] = ()  # what `hold` read

    def use(self, adapter: str | None) -> None:
        """Activate an adapter (None: the base) and drop the KV state."""
        if adapter is None:
            self._model = self._base
        else:
            if adapter not in self._adapted:
                self._adapted[adapter] = self._with_adapter(adapter)
            self._model = self._adapted[adapter]
        super().use(adapter)
        self._cache, self._read, self._logits, self._expected = DynamicCache(), (), {}, ()
        self._prompt, self._start, self._begun = (), 0, ()

    def hold(self, tokens: Sequence[int]) -> None:
        """Hold these tokens alone, read in a forward of their own; what `hold` has read is not read again.

        How a sequence is cut into forwards decides how its sums are rounded. So what was held before changes no bit.
        """
        wanted = tuple(tokens)
        if self._begun != wanted:
            self.use(self.adapter)
            self._run(wanted)
        self._crop(len(wanted))
        self._tokens = self._read = self._begun = wanted
        self._logits, self._expected = {}, ()

    def begin(self, prompt: Sequence[int]) -> None:
        """Read a new prompt. In it PEFT looks for the invocation of an activated adapter, as it does in `generate`.

        Without it the adapter is active from the first token on.
        """
        if self._prompt == tuple(prompt):
            return
        start = _start(self._model, prompt)
        if start != self._start:  # the tokens between them were read under the adapter, or are to be
            known = common_prefix([self._read, prompt])[: min(start, self._start)]
            self._crop(len(known))
            self._read, self._logits = known, {}
            self.rewind(len(common_prefix([self.tokens, known])))
        self._prompt, self._start = tuple(prompt), start

    def forget_adapters(self) -> None:
        """Drop all adapters: dozens would need the memory of another base."""
        self._adapted.clear()
        self.use(None)

    def expect(self, tokens: Sequence[int]) -> None:
        """Tokens that the engine will probably hold soon: a forward that begins like them reads on to their end."""
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
        """The KV cache: (layers, 2, kv_heads, tokens, head_dim), keys rotated, with tokens that were only expected."""
        layers = [torch.cat((layer.keys, layer.values)) for layer in self._cache.layers]
        state: NDArray[np.float32] = torch.stack(layers).float().numpy()
        return state

    def linear_modules(self) -> dict[str, torch.nn.Module]:
        """The linear modules of the layers, with the base's weights, by their names in the checkpoint.

        A module that an adapter replaces as a whole is the adapter's.
        """
        found = {_checkpoint_name(path): module for path, module in self._model.named_modules() if _is_linear(module)}
        return {name: module for name, module in found.items() if name.startswith(_LAYERS) and "lora_" not in name}

    def _run(self, wanted: tuple[int, ...]) -> None:
        """Bring the KV cache to `wanted`, and on to the expected tokens; keep the logits after `wanted` and later."""
        goal = self._expected if self._expected[: len(wanted)] == wanted else wanted
        held = len(common_prefix([self._read, wanted[:-1]]))
        self._crop(held)
        with torch.inference_mode():
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

    def _crop(self, length: int) -> None:
        """Keep the first tokens of the cache."""
        if not length:
            self._cache = DynamicCache()
        elif length < len(self._read):
            self._cache.crop(length - len(self._read))  # a negative number: tokens to take off

    def _append(self, ids: torch.Tensor, keep: int) -> torch.Tensor:
        active = {}
        if _invocation(self._model):
            held = self._cache.get_seq_length() + ids.shape[1]
            active = {"alora_offsets": [max(0, held - self._start)]}  # of the last tokens; more than all are all
        output = self._model(input_ids=ids, past_key_values=self._cache, logits_to_keep=keep, **active)
        self._cache = output.past_key_values
        logits: torch.Tensor = output.logits
        return logits

    def _with_adapter(self, adapter: str) -> Any:
        folder = self._folders[adapter]
        with captured():
            # PEFT copies whole modules, and computes residual weights, from weights that are all there.
            whole = changes_modules(read_config(folder, "merged").lora)
            model = load_model(self._checkpoint) if whole else twin(self._base)
            return attach(model, folder, self._checkpoint)


def _invocation(model: Any) -> list[int] | None:
    """The invocation of the activated adapter on a model; None of any other."""
    if not isinstance(model, PeftModel):
        return None
    invocation: list[int] | None = getattr(model.active_peft_config, "alora_invocation_tokens", None)
    return invocation


def _start(model: Any, prompt: Sequence[int]) -> int:
    """The first token of a prompt under the adapter that is on a model, as PEFT finds it."""
    if not _invocation(model) or not prompt:
        return 0
    (offset,) = calculate_alora_offsets(model.peft_config, model.active_adapter, torch.tensor([prompt]))
    return _NEVER if offset is None else len(prompt) - offset


def _is_linear(module: torch.nn.Module) -> bool:
    return isinstance(module, torch.nn.Linear)


def _checkpoint_name(path: str) -> str:
    """A module's path in the checkpoint, without what PEFT puts around it."""
    return path.removeprefix("base_model.model.").removesuffix(".base_layer").removesuffix(".modules_to_save.default")


def identify(adapter: str | None) -> str:
    """The adapter's name: one reference has one base."""
    return f"torch/{adapter}"
