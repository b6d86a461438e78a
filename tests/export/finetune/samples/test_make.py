from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from dualtune_edge.export.finetune.loading.base import Base
from dualtune_edge.export.finetune.samples.make import Samples, listed_tools, make_prompter, make_samples
from dualtune_edge.export.finetune.samples.turns import TrajectoryFiles, read_turns
from dualtune_edge.export.finetune.settings import FinetuneSettings, ToolsetSource
from dualtune_edge.export.finetune.train import template_of
from dualtune_edge.toolkit.errors import DataError, SpecError, ToolsError
from dualtune_edge.toolkit.prompts.trajectories import read_trajectories


def samples(settings: FinetuneSettings, base: Base, max_length: int = 2048) -> Samples:
    tools = listed_tools(settings)
    prompter = make_prompter(settings, template_of(settings, base), base.checkpoint.tokenizer, tools)
    return make_samples(settings, prompter, max_length)


OWN = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
    "{% if messages[-1].role == 'assistant' %}<|im_end|>{% endif %}{% if add_generation_prompt %}[assistant]{% endif %}"
)


def learnt(made: Samples, base: Base) -> list[str]:
    decode = base.checkpoint.tokenizer.decode
    return [decode(list(sample.tokens[-sample.learnt :]), skip_special_tokens=False) for sample in made.samples]


def test_selection_learns_every_turn_and_a_turn_without_a_call_as_the_pseudo_tool(base: Base, settings: Any) -> None:
    assert learnt(samples(settings(), base), base) == ['read"', 'summarize"', 'read_file"', 'status"', 'read"']


def test_a_token_is_one_object_however_often_it_stands(base: Base, settings: Any) -> None:
    made = samples(settings(), base).samples
    tokens = [token for sample in made for token in sample.tokens]
    assert len(set(map(id, tokens))) == len(set(tokens)) < len(tokens)


def test_the_toolset_choice_learns_the_toolset_of_each_turn(base: Base, settings: Any, tmp_path: Path) -> None:
    sums = tmp_path / "sums.json"
    sums.write_text(json.dumps([{"name": "add", "inputSchema": {"properties": {}}}]), encoding="utf-8")
    own = tmp_path / "sums.jsonl"
    done = {"role": "assistant", "content": "Done."}
    other, failed = call("read", {"path": "a"}) | {"weight": 0}, call("add", {}) | {"weight": 0}
    unlearnt = done | {"weight": 0}
    lines = [
        [ask(), call("add", {}), done],
        [ask(), call("add", {}), other, done],
        [ask(), failed, done],
        [ask(), done],
        [ask(), call("add", {}), unlearnt],
    ]
    own.write_text("".join(json.dumps({"messages": messages}) + "\n" for messages in lines), encoding="utf-8")
    plain = settings()
    sources = (
        ToolsetSource(name="files", description="Files", tools=plain.tools, data=plain.data, named=False),
        ToolsetSource(name="sums", tools=sums, data=own, named=False),
    )
    run = settings(objective="toolset", data=None, tools=None, toolsets=sources)
    made = samples(run, base)
    assert learnt(made, base) == ['files"'] * 5 + ['sums"'] * 5  # a turn behind another's call, or a failed one, is not
    text = base.checkpoint.tokenizer.decode(list(made.samples[0].tokens))
    assert '"name": "files", "description": "Files"' in text
    assert "no sample calls" not in "".join(made.warnings)


def test_a_call_of_another_toolset_s_tool_teaches_no_choice(base: Base, settings: Any, tmp_path: Path) -> None:
    plain = settings()
    lines = tmp_path / "other.jsonl"
    lines.write_text(json.dumps({"messages": [ask(), call("add", {})]}), encoding="utf-8")
    sources = tuple(
        ToolsetSource(name=name, tools=plain.tools, data=data, named=False)
        for name, data in (("files", plain.data), ("other", lines))
    )
    with pytest.raises(DataError, match=r"other\.jsonl:1, message 2: found a call of 'add'"):
        samples(settings(objective="toolset", data=None, tools=None, toolsets=sources), base)


def test_answers_are_the_turns_in_words_in_the_base_s_own_template(base: Base, settings: Any, write_data: Any) -> None:
    done, silent = {"role": "assistant", "content": "Done."}, {"role": "assistant", "content": " "}
    unlearnt = done | {"weight": 0}
    talk = [
        ask(),
        call("read", {"path": "a"}),
        {"role": "tool", "content": "text"},
        done,
        ask(),
        unlearnt,
        ask(),
        silent,
    ]
    write_data([{"messages": talk}])
    made = samples(settings(objective="answer", tools=None), base)
    assert learnt(made, base) == ["Done.<|im_end|>"]
    text = base.checkpoint.tokenizer.decode(list(made.samples[0].tokens), skip_special_tokens=False)
    assert "text" in text
    assert "tools>" not in text
    assert "1 turns call nothing and say nothing" in "\n".join(made.warnings)
    own = replace(base, checkpoint=replace(base.checkpoint, chat_template=OWN))
    made = samples(settings(objective="answer", tools=None), own)
    text = base.checkpoint.tokenizer.decode(list(made.samples[0].tokens), skip_special_tokens=False)
    assert text == "[user]please[assistant][tool]text[assistant]Done.<|im_end|>"


def test_an_answer_of_a_recorded_run_of_two_toolsets_is_learnt_once(base: Base, settings: Any, write_data: Any) -> None:
    """Such a run is a line of each toolset, in which the other's calls have weight 0."""
    done = {"role": "assistant", "content": "Done."}
    first, second = call("read", {"path": "a"}), call("add", {"n": 1})
    of_files = {"toolset": "files", "messages": [ask(), first, second | {"weight": 0}, done]}
    of_sums = {"toolset": "sums", "messages": [ask(), first | {"weight": 0}, second, done]}
    write_data([of_files, of_sums, of_files])
    made = samples(settings(objective="answer", tools=None), base)
    assert learnt(made, base) == ["Done.<|im_end|>"] * 2  # a line that stands twice counts twice, as for all others
    assert "1 answers stand in lines of several toolsets" in "\n".join(made.warnings)


@pytest.mark.parametrize(
    "changes",
    [
        {"objective": "answer"},
        {"objective": "answer", "tools": None, "data": None},
        {"objective": "toolset"},
        {"objective": "toolset", "data": None, "tools": None},
        {"data": None},
        {"tools": None},
        {"toolsets": ({"name": "a", "tools": "a", "data": "a"},)},
    ],
)
def test_each_objective_has_its_own_sources(settings: Any, changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="`data`"):
        settings(**changes)


@pytest.mark.parametrize("objective", ["selection", "joint", "arguments"])
def test_a_turn_of_weight_0_is_context_and_not_learnt(
    base: Base, settings: Any, write_data: Any, objective: str
) -> None:
    failed, done = call("read", {"path": "no"}) | {"weight": 0}, {"role": "assistant", "content": "Oh.", "weight": 0}
    wrong = call("raed", {"mode": 7}) | {"weight": 0}
    write_data([{"messages": [ask(), failed, wrong, call("read", {"path": "a"}), done]}])
    made = samples(settings(objective=objective, tool="read" if objective == "arguments" else None), base)
    (one,) = learnt(made, base)
    assert "no" not in one
    text = base.checkpoint.tokenizer.decode(list(made.samples[0].tokens))
    assert "raed" in text


def test_arguments_learn_the_calls_of_their_tool_only(base: Base, settings: Any) -> None:
    made = samples(settings(objective="arguments", tool="read"), base)
    assert learnt(made, base) == ['{"head": 3, "path": "/docs/ä"}', '{"path": "c"}']


def test_joint_learns_whole_calls(base: Base, settings: Any) -> None:
    found = learnt(samples(settings(objective="joint"), base), base)
    assert found[0] == '{"name": "read", "parameters": {"head": 3, "path": "/docs/ä"}}<|im_end|>'
    assert found[1] == '{"name": "summarize", "parameters": {}}<|im_end|>'


def test_a_sample_sees_the_turns_before_its_own_only(base: Base, settings: Any) -> None:
    made = samples(settings(), base)
    text = base.checkpoint.tokenizer.decode(list(made.samples[0].tokens))
    assert "read /docs/a" in text
    assert "Done." not in text


@pytest.mark.parametrize("objective", ["selection", "arguments", "joint", "toolset", "answer"])
def test_the_context_of_a_turn_is_all_that_stands_before_it(settings: Any, objective: str) -> None:
    plain = settings()
    source = ToolsetSource(name="files", tools=plain.tools, data=plain.data, named=False)
    others: dict[str, dict[str, Any]] = {
        "arguments": {"tool": "read"},
        "toolset": {"data": None, "tools": None, "toolsets": (source, source)},
        "answer": {"tools": None},
    }
    run = settings(objective=objective, **others.get(objective, {}))
    lines = {trajectory.where: trajectory.messages for trajectory in read_trajectories(plain.data)}
    turns, _ = read_turns(run, TrajectoryFiles())
    for turn in turns.turns:
        where, _, number = turn.where.rpartition(", message ")
        assert turn.context == lines[where][: int(number) - 1]
        assert lines[where][int(number) - 1].role == "assistant"


def test_keep_drops_turns_of_frequent_tools_by_the_seed(base: Base, settings: Any, write_data: Any) -> None:
    turns = [{"role": "user", "content": "a"}, call("read", {"path": "a"})]
    write_data([{"messages": turns}] * 60)
    kept = samples(settings(keep={"read": 0.25}), base)
    assert 5 <= len(kept.samples) <= 28  # of 60
    assert kept.dropped_kept == 60 - len(kept.samples)
    assert kept == samples(settings(keep={"read": 0.25}), base)
    assert kept.samples == tuple(samples(settings(), base).samples[: len(kept.samples)])
    assert samples(settings(keep={"status": 0.25}), base).dropped_kept == 0
    assert len({samples(settings(keep={"read": 0.5}, seed=seed), base).dropped_kept for seed in range(5)}) > 1


def test_long_samples_are_refused_or_dropped_and_counted(base: Base, settings: Any) -> None:
    whole = samples(settings(), base)
    limit = min(len(sample.tokens) for sample in whole.samples)
    with pytest.raises(DataError, match=r"data\.jsonl:1, message 2.*tokens"):
        samples(settings(), base, limit - 1)
    dropped = samples(settings(too_long="drop"), base, limit)
    assert dropped.dropped_long == len(whole.samples) - len(dropped.samples) > 0
    assert f"{len(dropped.samples)} of {len(dropped.samples)} samples call" in "".join(dropped.warnings)
    with pytest.raises(DataError, match="nothing to learn"):
        samples(settings(too_long="drop"), base, 2)


def test_a_toolset_takes_its_own_trajectories(base: Base, settings: Any, write_data: Any) -> None:
    lines = [
        {"messages": [ask(), call("read", {"path": "a"})], "toolset": "files"},
        {"messages": [ask(), call("unknown", {})], "toolset": "other"},
    ]
    write_data(lines)
    assert len(samples(settings(toolset="files"), base).samples) == 1
    write_data([*lines, {"messages": [ask(), call("read", {"path": "a"})]}])
    with pytest.raises(DataError, match=r"data\.jsonl:3: found no toolset"):
        samples(settings(toolset="files"), base)


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (lambda: call("raed", {}), "Did you mean 'read'"),
        (lambda: call("read", {}), "'path' is a required property"),
        (lambda: call("read", {"path": 1}), "1 is not of type 'string'"),
        (lambda: call("read", {"path": "a", "mode": "r"}), "mode"),
        (lambda: call("summarize", {}), "a call of 'summarize'"),
    ],
)
def test_a_wrong_call_is_refused_by_line_and_message(
    base: Base, settings: Any, write_data: Any, answer: Callable[[], Any], found: str
) -> None:
    write_data([{"messages": [ask(), call("status", {})]}, {"messages": [ask(), answer()]}])
    with pytest.raises(DataError, match=r"data\.jsonl:2, message 2") as error:
        samples(settings(), base)
    assert found in str(error.value)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("{", "no JSON from line 1"),
        ("[]", "expected an object"),
        ('{"messages": []}', "messages"),
        ('{"messages": [{"role": "assistant", "content": "a"}, {"role": "user", "content": "b"}]}', "at the start"),
        ('{"messages": [{"role": "robot", "content": "a"}, {"role": "user", "content": "b"}]}', "role"),
        ('{"message": []}', "message"),
        ('{"messages": [], "messages": []}', "twice"),
        (r'{"messages": [{"role": "user", "content": "\ud800"}, {"role": "assistant", "content": "b"}]}', "surrogate"),
    ],
)
def test_a_line_that_is_no_conversation_is_refused(
    base: Base, settings: Any, tmp_path: Path, line: str, found: str
) -> None:
    good = json.dumps({"messages": [ask(), call("status", {})]})
    (tmp_path / "data.jsonl").write_text(f"{good}\n\n{line}\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"data\.jsonl:3") as error:
        samples(settings(), base)
    assert found in str(error.value)


def test_tools_and_keep_must_fit_the_objective(base: Base, settings: Any) -> None:
    with pytest.raises(ToolsError, match="no tool 'x'; expected one of read, read_file"):
        samples(settings(objective="arguments", tool="x"), base)
    with pytest.raises(ToolsError, match="takes no arguments"):
        samples(settings(objective="arguments", tool="status"), base)
    with pytest.raises(ToolsError, match="a tool named 'read'"):
        samples(settings(no_tool="read"), base)
    with pytest.raises(SpecError, match="Did you mean 'read'"):
        samples(settings(keep={"raed": 0.5}), base)
    with pytest.raises(DataError, match="nothing to learn"):
        samples(settings(objective="arguments", tool="read", data=_without_calls(settings)), base)


def _without_calls(settings: Any) -> Path:
    path = settings().data.with_name("talk.jsonl")
    path.write_text(json.dumps({"messages": [ask(), {"role": "assistant", "content": "hi"}]}), encoding="utf-8")
    return path


def ask() -> dict[str, Any]:
    return {"role": "user", "content": "please"}


def call(tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
    function = {"name": tool, "arguments": json.dumps(arguments)}
    return {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": function}]}


def test_a_trainers_line_is_learnt_turn_by_turn(base: Base, settings: Any, write_data: Any) -> None:
    two = call("read", {"path": "a"})
    two["tool_calls"] = [
        {
            "id": name,
            "index": at,
            "type": "function",
            "function": {"name": "read", "arguments": f'{{"path": "{name}"}}'},
        }
        for at, name in enumerate("ab")
    ]
    results = [{"role": "tool", "tool_call_id": name, "content": f"text of {name}"} for name in "ba"]
    listed = [{"type": "function", "function": {"name": name}} for name in ("read", "another")]
    write_data([{"messages": [ask(), two, *results], "tools": listed, "model": "teacher"}])
    made = samples(settings(objective="arguments", tool="read"), base)
    assert learnt(made, base) == ['{"path": "a"}', '{"path": "b"}']
    assert "text of a" in base.checkpoint.tokenizer.decode(list(made.samples[1].tokens))
    said = "\n".join(made.warnings)
    assert "the key 'tools' of 1 lines is not read" in said
    assert "the key 'model' of 1 lines is not read" in said
    assert "data.jsonl:1 lists other tools than" in said
    assert "another" in said
    listed = [{"type": "function", "function": {"name": name}} for name in ("read", "read_file", "status", "summarize")]
    write_data([{"messages": [ask(), two, *results], "tools": listed}])
    assert "lists other tools" not in "\n".join(samples(settings(), base).warnings)


def test_a_template_that_lists_the_no_tool_entry_is_learnt_with_it_once(
    base: Base, settings: Any, tmp_path: Path
) -> None:
    template = tmp_path / "own.jinja"
    template.write_text(
        "{% for t in tools %}- {{ t.function.name }}\n{% endfor %}- summarize\n{% for m in messages %}"
        "<|im_start|>{{ m.role }}\n{% for c in m.tool_calls %}{{ c.function.name | tojson }}{% endfor %}"
        "{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
        encoding="utf-8",
    )
    made = samples(settings(template=template), base)
    assert learnt(made, base) == ['read"', 'summarize"', 'read_file"', 'status"', 'read"']
    assert base.checkpoint.tokenizer.decode(list(made.samples[0].tokens)).count("summarize") == 1
