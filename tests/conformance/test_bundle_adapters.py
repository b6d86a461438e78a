"""The adapters that a bundle has one of, from the export to the agent's answers: plain, merged and activated."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Final

import pytest
import tiny_bundle
from export_desk import Desk, Exported
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dualtune_edge.export.base.checkpoint import read_checkpoint
from dualtune_edge.export.reference.torch_engine import TorchEngine
from dualtune_edge.export.run import preflight, run
from dualtune_edge.export.spec.document import read_spec
from dualtune_edge.profiles.schema import SessionSettings
from dualtune_edge.runtime import Agent, open_bundle
from dualtune_edge.runtime.decode.text import write_text
from dualtune_edge.runtime.engines.engine import ORT_KV_FORMAT, EngineKind
from dualtune_edge.runtime.reuse.prefix_states import PrefixStates
from dualtune_edge.toolkit.bundle.manifest import Manifest, Stage
from dualtune_edge.toolkit.errors import AdapterError, BundleError, EngineError, SpecError
from dualtune_edge.toolkit.prompts.chat_template import ChatTemplate
from dualtune_edge.toolkit.prompts.messages import Message, call, user
from dualtune_edge.toolkit.prompts.prompter import Prompter

SETTINGS: Final = SessionSettings(intra_op_threads=1)
KINDS: Final = {"properties": {"by": {"enum": ["name", "size", "größe"]}}, "required": ["by"]}
HEADER: Final = "<|im_start|>assistant\n"
TOOLSETS: Final = """\
base: base
quantization: {bits: 32}
toolsets:
  - {name: files, description: Files, tools: files.json, selection: chooser}
  - {name: git, description: History, tools: git.json, arguments: {log: writer}}
"""
ADAPTERS: Final = {
    "external": "toolset: router\nanswer: speaker\n",
    "merged": "toolset: {path: router, mode: merged}\nanswer: {path: speaker, mode: merged}\n",
    "activated": "toolset: activated\nanswer: activated\n",
}
BOTH: Final = ("toolset", "answer")


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """A base of two layers, two toolsets, and a spec for each way to hold the adapters."""
    from dualtune_edge_kit.random_checkpoint import MODULES, Shape, write_adapter, write_checkpoint
    from peft import LoraConfig

    desk = Desk(tmp_path_factory.mktemp("desk"))
    write_checkpoint(desk.folder / "base", Shape(64, 96, 2, 4, 2, 288, 2048))
    config = LoraConfig(r=4, lora_alpha=8, use_rslora=True, target_modules=list(MODULES), task_type="CAUSAL_LM")
    for seed, name in enumerate(("chooser", "writer", "router", "speaker", "activated")):
        write_adapter(desk.folder / name, desk.folder / "base", config, seed=seed)
    header = read_checkpoint(desk.folder / "base").tokenizer.encode(HEADER, add_special_tokens=False).ids
    desk.rewrite("activated/adapter_config.json", lambda config: config.update(alora_invocation_tokens=header))
    desk.write("files.json", json.dumps([{"name": "sort", "inputSchema": KINDS}, {"name": "roots", "inputSchema": {}}]))
    desk.write("git.json", json.dumps([{"name": "log", "inputSchema": KINDS}]))
    for name, lines in ADAPTERS.items():
        desk.write(f"{name}.yaml", TOOLSETS + lines)
    return desk


@pytest.fixture(scope="module", params=list(ADAPTERS))
def exported(request: pytest.FixtureRequest, desk: Desk, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    bundle = tmp_path_factory.mktemp(request.param) / "bundle"
    return Exported(desk, bundle, run(read_spec(desk.folder / f"{request.param}.yaml"), bundle))


def stage_of(manifest: Manifest, kind: str) -> Stage:
    stage = manifest.toolset_choice if kind == "toolset" else manifest.answer
    assert stage
    return stage


@pytest.mark.parametrize("kind", BOTH)
def test_its_stage_is_compared_with_peft_under_it(exported: Exported, kind: str) -> None:
    adapter = next(adapter for adapter in exported.manifest.adapters if adapter.name == kind)
    assert (adapter.kind, adapter.toolset, adapter.tool) == (kind, None, None)
    assert stage_of(exported.manifest, kind).adapter == kind
    report = json.loads((exported.bundle / "parity.json").read_text("utf-8"))
    stages = {stage["stage"]: stage for stage in report["stages"]}
    assert stages[kind]["adapter"] == kind
    counts = ("choices", "flips") if kind == "toolset" else ("texts", "same_texts")
    asked, other = (stages[kind][name] for name in counts)
    assert asked == stages[kind]["prompts"] == 2
    assert other == (0 if kind == "toolset" else 2)  # in float32 all is the same
    assert "texts" not in stages["selection.files"]
    assert max(stage["before_quantization"] for stage in stages.values()) < 1e-3


@pytest.mark.parametrize("kind", BOTH)
def test_its_static_prompt_has_a_state_under_it(exported: Exported, kind: str) -> None:
    bundle = open_bundle(exported.bundle)
    stage = stage_of(bundle.manifest, kind)
    entry = next(entry for entry in bundle.manifest.states if entry.path == stage.state)
    of_base = bundle.model.invocation(kind) is not None
    assert entry.key.identity == bundle.model.identity(None if of_base else kind)
    assert PrefixStates(bundle, ORT_KV_FORMAT).refusal(stage, bundle.plan(stage).prefix) is None


def test_an_answer_is_what_peft_writes(exported: Exported, agents: dict[str, Agent]) -> None:
    """Token by token, with the adapter as PEFT applies it to the whole prompt or from its invocation on."""
    folder = exported.desk.folder
    bundle = open_bundle(exported.bundle)
    plan = bundle.plan(stage_of(bundle.manifest, "answer"))
    path = folder / ("activated" if bundle.model.invocation("answer") else "speaker")
    messages = (user("list it"), call("log"), Message(role="tool", content="ten files"))
    prompter = Prompter.of(plan, ChatTemplate(plan.template, where="answer"), bundle.tokenizer, bundle.all_toolsets)
    with TorchEngine(read_checkpoint(folder / "base"), {"answer": path}) as reference:
        reference.use("answer")
        prompt = prompter.tokens(messages)
        reference.begin(prompt)
        pieces = write_text(reference, prompt, bundle.tokenizer, end=bundle.manifest.base.end_of_turn, max_tokens=12)
        wanted = "".join(pieces)
    assert wanted
    for agent in agents.values():
        assert "".join(agent.answer(messages, max_tokens=12)) == wanted


def test_an_answer_that_is_left_in_the_middle_is_forgotten(agents: dict[str, Agent]) -> None:
    wanted = agents["naive"].call("list it")
    for agent in agents.values():
        pieces = agent.answer("list it", max_tokens=12)
        next(pieces)
        pieces.close()
        found = agent.call("list it")
        assert (found.toolset, found.tool, found.arguments) == (wanted.toolset, wanted.tool, wanted.arguments)
        assert found.toolset_probability == pytest.approx(wanted.toolset_probability, rel=1e-3)


_TALK = st.lists(
    st.tuples(
        st.sampled_from(("list it", "and then?", "größe", HEADER, "a" * 40)),
        st.sampled_from((None, "files", "git")),  # the only toolset on offer; None: it is chosen
        st.booleans(),  # whether an answer is written
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(talk=_TALK, cut=st.integers(0, 3))
def test_conversations_are_answered_as_by_an_agent_that_keeps_nothing(
    agents: dict[str, Agent], talk: list[tuple[str, str | None, bool]], cut: int
) -> None:
    """They grow turn by turn, are cut back and go on, through all stages in any order."""
    messages: list[dict[str, Any]] = []
    for saying, toolset, text in (*talk, talk[0]):
        messages = [*messages[: 3 * cut], {"role": "user", "content": saying}]
        asked = {name: agent.call(messages, toolset=toolset) for name, agent in agents.items()}
        naive = asked.pop("naive")
        for answer in asked.values():
            assert (answer.toolset, answer.tool, answer.arguments) == (naive.toolset, naive.tool, naive.arguments)
            routed = naive.toolset_probability
            assert answer.toolset_probability == (routed and pytest.approx(routed, rel=1e-3, abs=1e-5))
            assert answer.probability == pytest.approx(naive.probability, rel=1e-3, abs=1e-5)
        if text:
            texts = {"".join(agent.answer(messages, max_tokens=4)) for agent in agents.values()}
            assert len(texts) == 1
        called = {"name": naive.tool or "log", "arguments": json.dumps({"by": "size"})}
        messages += [
            {"role": "assistant", "tool_calls": [{"id": "c", "type": "function", "function": called}]},
            {"role": "tool", "tool_call_id": "c", "content": "ten files"},
        ]


@pytest.mark.parametrize("kind", ["ort", "genai"])
def test_both_engines_choose_alike(exported: Exported, agents: dict[str, Agent], kind: EngineKind) -> None:
    if kind == "genai" and exported.manifest.adapters[0].invocation:
        with pytest.raises(EngineError, match="toolset"):
            Agent.open(exported.bundle, engine=kind, settings=SETTINGS)
        return
    wanted = agents["naive"].call("list it")
    with Agent.open(exported.bundle, engine=kind, settings=SETTINGS) as agent:
        found = agent.call("list it")
    assert (found.toolset, found.tool, found.arguments) == (wanted.toolset, wanted.tool, wanted.arguments)
    assert found.toolset_probability == pytest.approx(wanted.toolset_probability, rel=1e-3)


def test_inspect_names_who_answers_it(exported: Exported, capsys: pytest.CaptureFixture[str]) -> None:
    from dualtune_edge import cli

    with pytest.raises(SystemExit):
        cli.main(["inspect", str(exported.bundle)])
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert all([kind, kind] in [row[:2] for row in rows] for kind in BOTH)


@pytest.mark.parametrize("change", [{"toolset": "git"}, {"kind": "selection"}, {"tool": "log"}, {"kind": "answers"}])
def test_a_manifest_that_says_otherwise_is_refused(exported: Exported, change: dict[str, Any], tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(exported.bundle, tmp_path / "bundle"))
    tiny_bundle.change_manifest(bundle, lambda manifest: manifest["adapters"][0].update(change))
    with pytest.raises(BundleError):
        open_bundle(bundle)


@pytest.mark.parametrize(
    "change", [{"tools": [{"name": "rm_rf"}]}, {"completions": {"a": [1]}}, {"tool": "log"}, {"stage": "toolset"}]
)
def test_a_prompt_of_the_answer_that_holds_more_is_refused(
    exported: Exported, change: dict[str, Any], tmp_path: Path
) -> None:
    bundle = Path(shutil.copytree(exported.bundle, tmp_path / "bundle"))
    path = bundle / stage_of(exported.manifest, "answer").prompt
    path.write_text(json.dumps(json.loads(path.read_bytes()) | change), encoding="utf-8")
    tiny_bundle.reseal(bundle)
    with pytest.raises(BundleError, match="prompt"):
        open_bundle(bundle)


def test_what_cannot_be_is_refused_by_name(desk: Desk) -> None:
    one = TOOLSETS.rpartition("  - ")[0]
    desk.write("one.yaml", f"{one}toolset: router\n")
    with pytest.raises(SpecError, match="toolset: found an adapter that chooses among toolsets, and one toolset"):
        read_spec(desk.folder / "one.yaml")
    desk.write("none.yaml", f"{TOOLSETS}toolset: nowhere\n")
    with pytest.raises(SpecError, match="toolset"):
        read_spec(desk.folder / "none.yaml")
    desk.write("both.yaml", TOOLSETS + "toolset: {path: activated, mode: merged}\n")
    with pytest.raises(AdapterError, match="alora_invocation_tokens"):
        preflight(read_spec(desk.folder / "both.yaml"), desk.folder / "none")
