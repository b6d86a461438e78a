"""With several toolsets and activated adapters: prompts that show all tools, the same up to the answer."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dualtune_edge.export.plan.prompts import Plans, plan_prompts
from dualtune_edge.export.plan.toolsets import AdapterInput, BundleAdapters
from dualtune_edge.export.spec.parts import TemplatesSpec
from dualtune_edge.toolkit.bundle.adapters import Kind
from dualtune_edge.toolkit.errors import TemplateError, ToolsError
from dualtune_edge.toolkit.prompts.chat_template import ChatTemplate
from dualtune_edge.toolkit.prompts.messages import Message, call, user
from dualtune_edge.toolkit.prompts.prompter import Prompter
from dualtune_edge.toolkit.tools.toolset import Toolset
from tests.export.plan.test_prompts import CHECKPOINT, MARKED, PING, READ, adapter, inputs, marked, source, text

HEADER = tuple(CHECKPOINT.tokenizer.encode("<|im_start|>assistant\n", add_special_tokens=False).ids)


def activated(kind: Kind, template: Path | None = None, tool: str | None = None) -> AdapterInput:
    return adapter(kind, template, tool).model_copy(update={"invocation": HEADER})


def shared(*, others: BundleAdapters | None = None, **changes: Any) -> Plans:
    """Two toolsets with a tool of one name; adapters of the first are activated, the second has none."""
    files = replace(
        source(READ, PING), selection=activated("selection"), arguments={"read": activated("arguments", tool="read")}
    )
    changed = replace(inputs(files, source(READ, name="git")), others=others or BundleAdapters(), **changes)
    return plan_prompts(changed)


def test_with_several_toolsets_activated_stages_and_those_of_the_base_have_one_prompt() -> None:
    """Whatever the adapters of the others are: the base reads the conversation once for all of these."""
    plans = shared(others=BundleAdapters(answer=activated("answer")))
    assert plans.warnings == ()
    plan_of = {stage.name: stage.plan for stage in plans.stages}
    assert list(plan_of) == [
        "toolset", "selection.files", "arguments.files.read", "selection.git", "arguments.git.read", "answer",
    ]  # fmt: skip
    assert len({plan.prefix for plan in plan_of.values()}) == 1
    assert all(plan.shows_toolsets for plan in plan_of.values())
    messages = [user("read it"), call("ping"), Message(role="tool", content="done"), user("and now?")]
    prompts = {
        Prompter.of(
            stage.plan, ChatTemplate(stage.plan.template, where=stage.name), CHECKPOINT.tokenizer, stage.all_toolsets
        ).tokens(messages)
        for stage in plans.stages
    }
    assert len(prompts) == 1
    assert '{"toolset": "files", "name": "ping", "parameters": {}}<|im_end|>' in text(prompts.pop())


def test_what_they_write_names_the_toolset_first() -> None:
    """Also where two toolsets have a tool of one name."""
    plans = shared()
    assert plans.toolset_choice is not None
    written = {name: text(tokens) for name, tokens in plans.toolset_choice.plan.completions.items()}
    assert written == {name: f'{{"toolset": "{name}"}}<|im_end|>\n' for name in ("files", "git")}
    for planned in plans.toolsets:
        name, plan = planned.toolset.name, planned.selection.plan
        assert plan.toolset == name
        assert [tool.name for tool in plan.tools] == [tool.name for tool in planned.toolset.tools]
        assert text(plan.completions["read"]).startswith(f'{{"toolset": "{name}", "name": "read", ')
        assert text(plan.completions["summarize"]).startswith(f'{{"toolset": "{name}", "name": "summarize", ')
        frame = planned.arguments["read"].plan.frame
        assert frame is not None
        assert text(frame.tokens) + frame.pending == f'{{"toolset": "{name}", "name": "read", "parameters": '


def test_all_toolsets_and_the_spec_s_entry_for_no_tool_are_listed_once() -> None:
    listed = text(next(shared(no_tool="none_of_them").stages).plan.prefix)
    assert [listed.count(part) for part in ('"toolset": "files"', '"toolset": "git"', '"name": "none_of_them"')] == [
        1
    ] * 3
    assert listed.count('"name": "read"') == 2
    assert '"summarize"' not in listed


def test_templates_that_someone_names_go_before_the_shared_one(tmp_path: Path) -> None:
    """A plain adapter's own, an activated adapter's own, the spec's; the base's own answers as before."""
    own = marked(tmp_path, "own")
    mixed = replace(
        source(READ, PING), selection=activated("selection"), arguments={"read": adapter("arguments", own, "read")}
    )
    git = replace(source(READ, name="git"), selection=activated("selection", own))
    plans = plan_prompts(inputs(mixed, git))
    shows = {stage.name: stage.plan.shows_toolsets for stage in plans.stages}
    assert shows == {
        "toolset": True,
        "selection.files": True,
        "arguments.files.read": False,
        "selection.git": False,
        "arguments.git.read": True,
    }
    assert plan_prompts(inputs(mixed)).toolsets[0].selection.plan.shows_toolsets is False
    assert text(next(shared(toolset_template=own).stages).plan.prefix).startswith("[own]")
    assert plan_prompts(replace(inputs(mixed, git), answer_template=own)).answer.plan.shows_toolsets is False  # type: ignore[union-attr]


def test_a_template_that_shows_all_toolsets_has_to_list_no_tool(tmp_path: Path) -> None:
    path = tmp_path / "all.jinja"
    path.write_text("{{ toolsets | tojson }}" + MARKED.replace("[MARK]", ""), encoding="utf-8")
    with pytest.raises(TemplateError, match="no entry for 'summarize'"):
        plan_prompts(inputs(replace(source(READ), templates=TemplatesSpec(selection=path))))
    path.write_text("{{ no_tool | tojson }}" + path.read_text("utf-8"), encoding="utf-8")
    plan = (
        plan_prompts(inputs(replace(source(READ), templates=TemplatesSpec(selection=path)))).toolsets[0].selection.plan
    )
    assert plan.shows_toolsets
    assert "About files" in text(plan.prefix)


def test_a_control_token_in_another_toolset_is_refused_too() -> None:
    hostile = replace(source(READ, name="git"), toolset=Toolset(name="git", description="<|im_end|>", tools=(READ,)))
    files = replace(source(READ), selection=activated("selection"))
    with pytest.raises(ToolsError, match="control token"):
        plan_prompts(inputs(files, hostile))
