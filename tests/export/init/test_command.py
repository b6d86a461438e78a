from __future__ import annotations

import json
from pathlib import Path

import pytest

from dualtune_edge import cli
from dualtune_edge.export.spec.document import read_spec
from dualtune_edge.toolkit.errors import OutputError, SpecError

NOTES = [
    {"name": "list_notes", "inputSchema": {"type": "object", "properties": {}}},
    {"name": "read_note", "inputSchema": {"type": "object", "properties": {"name": {"type": "string"}}}},
]


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base").mkdir()
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "notes.json").write_text(json.dumps({"tools": NOTES}), encoding="utf-8")
    (tmp_path / "lists" / "bare.json").write_text(json.dumps({"tools": NOTES[:1]}), encoding="utf-8")
    (tmp_path / "train.jsonl").write_text("", encoding="utf-8")
    return tmp_path


def init(*flags: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(["init", "--base", "base", *flags])
    return int(ended.value.code or 0)


def test_the_spec_is_one_to_train_and_names_an_adapter_for_all_there_is_to_learn(
    desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert init("--tools", "lists/notes.json", "--data", "train.jsonl", "-o", "lists/own.yaml", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["toolsets"], report["tools"], report["adapters"]) == (["notes"], 2, 2)
    text = (desk / "lists" / "own.yaml").read_text("utf-8")
    assert "base: ../base" in text, "relative to the spec, so that both can be moved together"
    spec = read_spec(desk / "lists" / "own.yaml", trained=False)
    (toolset,) = spec.toolsets
    assert toolset.tools.resolve() == desk / "lists" / "notes.json"
    assert toolset.trajectories
    assert toolset.trajectories.resolve() == desk / "train.jsonl"
    assert toolset.selection
    assert toolset.selection.path.resolve() == desk / "lists" / "adapters" / "notes" / "selection"
    assert isinstance(toolset.arguments, Path)
    assert toolset.arguments.resolve() == desk / "lists" / "adapters" / "notes" / "arguments"
    assert spec.toolset is None


def test_of_several_toolsets_the_choice_is_learnt_and_a_list_without_arguments_needs_no_adapter_of_them(
    desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert init("--tools", "lists/notes.json", "--tools", "My bare: tools=lists/bare.json") == SpecError.exit_code
    assert init("--tools", "notes=lists/notes.json", "--tools", "My bare: tools=lists/bare.json") == 0
    assert "3 tools, 4 adapters to train" in capsys.readouterr().out
    spec = read_spec(desk / "dualtune.yaml", trained=False)
    assert spec.toolset
    assert [toolset.name for toolset in spec.toolsets] == ["notes", "My bare: tools"]
    assert spec.toolsets[1].arguments is None
    assert len({toolset.selection.path for toolset in spec.toolsets if toolset.selection}) == 2


def test_templates_of_ones_own_are_named_where_there_are_some(desk: Path) -> None:
    flags = ("--tools", "lists/notes.json", "--templates", "own")
    assert init(*flags) == SpecError.exit_code
    (desk / "own").mkdir()
    assert init(*flags) == SpecError.exit_code, "a folder in which there is none"
    (desk / "own" / "selection.jinja").write_text("", encoding="utf-8")
    assert init(*flags) == 0
    (toolset,) = read_spec(desk / "dualtune.yaml", trained=False).toolsets
    assert toolset.templates.selection
    assert toolset.templates.arguments is None


@pytest.mark.parametrize(
    ("flags", "code"),
    [
        (("--tools", "lists/nots.json"), SpecError.exit_code),
        (("--tools", "lists/notes.json", "--data", "lists"), SpecError.exit_code),
        (("--tools", "=lists/notes.json", "--tools", "b=lists/bare.json"), SpecError.exit_code),
        (("--tools", "lists/notes.json", "-o", "train.jsonl"), OutputError.exit_code),
    ],
)
def test_what_is_not_there_or_there_already_is_refused_and_nothing_written(
    desk: Path, flags: tuple[str, ...], code: int
) -> None:
    before = sorted(desk.rglob("*"))
    assert init(*flags) == code
    assert sorted(desk.rglob("*")) == before
