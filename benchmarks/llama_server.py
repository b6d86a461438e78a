"""llama.cpp's server on this machine's loopback: adapters by request, the gold call's tokens as a grammar."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from answered import Answered
from tokenizers import Tokenizer

from dualtune_edge.runtime.bench.scripts import Script

_STARTING = 120.0  # seconds
CONTEXT = 4096  # tokens of a slot
_HOST = "127.0.0.1"


class LlamaServer:
    """A server process; leaving the `with` block ends it."""

    def __init__(
        self,
        binary: Path,
        folder: Path,
        adapters: Sequence[str],
        *,
        threads: int,
        slots: int,
        context: int = CONTEXT,
    ) -> None:
        """`folder` holds base.gguf and `<adapter>.gguf`; `slots`: prompts whose KV it keeps side by side.

        `context`: tokens of a slot.
        """
        self._adapters, self._slots = list(adapters), slots
        with socket.socket() as free:
            free.bind((_HOST, 0))
            self._port = free.getsockname()[1]
        command = [str(binary), "--model", str(folder / "base.gguf"), "--host", _HOST, "--port", str(self._port)]
        command += ["--threads", str(threads), "--parallel", str(slots), "--ctx-size", str(context * slots)]
        if adapters:
            command += ["--lora", ",".join(str(folder / f"{adapter}.gguf") for adapter in adapters)]
        spinning = {**os.environ, "OMP_WAIT_POLICY": "active"}  # as onnxruntime's threads wait
        with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
            self._process = subprocess.Popen(command, stdout=nowhere, stderr=nowhere, env=spinning)  # noqa: S603

    def __enter__(self) -> Self:
        deadline = time.monotonic() + _STARTING
        while True:
            try:
                self._ask("/health", None)
            except (urllib.error.URLError, ConnectionError):
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self._process.kill()
                    raise
                time.sleep(0.2)
            else:
                return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait()

    def call(self, scripts: Sequence[Script], adapters: Sequence[str | None], tokenizer: Tokenizer) -> Answered:
        """A gold call; `adapters`: the files' names, stage by stage. Each adapter has its slot, as far as they go."""
        start, decoded = time.perf_counter(), 0
        for script, adapter in zip(scripts, adapters, strict=True):
            number = -1 if adapter is None else self._adapters.index(adapter)
            written = without_end(script.answer, tokenizer)
            text = tokenizer.decode(written, skip_special_tokens=False)
            request = {
                "prompt": list(script.prompt),
                "n_predict": len(written),
                "temperature": 0,
                "grammar": "root ::= " + " ".join(f"<[{token}]>" for token in written),
                "lora": scales(self._adapters, number),
                "id_slot": (number + 1) % self._slots,
                "cache_prompt": True,
            }
            answer = self._ask("/completion", request)
            if answer["content"] != text:
                raise SystemExit(f"llama.cpp wrote {answer['content']!r} under a grammar of {text!r}")
            decoded += answer["timings"]["predicted_n"]
        return Answered(round(1e3 * (time.perf_counter() - start), 3), decoded)

    def decode_per_s(self, prompt: int, steps: int) -> float:
        """Tokens a second without an adapter or a grammar, behind a prompt of so many tokens."""
        return self.speed(prompt, steps, 0)[0]

    def speed(self, prompt: int, steps: int, number: int) -> tuple[float, float]:
        """The same, and tokens a second of the prompt; `number` makes it another one."""
        request = {
            "prompt": [1 + (at + number) % 200 for at in range(prompt)],
            "n_predict": steps,
            "ignore_eos": True,
            "temperature": 0,
            "lora": scales(self._adapters, -1),
        }
        timings = self._ask("/completion", request)["timings"]
        return float(timings["predicted_per_second"]), float(timings["prompt_per_second"])

    def _ask(self, path: str, value: dict[str, Any] | None) -> Any:
        data = None if value is None else json.dumps(value).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"http://{_HOST}:{self._port}{path}", data, headers)
        with urllib.request.urlopen(request, timeout=600) as answer:  # noqa: S310 - loopback
            return json.loads(answer.read())


def without_end(answer: Sequence[int], tokenizer: Tokenizer) -> list[int]:
    """The answer's tokens up to a special one, which would end the server's text."""
    added = tokenizer.get_added_tokens_decoder()
    special = (at for at, token in enumerate(answer) if token in added and added[token].special)
    return list(answer[: next(special, len(answer))])


def scales(adapters: Sequence[str], number: int) -> list[dict[str, Any]]:
    """The adapter of a request, -1 for none. An empty list would put all in force."""
    return [{"id": max(0, number), "scale": 1.0 if number >= 0 else 0.0}] if adapters else []
