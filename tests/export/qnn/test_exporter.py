"""A variant for an NPU in a bundle: exported, run by the CPU provider, verified. The compiler is stood in for."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dualtune_edge.cli import main
from dualtune_edge.export import run
from dualtune_edge.export.qnn import command, exporter, simulation
from dualtune_edge.export.qnn.compile import Compiled
from dualtune_edge.export.qnn.verify import Answered, Case, Verifier
from dualtune_edge.export.spec.document import ExportSpec, read_spec
from dualtune_edge.profiles.schema import QNN_PROVIDER, SessionSettings
from dualtune_edge.runtime import Agent, Bundle, open_bundle, open_engine
from dualtune_edge.runtime.bench.roofline import Forward, measure_roofline
from dualtune_edge.runtime.engines.engine import STATIC_KV_FORMAT
from dualtune_edge.runtime.engines.static_engine import StaticEngine
from dualtune_edge.runtime.engines.static_graph import by_cpu
from dualtune_edge.runtime.levers import Levers
from dualtune_edge.runtime.reuse.prefix_states import PrefixStates
from dualtune_edge.toolkit.bundle.graph_form import StaticGraph
from dualtune_edge.toolkit.bundle.verification import Verification
from dualtune_edge.toolkit.errors import (
    AdapterError,
    BundleError,
    CheckpointError,
    DataError,
    EdgeError,
    ProfileError,
    RequestError,
)

TOOLS = [
    {"name": "read", "description": "Read a file", "inputSchema": {"properties": {"path": {"enum": ["a", "b"]}}}},
    {"name": "roots", "description": "List roots", "inputSchema": {"type": "object", "properties": {}}},
]
SPEC = """\
base: base
toolsets: [{name: files, tools: files.json, selection: one, arguments: {read: two}}]
answer: one
profile: [cpu-x64, soc.toml]
"""
PROFILE = """\
name = "soc"
description = "a made-up SoC"
architecture = "arm64"
features = []
provider = "QNNExecutionProvider"
device = "NPU"
mode = "merged"
graph = {form = "static", chunks = [1, 128], kv_length = 2048}
qnn = {soc_model = 60, htp_arch = 73}
qdq = {weight_bits = 4, activation_bits = 16, block_size = 32}
session = {threads = 1, spinning = false}
"""
CPU = SessionSettings(1, spinning=False)
NONE = Levers(states=False, reuse=False)
HELD_OUT = {
    "toolset": "files",
    "messages": [
        {"role": "user", "content": "read a"},
        {"role": "assistant", "tool_calls": [{"function": {"name": "read", "arguments": {"path": "a"}}}]},
        {"role": "tool", "content": "text"},
        {"role": "assistant", "content": "Done."},
    ],
}


@pytest.fixture(scope="module", autouse=True)
def compiler() -> Iterator[None]:
    """A compiler that writes a file where the real one would, on a machine where there is none."""

    def compile_contexts(folder: Path, out: Path, form: StaticGraph, _htp: object) -> Compiled:
        assert all((folder / file).is_file() for file in form.files)
        out.mkdir()
        (out / "context.bin").write_bytes(b"compiled")
        return Compiled(out / "context.bin", 0.0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporter, "compile_contexts", compile_contexts)
        patch.setattr(exporter, "find_htp", lambda _target, simulate: simulate)
        patch.setattr(exporter, "compiler", lambda: "a stand-in")
        patch.setattr(simulation, "find_htp", lambda _target, simulate: simulate)
        patch.setattr(simulation, "compiler", lambda: "a stand-in")
        patch.setattr(simulation, "by_simulation", lambda _htp, settings: by_cpu(settings))
        yield


@pytest.fixture(scope="module")
def desk(base_and_adapters: Path) -> Path:
    folder = base_and_adapters
    (folder / "files.json").write_text(json.dumps({"tools": TOOLS}), encoding="utf-8")
    (folder / "dualtune.yaml").write_text(SPEC, encoding="utf-8")
    (folder / "soc.toml").write_text(PROFILE, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def bundle(desk: Path) -> Bundle:
    run.run(spec(desk), desk / "bundle")
    return open_bundle(desk / "bundle")


def spec(desk: Path) -> ExportSpec:
    return read_spec(desk / "dualtune.yaml").model_copy(update={"parity": None})


def test_a_bench_of_static_graphs_reckons_with_their_weights_alone(bundle: Bundle) -> None:
    roofline = measure_roofline(bundle.on("soc"), 1)
    assert (roofline.layers, roofline.head) == (0, 0)
    assert roofline.seconds(Forward(10**9, held=0, tokens=128, rows=1)) == 10**9 / roofline.rates.bandwidth


def test_base_and_every_adapter_are_compiled(bundle: Bundle) -> None:
    (entry,) = bundle.manifest.models
    assert {variant.profile: variant.model for variant in bundle.manifest.variants} == {
        "cpu-x64": "model",
        "soc": "soc",
    }
    assert entry.graph == StaticGraph(chunks=(1, 128), kv_length=2048)
    assert {adapter.mode for adapter in entry.adapters} == {"merged"}
    assert {adapter.mode for adapter in bundle.manifest.adapters} == {"external"}
    contexts = {context.adapter: context.path for context in entry.contexts}
    assert list(contexts) == [None, "selection.files", "answer", "arguments.files.read"]
    assert contexts["answer"] == contexts["selection.files"]  # of equal weights
    assert {(context.soc_model, context.htp_arch, context.compiler) for context in entry.contexts} == {
        (60, 73, "a stand-in")
    }


def test_the_cpu_provider_runs_it_and_reads_no_prefix(bundle: Bundle) -> None:
    seen = bundle.on("soc")
    with Agent(seen, open_engine(seen.model, CPU)) as agent, Agent(seen, open_engine(seen.model, CPU), NONE) as plain:
        answer, computed = agent.call("read a"), plain.call("read a")
    assert isinstance(agent._engine, StaticEngine)
    assert (answer.tool, answer.arguments) == (computed.tool, computed.arguments)
    assert answer.probability == pytest.approx(computed.probability, abs=1e-4)  # the forwards are cut otherwise
    assert answer.notes == ()
    prefix = seen.plan(seen.manifest.toolsets[0].selection).prefix
    assert answer.tokens.reused >= len(prefix) > computed.tokens.reused


def test_it_writes_answers_under_their_adapter(bundle: Bundle) -> None:
    seen = bundle.on("soc")
    with Agent(seen, open_engine(seen.model, CPU)) as agent, Agent(seen, open_engine(seen.model, CPU), NONE) as plain:
        agent.call("read a")
        written = "".join(agent.answer("read a", max_tokens=4))
        assert written == "".join(plain.answer("read a", max_tokens=4))
    with open_engine(seen.model, CPU) as base:
        unadapted = seen.manifest.model_copy(update={"answer": None})
        with Agent(replace(seen, manifest=unadapted), base) as agent:
            assert "".join(agent.answer("read a", max_tokens=4)) != written


def test_states_are_what_the_engine_computes(bundle: Bundle) -> None:
    seen = bundle.on("soc")
    states = PrefixStates(seen, STATIC_KV_FORMAT)
    with open_engine(seen.model, CPU) as engine:
        for stage in seen.manifest.stages:
            prefix = seen.plan(stage).prefix
            engine.use(stage.adapter)
            engine.forward(prefix)
            found = states.snapshot(stage, prefix)
            assert found is not None
            np.testing.assert_array_equal(found.state, engine.snapshot().state)


def test_states_that_would_take_too_much_are_left_out_with_a_warning(bundle: Bundle, desk: Path) -> None:
    with_none = spec(desk).model_copy(update={"prefix_states_mb": 0})
    report = run.run(with_none, desk / "none", reuse=bundle.root)
    assert (
        len([warning for warning in report.warnings if "prefix states: 3 stages have none" in warning]) == 2
    )  # of both models
    assert not any(file.path.endswith(".kv") for file in open_bundle(desk / "none").manifest.files)


def test_without_an_npu_the_cpu_provider_runs_it_and_says_why(bundle: Bundle) -> None:
    seen = bundle.on("soc")
    settings = SessionSettings(1, spinning=False, provider=QNN_PROVIDER, device="NPU")
    with StaticEngine(seen.model, settings) as engine, StaticEngine(seen.model, CPU) as plain:
        for opened_engine in (engine, plain):
            opened_engine.use("selection.files")
        assert (engine.forward([1, 2, 3]) == plain.forward([1, 2, 3])).all()
        assert QNN_PROVIDER in engine.placement.instead


def test_verify_compares_twice_and_puts_its_report_into_the_bundle(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(bundle.root, tmp_path / "bundle")
    (tmp_path / "heldout.jsonl").write_text(json.dumps(HELD_OUT), encoding="utf-8")
    flags = ["--profile", "soc", "--heldout", str(tmp_path / "heldout.jsonl"), "--limit", "3", "--json"]
    for _ in range(2):  # a second report takes the first one's place
        main_ends(["verify", str(tmp_path / "bundle"), *flags])
        report = Verification.model_validate_json(capsys.readouterr().out)
    opened = open_bundle(tmp_path / "bundle")
    assert opened.on("soc").simulation == report
    assert {path.name for path in tmp_path.iterdir()} == {"bundle", "heldout.jsonl"}
    assert [file.path for file in opened.manifest.files if file not in bundle.manifest.files] == [
        "variants/soc/simulated.json"
    ]
    assert (report.asked, report.prompts, report.known, report.calls) == (6, 6, 3, 1)
    same, primary = report.against
    assert (same.agreed, same.same) == (same.choices, same.arguments)
    assert (same.right, same.whole) == (report.right, report.whole)
    assert max(stage.max_error for stage in same.stages) == 0
    assert max(stage.max_error for stage in primary.stages) > 0
    assert same.choices + same.arguments == report.prompts
    main_ends(["inspect", str(tmp_path / "bundle")])
    assert "simulated       soc: 6 prompts, " in capsys.readouterr().out


def test_verify_that_is_interrupted_reports_what_it_has(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(bundle.root, tmp_path / "bundle")
    answer, answered = Verifier._answer, []

    def interrupted(self: Verifier, case: Case) -> Answered:
        if len(answered) == 2:
            raise KeyboardInterrupt
        answered.append(answer(self, case))
        return answered[-1]

    monkeypatch.setattr(Verifier, "_answer", interrupted)
    command.simulate(tmp_path / "bundle", "soc", heldout=None, limit=3, as_json=False)
    report = open_bundle(tmp_path / "bundle").on("soc").simulation
    assert report is not None
    assert (report.asked, report.prompts) == (3, 2)
    assert "2 of 3 prompts" in capsys.readouterr().err


def main_ends(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code in {0, None}


def test_verify_refuses_a_conversation_of_another_toolset(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "heldout.jsonl").write_text(json.dumps(HELD_OUT | {"toolset": "git"}), encoding="utf-8")
    with pytest.raises(DataError, match="git"):
        command.simulate(bundle.root, "soc", heldout=tmp_path / "heldout.jsonl", limit=1, as_json=False)


def test_verify_refuses_what_was_not_compiled(bundle: Bundle) -> None:
    with pytest.raises(BundleError, match="soc"):
        command.simulate(bundle.root, "cpu-x64", heldout=None, limit=1, as_json=False)


@pytest.mark.parametrize(
    ("change", "error", "named"),
    [
        (("profile:", "mode: external\nprofile:"), AdapterError, "mode"),
        (("block_size = 32", "block_size = 128"), CheckpointError, "hidden_size"),
        (("kv_length = 2048", "kv_length = 256"), RequestError, "kv_length"),
    ],
)
def test_what_cannot_be_built_is_refused_by_name_before_anything_is(
    desk: Path, tmp_path: Path, change: tuple[str, str], error: type[EdgeError], named: str
) -> None:
    (tmp_path / "soc.toml").write_text(PROFILE.replace(*change), encoding="utf-8")
    (tmp_path / "dualtune.yaml").write_text(SPEC.replace(*change), encoding="utf-8")
    for name in ("base", "one", "two", "files.json"):
        (tmp_path / name).symlink_to(desk / name)
    with pytest.raises(error, match=named):
        run.preflight(spec(tmp_path), tmp_path / "bundle")  # what `run` would refuse before it begins


def test_without_the_compiler_the_package_is_named(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dualtune_edge.profiles import plugins
    from dualtune_edge.runtime.engines.qnn import find_htp

    lacking = plugins.PluginState(QNN_PROVIDER, problem="not installed", fix="Run: pip install onnxruntime-qnn")
    monkeypatch.setattr(plugins, "state", lambda _provider: lacking)
    monkeypatch.setattr(exporter, "find_htp", find_htp)
    with pytest.raises(ProfileError, match="pip install onnxruntime-qnn"):
        run.run(spec(desk), desk / "other")
