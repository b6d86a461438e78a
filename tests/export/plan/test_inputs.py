"""The base, the profile and the prompts: bad ones are refused by name, before any work, and nothing is written."""

import json
from importlib import resources

import pytest
from export_desk import Desk

from dualtune_edge.export.plan.inputs import read_inputs
from dualtune_edge.export.spec.document import ExportSpec
from dualtune_edge.profiles import catalog
from dualtune_edge.toolkit.bundle.quantization import Quantization
from dualtune_edge.toolkit.errors import CheckpointError, ProfileError, RequestError, SpecError, TemplateError

pytestmark = pytest.mark.usefixtures("no_work")


def test_a_toolset_without_adapters_and_descriptions_is_warned_of(desk: Desk) -> None:
    toolsets = [{"name": name, "tools": desk.folder / f"{name}.json"} for name in ("files", "git")]
    inputs = read_inputs(ExportSpec.model_validate({"base": desk.folder / "base", "toolsets": toolsets}))
    assert "toolset 'files' has no selection adapter: the base model chooses among its tools" in inputs.warnings
    assert "toolset 'git' has no description: the base model chooses it by its name alone" in inputs.warnings
    assert inputs.adapters == ()


def test_what_the_spec_leaves_out_of_the_quantization_is_the_profiles(desk: Desk) -> None:
    toolset = {"name": "files", "tools": desk.folder / "files.json"}
    spec = {
        "base": desk.folder / "base",
        "toolsets": [toolset],
        "profile": "cpu-x64",
        "quantization": {"block_size": 64},
    }
    inputs = read_inputs(ExportSpec.model_validate(spec))
    assert inputs.profile == catalog.load("cpu-x64")
    assert inputs.quantization == Quantization(block_size=64)


def test_a_profile_file_is_warned_of(own_desk: Desk) -> None:
    data = resources.files("dualtune_edge.profiles") / "data" / "cpu-x64.toml"
    text = data.read_text(encoding="utf-8").replace('"cpu-x64"', '"mine"')
    (own_desk.folder / "mine.toml").write_text(text, encoding="utf-8")
    own_desk.add("profile: mine.toml\n")
    inputs = read_inputs(own_desk.spec("external"))
    assert "profile 'mine' is a file of yours: the device needs it beside the bundle" in inputs.warnings


def test_toolsets_and_tools_whose_joined_names_collide(own_desk: Desk) -> None:
    own_desk.write("one.json", json.dumps([{"name": "b.c", "parameters": {}}]))
    own_desk.write("two.json", json.dumps([{"name": "c", "parameters": {}}]))
    text = "base: base\ntoolsets: [{name: a, tools: one.json}, {name: a.b, tools: two.json}]\n"
    own_desk.write("external.yaml", text)
    own_desk.refused(SpecError, "'a.b.c' twice")


def test_a_template_that_fails(own_desk: Desk) -> None:
    (own_desk.folder / "chooser" / "chat_template.jinja").write_text("{{ raise_exception('no') }}", encoding="utf-8")
    own_desk.refused(TemplateError, "chat_template.jinja", "no")


def test_a_prompt_longer_than_the_context(own_desk: Desk) -> None:
    own_desk.rewrite("files.json", lambda value: value["tools"][0].update(description="long " * 400))
    own_desk.refused(RequestError, "2048")


def test_a_base_without_its_weights(own_desk: Desk) -> None:
    (own_desk.folder / "base" / "model.safetensors").unlink()
    own_desk.refused(CheckpointError, "model.safetensors")


def test_a_profile_that_nobody_knows(own_desk: Desk) -> None:
    own_desk.add("profile: cpu-x46\n")
    own_desk.refused(ProfileError, "cpu-x46", "cpu-x64")
