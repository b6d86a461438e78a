import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from byte_tokenizer import CONSTRAINT
from export_desk import Desk

from dualtune_edge.export import run
from dualtune_edge.export.plan.copied import CopiedPlans, Example, plan_copied, read_examples
from dualtune_edge.export.plan.prompts import PlannedStage, PlannedToolset, Plans
from dualtune_edge.export.spec.document import ExportSpec
from dualtune_edge.export.spec.parts import Copying, ToolsetSpec
from dualtune_edge.runtime.bundle.opening import open_bundle
from dualtune_edge.toolkit.bundle.manifest import CopiedProperty
from dualtune_edge.toolkit.errors import DataError, SpecError
from dualtune_edge.toolkit.prompts.messages import FunctionCall, user
from dualtune_edge.toolkit.prompts.prompt_plan import Frame, PromptPlan
from dualtune_edge.toolkit.tools.toolset import Tool, Toolset

FRAME = Frame(tokens=(), pending="", tail="", item_separator=", ", key_separator=": ", ascii_only=False)
TEXT = {"type": "string"}
EDIT = Tool(
    name="edit",
    parameters={
        "type": "object",
        "properties": {
            "path": {**TEXT, "default": "."},
            "edits": {"type": "array", "items": {"type": "object", "properties": {"old": TEXT}}},
            "url": {**TEXT, "format": "uri"},
            "count": {"type": "integer"},
        },
    },
)


def found(examples: list[Example], declared: Mapping[str, Mapping[str, Copying]] | None = None) -> CopiedPlans:
    stage = PlannedStage("edit", PromptPlan(stage="arguments", template="", tools=(EDIT,), tool="edit", frame=FRAME))
    plans = Plans(None, (PlannedToolset(Toolset(name="files", tools=(EDIT,)), stage, {"edit": stage}),))
    copied = {tool: dict(properties) for tool, properties in (declared or {}).items()}
    spec = ExportSpec(base=Path(), toolsets=(ToolsetSpec(name="files", tools=Path(), copied=copied),))
    return plan_copied(spec, plans, examples, CONSTRAINT)


def copied(plans: CopiedPlans) -> dict[str, str]:
    stage = plans.plans.toolsets[0].arguments["edit"]
    assert [entry.copied for entry in plans.standings] == list(stage.copied)
    return {entry.name: entry.border for entry in stage.copied}


def example(asked: str, toolset: str | None = "files", **arguments: Any) -> Example:
    return Example((user(asked),), FunctionCall(name="edit", arguments=arguments), toolset)


PATHS = [example(f"edit /srv/{number}.txt now", path=f"/srv/{number}.txt") for number in range(30)]


def test_thirty_values_that_all_stand_in_their_conversation_show_it() -> None:
    assert copied(found(PATHS)) == {"path": "words"}
    assert copied(found(PATHS[1:])) == {}
    assert copied(found([*PATHS, example("edit it", path="/srv/x")])) == {}
    assert copied(found([*PATHS, example("edit it", path="")])) == {}


def test_a_value_that_ends_inside_a_word_shows_pieces_of_characters() -> None:
    assert copied(found([*PATHS, example("edit notes", path="note")])) == {"path": "characters"}


def test_defaults_say_nothing() -> None:
    assert copied(found([*PATHS, example("edit it", path=".")])) == {"path": "words"}
    assert copied(found([*PATHS[1:], example("edit .", path=".")])) == {}


def test_values_in_lists_and_objects_and_values_that_the_schema_holds_closer() -> None:
    inner = [
        example(f"w{number} u{number}", edits=[{"old": f"w{number}"}], url=f"u{number}", count=1)
        for number in range(30)
    ]
    assert copied(found(inner)) == {"edits[].old": "words"}


def test_only_the_toolsets_own_calls_count() -> None:
    others = [example("edit it", toolset="others", path="/srv/x")]
    assert copied(found([*PATHS, *others])) == {"path": "words"}
    anybodys = [example(f"edit {number}", toolset=None, path=f"{number}") for number in range(30)]
    assert copied(found(anybodys)) == {"path": "words"}


def test_what_is_declared_counts_whatever_the_data_shows() -> None:
    made_up = example("edit it", path="/srv/x")
    plans = found([*PATHS, made_up], {"edit": {"path": "characters"}})
    assert copied(plans) == {"path": "characters"}
    (standing,) = plans.standings
    assert (standing.declared, standing.values, standing.standing) == (True, 31, 30)
    assert standing.line == "files.edit path: characters (declared, 30 of 31 values in the data)"
    assert plans.warnings == (f"not all values of a copied property can be written: {standing.line}",)
    assert copied(found(PATHS, {"edit": {"path": "free"}})) == {}
    assert found([], {"edit": {"path": "words"}}).standings[0].line == "files.edit path: words (declared)"


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"edti": {"path": "words"}}, "found the tool 'edti'; expected one of edit"),
        ({"edit": {"pathh": "words"}}, "found 'pathh'; expected a text in the tool's schema"),
        ({"edit": {"url": "words"}}, "found 'url'"),
        ({"edit": {"count": "words", "path": "words"}}, "found 'count'"),
        ({"edit": {"edits": "words"}}, "found 'edits'"),
    ],
)
def test_a_declared_property_that_cannot_be_copied_is_refused(
    declared: Mapping[str, Mapping[str, Copying]], message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        found([], declared)


def test_calls_of_no_tool_are_said() -> None:
    others = [Example((user("x"),), FunctionCall(name="edti", arguments={"path": "x"}))] * 2
    plans = found([*PATHS, *others])
    assert copied(plans) == {"path": "words"}
    assert plans.warnings == ("2 calls in the data are of 'edti', which is no tool here",)


def test_examples_are_the_calls_of_the_toolsets_lines(tmp_path: Path) -> None:
    call = {"role": "assistant", "tool_calls": [{"function": {"name": "edit", "arguments": {"path": "a"}}}]}
    turns = [{"role": "user", "content": "edit a"}, call, {"role": "tool", "content": "b"}, call]
    lines = [{"messages": turns, "model": "m"}, {"messages": turns, "toolset": "others"}, {"messages": turns[:1] * 2}]
    data = tmp_path / "data.jsonl"
    data.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    toolset = ToolsetSpec(name="files", tools=Path(), trajectories=data)
    examples = read_examples(toolset) + read_examples(ToolsetSpec(name="git", tools=Path()))
    assert [(len(entry.messages), entry.toolset) for entry in examples.calls] == [(1, "files"), (3, "files")]
    assert examples.warnings == (f"{data}: the key 'model' of 1 lines is not read",)
    data.write_text("{}\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"data\.jsonl:1"):
        read_examples(toolset)


def test_the_report_and_the_manifest_say_what_is_copied(own_desk: Desk, tmp_path: Path) -> None:
    spec = own_desk.spec("external")
    (files, *others) = spec.toolsets
    calls = [
        {
            "messages": [
                {"role": "user", "content": f"read {number}.txt"},
                {"role": "assistant", "tool_calls": [{"function": {"name": "read", "arguments": {"path": "x"}}}]},
            ]
        }
        for number in range(2)
    ]
    data = tmp_path / "data.jsonl"
    data.write_text("".join(f"{json.dumps(line)}\n" for line in calls), encoding="utf-8")
    named = files.model_copy(update={"copied": {"read": {"path": "words"}}, "trajectories": data})
    report = run.run(spec.model_copy(update={"toolsets": (named, *others), "parity": None}), tmp_path / "bundle")
    (standing,) = report.copied
    assert (standing.toolset, standing.tool, standing.values, standing.standing) == (files.name, "read", 2, 0)
    assert any("not all values" in warning for warning in report.warnings)
    entry = open_bundle(tmp_path / "bundle").toolset(files.name)
    assert entry.arguments["read"].copied == (CopiedProperty(name="path", border="words"),)
    assert all(not stage.copied for tool, stage in entry.arguments.items() if tool != "read")
