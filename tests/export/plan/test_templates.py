"""Whose template is taken, and what is said of one that writes dates or cannot write calls."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from dualtune_edge_kit.random_checkpoint import Shape, write_checkpoint

from dualtune_edge.export.base.checkpoint import Checkpoint, read_checkpoint
from dualtune_edge.export.plan.inputs import read_inputs
from dualtune_edge.export.plan.prompts import Plans, plan_prompts
from dualtune_edge.export.spec.document import ExportSpec
from dualtune_edge.toolkit.errors import TemplateError
from dualtune_edge.toolkit.prompts.chat_template import ChatTemplate
from dualtune_edge.toolkit.prompts.messages import user
from dualtune_edge.toolkit.prompts.prompter import Prompter

TOOLS = (
    '[{"name": "water", "description": "Water", "inputSchema": {"properties": {"litres": {"type": "number"}}}},'
    '{"name": "prune", "description": "Prune", "inputSchema": {"properties": {"cm": {"type": "number"}}}}]'
)
HEAD = "[system] {% for t in tools or [] %}{{ t | tojson }}{% endfor %}\n"
TURNS = (
    "{% for m in messages %}[{{ m.role }}] {% for c in m.tool_calls or [] %}{{ c.function | tojson }}{% endfor %}"
    "{{ m.content }}[end]\n{% endfor %}{% if add_generation_prompt %}[assistant] {% endif %}"
)
PLAIN = "{% for m in messages %}[{{ m.role }}] {{ m.content }}[end]\n{% endfor %}"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("desk")
    write_checkpoint(folder / "base", Shape(64, 96, 1, 4, 2, 288, 8192))
    (folder / "tools.json").write_text(TOOLS, encoding="utf-8")
    return folder / "base"


def planned(base: Path, source: str, **settings: Any) -> tuple[Plans, Checkpoint]:
    (base / "chat_template.jinja").write_text(source, encoding="utf-8")
    spec = ExportSpec.from_flags(base, base.parent / "tools.json").model_copy(update=settings)
    inputs = read_inputs(spec)
    return plan_prompts(inputs), inputs.checkpoint


def text(plans: Plans, checkpoint: Checkpoint) -> str:
    found: str = checkpoint.tokenizer.decode(list(plans.toolsets[0].selection.plan.prefix), skip_special_tokens=False)
    return found


CANNOT = {
    "no calls": HEAD + PLAIN + "{% if add_generation_prompt %}[assistant] {% endif %}",
    "calls raise": "{% for m in messages %}{% if m.tool_calls %}{{ raise_exception('no') }}{% endif %}{% endfor %}",
    "tools raise": "{% if tools %}{{ raise_exception('no tools') }}{% endif %}" + TURNS,
    "no arguments": HEAD + TURNS.replace("c.function | tojson", "c.function.name"),
    "no generation prompt": HEAD + TURNS.replace("[assistant] {% endif", "<think>{% endif"),
}


@pytest.mark.parametrize("name", CANNOT)
def test_a_base_that_cannot_write_calls_is_refused_with_the_flags_name(base: Path, name: str) -> None:
    with pytest.raises(TemplateError, match=r"chat template of base.*--template builtin.*`template: builtin`"):
        planned(base, CANNOT[name])
    plans, checkpoint = planned(base, CANNOT[name], template="builtin")
    assert "Call `summarize` when no tool is needed" in text(plans, checkpoint)


def test_the_built_in_template_is_taken_where_it_is_asked_for_alone(base: Path) -> None:
    plans, checkpoint = planned(base, HEAD + TURNS)
    assert text(plans, checkpoint).startswith("[system]")
    assert plans.warnings == ()
    plans, checkpoint = planned(base, HEAD + TURNS, template="builtin")
    assert text(plans, checkpoint).startswith("<|im_start|>system")


DATED = {
    "after the tools": (HEAD + "Today is {{ strftime_now('%d %b %Y') }}.\n" + TURNS, "Today is "),
    "before the tools": ("Date: {{ strftime_now('%Y-%m-%d') }}\n" + HEAD + TURNS, "Date: 20"),
    "the time of day": (HEAD + "{{ strftime_now('%H:%M:%S') }}\n" + TURNS, "}"),
    "set before": ("{% set now = strftime_now('%B %Y') %}" + HEAD + "It is {{ now }}.\n" + TURNS, "It is "),
    "where Llama has it": (
        "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
        "Today: {{ date_string }}\n" + HEAD + TURNS,
        "Today: ",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DATED)
def test_a_template_that_writes_todays_date_is_warned_of_and_the_prefix_ends_before_it(base: Path, name: str) -> None:
    template, before = DATED[name]
    plans, checkpoint = planned(base, template)
    assert text(plans, checkpoint).endswith(before)
    assert any("chat template of base writes today's date" in warning for warning in plans.warnings)
    stages = [plans.toolsets[0].selection, *plans.toolsets[0].arguments.values()]
    for stage in stages:
        made = ChatTemplate(stage.plan.template, where=stage.name, bos=checkpoint.bos, eos=checkpoint.eos)
        prompter = Prompter(made, checkpoint.tokenizer, stage.plan.tools, stage.plan.tool)
        for date in (datetime(2001, 2, 3, 4, 5, 6), datetime(2027, 12, 31), None):  # noqa: DTZ001
            assert prompter.tokens([user("a")], date)[: len(stage.plan.prefix)] == stage.plan.prefix


def test_the_date_is_the_requests_own(base: Path) -> None:
    plans, checkpoint = planned(base, DATED["after the tools"][0])
    plan = plans.toolsets[0].selection.plan
    prompter = Prompter(ChatTemplate(plan.template, where="test"), checkpoint.tokenizer, plan.tools)
    given = checkpoint.tokenizer.decode(list(prompter.tokens([user("a")], datetime(2001, 2, 3))))  # noqa: DTZ001
    assert "Today is 03 Feb 2001." in given
    today = datetime.now()  # noqa: DTZ005
    assert f"{today:%Y}" in checkpoint.tokenizer.decode(list(prompter.tokens([user("a")])))


def test_a_variable_for_the_date_is_set_where_a_request_gives_one(base: Path) -> None:
    fixed = "{% if not date_string is defined %}{% set date_string = '26 Jul 2024' %}{% endif %}"
    plans, checkpoint = planned(base, fixed + "Today: {{ date_string }}\n" + HEAD + TURNS)
    assert "Today: 26 Jul 2024\n[system]" in text(plans, checkpoint)  # what it was trained with is no date of today
    assert [warning for warning in plans.warnings if "`date_string`" in warning] == list(plans.warnings)
    plan = plans.toolsets[0].selection.plan
    prompter = Prompter(ChatTemplate(plan.template, where="test"), checkpoint.tokenizer, plan.tools)
    given = checkpoint.tokenizer.decode(list(prompter.tokens([user("a")], datetime(2001, 2, 3))))  # noqa: DTZ001
    assert "Today: 03 Feb 2001\n" in given


def test_the_spec_takes_the_flags_word_alone(base: Path) -> None:
    assert read_checkpoint(base).name == "base"
    with pytest.raises(ValueError, match="builtin"):
        ExportSpec.model_validate({"base": "b", "toolsets": [{"name": "t", "tools": "t"}], "template": "own"})
