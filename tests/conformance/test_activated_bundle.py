"""A bundle with activated adapters beside a plain one, from the export to the agent's answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import pytest
from export_desk import Desk, Exported
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dualtune_edge.profiles.schema import SessionSettings
from dualtune_edge.runtime import Agent
from dualtune_edge.runtime.bench.replay import Replay
from dualtune_edge.runtime.bench.requests import read_tasks
from dualtune_edge.runtime.bench.roofline import Rates, Roofline
from dualtune_edge.runtime.bench.task import replay_task
from dualtune_edge.runtime.bench.watched import watch
from dualtune_edge.runtime.bundle.opening import open_bundle
from dualtune_edge.runtime.engines.engine import open_engine
from dualtune_edge.toolkit.bundle.manifest import Manifest
from dualtune_edge.toolkit.errors import AdapterError, BundleError, EngineError

SETTINGS = SessionSettings(intra_op_threads=1)
KINDS: Final = {"properties": {"by": {"enum": ["name", "size", "größe"]}}, "required": ["by"]}
TOOLS: Final = [{"name": name, "description": name, "inputSchema": KINDS} for name in ("read", "write", "roots")]
TEMPLATE: Final = """\
<|im_start|>system
{% for tool in tools %}{{ tool.function | tojson }}
{% endfor %}{"name": "summarize"}<|im_end|>
{% for message in messages %}<|im_start|>{{ message.role }}
{{ message.content }}
{%- for call in message.tool_calls or [] %}
{"name": {{ call.function.name | tojson }}, "parameters": {{ call.function.arguments | tojson }}}
{%- endfor %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
HEADER: Final = "<|im_start|>assistant\n"


def activate(desk: Desk, name: str, header: str = HEADER) -> None:
    from dualtune_edge.export.base.checkpoint import read_checkpoint

    tokenizer = read_checkpoint(desk.folder / "base").tokenizer
    tokens = tokenizer.encode(header, add_special_tokens=False).ids
    desk.rewrite(f"{name}/adapter_config.json", lambda config: config.update(alora_invocation_tokens=tokens))


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """`chooser` and the writer of `read` are activated, that of `write` is plain; `roots` has none."""
    desk = Desk.write_to(tmp_path_factory.mktemp("desk"))
    desk.write("files.json", json.dumps(TOOLS))
    desk.write("one.jinja", TEMPLATE)
    desk.add("    templates: {selection: one.jinja, arguments: one.jinja}\nquantization: {bits: 32}\n")
    activate(desk, "chooser")
    activate(desk, "writers/read")
    return desk


@pytest.fixture(scope="module")
def exported(desk: Desk, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return desk.export("external", tmp_path_factory.mktemp("activated") / "bundle")


def test_the_manifest_names_each_invocation_and_parity_holds(exported: Exported) -> None:
    invocations = {adapter.name: adapter.invocation for adapter in exported.manifest.adapters}
    assert invocations["selection.files"] == invocations["arguments.files.read"] != None  # noqa: E711
    assert invocations["arguments.files.write"] is None
    assert b'"invocation":null' not in (exported.bundle / "manifest.json").read_bytes()
    errors = exported.errors_before_quantization
    assert errors.keys() >= {
        "selection.files",
        "arguments.files.read",
        "arguments.files.write",
        "arguments.files.roots",
    }
    assert max(errors.values()) < 1e-3


def test_activated_stages_and_the_base_share_one_state(exported: Exported) -> None:
    manifest = exported.manifest
    stages = {stage.adapter: stage.state for stage in manifest.stages}
    states = {entry.path: entry.key.identity for entry in manifest.states}
    shared = stages["selection.files"] or ""
    assert states[shared].endswith("/base")
    assert stages["arguments.files.read"] == stages[None] == shared
    assert stages["arguments.files.write"] != shared
    assert len(states) == 2


_SAYINGS = st.sampled_from(("list it", "and then?", "größe", HEADER, "a" * 40))
_MESSAGES = st.lists(st.tuples(_SAYINGS, st.sampled_from(("read", "write", "roots"))), min_size=1, max_size=4)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(turns=_MESSAGES, cut=st.integers(0, 3), questions=st.lists(st.booleans(), min_size=4, max_size=4))
def test_conversations_are_answered_as_by_an_agent_that_keeps_nothing(
    agents: dict[str, Agent], turns: list[tuple[str, str]], cut: int, questions: list[bool]
) -> None:
    """They grow turn by turn, are cut back and go on, with an answer of the base between some of the calls."""
    messages: list[dict[str, Any]] = []
    for (saying, tool), text in zip((*turns, *turns[:1]), (*questions, True), strict=False):
        messages = [*messages[: 3 * cut], {"role": "user", "content": saying}]
        asked = {name: agent.call(messages) for name, agent in agents.items()}
        naive = asked.pop("naive")
        for answer in asked.values():
            assert (answer.tool, answer.arguments) == (naive.tool, naive.arguments)
            assert answer.probability == pytest.approx(naive.probability, rel=1e-3, abs=1e-5)
            written = answer.arguments_probability or 0
            assert written == pytest.approx(naive.arguments_probability or 0, rel=1e-3, abs=1e-5)
        if text:
            kept, again = ["".join(agents[name].answer(messages, max_tokens=4)) for name in ("kept", "naive")]
            assert kept == again
        call = {"name": tool, "arguments": json.dumps({"by": "size"})}
        messages += [
            {"role": "assistant", "tool_calls": [{"id": "c", "type": "function", "function": call}]},
            {"role": "tool", "tool_call_id": "c", "content": "ten files"},
        ]


def test_a_further_turn_computes_the_conversation_once(exported: Exported) -> None:
    """Selection and arguments under two activated adapters: all but their invocations is read by the base, once."""
    with Agent.open(exported.bundle, settings=SETTINGS) as agent:
        first = [{"role": "user", "content": "read it"}]
        longer = [*first, {"role": "assistant", "content": "a" * 400}, {"role": "user", "content": "more"}]
        offered = {"files": ["read"]}
        agent.call(first, offered=offered, required=True)
        tokens = agent.call(longer, offered=offered, required=True).tokens
        header = len(agent.tokenizer.encode(HEADER, add_special_tokens=False).ids)
        assert 400 < tokens.prompt - tokens.reused < 400 + 60 + 2 * header


@pytest.mark.parametrize(
    "change", [{"invocation": []}, {"invocation": [288]}, {"invocation": [-1]}, {"mode": "merged"}]
)
def test_a_manifest_with_another_invocation_is_refused(
    exported: Exported, change: dict[str, Any], tmp_path: Path
) -> None:
    import hashlib
    import shutil

    bundle = Path(shutil.copytree(exported.bundle, tmp_path / "bundle"))
    manifest = json.loads((bundle / "manifest.json").read_bytes())
    manifest["adapters"][0] |= change
    data = (json.dumps(manifest, ensure_ascii=False, separators=(",", ":")) + "\n").encode()
    (bundle / "manifest.json").write_bytes(data)
    (bundle / "manifest.sha256").write_text(f"{hashlib.sha256(data).hexdigest()}  manifest.json\n")
    with pytest.raises(BundleError):
        Agent.open(bundle, settings=SETTINGS)


def test_a_task_computes_what_is_new_once(exported: Exported, tmp_path: Path) -> None:
    """Replayed turn by turn: beside the conversation each stage computes its own start of the turn."""
    function = {"name": "read", "arguments": {"by": "size"}}
    turn = [{"role": "assistant", "tool_calls": [{"function": function}]}, {"role": "tool", "content": "b" * 150}]
    line = {"messages": [{"role": "user", "content": "read it"}, *turn, *turn, *turn]}
    (tmp_path / "task.jsonl").write_text(json.dumps(line), encoding="utf-8")
    bundle = open_bundle(exported.bundle)
    (task,) = read_tasks(tmp_path / "task.jsonl", bundle.manifest, 1)
    with open_engine(bundle.model, SETTINGS) as engine:
        replay = Replay(bundle, watch(engine), Roofline(Rates(1e9, 1e12, 1e12)))
        run = replay_task(bundle, replay, task)
    header = len(bundle.tokenizer.encode(HEADER, add_special_tokens=False).ids)
    for measured in run.turns[1:]:
        assert measured.new - header < measured.read <= measured.new + 2 * header
    assert replay.kept_bytes > 0


@pytest.mark.slow
def test_recipes_and_states_are_judged_under_activated_adapters(desk: Desk, tmp_path: Path) -> None:
    own = desk.copy(tmp_path / "desk")
    own.add(
        "    templates: {selection: one.jinja, arguments: one.jinja}\nquantization: auto\nprefix_states_type: auto\n"
    )
    own.export("external", tmp_path / "bundle")
    report = json.loads((tmp_path / "bundle" / "parity.json").read_text("utf-8"))
    assert max(stage["before_quantization"] for stage in report["stages"]) < 1e-3
    judged = {tuple(sorted(stage["stage"] for stage in state["stages"])) for state in report["states"]}
    assert judged == {
        ("arguments.files.read", "arguments.files.roots", "selection.files"),
        ("arguments.files.write",),
    }


def test_another_engine_refuses_the_bundle_by_name(exported: Exported) -> None:
    with pytest.raises(EngineError, match=r"selection\.files"):
        Agent.open(exported.bundle, settings=SETTINGS, engine="genai")


@pytest.mark.parametrize("line", ["mode: merged\n", "profile: qnn-x-elite\n"])
def test_a_spec_that_would_merge_it_is_refused_by_name(desk: Desk, line: str, tmp_path: Path) -> None:
    own = desk.copy(tmp_path / "desk")
    own.add(line)
    own.refused(AdapterError, "alora_invocation_tokens", "mode: external")


def test_a_template_without_the_invocation_is_warned_of(desk: Desk, tmp_path: Path) -> None:
    own = desk.copy(tmp_path / "desk")
    activate(own, "chooser", "<|im_start|>agent\n")
    own.add("parity: off\n")
    report = own.export("external", tmp_path / "bundle").report
    assert [line for line in report.warnings if "without the invocation of selection.files" in line]
    manifest = Manifest.model_validate_json((tmp_path / "bundle" / "manifest.json").read_bytes())
    assert manifest.adapters[0].invocation
