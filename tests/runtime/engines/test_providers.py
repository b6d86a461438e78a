"""A bundle answers on the CPU, and says why, where the provider that was asked for is missing or fails."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dualtune_edge import cli
from dualtune_edge.profiles import catalog
from dualtune_edge.profiles.detect import detect
from dualtune_edge.profiles.plugins import OPENVINO
from dualtune_edge.profiles.resolve import misfits
from dualtune_edge.profiles.schema import CPU_PROVIDER, SessionSettings
from dualtune_edge.runtime import Agent, open_bundle, open_engine
from dualtune_edge.runtime.bundle.model_source import ModelSource
from dualtune_edge.runtime.engines import ort_graph
from dualtune_edge.runtime.engines.engine import ORT_KV_FORMAT
from dualtune_edge.runtime.engines.ort_engine import OrtEngine
from dualtune_edge.runtime.engines.providers import Graph, OptionsOf, open_session
from dualtune_edge.runtime.result import Placement
from dualtune_edge.toolkit.errors import EngineError

SETTINGS = SessionSettings(intra_op_threads=1, provider=OPENVINO)
QUESTION = "read it"
needs_x86 = pytest.mark.skipif(
    misfits(catalog.load("openvino"), detect()) != (), reason="profile openvino does not fit this CPU"
)


def call(bundle: Path, *arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(["call", str(bundle), QUESTION, "--toolset", "files", "--threads", "1", "--json", *arguments])
    return int(ended.value.code or 0)


def answer(out: str) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(out)
    return {key: parsed[key] for key in ("tool", "arguments", "probability", "placement")}


@needs_x86
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("absent", "not installed. Run: pip install onnxruntime-ep-openvino"),
        ("broken", "its library does not load"),
        ("deviceless", "finds no device that it runs on"),
    ],
)
def test_without_the_provider_the_cpu_answers_and_both_channels_say_why(
    *,
    exported: Path,
    openvino: Callable[[str], None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
    message: str,
) -> None:
    monkeypatch.delenv(catalog.PROFILE_VARIABLE, raising=False)
    assert call(exported) == 0
    plain = answer(capsys.readouterr().out)
    openvino(fault)
    monkeypatch.setenv(catalog.PROFILE_VARIABLE, "openvino")
    assert call(exported) == 0
    out, err = capsys.readouterr()
    instead = answer(out)["placement"]["instead"]
    assert message in instead
    assert err == f"warning: {instead}\n"
    assert answer(out) == {**plain, "placement": {**plain["placement"], "instead": instead}}


def fail_to_open(path: Path, options: OptionsOf, settings: SessionSettings, *, int8: bool) -> Graph:
    """A provider that is there and cannot compile the graph."""
    if settings.provider == OPENVINO:
        raise RuntimeError("[OpenVINO-EP] cannot compile\nmore")
    return open_session(path, options, settings, int8=int8)


def fail_to_run(path: Path, options: OptionsOf, settings: SessionSettings, *, int8: bool) -> Graph:
    """A provider that compiles the graph and fails at its first run: this session never computes a thing."""
    if settings.provider == OPENVINO:
        session = open_session(path, options, SessionSettings(intra_op_threads=1), int8=int8).session
        return Graph(Failing(session), Placement(provider=OPENVINO))
    return open_session(path, options, settings, int8=int8)


class Failing:
    """A session whose runs fail."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def run_with_iobinding(self, _io: object, _options: object) -> None:
        raise RuntimeError("[OpenVINO-EP] cannot run")


@pytest.mark.parametrize(
    ("opens", "said"), [(fail_to_open, "[OpenVINO-EP] cannot compile"), (fail_to_run, "[OpenVINO-EP] cannot run")]
)
def test_a_provider_that_fails_on_the_graph_gives_way_to_the_cpu(
    exported: Path, monkeypatch: pytest.MonkeyPatch, opens: Callable[..., Graph], said: str
) -> None:
    monkeypatch.setattr(ort_graph, "open_session", opens)
    with (
        Agent.open(exported, settings=SessionSettings(intra_op_threads=1)) as plain,
        Agent.open(exported, settings=SETTINGS) as agent,
    ):
        expected, found = plain.call(QUESTION), agent.call(QUESTION)
    assert found.placement == Placement(instead=f"{OPENVINO} fails on this bundle, so {CPU_PROVIDER} runs it: {said}")
    ours = ("toolset", "tool", "arguments", "probability", "tokens", "notes")
    assert [getattr(found, name) for name in ours] == [getattr(expected, name) for name in ours]


def test_an_engine_opened_without_asking_falls_back_too(exported: Path, openvino: Callable[[str], None]) -> None:
    openvino("absent")
    model = open_bundle(exported).model
    with OrtEngine(model, SETTINGS) as engine:
        engine.forward([1, 2, 3])
        assert engine.kv_format == ORT_KV_FORMAT
        assert "not installed" in engine.placement.instead


def test_an_unknown_adapter_is_no_fault_of_the_provider(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def opens(path: Path, options: OptionsOf, settings: SessionSettings, *, int8: bool) -> Graph:
        graph = open_session(path, options, SessionSettings(intra_op_threads=1), int8=int8)
        return Graph(graph.session, Placement(provider=settings.provider))

    monkeypatch.setattr(ort_graph, "open_session", opens)
    with OrtEngine(open_bundle(exported).model, SETTINGS) as engine:
        with pytest.raises(EngineError, match="nobody"):
            engine.use("nobody")
        assert engine.placement == Placement(provider=OPENVINO)
        assert engine.kv_format == f"{ORT_KV_FORMAT}/{OPENVINO}"


def test_genai_runs_by_the_cpu_provider_only(exported: Path) -> None:
    with pytest.raises(EngineError, match=r"genai.*OpenVINOExecutionProvider.*Use the engine 'ort'"):
        open_engine(open_bundle(exported).model, SETTINGS, "genai")


def test_the_manifest_says_whether_activations_are_int8(exported: Path) -> None:
    bundle = open_bundle(exported)
    assert bundle.model.int8_activations
    finer = bundle.manifest.quantization.model_copy(update={"accuracy_level": 1})
    manifest = bundle.manifest.model_copy(update={"quantization": finer})
    assert not ModelSource.of(manifest.base, bundle.root, manifest.primary).int8_activations
