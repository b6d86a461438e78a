"""The parts of an export, each with a SHA-256 of all that it is made of: weights, settings, versions of packages.

Parts of equal keys are the same, byte for byte. A key that covers too much costs time only: a part is built again.
"""

from __future__ import annotations

import functools
import hashlib
import json
import platform
from collections.abc import Sequence
from importlib import metadata, resources
from pathlib import Path
from typing import Final

from dualtune_edge.export.base.modules import Extra
from dualtune_edge.export.base.tokenizer import small_files
from dualtune_edge.export.plan.inputs import Inputs
from dualtune_edge.export.plan.subjects import Subject
from dualtune_edge.export.plan.toolsets import AdapterInput
from dualtune_edge.export.work.journal import Step
from dualtune_edge.export.work.threads import THREADS
from dualtune_edge.profiles.detect import detect
from dualtune_edge.profiles.schema import HardwareProfile
from dualtune_edge.toolkit import extras
from dualtune_edge.toolkit.files import sha256_file

# Those whose versions the manifest names.
PACKAGES: Final = (
    "dualtune-edge", "onnx", "onnx-ir", "onnxruntime", "onnxruntime-genai", "optimum", "peft", "torch", "transformers",
)  # fmt: skip
_WINGS: Final = ("toolkit", "profiles", "runtime", "export")


class Steps:
    """Names and keys of the parts of one export."""

    def __init__(self, inputs: Inputs, prompts: Sequence[object] = ()) -> None:
        """`prompts`: those that the base is measured on before it is built."""
        base = inputs.checkpoint
        files = [(path.name, sha256_file(path)) for path in small_files(base.folder)]
        files += [("graph", inputs.decoder.sha256)] if inputs.decoder else []
        files += [("tokenizer", base.tokenizer_sha256), ("rows", str(base.vocab_size))]
        # The folder of the base's graph. Its model.onnx, without slots, is in the scratch folder.
        self._model = inputs.layout.model
        self._transposed = inputs.transposed_slots
        self._read = (base.fingerprint, [(adapter.name, adapter.sha256) for adapter in inputs.adapters])
        self.kv_scales = _step("scales of the KV cache", self._read, files, list(prompts), _machine())
        self.moments = _step("moments of the inputs", self._read, files, list(prompts), _machine())
        self._kv = (self.kv_scales.key,) if inputs.kv_type == "int8" else ()
        measured = (self.moments.key,) if inputs.quantization.algorithm == "gptq" else ()
        rounded = (inputs.quantization.model_dump(), *measured)
        self.weights = _step(self._model, base.fingerprint, base.folder.name, files, *rounded)

    def slots(self, extras: frozenset[Extra]) -> Step:
        """The base's graph with slots; its value is the slots, as JSON."""
        return _step(f"{self._model}/model.onnx", self.weights.key, sorted(extras), self._transposed, *self._kv)

    def external(self, adapter: AdapterInput, path: str, slots: str) -> Step:
        """The file of an adapter; `slots`: those of the graph, as JSON."""
        return _step(path, slots, adapter.sha256)

    def merged(self, adapter: AdapterInput, path: str) -> Step:
        """The graph of a merged adapter."""
        return _step(path, self.weights.key, adapter.sha256, _machine(), *self._kv)

    def static(
        self,
        path: str,
        adapter: AdapterInput | None,
        profile: HardwareProfile,
        prompts: Sequence[Sequence[int]],
        compiler: str,
    ) -> Step:
        """Static graphs of a merged adapter (None: the base), calibrated on prompts, and the compiled contexts."""
        about = (
            profile.graph.model_dump(),
            profile.qdq and profile.qdq.model_dump(),
            profile.qnn and dict(profile.qnn),
        )
        asked = [list(prompt) for prompt in prompts]
        return _step(path, self.weights.key, adapter and adapter.sha256, about, asked, compiler, _machine())

    def made_of(self, adapter: AdapterInput | None, path: str, extras: frozenset[Extra]) -> tuple[str, ...]:
        """Keys of what a forward under an adapter (None: the base) reads, known before anything is built."""
        if adapter and adapter.mode == "merged":
            return (self.merged(adapter, path).key,)
        return (self.weights.key, self.slots(extras).key, *([adapter.sha256] if adapter else []))

    def tried(self, path: str, made_of: Sequence[str], tokens: Sequence[int]) -> Step:
        """A forward on the files of these keys."""
        return _step(f"{path}, tried out", list(made_of), list(tokens), _machine())

    def compared(self, subject: Subject, made_of: Sequence[str], settings: object) -> Step:
        """A stage's comparison with PEFT; its value is the outcome."""
        stage = subject.stage
        messages = [[message.model_dump(mode="json") for message in messages] for messages in subject.messages]
        asked = (stage.adapter_name, stage.plan.model_dump_json(), messages)
        return _step(f"{stage.name}, compared", list(made_of), asked, settings, _machine())

    def reference(self, layers: int) -> Step:
        """What PEFT reads in comparisons of so many layers, whatever the quantization of the graphs."""
        return _step("reference", self._read, layers, _machine())

    def state(self, path: str, made_of: Sequence[str], tokens: Sequence[int], settings: object) -> Step:
        """The file of a prefix state; its value is its entry in the manifest, and how its type was chosen."""
        return _step(path, list(made_of), list(tokens), settings, _machine())


def _step(name: str, *about: object) -> Step:
    text = json.dumps([name, about, _tools()], sort_keys=True, separators=(",", ":"))
    return Step(name, hashlib.sha256(text.encode()).hexdigest())


@functools.cache
def _tools() -> dict[str, str]:
    """Versions, and a digest of this package's own code: while it is worked on, its version says little."""
    code = hashlib.sha256()
    for wing in _WINGS:
        root = Path(str(resources.files(f"dualtune_edge.{wing}")))
        for path in sorted(path.relative_to(root) for path in root.rglob("*.py")):
            code.update(f"{wing}/{path.as_posix()}\n{sha256_file(root / path)}\n".encode())
    required = [package.name for package in extras.requirements() if package.extra in {None, "export"}]
    versions = {name: metadata.version(name) for name in (*PACKAGES, *required)}
    return versions | {"python": platform.python_version(), "code": code.hexdigest()}


@functools.cache
def _machine() -> tuple[object, ...]:
    """The instructions that sums are computed by; the number of threads is the same everywhere (`work.threads`)."""
    machine = detect()
    return (machine.system, machine.architecture, machine.cpu.features, THREADS)
