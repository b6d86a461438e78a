from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from dualtune_edge import cli
from dualtune_edge.export.finetune import train, trainer
from dualtune_edge.export.finetune.loading.base import Base
from dualtune_edge.export.finetune.samples import turns
from dualtune_edge.export.finetune.samples.make import Samples
from dualtune_edge.export.finetune.whole_spec.planning import planned
from dualtune_edge.export.plan.inputs import read_inputs
from dualtune_edge.export.plan.prompts import plan_prompts
from dualtune_edge.export.spec.document import read_spec
from dualtune_edge.toolkit.errors import DataError
from dualtune_edge.toolkit.prompts.chat_template import ChatTemplate
from dualtune_edge.toolkit.prompts.messages import Message, call, user
from dualtune_edge.toolkit.prompts.prompter import Prompter
from tests.export.finetune.conftest import CONVERSATIONS, TOOLS, request, turn

OTHER = [{"name": "add", "description": "", "inputSchema": {"properties": {"n": {"type": "integer"}}}}]
SPEC = """\
base: {base}
toolsets:
  - {{name: files, tools: files.json, selection: adapters/files/selection, arguments: adapters/files/arguments}}
  - {{name: sums, tools: sums.json, arguments: {{add: {{path: adapters/add}}}}}}
"""
FLAGS = ("--rank", "2", "--max-steps", "2", "--threads", "1", "--batch-size", "2")


@pytest.fixture
def desk(base: Base, tmp_path: Path) -> Path:
    (tmp_path / "files.json").write_text(json.dumps({"tools": TOOLS}), encoding="utf-8")
    (tmp_path / "sums.json").write_text(json.dumps({"tools": OTHER}), encoding="utf-8")
    lines: list[Any] = [{"toolset": "files", "messages": messages} for messages in CONVERSATIONS]
    lines.append({"toolset": "sums", "messages": [request("add 3"), turn("add", {"n": 3})]})
    text = "".join(f"{json.dumps(line)}\n" for line in lines)
    (tmp_path / "data.jsonl").write_text(text, encoding="utf-8")
    (tmp_path / "dualtune.yaml").write_text(SPEC.format(base=base.checkpoint.folder), encoding="utf-8")
    return tmp_path


def finetune(desk: Path, *flags: str) -> int:
    arguments = ["finetune", str(desk / "dualtune.yaml"), "--data", str(desk / "data.jsonl"), *FLAGS, *flags]
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    return int(stopped.value.code or 0)


def with_choice(desk: Path) -> None:
    """The spec with an adapter that chooses among its toolsets."""
    text = (desk / "dualtune.yaml").read_text("utf-8")
    (desk / "dualtune.yaml").write_text(f"{text}toolset: adapters/toolset\n", encoding="utf-8")


def rows(text: str) -> dict[tuple[str, str | None], dict[str, Any]]:
    return {(row["objective"], row["tool"]): row for row in json.loads(text)["adapters"]}


def test_the_adapters_of_a_spec_are_trained_and_it_is_one_to_export(
    desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert finetune(desk, "--json") == 0
    made = rows(capsys.readouterr().out)
    assert list(made) == [
        ("selection", None), ("arguments", "read"), ("arguments", "read_file"), ("arguments", "add"),
    ]  # fmt: skip
    assert {key: row["samples"] for key, row in made.items()} == {
        ("selection", None): 5, ("arguments", "read"): 2, ("arguments", "read_file"): 1, ("arguments", "add"): 1,
    }  # fmt: skip
    assert {row["outcome"] for row in made.values()} == {"trained"}
    inputs = read_inputs(read_spec(desk / "dualtune.yaml"))
    assert len(inputs.adapters) == 4
    record = json.loads((desk / "adapters" / "files" / "arguments" / "read" / "training.json").read_text("utf-8"))
    assert record["settings"]["tool"] == "read"
    assert record["settings"]["toolset"] == "files"


def test_a_run_that_was_stopped_goes_on_adapter_by_adapter_to_the_same_bytes(
    desk: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert finetune(desk) == 0
    whole = {path: path.read_bytes() for path in (desk / "adapters").rglob("*") if path.is_file()}
    (desk / "adapters").rename(desk / "first")
    losses = [0]
    summed = trainer.summed_loss

    def loss(*arguments: Any) -> Any:
        losses[0] += 1
        if losses[0] == 4:  # within the second adapter
            raise KeyboardInterrupt
        return summed(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "summed_loss", loss)
        assert finetune(desk) == 130
    assert "the same command goes on from there" in capsys.readouterr().err
    assert finetune(desk) == 0
    shown, progress = capsys.readouterr()
    assert shown.splitlines()[0].endswith("already trained")
    assert "of them done" in progress
    assert {path: path.read_bytes() for path in (desk / "adapters").rglob("*") if path.is_file()} == whole


def test_the_data_is_read_once_for_all_adapters(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    real = turns.read_trajectories
    monkeypatch.setattr(turns, "read_trajectories", lambda path: (read.append(path), real(path))[1])
    assert finetune(desk) == 0
    assert read == [desk / "data.jsonl"]


def test_a_share_that_leaves_an_adapter_nothing_stops_no_other(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (desk / "data.jsonl").open("a").write(
        json.dumps({"toolset": "sums", "messages": [request("add 4"), turn("add", {"n": 4})]}) + "\n"
    )
    assert finetune(desk, "--json", "--held-out-share", "0.9") == 0
    made = rows(capsys.readouterr().out)
    assert {row["outcome"] for row in made.values()} == {"trained", "no sample"}
    assert made["arguments", "add"]["held_out"]["samples"] == 1


@pytest.mark.parametrize("failed", [False, True])
def test_a_tool_that_no_sample_calls_is_named_and_left_out(
    desk: Path, capsys: pytest.CaptureFixture[str], *, failed: bool
) -> None:
    """None at all, or one of weight 0."""
    lines = (desk / "data.jsonl").read_text("utf-8").splitlines(keepends=True)
    others = [line for line in lines if "show me b" not in line]
    if failed:
        messages = [request("show me b"), turn("read_file", {"a": "b"}) | {"weight": 0}]
        others.append(json.dumps({"toolset": "files", "messages": messages}) + "\n")
    (desk / "data.jsonl").write_text("".join(others), encoding="utf-8")
    assert finetune(desk, "--json") == 0
    made = rows(capsys.readouterr().out)
    assert made["arguments", "read_file"]["outcome"] == "no sample"
    assert not (desk / "adapters" / "files" / "arguments" / "read_file").exists()


def test_a_toolset_without_a_line_stops_no_other(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (
        (desk / "dualtune.yaml").read_text("utf-8").replace("arguments: {add", "selection: adapters/s, arguments: {add")
    )
    (desk / "dualtune.yaml").write_text(text, encoding="utf-8")
    lines = (desk / "data.jsonl").read_text("utf-8").splitlines(keepends=True)
    (desk / "data.jsonl").write_text("".join(line for line in lines if '"sums"' not in line), encoding="utf-8")
    assert finetune(desk, "--objective", "selection", "--max-steps", "1", "--json") == 0
    made = json.loads(capsys.readouterr().out)["adapters"]
    assert [(row["toolset"], row["outcome"], row["samples"]) for row in made] == [
        ("files", "trained", 5),
        ("sums", "no sample", 0),
    ]


def test_adapters_of_other_settings_are_not_passed_over(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert finetune(desk) == 0
    assert finetune(desk, "--learning-rate", "0.5") != 0
    assert "an adapter of other settings" in capsys.readouterr().err
    (desk / "adapters" / "files" / "selection" / "training.json").write_text("{}", encoding="utf-8")
    assert finetune(desk) != 0
    assert "something else" in capsys.readouterr().err


def test_the_adapter_of_the_toolset_choice_learns_from_all_toolsets(
    desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with_choice(desk)
    assert finetune(desk, "--json", "--objective", "toolset") == 0
    (row,) = json.loads(capsys.readouterr().out)["adapters"]
    assert (row["toolset"], row["objective"], row["samples"], row["outcome"]) == (None, "toolset", 6, "trained")
    record = json.loads((desk / "adapters" / "toolset" / "training.json").read_text("utf-8"))
    assert [(entry["name"], entry["named"]) for entry in record["toolsets"]] == [("files", True), ("sums", True)]
    assert record["data"] is record["tools"] is None
    assert "toolsets" not in record["settings"]  # their paths are of this machine
    assert finetune(desk, "--json", "--objective", "toolset") == 0
    assert json.loads(capsys.readouterr().out)["adapters"][0]["outcome"] == "already trained"


def test_it_is_trained_of_a_spec_only(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["finetune", "--objective", "toolset", "--base", "x", "--data", "y", "-o", str(desk / "z")])
    assert stopped.value.code == 3
    assert "finetune dualtune.yaml --objective toolset" in capsys.readouterr().err


def test_a_spec_with_it_is_one_to_export(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with_choice(desk)
    assert finetune(desk, "--json") == 0
    made = json.loads(capsys.readouterr().out)["adapters"]
    assert [(row["toolset"], row["objective"]) for row in made[:2]] == [(None, "toolset"), ("files", "selection")]
    inputs = read_inputs(read_spec(desk / "dualtune.yaml"))
    choice = inputs.adapters[0]
    assert (choice, choice.name, choice.toolset) == (inputs.others.toolset, "toolset", None)
    assert choice.template


def test_the_adapter_of_the_answers_learns_the_texts_of_all_toolsets(
    desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (desk / "dualtune.yaml").read_text("utf-8")
    (desk / "dualtune.yaml").write_text(f"{text}answer: adapters/answer\n", encoding="utf-8")
    assert finetune(desk, "--json", "--objective", "answer") == 0
    (row,) = json.loads(capsys.readouterr().out)["adapters"]
    assert (row["toolset"], row["objective"], row["samples"], row["outcome"]) == (None, "answer", 1, "trained")
    record = json.loads((desk / "adapters" / "answer" / "training.json").read_text("utf-8"))
    assert [(entry["name"], entry["tools"]) for entry in record["toolsets"]] == [("files", None), ("sums", None)]
    (desk / "sums.json").write_text(json.dumps([*OTHER, *OTHER[:0]]), encoding="utf-8")  # its tools say nothing of it
    assert finetune(desk, "--json", "--objective", "answer") == 0
    assert json.loads(capsys.readouterr().out)["adapters"][0]["outcome"] == "already trained"


def test_answers_of_a_file_that_two_toolsets_share_are_learnt_once(
    desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    messages = [request("hello"), {"role": "assistant", "content": "Good morning."}]
    (desk / "data.jsonl").write_text(json.dumps({"messages": messages}), encoding="utf-8")
    with (desk / "dualtune.yaml").open("a", encoding="utf-8") as spec:
        spec.write("answer: adapters/answer\n")
    assert finetune(desk, "--json", "--objective", "answer", "--held-out", str(desk / "data.jsonl")) == 0
    (row,) = json.loads(capsys.readouterr().out)["adapters"]
    assert (row["samples"], row["held_out"]["samples"]) == (1, 1)


def shared_prompts(desk: Path) -> tuple[dict[str, tuple[int, ...]], tuple[str, ...]]:
    """What an export of the spec ships: the prompt of a conversation in every stage, and warnings of templates."""
    inputs = read_inputs(read_spec(desk / "dualtune.yaml"))
    plans, tokenizer = plan_prompts(inputs), inputs.checkpoint.tokenizer
    messages = [user("read it"), call("add", {"n": 1}), Message(role="tool", content="4"), user("and b")]
    prompts = {
        stage.name: Prompter.of(
            stage.plan, ChatTemplate(stage.plan.template, where=""), tokenizer, stage.all_toolsets
        ).tokens(messages)
        for stage in plans.stages
    }
    return prompts, plans.warnings


def test_activated_adapters_of_several_toolsets_learn_the_prompts_that_the_export_ships(
    desk: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that a user writes is `--activated`: every stage, the base's too, has one prompt."""
    text = (desk / "dualtune.yaml").read_text("utf-8")
    (desk / "dualtune.yaml").write_text(f"{text}toolset: adapters/toolset\nanswer: adapters/answer\n", encoding="utf-8")
    learnt: list[Samples] = []
    real = train.make_samples
    monkeypatch.setattr(train, "make_samples", lambda *args: (learnt.append(real(*args)), learnt[-1])[1])
    assert finetune(desk, "--activated", "--json", "--max-steps", "1") == 0
    assert {row["outcome"] for row in json.loads(capsys.readouterr().out)["adapters"]} == {"trained"}
    assert len(learnt) == 6, "the runs go on with the samples of the estimate"
    prompts, warnings = shared_prompts(desk)
    assert len(prompts) == 7
    assert len(set(prompts.values())) == 1
    assert warnings == ()
    plans = plan_prompts(read_inputs(read_spec(desk / "dualtune.yaml")))
    prefix = next(plans.stages).plan.prefix
    samples = [sample for made in learnt for sample in made.samples]
    assert all(sample.tokens[: len(prefix)] == prefix for sample in samples)
    added = next(stage for stage in plans.stages if stage.name == "arguments.sums.add").plan.frame
    (sample,) = learnt[4].samples  # toolset, selection, read, read_file, add
    assert added is not None
    assert sample.tokens[: -sample.learnt][-len(added.tokens) :] == added.tokens


def test_an_adapter_that_was_shown_other_toolsets_is_refused_here_and_warned_of_at_the_export(
    desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its training.json names every list that its prompts show; a plain one names its toolset's own."""
    flags = ("--activated", "--objective", "arguments", "--max-steps", "1")
    assert finetune(desk, *flags) == 0
    record = json.loads((desk / "adapters" / "add" / "training.json").read_text("utf-8"))
    assert ([entry["name"] for entry in record["all_toolsets"]], record["own_toolset"]) == (["files", "sums"], "sums")
    assert finetune(desk, *flags) == 0
    (desk / "sums.json").write_text(json.dumps(OTHER, indent=1), encoding="utf-8")  # says the same
    (desk / "dualtune.yaml").write_text(
        (desk / "dualtune.yaml").read_text("utf-8").replace("selection: adapters/files/selection, ", ""), "utf-8"
    )
    assert shared_prompts(desk)[1] == ()
    (desk / "files.json").write_text(json.dumps({"tools": [*TOOLS[:2], {**TOOLS[2], "description": "x"}]}), "utf-8")
    (warning,) = shared_prompts(desk)[1]
    names = "arguments.files.read, arguments.files.read_file, arguments.sums.add"
    assert warning.startswith("3 adapters learnt from prompts that show other toolsets")
    assert names in warning
    capsys.readouterr()
    assert finetune(desk, *flags) != 0
    assert "an adapter of other settings, data, base or versions" in capsys.readouterr().err
    (desk / "adapters").rename(desk / "before")
    assert finetune(desk, "--objective", "arguments") == 0
    assert "all_toolsets" not in json.loads((desk / "adapters" / "add" / "training.json").read_text("utf-8"))


def test_a_template_that_shows_all_toolsets_needs_a_spec(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    template = resources.files("dualtune_edge.toolkit") / "templates" / "toolsets.jinja"
    base = read_spec(desk / "dualtune.yaml", trained=False).base
    with pytest.raises(SystemExit):
        cli.main(
            f"finetune --objective selection --base {base} --tools {desk}/files.json --data {desk}/data.jsonl "
            f"--toolset files -o {desk}/one --template {template}".split()
        )
    assert "shows all toolsets, and no spec" in capsys.readouterr().err


def test_an_objective_that_no_adapter_of_the_spec_has(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert finetune(desk, "--objective", "toolset") == 3
    assert "none for the objective 'toolset'" in capsys.readouterr().err


def test_lines_of_a_toolset_that_the_spec_has_not_are_counted(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As where its name is misspelt in some of them."""
    text = (desk / "data.jsonl").read_text("utf-8")
    (desk / "data.jsonl").write_text(text + text.replace('"files"', '"flies"'), "utf-8")
    assert finetune(desk, "--objective", "arguments", "--dry-run") == 0
    said = " ".join(capsys.readouterr().err.split())
    assert f"3 lines of {desk / 'data.jsonl'} are not learnt: they are of the toolset 'flies'" in said
    (desk / "data.jsonl").write_text(text.replace('"files"', '"flies"').replace('"sums"', '"sms"'), "utf-8")
    assert finetune(desk, "--dry-run") == DataError.exit_code
    assert "lines of flies, sms; expected conversations of" in capsys.readouterr().err


def test_lines_of_several_toolsets_that_name_none_teach_no_choice(
    desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with_choice(desk)
    line = {"messages": [request("add 3"), turn("add", {"n": 3})]}
    (desk / "data.jsonl").write_text(json.dumps(line), encoding="utf-8")
    assert finetune(desk, "--objective", "toolset") != 0
    assert "no toolset" in capsys.readouterr().err


def test_a_share_is_of_the_toolset_that_has_the_tool(desk: Path) -> None:
    text = (
        (desk / "dualtune.yaml").read_text("utf-8").replace("arguments: {add", "selection: adapters/s, arguments: {add")
    )
    (desk / "dualtune.yaml").write_text(text, encoding="utf-8")
    with_choice(desk)
    assert finetune(desk, "--max-steps", "1", "--keep", "read=0.001", "--keep", "summarize=1") == 0
    kept = {
        name: json.loads((desk / "adapters" / name / "training.json").read_text("utf-8"))["settings"]["keep"]
        for name in ("toolset", "files/selection", "s", "add")
    }
    assert kept == {
        "toolset": {"read": 0.001, "summarize": 1.0},
        "files/selection": {"read": 0.001, "summarize": 1.0},
        "s": {"summarize": 1.0},
        "add": {},
    }
    record = json.loads((desk / "adapters" / "files" / "selection" / "training.json").read_text("utf-8"))
    assert (record["samples"], record["dropped_kept"]) == (3, 2)


@pytest.mark.parametrize("own", [False, True])
def test_of_what_is_held_out_each_adapter_is_measured_with_its_own(
    desk: Path, capsys: pytest.CaptureFixture[str], *, own: bool
) -> None:
    """In one file that names toolsets, whether the data does or each toolset has a file."""
    text = (desk / "dualtune.yaml").read_text("utf-8") + "toolset: adapters/toolset\nanswer: adapters/answer\n"
    flags = ["finetune", str(desk / "dualtune.yaml"), *FLAGS, "--max-steps", "1", "--json"]
    flags += ["--held-out", str(desk / "data.jsonl")]
    if own:
        lines = [json.loads(line) for line in (desk / "data.jsonl").read_text("utf-8").splitlines()]
        for name in ("files", "sums"):
            mine = [json.dumps({"messages": line["messages"]}) for line in lines if line["toolset"] == name]
            (desk / f"{name}.jsonl").write_text("\n".join(mine), encoding="utf-8")
            text = text.replace(f"tools: {name}.json", f"tools: {name}.json, trajectories: {name}.jsonl")
    else:
        flags += ["--data", str(desk / "data.jsonl")]
    (desk / "dualtune.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(SystemExit) as stopped:
        cli.main(flags)
    assert not stopped.value.code
    made = rows(capsys.readouterr().out)
    assert {key: row["held_out"]["samples"] for key, row in made.items()} == {
        ("toolset", None): 6, ("selection", None): 5, ("arguments", "read"): 2, ("arguments", "read_file"): 1,
        ("arguments", "add"): 1, ("answer", None): 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("flags", "found"),
    [
        (("--keep", "raed=0.5"), "Did you mean 'read'"),
        (("--keep", "read=0.5", "--objective", "arguments"), "no adapter that chooses"),
    ],
)
def test_a_share_that_no_adapter_takes_is_refused(
    desk: Path, flags: tuple[str, ...], found: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert finetune(desk, *flags) == 3
    assert found in capsys.readouterr().err


def test_each_adapter_learns_in_the_template_that_the_spec_names_for_its_stage(desk: Path) -> None:
    stages = ("selection", "arguments", "toolset", "answer")
    for stage in stages:
        (desk / f"{stage}.jinja").write_text("{{ messages[0].content }}", encoding="utf-8")
    own = "name: files, templates: {selection: selection.jinja, arguments: arguments.jinja}"
    text = (desk / "dualtune.yaml").read_text("utf-8").replace("name: files", own)
    text += "".join(f"{name}: adapters/{name}\n{name}_template: {name}.jinja\n" for name in stages[2:])
    (desk / "dualtune.yaml").write_text(text, encoding="utf-8")
    spec = read_spec(desk / "dualtune.yaml", trained=False)
    adapters = planned(spec, desk / "data.jsonl", turns.TrajectoryFiles())
    found = {(adapter.toolset, adapter.objective): adapter.template and adapter.template.stem for adapter in adapters}
    assert found == {
        (None, "toolset"): "toolset",
        ("files", "selection"): "selection",
        ("files", "arguments"): "arguments",
        ("sums", "arguments"): None,
        (None, "answer"): "answer",
    }


@pytest.mark.parametrize("flag", ["--base=x", "--tools=x", "--output=x", "--toolset=files"])
def test_what_the_spec_says_is_no_flag(flag: str, desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert finetune(desk, flag) == 3
    assert flag.partition("=")[0] in capsys.readouterr().err


def test_data_is_each_toolset_s_own_or_for_all(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["finetune", str(desk / "dualtune.yaml"), *FLAGS])
    assert "toolset 'files'" in capsys.readouterr().err
    text = (desk / "dualtune.yaml").read_text("utf-8").replace("tools:", "trajectories: data.jsonl, tools:")
    (desk / "dualtune.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(SystemExit) as stopped:
        cli.main(["finetune", str(desk / "dualtune.yaml"), *FLAGS])
    assert not stopped.value.code
