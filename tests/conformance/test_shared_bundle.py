"""Two toolsets whose prompts show all tools: one state, one reading of the conversation, the same answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import pytest
from export_desk import Desk, Exported
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dualtune_edge.export.base.checkpoint import read_checkpoint
from dualtune_edge.export.run import run
from dualtune_edge.export.spec.document import read_spec
from dualtune_edge.profiles.schema import SessionSettings
from dualtune_edge.runtime import Agent
from dualtune_edge.runtime.bench.replay import Replay
from dualtune_edge.runtime.bench.requests import read_tasks
from dualtune_edge.runtime.bench.roofline import Rates, Roofline
from dualtune_edge.runtime.bench.task import replay_task
from dualtune_edge.runtime.bench.watched import watch
from dualtune_edge.runtime.bundle.opening import open_bundle
from dualtune_edge.runtime.engines.engine import open_engine

SETTINGS: Final = SessionSettings(intra_op_threads=1)
KINDS: Final = {"properties": {"by": {"enum": ["name", "size", "größe"]}}, "required": ["by"]}
HEADER: Final = "<|im_start|>assistant\n"
ACTIVATED: Final = ("chooser", "reader", "speaker")
SPEC: Final = """\
base: base
quantization: {bits: 32}
answer: speaker
toolsets:
  - {name: files, description: Files, tools: files.json, selection: chooser, arguments: {read: reader}}
  - {name: git, description: History, tools: git.json, arguments: {read: writer, log: reader}}
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Both toolsets have a tool `read`. The base chooses the toolset and of git the tool; `writer` is plain."""
    from dualtune_edge_kit.random_checkpoint import MODULES, Shape, write_adapter, write_checkpoint
    from peft import LoraConfig

    desk = Desk(tmp_path_factory.mktemp("desk"))
    write_checkpoint(desk.folder / "base", Shape(64, 96, 2, 4, 2, 288, 4096))
    config = LoraConfig(r=4, lora_alpha=8, use_rslora=True, target_modules=list(MODULES), task_type="CAUSAL_LM")
    header = read_checkpoint(desk.folder / "base").tokenizer.encode(HEADER, add_special_tokens=False).ids
    for seed, name in enumerate((*ACTIVATED, "writer")):
        write_adapter(desk.folder / name, desk.folder / "base", config, seed=seed)
        if name in ACTIVATED:
            desk.rewrite(f"{name}/adapter_config.json", lambda value: value.update(alora_invocation_tokens=header))
    read, log = ({"name": name, "inputSchema": KINDS} for name in ("read", "log"))
    desk.write("files.json", json.dumps([read, {"name": "roots", "inputSchema": {}}]))
    desk.write("git.json", json.dumps([read, log]))
    desk.write("shared.yaml", SPEC)
    bundle = desk.folder / "bundle"
    return Exported(desk, bundle, run(read_spec(desk.folder / "shared.yaml"), bundle))


def test_parity_holds_in_every_stage(exported: Exported) -> None:
    errors = exported.errors_before_quantization
    assert errors.keys() == {
        "toolset",
        "selection.files",
        "arguments.files.read",
        "selection.git",
        "arguments.git.read",
        "arguments.git.log",
        "answer",
    }
    assert max(errors.values()) < 1e-3


def test_there_is_one_state_for_all_stages_but_the_plain_one(exported: Exported) -> None:
    manifest = exported.manifest
    states = {stage.adapter: stage.state for stage in manifest.stages}
    plain = states.pop("arguments.git.read")
    assert len(manifest.states) == 2
    assert set(states.values()) == {next(entry.path for entry in manifest.states if entry.path != plain)}


def test_only_prompts_that_show_all_toolsets_say_so(exported: Exported) -> None:
    prompts = {path.stem: json.loads(path.read_bytes()) for path in (exported.bundle / "prompts").iterdir()}
    assert {name: prompt.get("toolset") for name, prompt in prompts.items() if prompt.get("shows_toolsets")} == {
        "toolset": None,
        "selection.files": "files",
        "arguments.files.read": "files",
        "selection.git": "git",
        "arguments.git.log": "git",
        "answer": None,
    }
    assert not {"shows_toolsets", "toolset"} & prompts["arguments.git.read"].keys()


_OFFERS: Final[tuple[dict[str, list[str]] | None, ...]] = (
    None,
    {"files": ["read", "roots"], "git": ["log"]},
    {"git": ["read", "log"]},
    {"files": ["roots"], "git": ["read"]},
)
_TURNS = st.lists(
    st.tuples(
        st.sampled_from(("list it", "and then?", "größe", HEADER, "a" * 40)),
        st.sampled_from(("read", "log", "roots", "none of them")),
        st.sampled_from(_OFFERS),
        st.booleans(),
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(turns=_TURNS, cut=st.integers(0, 3))
def test_conversations_are_answered_as_by_an_agent_that_keeps_nothing(
    agents: dict[str, Agent], turns: list[tuple[str, str, dict[str, list[str]] | None, bool]], cut: int
) -> None:
    """They grow, are cut back and go on, between plain, activated and base stages, with a part of the tools offered."""
    messages: list[dict[str, Any]] = []
    for saying, tool, offered, text in (*turns, *turns[:1]):
        messages = [*messages[: 3 * cut], {"role": "user", "content": saying}]
        asked = {name: agent.call(messages, offered=offered) for name, agent in agents.items()}
        naive = asked.pop("naive")
        assert offered is None or naive.tool in (None, *offered[naive.toolset])
        for answer in asked.values():
            assert (answer.toolset, answer.tool, answer.arguments) == (naive.toolset, naive.tool, naive.arguments)
            for name in ("probability", "toolset_probability", "arguments_probability"):
                found, wanted = getattr(answer, name), getattr(naive, name)
                assert (found or 0) == pytest.approx(wanted or 0, rel=1e-3, abs=1e-5)
        if text:
            kept, again = ["".join(agents[name].answer(messages, max_tokens=4)) for name in ("kept", "naive")]
            assert kept == again
        call = {"name": tool, "arguments": json.dumps({"by": "size"})}
        messages += [
            {"role": "assistant", "tool_calls": [{"id": "c", "type": "function", "function": call}]},
            {"role": "tool", "tool_call_id": "c", "content": "ten files"},
        ]


def test_a_task_computes_what_is_new_once(exported: Exported, tmp_path: Path) -> None:
    """Beside the conversation each of three stages computes the start of the turn, which no other one keeps."""
    function = {"name": "read", "arguments": {"by": "size"}}
    turn = [{"role": "assistant", "tool_calls": [{"function": function}]}, {"role": "tool", "content": "b" * 150}]
    line = {"toolset": "files", "messages": [{"role": "user", "content": "read it"}, *turn, *turn, *turn]}
    (tmp_path / "task.jsonl").write_text(json.dumps(line), encoding="utf-8")
    bundle = open_bundle(exported.bundle)
    (task,) = read_tasks(tmp_path / "task.jsonl", bundle.manifest, 1)
    with open_engine(bundle.model, SETTINGS) as engine:
        run = replay_task(bundle, Replay(bundle, watch(engine), Roofline(Rates(1e9, 1e12, 1e12))), task)
    header = len(bundle.tokenizer.encode(HEADER, add_special_tokens=False).ids)
    for measured in run.turns[1:]:
        assert measured.new < measured.read <= measured.new + 3 * header


def test_an_answer_reads_its_own_start_of_the_turn_alone(exported: Exported) -> None:
    """Behind a call whose prompt is the same conversation."""
    messages = [{"role": "user", "content": "a" * 300}]
    with Agent.open(exported.bundle, settings=SETTINGS) as agent:
        agent.call(messages)
        answer = agent.answer(messages, max_tokens=1)
        next(answer)
        with pytest.raises(StopIteration) as end:
            next(answer)
        header = len(agent.tokenizer.encode(HEADER, add_special_tokens=False).ids)
        assert end.value.value.prompt - end.value.value.reused <= header
