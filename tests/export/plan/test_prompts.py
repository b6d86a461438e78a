import functools
import tempfile
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import pytest
from dualtune_edge_kit.random_checkpoint import Shape, write_checkpoint
from export_desk import Desk
from hypothesis import given
from hypothesis import strategies as st

from dualtune_edge.export.base.chat_template import TemplateText
from dualtune_edge.export.base.checkpoint import Checkpoint, read_checkpoint
from dualtune_edge.export.plan.inputs import Inputs, read_inputs
from dualtune_edge.export.plan.prompts import ROOM, plan_prompts
from dualtune_edge.export.plan.toolsets import AdapterInput, BundleAdapters, ToolsetInput
from dualtune_edge.export.spec.parts import TemplatesSpec
from dualtune_edge.toolkit.bundle.adapters import OF_THE_BUNDLE, Kind
from dualtune_edge.toolkit.bundle.quantization import Quantization
from dualtune_edge.toolkit.errors import RequestError, TemplateError, ToolsError
from dualtune_edge.toolkit.prompts.prompter import Prompter
from dualtune_edge.toolkit.tools.toolset import Tool, Toolset

CLOSED = {"type": "object", "properties": {}, "additionalProperties": False}
READ = Tool(name="read", description="Read a file", parameters={"properties": {"path": {"type": "string"}}})
READ_ALL = Tool(name="read_all", description="Read many", parameters={"properties": {"paths": {"type": "array"}}})
PING = Tool(name="ping", parameters=CLOSED)
# Writes its own name, so that a test sees whose template was taken.
MARKED = (
    "[MARK]{% for message in messages %}{% if message.tool_calls %}{% set call = message.tool_calls[0].function %}"
    "<|im_start|>A{{ call.name }}{{ call.arguments | tojson }}<|im_end|>"
    "{% else %}{{ message.content }}{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>A{% endif %}"
)


@functools.cache
def checkpoint() -> Checkpoint:
    """A small base with a byte-level tokenizer, ChatML's tokens and no template."""
    with tempfile.TemporaryDirectory() as folder:
        write_checkpoint(Path(folder) / "base", Shape(64, 128, 1, 4, 2, 288, 4096))
        return read_checkpoint(Path(folder) / "base")


CHECKPOINT = checkpoint()


def adapter(kind: Kind, template: Path | None, tool: str | None = None) -> AdapterInput:
    own = None if template is None else TemplateText(str(template), template.read_text(encoding="utf-8"))
    toolset = None if kind in OF_THE_BUNDLE else "files"
    return AdapterInput(
        name="x", kind=kind, toolset=toolset, tool=tool, mode="external", folder=Path("x"), rank=4, scale=2.0,
        sha256="0" * 64, template=own, extras=frozenset(), plain=True,
    )  # fmt: skip


def source(*tools: Tool, name: str = "files") -> ToolsetInput:
    toolset = Toolset(name=name, description=f"About {name}", tools=tools)
    return ToolsetInput(toolset=toolset, selection=None, arguments={}, templates=TemplatesSpec())


def inputs(*toolsets: ToolsetInput, checkpoint: Checkpoint = CHECKPOINT) -> Inputs:
    return Inputs(
        checkpoint=checkpoint, toolsets=toolsets, quantization=Quantization(), profile=None, profiles=(),
        profile_files=(), no_tool="summarize", toolset_template=None, warnings=(),
    )  # fmt: skip


def text(tokens: tuple[int, ...]) -> str:
    decoded: str = CHECKPOINT.tokenizer.decode(list(tokens), skip_special_tokens=False)
    return decoded


def marked(folder: Path, mark: str) -> Path:
    path = folder / f"{mark}.jinja"
    path.write_text(MARKED.replace("MARK", mark), encoding="utf-8")
    return path


def test_a_selection_offers_every_tool_and_no_tool() -> None:
    plan = plan_prompts(inputs(source(READ, PING))).toolsets[0].selection.plan
    assert [tool.name for tool in plan.tools] == ["read", "ping", "summarize"]
    assert {name: text(tokens) for name, tokens in plan.completions.items()} == {
        name: f'<tool_call>\n{{"name": "{name}"}}\n</tool_call><|im_end|>\n' for name in ("read", "ping", "summarize")
    }
    assert '"name": "read"' in text(plan.prefix)
    assert text(plan.prefix).endswith("<|im_start|>user\n")


def test_only_tools_that_take_arguments_have_an_arguments_stage() -> None:
    planned = plan_prompts(inputs(source(READ, PING))).toolsets[0]
    assert list(planned.arguments) == ["read"]
    plan = planned.arguments["read"].plan
    assert (plan.tool, [tool.name for tool in plan.tools]) == ("read", ["read", "ping"])
    assert plan.frame is not None
    assert text(plan.frame.tokens) + plan.frame.pending == '{"name": "read", "parameters": '
    assert plan.frame.tail == "}"


def test_a_toolset_is_chosen_only_among_several() -> None:
    assert plan_prompts(inputs(source(READ))).toolset_choice is None
    choice = plan_prompts(inputs(source(READ), source(READ, name="git"))).toolset_choice
    assert choice is not None
    assert (choice.name, choice.adapter, list(choice.plan.completions)) == ("toolset", None, ["files", "git"])
    assert "About git" in text(choice.plan.prefix)


def test_stage_names_are_those_of_the_bundle() -> None:
    stages = plan_prompts(inputs(source(READ), source(PING, name="git"))).stages
    assert [stage.name for stage in stages] == ["toolset", "selection.files", "arguments.files.read", "selection.git"]


def test_whose_template_is_taken(tmp_path: Path) -> None:
    """The adapter's, else the spec's, else the base's, else the built-in one."""
    own, named = marked(tmp_path, "own"), marked(tmp_path, "named")
    based = replace(CHECKPOINT, chat_template=MARKED.replace("MARK", "base"))
    spec = TemplatesSpec(selection=named, arguments=named)
    plain = source(READ)
    with_spec = replace(plain, templates=spec)
    with_adapters = replace(
        with_spec, selection=adapter("selection", own), arguments={"read": adapter("arguments", own, "read")}
    )
    without_own = replace(
        with_spec, selection=adapter("selection", None), arguments={"read": adapter("arguments", None, "read")}
    )
    cases = [
        (with_adapters, based, "[own]"),
        (without_own, based, "[named]"),
        (with_spec, based, "[named]"),
        (plain, based, "[base]"),
        (plain, CHECKPOINT, "<|im_start|>system"),
    ]
    for toolset, checkpoint, mark in cases:
        planned = plan_prompts(inputs(toolset, checkpoint=checkpoint)).toolsets[0]
        assert text(planned.selection.plan.prefix).startswith(mark)
        assert text(planned.arguments["read"].plan.prefix).startswith(mark)


def test_the_toolset_choice_has_a_template_of_its_own(tmp_path: Path) -> None:
    both = replace(inputs(source(READ), source(PING, name="git")), toolset_template=marked(tmp_path, "named"))
    own = replace(both, others=BundleAdapters(toolset=adapter("toolset", marked(tmp_path, "own"))))
    for asked, mark, answering in ((both, "[named]", None), (own, "[own]", "x")):
        choice = plan_prompts(asked).toolset_choice
        assert choice is not None
        assert text(choice.plan.prefix).startswith(mark)
        assert choice.adapter_name == answering


def test_the_answer_is_a_stage_where_an_adapter_or_a_template_says_so(tmp_path: Path) -> None:
    plain, based = inputs(source(READ)), replace(CHECKPOINT, chat_template=MARKED.replace("MARK", "base"))
    assert plan_prompts(plain).answer is None
    named = replace(plain, answer_template=marked(tmp_path, "named"))
    cases = [
        (named, "[named]", None),
        (replace(named, others=BundleAdapters(answer=adapter("answer", marked(tmp_path, "own")))), "[own]", "x"),
        (replace(named, others=BundleAdapters(answer=adapter("answer", None))), "[named]", "x"),
        (replace(plain, checkpoint=based, others=BundleAdapters(answer=adapter("answer", None))), "[base]", "x"),
        (replace(plain, others=BundleAdapters(answer=adapter("answer", None))), "<|im_start|>user\n", "x"),
    ]
    for asked, mark, answering in cases:
        plans = plan_prompts(asked)
        assert plans.answer is not None
        plan = plans.answer.plan
        assert text(plan.prefix).startswith(mark)
        assert (plan.stage, plan.tools, plan.completions, plan.frame) == ("answer", (), {}, None)
        assert (list(plans.stages)[-1], plans.answer.adapter_name) == (plans.answer, answering)


def test_an_answer_s_template_has_to_show_results_and_should_end_turns(tmp_path: Path) -> None:
    deaf, endless = tmp_path / "deaf.jinja", tmp_path / "endless.jinja"
    refusing = (
        "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no tools') }}{% endif %}{% endfor %}"
    )
    deaf.write_text(refusing, encoding="utf-8")
    turns = "{% for m in messages %}{{ m.role }}:{{ m.content }};{% endfor %}"
    endless.write_text(turns + "{% if add_generation_prompt %}assistant:{% endif %}", encoding="utf-8")
    with pytest.raises(TemplateError, match="no tools"):
        plan_prompts(replace(inputs(source(READ)), answer_template=deaf))
    (warning,) = plan_prompts(replace(inputs(source(READ)), answer_template=endless)).warnings
    assert "answers go on to the most tokens allowed" in warning


def test_an_activated_adapter_whose_prompts_lack_its_invocation_is_warned_of() -> None:
    activated = adapter("toolset", None).model_copy(update={"invocation": (1, 2)})
    planned = plan_prompts(
        replace(inputs(source(READ), source(PING, name="git")), others=BundleAdapters(toolset=activated))
    )
    assert any("without the invocation of x" in warning for warning in planned.warnings)


def test_bos_and_eos_reach_the_template() -> None:
    template = "{{ bos_token }}" + MARKED.replace("<|im_end|>", "{{ eos_token }}")
    checkpoint = replace(CHECKPOINT, bos="<|endoftext|>", chat_template=template)
    plan = plan_prompts(inputs(source(READ), checkpoint=checkpoint)).toolsets[0].selection.plan
    assert text(plan.prefix).startswith("<|endoftext|>")
    assert text(plan.completions["read"]).endswith("<|im_end|>")


@pytest.mark.parametrize("called", ["", "{{ m.tool_calls[0].function.name }}"], ids=["alike", "without an end"])
def test_calls_that_cannot_be_told_apart(called: str) -> None:
    written = f"{{% if m.tool_calls %}}{called}{{% else %}}{{{{ m.content }}}};{{% endif %}}"
    template = f"{{% for m in messages %}}{written}{{% endfor %}}"
    with pytest.raises(TemplateError) as caught:
        plan_prompts(inputs(source(READ_ALL, READ), checkpoint=replace(CHECKPOINT, chat_template=template)))
    assert "'read' rendered as the beginning of a call of 'read_all'" in caught.value.found
    assert caught.value.where == "chat template of base"


@pytest.mark.parametrize(
    "tool",
    [
        Tool(name="<|im_end|>", parameters=CLOSED),
        READ.model_copy(update={"description": "ends <|im_end|> here"}),
        READ.model_copy(update={"parameters": {"properties": {"path": {"enum": ["<|im_end|>"]}}}}),
    ],
)
def test_a_tool_that_speaks_in_control_tokens_is_refused(tool: Tool) -> None:
    with pytest.raises(ToolsError, match=r"found '<\|im_end\|>', a control token"):
        plan_prompts(inputs(source(PING, tool)))


def test_a_template_that_fails_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.jinja"
    broken.write_text("{{ raise_exception('no system turn') }}", encoding="utf-8")
    with pytest.raises(TemplateError, match="no system turn") as caught:
        plan_prompts(inputs(replace(source(READ), templates=TemplatesSpec(selection=broken))))
    assert caught.value.where == str(broken)


def test_a_template_with_a_mistake_is_named_by_its_line(tmp_path: Path) -> None:
    broken = tmp_path / "broken.jinja"
    broken.write_text("\n{% if %}", encoding="utf-8")
    with pytest.raises(TemplateError) as caught:
        plan_prompts(inputs(replace(source(READ), templates=TemplatesSpec(arguments=broken))))
    assert caught.value.where == f"{broken}, line 2"


@pytest.mark.parametrize("stage", ["selection", "arguments"])
def test_a_prompt_must_leave_room_for_a_conversation(stage: Kind, tmp_path: Path) -> None:
    longest = marked(tmp_path, "own")
    longest.write_text("long " * 100 + MARKED, encoding="utf-8")
    templates = TemplatesSpec.model_validate({stage: longest})
    toolset = replace(source(READ), templates=templates)
    planned = plan_prompts(inputs(toolset)).toolsets[0]
    selection, arguments = planned.selection.plan, planned.arguments["read"].plan
    assert arguments.frame is not None
    prefix, answer = {
        "selection": (len(selection.prefix), max(map(len, selection.completions.values()))),
        "arguments": (len(arguments.prefix), len(arguments.frame.tokens)),
    }[stage]
    needed = prefix + ROOM + answer
    plan_prompts(inputs(toolset, checkpoint=replace(CHECKPOINT, context_length=needed)))
    with pytest.raises(RequestError) as caught:
        plan_prompts(inputs(toolset, checkpoint=replace(CHECKPOINT, context_length=needed - 1)))
    assert f"{prefix} tokens before the conversation and {answer} after it" in caught.value.found
    assert f"a context of {needed - 1}" in caught.value.found
    assert str(ROOM) in caught.value.expected


def test_tools_beyond_the_context_are_refused_before_all_completions(monkeypatch: pytest.MonkeyPatch) -> None:
    tools = [Tool(name=f"read_{number}", parameters=CLOSED) for number in range(300)]
    rendered = []
    complete = Prompter.completion
    monkeypatch.setattr(Prompter, "completion", lambda self, answer: rendered.append(1) or complete(self, answer))
    with pytest.raises(RequestError, match="tokens before the conversation"):
        plan_prompts(inputs(source(*tools), checkpoint=replace(CHECKPOINT, context_length=2048)))
    assert len(rendered) == 1


@given(st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=6, unique=True))
def test_no_completion_begins_another(names: list[str]) -> None:
    tools = [Tool(name=name, parameters=CLOSED) for name in names if name != "summarize"] or [PING]
    plan = plan_prompts(inputs(source(*tools))).toolsets[0].selection.plan
    for one, other in permutations(plan.completions.values(), 2):
        assert one != other[: len(one)]


def test_activated_adapters_take_one_built_in_template_for_both_kinds_of_stage(own_desk: Desk) -> None:
    tokens = read_inputs(own_desk.spec("external")).checkpoint.tokenizer.encode("<|im_start|>assistant\n").ids
    for name in ("chooser", "writers/read"):
        own_desk.rewrite(f"{name}/adapter_config.json", lambda config: config.update(alora_invocation_tokens=tokens))
    own_desk.add("template: builtin\n")
    plans = plan_prompts(read_inputs(own_desk.spec("external")))
    (toolset,) = plans.toolsets
    read, write = (toolset.arguments[name].plan for name in ("read", "write"))
    assert toolset.selection.plan.template == read.template != write.template
    assert toolset.selection.plan.prefix == read.prefix != write.prefix
    assert toolset.selection.is_activated
    assert not toolset.arguments["write"].is_activated
    assert not [warning for warning in plans.warnings if "invocation" in warning]
