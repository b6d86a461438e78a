"""Qualcomm's provider: which of its devices runs or simulates a compiled model, and how its contexts are opened.

On Snapdragon the device is the NPU. On x86-64 Linux the provider offers the CPU, on which Qualcomm's library computes
what the NPU would, bit for bit by its own account, and some thousand times slower: for checks only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import onnxruntime

from dualtune_edge.profiles import plugins
from dualtune_edge.profiles.schema import QNN_PROVIDER, QnnOptions, SessionSettings
from dualtune_edge.runtime.bundle.model_source import ModelSource
from dualtune_edge.runtime.engines.static_graph import Opened, OpenStatic, on_cpu, static_options
from dualtune_edge.runtime.result import Placement
from dualtune_edge.toolkit.bundle.graph_form import StaticGraph
from dualtune_edge.toolkit.errors import EngineError, ProfileError

_PACKAGE: Final = "onnxruntime_qnn"
# The one operator behind the compiled part: it makes float32 logits of integers.
_LEFT: Final = "DequantizeLinear"


@dataclass(frozen=True)
class Htp:
    """Qualcomm's NPU as one SoC has it, and a device of onnxruntime's that runs or simulates it."""

    target: QnnOptions
    device: Any  # onnxruntime.OrtEpDevice, which has no public type
    kind: str  # "NPU"; "CPU": it is simulated

    def session(self, path: Path, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
        """Open a graph, or the context that was compiled of one.

        Raises:
            Exception: what onnxruntime and the provider raise, which share no base class.

        """
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        provider = {
            "backend_path": import_module(_PACKAGE).get_qnn_htp_path(),
            "soc_model": str(self.target.soc_model),
            "htp_arch": str(self.target.htp_arch),
        }
        options.add_provider_for_devices([self.device], provider)
        return onnxruntime.InferenceSession(path, options)


def find_htp(target: QnnOptions, *, simulate: bool = False) -> Htp:
    """The NPU, or what simulates it.

    Raises:
        ProfileError: the provider's package is missing or broken, or there is no such device here.

    """
    state = plugins.state(QNN_PROVIDER)
    kinds = ("CPU",) if simulate else ("NPU",)
    for device in onnxruntime.get_ep_devices() if not state.problem else ():
        if device.ep_name == QNN_PROVIDER and device.device.type.name in kinds:
            return Htp(target, device, device.device.type.name)
    what = "a simulation of the NPU" if simulate else "the NPU"
    raise ProfileError(
        QNN_PROVIDER,
        found=state.problem or f"no device for {what}",
        expected=what,
        fix=state.fix or "Simulate and compile on Linux on x86-64; run on Snapdragon.",
    )


def compiler() -> str:
    """Name and version of the package and of QNN, by which contexts differ."""
    build = import_module(f"{_PACKAGE}.build_and_package_info")
    return f"onnxruntime-qnn {build.__version__}, QNN {build.qnn_version}"


def by_htp(source: ModelSource, settings: SessionSettings) -> OpenStatic:
    """Loads the contexts that a bundle brings, on the NPU.

    Raises:
        ProfileError: there is no NPU here, or its provider's package is missing or broken.
        EngineError: the bundle has no contexts, or they are of another version than this provider's.

    """
    folders: dict[str | None, Path] = {adapter.name: adapter.path for adapter in source.adapters}
    folders[None] = source.folder
    contexts = {folders[context.adapter]: (source.root / context.path).parent for context in source.contexts}
    if not contexts:
        raise _no_context(str(source.folder))
    first = source.contexts[0]
    htp = find_htp(QnnOptions(soc_model=first.soc_model, htp_arch=first.htp_arch))
    if other := next((context for context in source.contexts if context.compiler != compiler()), None):
        raise EngineError(
            str(source.root / other.path),
            found=f"a context by {other.compiler}",
            expected=f"one by {compiler()}, the version that is installed",
            fix="Install that version, or export the bundle again with this one.",
        )

    def open_sessions(folder: Path, form: StaticGraph) -> Opened:
        if folder not in contexts:
            raise _no_context(str(folder))
        sessions = {}
        for tokens, file in zip(form.chunks, form.files, strict=True):
            options = static_options(settings)
            share(options, last=tokens == form.chunks[-1])
            sessions[tokens] = htp.session(contexts[folder] / file, options)
        return sessions, _placement(htp, sessions)

    return open_sessions


def by_simulation(htp: Htp, settings: SessionSettings) -> OpenStatic:
    """Compiles the graphs themselves and simulates what comes of it.

    The simulating library cannot load a context binary: it is compiled again, by the same compiler, for the same SoC.
    """

    def open_sessions(folder: Path, form: StaticGraph) -> Opened:
        pairs = zip(form.chunks, form.files, strict=True)
        sessions = {tokens: htp.session(folder / file, static_options(settings)) for tokens, file in pairs}
        return sessions, _placement(htp, sessions)

    return open_sessions


def share(options: onnxruntime.SessionOptions, *, last: bool) -> None:
    """One copy of the weights for the sessions up to the last one of a model."""
    options.add_session_config_entry("ep.share_ep_contexts", "1")
    if last:
        options.add_session_config_entry("ep.stop_share_ep_contexts", "1")


def left_behind(session: onnxruntime.InferenceSession) -> str:
    """Operators outside the compiled part that should be in it, by type and name; empty: none."""
    nodes = [
        node
        for part in session.get_provider_graph_assignment_info()
        if part.ep_name != QNN_PROVIDER
        for node in part.get_nodes()
    ]
    return (
        ""
        if [node.op_type for node in nodes] == [_LEFT]
        else ", ".join(f"{node.op_type} {node.name}" for node in nodes)
    )


def _placement(htp: Htp, sessions: Mapping[int, onnxruntime.InferenceSession]) -> Placement:
    return Placement(provider=QNN_PROVIDER, device=htp.kind, on_cpu=on_cpu(sessions[1]))


def _no_context(where: str) -> EngineError:
    return EngineError(where, found="no compiled context", expected="one", fix="Export the bundle again.")
