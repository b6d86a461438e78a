import json
from pathlib import Path

import pytest

from dualtune_edge.export.spec.document import ExportSpec, read_spec
from dualtune_edge.export.spec.parts import AdapterSpec, ParitySpec
from dualtune_edge.toolkit.bundle.parity import ParityLimits
from dualtune_edge.toolkit.bundle.quantization import Quantization
from dualtune_edge.toolkit.errors import SpecError

SPEC = """\
base: base
toolsets:
  - name: fs
    description: Files and folders
    tools: tools.json
    selection: chooser
    arguments: writers
"""


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    for folder in ("base", "chooser", "writers"):
        (tmp_path / folder).mkdir()
    (tmp_path / "tools.json").write_text(json.dumps([]), encoding="utf-8")
    (tmp_path / "own.jinja").write_text("", encoding="utf-8")
    return tmp_path


def read(desk: Path, text: str) -> ExportSpec:
    (desk / "dualtune.yaml").write_text(text, encoding="utf-8")
    return read_spec(desk / "dualtune.yaml")


def refused(desk: Path, text: str) -> SpecError:
    with pytest.raises(SpecError) as caught:
        read(desk, text)
    return caught.value


def test_paths_are_relative_to_the_file(desk: Path) -> None:
    spec = read(desk, SPEC)
    (toolset,) = spec.toolsets
    assert spec.base == desk / "base"
    assert toolset.tools == desk / "tools.json"
    assert toolset.selection == AdapterSpec(path=desk / "chooser")
    assert toolset.arguments == desk / "writers"


def test_what_is_left_out_has_the_documented_default(desk: Path) -> None:
    spec = read(desk, SPEC)
    assert (spec.mode, spec.profiles, spec.no_tool, spec.quantization) == (
        None,
        (),
        "summarize",
        Quantization(),
    )


def test_one_adapter_may_differ_in_mode(desk: Path) -> None:
    text = SPEC.replace("arguments: writers", "arguments: {read: chooser, write: {path: writers, mode: merged}}")
    assert read(desk, text).toolsets[0].arguments == {
        "read": AdapterSpec(path=desk / "chooser"),
        "write": AdapterSpec(path=desk / "writers", mode="merged"),
    }


def test_a_profile_file_is_a_path_and_a_profile_name_is_not(desk: Path) -> None:
    assert read(desk, SPEC + "profile: mine.toml\n").profiles == (str(desk / "mine.toml"),)
    assert read(desk, SPEC + "profile: cpu-x64\n").profiles == ("cpu-x64",)
    both = read(desk, SPEC + "profile: [cpu-x64, mine.toml]\n")
    assert both.profiles == ("cpu-x64", str(desk / "mine.toml"))


def test_the_templates_of_a_toolset(desk: Path) -> None:
    spec = read(desk, SPEC + "    templates: {arguments: own.jinja}\ntoolset_template: own.jinja\n")
    assert spec.toolsets[0].templates.arguments == desk / "own.jinja"
    assert spec.toolset_template == desk / "own.jinja"


@pytest.mark.parametrize(
    ("change", "line", "place", "nearest"),
    [
        (("selection:", "selecton:"), 6, "toolsets[0].selecton", "selection"),
        (("base:", "bas:"), 1, "bas", "base"),
        (("base: base", "base: base\nquantization: {bit: 4}"), 2, "quantization.bit", "bits"),
        (("selection: chooser", "selection: {pth: chooser}"), 6, "toolsets[0].selection.pth", "path"),
        (("arguments: writers", "arguments: {a: {path: base, mod: x}}"), 7, "toolsets[0].arguments.a.mod", "mode"),
        (("selection: chooser", "templates: {select: own.jinja}"), 6, "toolsets[0].templates.select", "selection"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_known_one(
    desk: Path, change: tuple[str, str], line: int, place: str, nearest: str
) -> None:
    error = refused(desk, SPEC.replace(*change))
    assert f"line {line}," in error.where
    assert error.where.endswith(place)
    assert f"Did you mean {nearest!r}?" in error.fix


@pytest.mark.parametrize(
    ("change", "place", "found", "expected"),
    [
        (("name: fs", "name: 4"), "line 3, toolsets[0].name", "4", "a text"),
        (("name: fs", 'name: "a\\nb"'), "line 3, toolsets[0].name", "a\\nb", "printable"),
        (("name: fs", 'name: ""'), "line 3, toolsets[0].name", "''", "at least 1 character"),
        (("base: base", "base: base\nmode: mergd"), "line 2, mode", "'mergd'", "'external' or 'merged'"),
        (("base: base", "base: base\nquantization: {bits: 5}"), "line 2, quantization.bits", "5", "4, 8 or 32"),
        (("base: base", "base: base\nquantization: int4"), "line 2, quantization", "'int4'", "'auto', 'gptq-128'"),
        (("base: base", "base: base\nquantization: 4"), "line 2, quantization", "4", "a recipe's name, `auto`, or"),
        (("base: base", "base: base\nquantization: {lm_head_bits: 8}"), "line 2, quantization", "keys", "k_quant"),
        (("arguments: writers", "arguments: [a]"), "line 7, toolsets[0].arguments", "['a']", "folder of adapter"),
        (("selection: chooser", "selection: 3"), "line 6, toolsets[0].selection", "3", "adapter's folder"),
        (("base: base\n", ""), "base", "nothing", "a value"),
        (("base: base", "base: null"), "line 1, base", "None", "a path"),
        (("base: base", "base: base\nprefix_states_mb: yes"), "line 2, prefix_states_mb", "True", "whole number"),
        (
            ("base: base", "base: base\nparity: {limits: {max_kl: yes}}"),
            "line 2, parity.limits.max_kl",
            "True",
            "number",
        ),
    ],
)
def test_a_wrong_value_is_refused_by_its_place(
    desk: Path, change: tuple[str, str], place: str, found: str, expected: str
) -> None:
    error = refused(desk, SPEC.replace(*change))
    assert error.where.endswith(place)
    assert found in error.found
    assert expected in error.expected


@pytest.mark.parametrize(
    ("text", "line", "found"),
    [
        (SPEC + "base: other\n", 8, "`base` twice"),
        (SPEC.replace("    tools:", "    name: b\n    tools:"), 5, "`toolsets[0].name` twice"),
        (SPEC.replace("name: fs", "yes: fs"), 3, "the key True"),  # YAML 1.1
        (SPEC + "prefix_states_mb: 010\n", 8, "010, which YAML 1.1 reads as 8"),
        (SPEC + "prefix_states_mb: 1:30\n", 8, "1:30, which YAML 1.1 reads as 90"),
        ("base: [\n", 2, "expected the node content"),
        ("base: !!python/name:os.system\n", 1, "could not determine a constructor"),
    ],
)
def test_yaml_that_hides_a_mistake_is_refused(desk: Path, text: str, line: int, found: str) -> None:
    error = refused(desk, text)
    assert f"line {line}" in error.where
    assert found in error.found


def test_aliases_cannot_grow_a_file_without_end(desk: Path) -> None:
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    rows += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    assert "without end" in refused(desk, "\n".join(rows)).found


def test_a_file_that_refers_to_itself_is_refused(desk: Path) -> None:
    assert "without end" in refused(desk, "base: &a [*a]\n").found


@pytest.mark.parametrize("text", ["", "- base\n", "base\n"])
def test_a_file_without_keys_is_refused(desk: Path, text: str) -> None:
    assert "dualtune.yaml" in refused(desk, text).where


def test_a_file_that_is_not_there(desk: Path) -> None:
    with pytest.raises(SpecError, match=r"missing\.yaml"):
        read_spec(desk / "missing.yaml")


def test_two_toolsets_of_one_name(desk: Path) -> None:
    error = refused(desk, SPEC + "  - {name: fs, tools: tools.json}\n")
    assert "toolsets[1].name" in error.where
    assert "second toolset named 'fs'" in error.found


@pytest.mark.parametrize(
    ("old", "new", "place", "found"),
    [
        ("base: base", "base: bases", "line 1, base", "bases, which does not exist"),
        ("base: base", "base: tools.json", "line 1, base", "tools.json, which is no folder"),
        ("base: base", f"base: {'b' * 300}", "line 1, base", "name too long"),
        ("tools: tools.json", "tools: base", "toolsets[0].tools", "base, which is no file"),
        ("selection: chooser", "selection: choser", "toolsets[0].selection", "choser, which does not exist"),
        ("arguments: writers", "arguments: writer", "toolsets[0].arguments", "writer, which does not exist"),
        ("arguments: writers", "arguments: {a: writer}", "toolsets[0].arguments.a", "writer, which does not exist"),
        ("base: base", "base: base\ntoolset_template: no.jinja", "toolset_template", "no.jinja, which does not exist"),
    ],
)
def test_a_path_that_leads_nowhere(desk: Path, old: str, new: str, place: str, found: str) -> None:
    error = refused(desk, SPEC.replace(old, new))
    assert error.where.endswith(place)
    assert found in error.found


def test_the_nearest_path_is_named(desk: Path) -> None:
    assert str(desk / "chooser") in refused(desk, SPEC.replace("chooser", "choser")).fix


def test_flags_say_the_same_as_a_file(desk: Path) -> None:
    spec = ExportSpec.from_flags(
        desk / "base", desk / "tools.json", selection=desk / "chooser", arguments=desk / "writers", mode="merged"
    )
    text = SPEC.replace("name: fs", "name: tools").replace("    description: Files and folders\n", "")
    assert spec == read(desk, "mode: merged\n" + text)


def test_what_is_copied_and_what_shows_it(desk: Path) -> None:
    (desk / "data.jsonl").touch()
    more = "    copied: {read: {path: words, 'edits[].old': free}}\n    trajectories: data.jsonl\n"
    (toolset,) = read(desk, SPEC + more).toolsets
    assert toolset.copied == {"read": {"path": "words", "edits[].old": "free"}}
    assert toolset.trajectories == desk / "data.jsonl"
    assert "line 8" in refused(desk, SPEC + "    copied: {read: {path: word}}\n").where
    assert "data.json" in refused(desk, SPEC + "    trajectories: data.json\n").found
    flags = ExportSpec.from_flags(desk / "base", desk / "tools.json", trajectories=desk / "data.jsonl")
    assert flags.toolsets[0].trajectories == desk / "data.jsonl"
    with pytest.raises(SpecError, match="--trajectories"):
        ExportSpec.from_flags(desk / "base", desk / "tools.json", trajectories=desk / "nothing")


def test_a_wrong_flag_is_named(desk: Path) -> None:
    for flag, arguments in {
        "--base": (desk / "nothing", desk / "tools.json"),
        "--tools": (desk / "base", desk / "nothing.json"),
    }.items():
        with pytest.raises(SpecError) as caught:
            ExportSpec.from_flags(*arguments)
        assert caught.value.where == flag
    with pytest.raises(SpecError, match="which is no file"):
        ExportSpec.from_flags(desk / "base", Path())
    with pytest.raises(SpecError) as caught:
        ExportSpec.from_flags(desk / "base", desk / "tools.json", selection=desk / "nothing")
    assert caught.value.where == "--selection"


def test_parity_is_on_unless_it_is_switched_off(desk: Path) -> None:
    assert read(desk, SPEC).parity == ParitySpec()
    assert read(desk, SPEC + "parity: off\n").parity is None
    assert read(desk, SPEC + "parity: false\n").parity is None


def test_what_is_compared_and_how_far_it_may_differ(desk: Path) -> None:
    (desk / "own.jsonl").write_text("", encoding="utf-8")
    text = "parity: {prompts: 4, calibration: own.jsonl, before_quantization: true, limits: {max_kl: 0.1}}\n"
    parity = read(desk, SPEC + text).parity
    assert parity is not None
    assert (parity.prompts, parity.calibration, parity.before_quantization) == (4, desk / "own.jsonl", True)
    assert parity.limits == ParityLimits(max_kl=0.1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("parity:", "`off`, or a mapping"),
        ("parity: on", "`off`, or a mapping"),
        ("parity: {prompts: 0}", "at least 1"),
        ("parity: {prompts: 65}", "at most 64"),
        ("parity: {argument_tokens: 0}", "at least 1"),
        ("parity: {limits: {max_kl: -1}}", "at least 0"),
        ("parity: {limits: {max_kl: .nan}}", "a finite number"),
        ("parity: {limits: {min_top1: 1.5}}", "at most 1"),
        ("parity: {limits: {max_lk: 1}}", "Did you mean 'max_kl'?"),
        ("parity: {calibration: own.jsnl}", "does not exist"),
    ],
)
def test_nonsense_about_parity_is_refused(text: str, words: str, desk: Path) -> None:
    error = refused(desk, f"{SPEC}{text}\n")
    assert words in str(error)
    assert "line 8" in error.where
