"""A bundle has one tokenizer: what an adapter adds to it, no other stage may read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from dualtune_edge_kit.random_checkpoint import Shape, write_checkpoint
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast

from dualtune_edge.export.base.checkpoint import read_checkpoint
from dualtune_edge.export.plan.added_tokens import check_added_tokens
from dualtune_edge.export.plan.inputs import Inputs, read_inputs
from dualtune_edge.export.plan.prompts import Plans, plan_prompts
from dualtune_edge.export.spec.document import ExportSpec
from dualtune_edge.toolkit.errors import AdapterError

TOOLS = [
    {"name": name, "description": name, "inputSchema": {"type": "object", "properties": {"x": {"type": "string"}}}}
    for name in ("read", "write")
]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("desk")
    write_checkpoint(folder / "base", Shape(64, 96, 2, 4, 2, 288, 4096))
    (folder / "files.json").write_text(json.dumps({"tools": TOOLS}), encoding="utf-8")
    return folder


def with_tokens(desk: Path, adapter: Path, *tokens: str, special: bool = True, eos: str | None = None) -> Path:
    """Save a tokenizer beside an adapter, as its trainer does."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(desk / "base")
    tokenizer.add_tokens([AddedToken(token, special=special) for token in tokens], special_tokens=special)
    tokenizer.save_pretrained(adapter)
    if eos:
        path = adapter / "tokenizer_config.json"
        path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"eos_token": eos}), encoding="utf-8")
    return adapter


def read(desk: Path, selection: Path, arguments: dict[str, Path]) -> tuple[Inputs, Plans]:
    toolset = {
        "name": "files",
        "tools": desk / "files.json",
        "selection": {"path": selection},
        "arguments": {tool: {"path": path} for tool, path in arguments.items()},
    }
    inputs = read_inputs(ExportSpec.model_validate({"base": desk / "base", "toolsets": [toolset], "parity": "off"}))
    return inputs, plan_prompts(inputs)


def test_special_tokens_are_the_bundles_and_other_stages_stay_as_they_were(desk: Path, make_adapter: Any) -> None:
    base = read_checkpoint(desk / "base")
    one, two = make_adapter(base), make_adapter(base, seed=2)
    known = {stage.name: stage.plan for stage in read(desk, one, {"read": two})[1].stages}
    inputs, plans = read(desk, with_tokens(desk, one, "<new>"), {"read": two})
    check_added_tokens(plans, inputs.checkpoint)
    assert inputs.checkpoint.tokenizer.token_to_id("<new>") == 259
    assert [adapter.knows_added_tokens for adapter in inputs.adapters] == [True, False]
    assert "1 tokens that the base lacks" in inputs.warnings[0]
    assert {stage.name: stage.plan for stage in plans.stages} == known


def test_other_tokens_are_refused_where_a_stage_was_not_trained_with_them(desk: Path, make_adapter: Any) -> None:
    base = read_checkpoint(desk / "base")
    one = with_tokens(desk, make_adapter(base), "weather", special=False)
    inputs, plans = read(desk, one, {"read": make_adapter(base, seed=2)})
    with pytest.raises(AdapterError, match=r"tokens such as 'weather', which arguments\.files\.read was not trained"):
        check_added_tokens(plans, inputs.checkpoint)


def test_and_accepted_where_every_stage_was(desk: Path, make_adapter: Any) -> None:
    base = read_checkpoint(desk / "base")
    one, two, three = (with_tokens(desk, make_adapter(base, seed=seed), "weather", special=False) for seed in (1, 2, 3))
    inputs, plans = read(desk, one, {"read": two, "write": three})
    check_added_tokens(plans, inputs.checkpoint)
    inputs, plans = read(desk, one, {"read": two})
    with pytest.raises(AdapterError, match=r"arguments\.files\.write was not trained"):  # the base's stage
        check_added_tokens(plans, inputs.checkpoint)


def test_a_template_that_writes_one_is_refused_in_another_stage(desk: Path, make_adapter: Any) -> None:
    base = read_checkpoint(desk / "base")
    one, two = with_tokens(desk, make_adapter(base), "<new>"), make_adapter(base, seed=2)
    built_in = next(
        stage.plan.template for stage in read(desk, one, {})[1].stages if stage.name == "arguments.files.read"
    )
    (two / "chat_template.jinja").write_text("<new>" + built_in, encoding="utf-8")
    inputs, plans = read(desk, one, {"read": two})
    with pytest.raises(AdapterError, match=r"the token '<new>', which stands in the prompt of arguments\.files\.read"):
        check_added_tokens(plans, inputs.checkpoint)


def test_another_end_token_is_refused_where_a_template_writes_it(desk: Path, make_adapter: Any) -> None:
    base = read_checkpoint(desk / "base")
    one, two = with_tokens(desk, make_adapter(base), "<end>", eos="<end>"), make_adapter(base, seed=2)
    inputs, plans = read(desk, one, {"read": two})
    check_added_tokens(plans, inputs.checkpoint)  # the built-in templates write none
    built_in = next(stage.plan.template for stage in plans.stages if stage.name == "arguments.files.read")
    (two / "chat_template.jinja").write_text(built_in + "{{ '' if eos_token else '' }}", encoding="utf-8")
    inputs, plans = read(desk, one, {"read": two})
    with pytest.raises(AdapterError, match=r"another eos_token than the base's.*arguments\.files\.read"):
        check_added_tokens(plans, inputs.checkpoint)
