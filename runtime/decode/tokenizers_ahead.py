"""What prompts need, made ready while onnxruntime opens the weights: the tokenizers, and the process that renders.

A thread reads the tokenizers. For 150,000 tokens they take 1.5 s of one core, about as long as the weights of a 0.5B
model. A large grammar is compiled at its tool's first call, in milliseconds.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from concurrent.futures import Future, ThreadPoolExecutor

from llguidance import LLTokenizer
from tokenizers import Tokenizer

from dualtune_edge.runtime.bundle.folder import Bundle
from dualtune_edge.runtime.grammar.grammar import open_tokenizer
from dualtune_edge.toolkit.prompts.template_process import TEMPLATES, TemplateFault


class TokenizersAhead:
    """A bundle's tokenizers, from the moment on that this is made."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        with contextlib.suppress(TemplateFault):  # the first prompt says why it cannot be started
            TEMPLATES.start()
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tokenizers")
        self._base: Future[Tokenizer] = self._pool.submit(lambda: bundle.tokenizer)
        self._constraint: Future[LLTokenizer] = self._pool.submit(self._open_constraint)

    @property
    def base(self) -> Tokenizer:
        """The base's.

        Raises:
            BundleError: it is none.

        """
        return self._base.result()

    @property
    def constraint(self) -> LLTokenizer:
        """The same as llguidance sees it.

        Raises:
            CheckpointError: llguidance cannot read it.

        """
        return self._constraint.result()

    def close(self) -> None:
        """Begin nothing more; what has begun ends by itself."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _open_constraint(self) -> LLTokenizer:
        bundle, base = self._bundle, self._bundle.manifest.base
        try:
            return open_tokenizer(
                bundle.tokenizer_json,
                vocab_size=base.vocab_size,
                end_of_turn=base.end_of_turn,
                shared=bundle.tokenizer,
            )
        finally:
            _give_back()


def _give_back() -> None:
    """What reading the tokenizers took and freed goes back to the system: glibc keeps 40 MB of 150,000 tokens."""
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):  # musl has none
        trim(0)
