"""What no constraint could write is refused at the desk."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from export_desk import Desk
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from dualtune_edge.export.plan.constraints import check_constraints, constraint_tokenizer, refuse_long_numbers
from dualtune_edge.export.plan.inputs import read_inputs
from dualtune_edge.export.plan.prompts import PlannedStage, PlannedToolset, Plans, plan_prompts
from dualtune_edge.toolkit.errors import ToolsError
from dualtune_edge.toolkit.prompts.prompt_plan import Frame, PromptPlan
from dualtune_edge.toolkit.tools.toolset import Tool, Toolset

FRAME = Frame(tokens=(), pending="", tail="", item_separator=", ", key_separator=": ", ascii_only=False)


def tool(schema: Any) -> Tool:
    return Tool(name="act", parameters={"properties": {"x": schema}})


@pytest.mark.parametrize("number", [2**63, 9_007_199_254_740_993, 123456789.123456789, -12345678901234567])
def test_a_listed_number_of_too_many_digits_is_refused(number: float) -> None:
    for schema in ({"const": number}, {"anyOf": [{"enum": [1, number]}]}, {"const": {"id": [number]}}):
        with pytest.raises(ToolsError, match=r"'act': found .* too many digits"):
            refuse_long_numbers(tool(schema))


@pytest.mark.parametrize("number", [10**20, 0.1, -5, 1e-7, 123456789012345, True])
def test_others_stay(number: float) -> None:
    refuse_long_numbers(tool({"enum": [number, "12345678901234567890"], "default": 2**63}))


@pytest.fixture
def checkpoint(tmp_path: Path) -> SimpleNamespace:
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer = Tokenizer(models.BPE(vocab={letter: at for at, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<end>"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return SimpleNamespace(folder=tmp_path, tokenizer_folder=tmp_path, vocab_size=257, end_of_turn=(256,))


def test_an_optional_property_that_no_value_fits_is_warned_of(checkpoint: Any) -> None:
    hot = {"type": "boolean", "enum": ["True", "False"]}
    act = Tool(name="act", parameters={"type": "object", "properties": {"tea": {"type": "string"}, "hot": hot}})
    stage = PlannedStage("arguments", PromptPlan(stage="arguments", template="", tools=(act,), tool="act", frame=FRAME))
    toolset = PlannedToolset(Toolset(name="kitchen", tools=(act,)), stage, {"act": stage})
    (warning,) = check_constraints(Plans(None, (toolset,)), constraint_tokenizer(checkpoint))
    assert "'hot'" in warning
    assert "'act' of 'kitchen'" in warning


def test_what_a_constraint_cannot_hold_of_a_schema_is_warned_of(own_desk: Desk) -> None:
    schema = {"properties": {"lines": {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}}}
    own_desk.rewrite("files.json", lambda value: value["tools"][1].update(inputSchema=schema))
    inputs = read_inputs(own_desk.spec("external"))
    (warning,) = check_constraints(plan_prompts(inputs), constraint_tokenizer(inputs.checkpoint))
    assert "'write' of 'files'" in warning
    assert "uniqueItems" in warning
