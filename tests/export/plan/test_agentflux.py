"""Folders, templates and tool lists of AgentFlux's shape: a bundle sends, token by token, what its serving sends."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from dualtune_edge_kit.random_checkpoint import Shape, write_adapter, write_checkpoint
from peft import LoraConfig
from transformers import PreTrainedTokenizerFast

from dualtune_edge.export.plan.inputs import Inputs, read_inputs
from dualtune_edge.export.plan.prompts import PlannedStage, PlannedToolset, plan_prompts
from dualtune_edge.export.spec.document import ExportSpec
from dualtune_edge.runtime.decode.conversation import read_messages
from dualtune_edge.toolkit.prompts.chat_template import ChatTemplate
from dualtune_edge.toolkit.prompts.prompter import Prompter

HERE = Path(__file__).parent / "agentflux"
COUNTS = {"files": 13, "boards": 16, "pages": 7}


def toolsets() -> dict[str, list[dict[str, Any]]]:
    spec = importlib.util.spec_from_file_location("agentflux_toolsets", HERE / "toolsets.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: dict[str, list[dict[str, Any]]] = module.TOOLSETS
    return found


TOOLSETS = toolsets()


@dataclass(frozen=True)
class Desk:
    """A base, and for each toolset its list and a `finetune_serve` folder as AgentFlux's training leaves it."""

    folder: Path
    name: str

    @property
    def tools(self) -> list[dict[str, Any]]:
        return TOOLSETS[self.name]

    def spec(self) -> ExportSpec:
        """`export --base base --tools tool_list.json --selection F/classifier --arguments F`."""
        served = self.folder / self.name / "finetune_serve"
        return ExportSpec.from_flags(
            self.folder / "base",
            self.folder / self.name / "tool_list.json",
            selection=served / "classifier",
            arguments=served,
        )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("agentflux")
    write_checkpoint(folder / "base", Shape(64, 96, 1, 4, 2, 288, 65_536))
    config = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    classifier, template = ((HERE / name).read_text("utf-8") for name in ("classifier.jinja", "tool_template.jinja"))
    for name, tools in TOOLSETS.items():
        served = folder / name / "finetune_serve"
        for seed, tool in enumerate(["classifier", *(tool["function"]["name"] for tool in tools)]):
            write_adapter(served / tool, folder / "base", config, seed=seed)
            text = classifier if tool == "classifier" else template.replace("$TARGET", tool)
            (served / tool / "chat_template.jinja").write_text(text, encoding="utf-8")
        (folder / name / "tool_list.json").write_text(json.dumps(tools, indent=2), encoding="utf-8")
    return folder


@pytest.fixture(scope="module", params=TOOLSETS)
def desk(request: pytest.FixtureRequest, folder: Path) -> Desk:
    return Desk(folder, request.param)


@pytest.fixture(scope="module")
def inputs(desk: Desk) -> Inputs:
    return read_inputs(desk.spec())


@pytest.fixture(scope="module")
def planned(inputs: Inputs) -> PlannedToolset:
    (toolset,) = plan_prompts(inputs).toolsets
    return toolset


def conversations(tools: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """First and later turns; arguments in an order that is not the schema's, as text and as objects."""
    first, second = tools[0]["function"]["name"], tools[-1]["function"]["name"]
    arguments = {"path": "/a/ü", "head": 3, "nested": {"b": [1, None], "a": True}}

    def called(name: str, values: dict[str, Any], number: int) -> dict[str, Any]:
        function = {"name": name, "arguments": json.dumps(values)}
        call = {"id": f"call_{number}", "type": "function", "function": function, "index": 0}
        return {"role": "assistant", "content": None, "refusal": None, "tool_calls": [call]}

    asked = [{"role": "user", "content": "Show the first lines of 'a'"}]
    turn = [*asked, called(first, arguments, 1), {"role": "tool", "tool_call_id": "call_1", "content": "one\ntwo"}]
    later = [*turn, called(second, {}, 2), {"role": "tool", "tool_call_id": "call_2", "content": '{"x": 1}'}]
    answered = [*later, {"role": "assistant", "content": "Done: two lines.", "tool_calls": None}]
    return {
        "first": asked,
        "after a result": turn,
        "after two": later,
        "after an answer": [*answered, {"role": "user", "content": "And the rest?"}],
        "with a system message": [{"role": "system", "content": "Be brief."}, *turn],
    }


def served(
    messages: list[dict[str, Any]], tools: list[dict[str, Any]], template: str, stage: PlannedStage
) -> list[int]:
    """What transformers renders of a request as a server parses it: OpenAI's order of a tool, arguments as objects."""
    shown = [
        {"type": "function", "function": {key: tool["function"][key] for key in ("name", "description", "parameters")}}
        for tool in tools
    ]
    parsed = json.loads(json.dumps(messages))
    for message in parsed:
        for call in message.get("tool_calls") or []:
            call["function"]["arguments"] = json.loads(call["function"]["arguments"])
        if not message.get("tool_calls"):
            message.pop("tool_calls", None)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=TOKENIZERS[stage.name], chat_template=template)
    ids: list[int] = tokenizer.apply_chat_template(parsed, tools=shown, add_generation_prompt=True, return_dict=False)
    return ids


TOKENIZERS: dict[str, Any] = {}


def sends_what_is_served(stage: PlannedStage, inputs: Inputs, tools: list[dict[str, Any]]) -> bool:
    plan, checkpoint = stage.plan, inputs.checkpoint
    template = ChatTemplate(plan.template, where=stage.name, bos=checkpoint.bos, eos=checkpoint.eos)
    prompter = Prompter(template, checkpoint.tokenizer, plan.tools, plan.tool)
    TOKENIZERS[stage.name] = checkpoint.tokenizer
    for messages in conversations(tools).values():
        ours = prompter.tokens(read_messages(messages))
        if list(ours) != served(messages, tools, plan.template, stage):
            return False
        without_system = messages[0]["role"] == "user"
        if without_system and ours[: len(plan.prefix)] != plan.prefix:
            return False
    return True


def test_the_selection_sends_what_its_serving_sends(planned: PlannedToolset, inputs: Inputs, desk: Desk) -> None:
    assert sends_what_is_served(planned.selection, inputs, desk.tools)
    text = inputs.checkpoint.tokenizer.decode(list(planned.selection.plan.prefix), skip_special_tokens=False)
    assert text.count("Sum up what was done") == 1
    assert text.count('"name": "summarize"') == 1
    assert len(planned.selection.plan.completions) == COUNTS[desk.name] + 1


def test_every_arguments_stage_sends_what_its_serving_sends(
    planned: PlannedToolset, inputs: Inputs, desk: Desk
) -> None:
    """For all tools: one that takes no arguments has a template too, and no stage."""
    equal = [name for name, stage in planned.arguments.items() if sends_what_is_served(stage, inputs, desk.tools)]
    without = [tool for tool in desk.tools if not tool["function"]["parameters"]["properties"]]
    assert len(equal) + len(without) == COUNTS[desk.name] == len(desk.tools)


def test_the_frame_and_the_arguments_are_what_was_trained(planned: PlannedToolset, inputs: Inputs) -> None:
    for name, stage in planned.arguments.items():
        assert stage.plan.frame is not None
        written = inputs.checkpoint.tokenizer.decode(list(stage.plan.frame.tokens), skip_special_tokens=False)
        assert written + stage.plan.frame.pending == f'{{"name": "{name}", "parameters": '
        assert stage.plan.frame.tail.startswith("}<|end|>")


def test_what_stands_beside_the_tools_is_passed_over_with_a_warning(inputs: Inputs, desk: Desk) -> None:
    said = [warning for warning in inputs.warnings if "passed over" in warning]
    assert any("classifier" in warning and "no tool of this toolset" in warning for warning in said)
    without = [tool["function"]["name"] for tool in desk.tools if not tool["function"]["parameters"]["properties"]]
    assert all(any(name in warning and "takes no arguments" in warning for warning in said) for name in without)
    assert len(said) == 1 + len(without)
    assert not any("has no adapter" in warning for warning in inputs.warnings)
