"""onnxruntime-genai, driven as its examples drive it: a generator for each stage, and the whole prompt into it."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Literal

from dualtune_edge.toolkit import telemetry

telemetry.disable()  # before anything below imports an engine

import numpy as np  # noqa: E402
import onnxruntime_genai as og  # noqa: E402
from answered import Answered  # noqa: E402

from dualtune_edge.runtime.bench.scripts import Script  # noqa: E402
from dualtune_edge.runtime.bundle.folder import Bundle  # noqa: E402

Way = Literal["fed", "guided", "guided, forwarding"]
WAYS: tuple[Way, ...] = ("fed", "guided", "guided, forwarding")


class GenaiPlain:
    """A bundle's base graph with its external adapters."""

    def __init__(self, bundle: Bundle, threads: int) -> None:
        """Load the model and every external adapter, which is not counted."""
        self._tokenizer = bundle.tokenizer
        config = og.Config(str(bundle.model.folder))
        options = {"intra_op_num_threads": threads, "log_severity_level": 3}
        config.overlay(json.dumps({"model": {"decoder": {"session_options": options}}}))
        self._model = og.Model(config)
        self._adapters = og.Adapters(self._model)
        for adapter in bundle.model.adapters:
            if adapter.mode == "external":
                self._adapters.load(str(adapter.path), adapter.name)

    def call(self, scripts: Sequence[Script], way: Way) -> Answered:
        """A gold call.

        "fed": each of the call's tokens is appended by itself, without any constraint. "guided": a grammar that allows
        the call's text only; "forwarding": with enable_ff_tokens, by which genai appends forced tokens itself.
        """
        start = time.perf_counter()
        decoded = sum(self._stage(script, way) for script in scripts)
        return Answered(round(1e3 * (time.perf_counter() - start), 3), decoded)

    def _stage(self, script: Script, way: Way) -> int:
        parameters = og.GeneratorParams(self._model)
        room = len(script.prompt) + 2 * len(script.answer) + 16  # a literal grammar may take shorter tokens
        parameters.set_search_options(max_length=room, do_sample=False)
        if way != "fed":
            text = self._tokenizer.decode(list(script.answer), skip_special_tokens=True)
            parameters.set_guidance("lark_grammar", f"start: {json.dumps(text)}", way == "guided, forwarding")
        generator = og.Generator(self._model, parameters)
        if script.adapter is not None:
            generator.set_active_adapter(self._adapters, script.adapter)
        generator.append_tokens(np.asarray(script.prompt, dtype=np.int32))
        if way == "fed":
            generator.get_logits()
            for token in script.answer[:-1]:
                generator.append_tokens(np.asarray([token], dtype=np.int32))
                generator.get_logits()
            return len(script.answer)
        while not generator.is_done():
            generator.generate_next_token()
        return int(generator.token_count()) - len(script.prompt)
