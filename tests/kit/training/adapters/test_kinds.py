"""Activated adapters of the kit: their layout, and the settings that plain and activated ones are compared with."""

import json
from pathlib import Path

import pytest
from dualtune_edge_kit import FOLDER
from dualtune_edge_kit.training.adapters import kinds, runs
from dualtune_edge_kit.training.adapters.runs import Length, Run
from dualtune_edge_kit.training.data import toolsets
from dualtune_edge_kit.training.measuring import specs
from tokenizers import Tokenizer

from dualtune_edge.export.adapter.config import CONFIG
from dualtune_edge.export.finetune.report import RECORD
from dualtune_edge.export.finetune.samples.invocation import invocation_of
from dualtune_edge.runtime.reuse.activation import base_part
from dualtune_edge.toolkit.prompts.chat_template import CHAT_TEMPLATE, ChatTemplate
from dualtune_edge.toolkit.prompts.messages import Message, call, user
from dualtune_edge.toolkit.prompts.no_tool import selection_prompter
from dualtune_edge.toolkit.prompts.prompter import Prompter

CONVERSATION = [user("which branch?"), call("git_status"), Message(role="tool", content="main"), user("its log")]
RUN = Run("git", "arguments", "git_log")


def test_what_the_base_reads_for_activated_adapters_is_the_same_in_every_stage() -> None:
    template = ChatTemplate.read(FOLDER / "templates" / f"{runs.ACTIVATED}.jinja")
    tokenizer = Tokenizer.from_file(str(FOLDER / "base" / "tokenizer.json"))
    tools = toolsets.load("git").toolset.tools
    choice = selection_prompter(template, tokenizer, tools, "summarize")
    prompters = [choice, *(Prompter(template, tokenizer, tools, tool) for tool in ("git_log", "git_show"))]
    shared = set()
    for prompter in prompters:
        tokens = prompter.tokens(CONVERSATION)
        shared.add(tuple(tokens[: base_part(tokens, invocation_of(prompter))]))
    assert len(shared) == 1
    assert tokenizer.decode(list(shared.pop())).count("summarize") == 1
    assert "summarize" in choice.choices


def test_an_activated_adapter_is_trained_as_the_plain_one_is(tmp_path: Path) -> None:
    for run in runs.all_runs():
        plain, activated = (
            runs.settings(FOLDER / "base", tmp_path, tmp_path, run, 0, activated=kind) for kind in (False, True)
        )
        assert activated == plain.model_copy(update={"activated": True, "template": activated.template})


def test_an_activated_adapter_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "PLAIN", 80)
    monkeypatch.setattr(runs, "TYPED", 80)
    plan, lines = {"arguments": Length(1, 2, "arguments")}, list[str]()
    for _ in range(2):
        runs.make(
            FOLDER / "base", tmp_path / "data", tmp_path, [RUN], seed=0, say=lines.append, plan=plan, activated=True
        )
    made = tmp_path / RUN.folder
    config = json.loads((made / CONFIG).read_text(encoding="utf-8"))
    assert config["alora_invocation_tokens"]
    template = (FOLDER / "templates" / f"{runs.ACTIVATED}.jinja").read_text(encoding="utf-8")
    assert (made / CHAT_TEMPLATE).read_text(encoding="utf-8") == template
    assert len(lines) == 1


def test_plain_and_activated_adapters_are_compared_at_equal_data_and_steps(tmp_path: Path) -> None:
    for run in kinds.RUNS:
        made = [kinds._settings(FOLDER / "base", tmp_path, run, kind) for kind in kinds.KINDS]
        assert len({settings.output for settings in made}) == len(kinds.KINDS)
        left_out = {"output", "template", "activated"}
        assert len({settings.model_dump_json(exclude=left_out) for settings in made}) == 1
        assert [settings.activated for settings in made] == [False, True]


def test_the_table_has_a_row_for_each_adapter_and_a_column_for_each_kind(tmp_path: Path) -> None:
    record = json.loads((FOLDER / "adapters" / "git" / "selection" / RECORD).read_text(encoding="utf-8"))
    for index, (_, _, folder) in enumerate(kinds._folders(tmp_path)):
        folder.mkdir(parents=True)
        scores = [{"step": 1, "right": index, "samples": 20, "loss": 0.1}]
        (folder / RECORD).write_text(json.dumps(record | {"scores": scores}), encoding="utf-8")
    rows = kinds.table(tmp_path).splitlines()
    assert rows[0] == "| adapter | plain | activated |"
    assert rows[2] == "| filesystem/selection | 0 of 20 | 1 of 20 |"
    assert len(rows) == 2 + len(kinds.RUNS)


def test_activated_adapters_are_a_method_once_all_are_trained(tmp_path: Path) -> None:
    for run in runs.all_runs():
        assert not specs.trained("activated", tmp_path)
        (tmp_path / runs.ACTIVATED / run.folder).mkdir(parents=True)
    assert specs.trained("activated", tmp_path)
