"""The part of the Engine protocol in which no graph has a say: which tokens are held, and under which adapter."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, Self

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from dualtune_edge.runtime.engines.engine import Snapshot
from dualtune_edge.toolkit.errors import EngineError, RequestError, StoppedError
from dualtune_edge.toolkit.prompts.prompter import common_prefix


class HeldSequence(ABC):
    """An engine but for its graph; see `Engine` for what each method promises.

    By itself it saves no KV values: a snapshot is its tokens, and `restore` computes those that are not held.
    """

    def __init__(self, vocab_size: int, context_length: int, identify: Callable[[str | None], str]) -> None:
        """`identify`: the identity under an adapter."""
        self.vocab_size: Final = vocab_size
        self.context_length: Final = context_length
        self._identify = identify
        self._adapter: str | None = None
        self._tokens: tuple[int, ...] = ()
        self._border = 0  # tokens before it are the base's, where an activated adapter is in use
        self._open = True
        self._options = onnxruntime.RunOptions()  # of every run of onnxruntime: their flag ends it

    @property
    def adapter(self) -> str | None:
        """The active adapter; None: the base."""
        return self._adapter

    @property
    def identity(self) -> str:
        """What KV values depend on besides the tokens."""
        identity = self._identify(self._adapter)
        return f"{identity} from {self._border}" if self._border else identity

    @property
    def tokens(self) -> tuple[int, ...]:
        """The tokens whose KV is held, in order."""
        return self._tokens

    def use(self, adapter: str | None) -> None:
        """Activate an adapter (None: the base) and hold nothing."""
        self._require_open()
        self._adapter, self._tokens, self._border = adapter, (), 0

    def switch(self, adapter: str | None) -> None:
        """Keep what the base has computed, and go on under an activated adapter (None: the base)."""
        self._require_open()
        held = len(self._tokens) if self._adapter is None else self._border
        if not held:
            self.use(adapter)
            return
        self.rewind(held)
        self._adapter, self._border = adapter, 0 if adapter is None else held

    @abstractmethod
    def forward(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """Append tokens and return the logits after the last, shape (vocab_size,)."""

    def rewind(self, length: int) -> None:
        """Keep the first `length` tokens only."""
        self._require_held(length)
        self._tokens = self._tokens[:length]
        self._border = min(self._border, length)

    def snapshot(self) -> Snapshot:
        """The tokens alone."""
        self._require_open()
        return Snapshot(self.identity, self._tokens, state=None)

    def restore(self, snapshot: Snapshot) -> None:
        """Hold the snapshot's tokens. Where its KV values cannot be loaded, the missing tokens are computed."""
        self._require_fitting(snapshot)
        if snapshot.state is not None and self._load_kv(snapshot.state, snapshot.start, len(snapshot.tokens)):
            self._tokens = snapshot.tokens
            return
        self.rewind(len(common_prefix([self._tokens, snapshot.tokens])))
        if rest := snapshot.tokens[len(self._tokens) :]:
            self.forward(rest)

    def interrupt(self) -> None:
        """End the forward that runs, where onnxruntime runs it, and every later one."""
        self._options.terminate = True

    def resume(self) -> None:
        """Let forwards run again."""
        self._options.terminate = False

    def close(self) -> None:
        """Refuse every later call."""
        self._open = False

    def __enter__(self) -> Self:
        self._require_open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _load_kv(self, state: NDArray[np.generic], start: int, length: int) -> bool:  # noqa: ARG002 - for engines with a cache
        """Write the KV values of the tokens [start, length). False: this engine takes none."""
        return False

    def _require_open(self) -> None:
        if not self._open:
            raise EngineError(
                "engine", found="a closed engine", expected="an open one", fix="Open it again with open_engine."
            )

    def _refuse_interrupted(self) -> None:
        if self._options.terminate:
            raise StoppedError(
                "forward", found="an interrupted engine", expected="one that may run", fix="Allow it more time."
            )

    def _require_held(self, length: int) -> None:
        """Raise `EngineError` unless `length` tokens are held."""
        self._require_open()
        if not 0 <= length <= len(self._tokens):
            raise EngineError(
                "rewind",
                found=f"length {length}",
                expected=f"0 to {len(self._tokens)}, the tokens held",
                fix="Rewind less.",
            )

    def _require_fitting(self, snapshot: Snapshot) -> None:
        """Raise `EngineError` unless the snapshot is of this base and adapter, and what it lies behind is held."""
        self._require_open()
        if snapshot.identity != self.identity:
            raise EngineError(
                "restore",
                found=f"KV state of {snapshot.identity}",
                expected=f"of {self.identity}, the adapter in use",
                fix="Activate the adapter under which it was taken.",
            )
        before = max(snapshot.start, self._border)
        if self._tokens[:before] != snapshot.tokens[:before]:
            raise EngineError(
                "restore",
                found=f"KV state behind {before} tokens that are not held",
                expected="the tokens before it",
                fix="Restore or compute those first.",
            )

    def _appendable(self, tokens: Sequence[int]) -> NDArray[np.int64]:
        """The tokens as an array of shape (1, tokens), once it is sure that they can follow those held.

        Raises:
            RequestError: more tokens than the context holds.
            EngineError: no token, or one outside the vocabulary.
            StoppedError: the engine was interrupted.

        """
        self._require_open()
        self._refuse_interrupted()
        if not tokens:
            raise EngineError("forward", found="no token", expected="at least one", fix="Append a token.")
        if (length := len(self._tokens) + len(tokens)) > self.context_length:
            raise RequestError(
                "prompt",
                found=f"{length:,} tokens",
                expected=f"at most {self.context_length:,}, the model's context",
                fix="Shorten the conversation, or offer fewer tools.",
            )
        array = np.asarray(tokens, dtype=np.int64)
        if array.min() < 0 or array.max() >= self.vocab_size:
            outside = int(array.min()) if array.min() < 0 else int(array.max())
            raise EngineError(
                "forward",
                found=f"token {outside}",
                expected=f"0 to {self.vocab_size - 1}",
                fix="Use this model's tokenizer.",
            )
        return array[np.newaxis]
