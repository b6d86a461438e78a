"""Tool lists and adapters: bad ones are refused by name, before any work, and nothing is written."""

import shutil

import pytest
from export_desk import FILES, Desk

from dualtune_edge.toolkit.errors import AdapterError, SpecError, ToolsError

pytestmark = pytest.mark.usefixtures("no_work")


def test_an_adapter_that_is_not_there(own_desk: Desk) -> None:
    shutil.rmtree(own_desk.folder / "chooser")
    own_desk.refused(SpecError, "line 6", "chooser", "does not exist")


def test_an_adapter_of_another_base(own_desk: Desk) -> None:
    (own_desk.folder / "chooser" / "base_fingerprint.txt").write_text("f" * 64 + "\n", encoding="utf-8")
    own_desk.refused(AdapterError, "chooser", "ffffffffffff")


def test_an_adapter_of_another_shape(own_desk: Desk) -> None:
    from dualtune_edge_kit.random_checkpoint import Shape, write_adapter, write_checkpoint
    from peft import LoraConfig

    write_checkpoint(own_desk.folder / "wider", Shape(96, 96, 2, 4, 2, 288, 2048))
    config = LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM")
    write_adapter(own_desk.folder / "chooser", own_desk.folder / "wider", config)
    own_desk.refused(AdapterError, "chooser", "q_proj", "96", "64")


def test_a_pickled_adapter(own_desk: Desk) -> None:
    (own_desk.folder / "chooser" / "adapter_model.safetensors").rename(
        own_desk.folder / "chooser" / "adapter_model.bin"
    )
    own_desk.refused(AdapterError, "adapter_model.bin")


def test_an_unknown_peft_feature(own_desk: Desk) -> None:
    own_desk.rewrite("writers/read/adapter_config.json", lambda config: config.update(use_magic=True))
    own_desk.refused(AdapterError, "read", "use_magic")


def test_two_tools_of_one_name(own_desk: Desk) -> None:
    own_desk.rewrite("files.json", lambda value: value["tools"].append(FILES[0]))
    own_desk.refused(ToolsError, "files.json", "2 tools named 'read'")


def test_a_bad_schema(own_desk: Desk) -> None:
    own_desk.rewrite("files.json", lambda value: value["tools"][1].update(inputSchema={"type": "strin"}))
    own_desk.refused(ToolsError, "tool 2 (write)", "strin")


def test_a_schema_that_cannot_be_a_constraint(own_desk: Desk) -> None:
    schema = {"properties": {"path": {"type": "string", "pattern": "^a(?=b)b"}}}
    own_desk.rewrite("files.json", lambda value: value["tools"][1].update(inputSchema=schema))
    own_desk.refused(ToolsError, "tool 2 (write)")


def test_a_tool_named_as_the_no_tool(own_desk: Desk) -> None:
    own_desk.rewrite("files.json", lambda value: value["tools"][2].update(name="summarize"))
    own_desk.refused(SpecError, "'files'", "'summarize'")
