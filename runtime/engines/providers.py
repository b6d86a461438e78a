"""A graph opened by an execution provider that comes as a separate package."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnxruntime

from dualtune_edge.profiles import plugins
from dualtune_edge.profiles.schema import CPU_PROVIDER, OpenVinoOptions, SessionSettings
from dualtune_edge.runtime.cache.compiled import open_cached
from dualtune_edge.runtime.engines.plain_inputs import without_defaults
from dualtune_edge.runtime.result import Placement
from dualtune_edge.toolkit.errors import EngineError
from dualtune_edge.toolkit.files import sha256_file

OptionsOf = Callable[[], onnxruntime.SessionOptions]  # new ones at each call: a session's entries stay in them


@dataclass(frozen=True)
class Graph:
    """An open graph, and who runs it."""

    session: onnxruntime.InferenceSession
    placement: Placement


def open_session(path: Path, options: OptionsOf, settings: SessionSettings, *, int8: bool) -> Graph:
    """Open a graph by the provider of `settings`; `int8`: its activations may be int8 where weights are quantized.

    Raises:
        Exception: what onnxruntime and the provider raise, which share no base class.

    """
    if settings.provider == CPU_PROVIDER:
        session = onnxruntime.InferenceSession(path, options(), providers=[CPU_PROVIDER])
        return Graph(session, Placement(instead=settings.instead))
    return _open_by_plugin(path, options, settings, int8=int8)


def _open_by_plugin(path: Path, options: OptionsOf, settings: SessionSettings, *, int8: bool) -> Graph:
    state = plugins.state(settings.provider)
    devices = [
        device
        for device in onnxruntime.get_ep_devices()
        if device.ep_name == settings.provider and device.device.type.name == settings.device
    ]
    if not devices:
        found = state.problem or f"no {settings.device}"
        raise EngineError(settings.provider, found=found, expected="a device that runs the graph", fix=state.fix)
    graph = without_defaults(path.read_bytes())

    def compile_into(cache: Path | None) -> onnxruntime.InferenceSession:
        session_options = options()
        session_options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        # The graph comes as bytes, so onnxruntime needs the place of its weights.
        session_options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", str(path.parent.absolute())
        )
        session_options.add_provider_for_devices(devices[:1], _openvino_options(settings, cache, int8=int8))
        return onnxruntime.InferenceSession(graph, session_options)

    weights = sha256_file(path.with_name(f"{path.name}.data"))
    names = (path.name, sha256_file(path), weights, onnxruntime.__version__, state.version, f"{settings} {int8}")
    session = open_cached("\n".join(names), compile_into)
    on_cpu: Counter[str] = Counter(
        node.op_type
        for part in session.get_provider_graph_assignment_info()
        for node in part.get_nodes()
        if part.ep_name == CPU_PROVIDER
    )
    return Graph(session, Placement(provider=settings.provider, device=settings.device, on_cpu=dict(on_cpu)))


def _openvino_options(settings: SessionSettings, cache: Path | None, *, int8: bool) -> dict[str, str]:
    """OpenVINO takes its properties, device by device, as one JSON text."""
    properties = {"CACHE_DIR": str(cache)} if cache else {}
    wishes = settings.openvino or OpenVinoOptions()
    asked = {
        "INFERENCE_PRECISION_HINT": wishes.precision,
        "PERFORMANCE_HINT": wishes.performance_hint,
        "NUM_STREAMS": wishes.num_streams,
        "SCHEDULING_CORE_TYPE": wishes.core_type,
    }
    properties |= {name: str(value) for name, value in asked.items() if value is not None}
    if settings.device == "CPU":
        properties["INFERENCE_NUM_THREADS"] = str(settings.intra_op_threads)
        # Left to itself it makes activations int8 whatever the graph's accuracy level says. 32: values to a scale.
        quantized = int8 if wishes.activations is None else wishes.activations == "int8"
        properties["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = "32" if quantized else "0"
    return {"load_config": json.dumps({settings.device: properties})}
