"""BFCL's rows: read where the bundle has their functions, and compared as its own checker does."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from scripted_answers import Scripted, result

from dualtune_edge.runtime.bundle.opening import open_bundle
from dualtune_edge.runtime.evaluate.answers import answers
from dualtune_edge.runtime.evaluate.bfcl import accepts, first_values, is_bfcl, read_bfcl
from dualtune_edge.toolkit.bundle.manifest import Manifest, ToolsetEntry
from dualtune_edge.toolkit.errors import DataError
from dualtune_edge.toolkit.tools.tool_files import parse_tools

DATA = Path(os.environ.get("DUALTUNE_BFCL", Path(__file__).parents[4] / "shared" / "data" / "bfcl"))
FUNCTIONS = [
    {
        "name": "math.area",
        "description": "Area.",
        "parameters": {
            "type": "dict",
            "properties": {"base": {"type": "integer"}, "unit": {"type": "string"}},
            "required": ["base"],
        },
    }
]
QUESTION = {"id": "simple_0", "question": [[{"role": "user", "content": "area of 4?"}]], "function": FUNCTIONS}
TRUTH = {"id": "simple_0", "ground_truth": [{"math.area": {"base": [4], "unit": ["square units", ""]}}]}


@pytest.fixture
def manifest(exported: Path) -> Manifest:
    """A bundle's, whose toolset `git` has the functions."""
    manifest = open_bundle(exported).manifest
    files, git = manifest.toolsets
    toolset = git.toolset.model_copy(update={"tools": parse_tools(FUNCTIONS, where="test")})
    entry = ToolsetEntry(toolset=toolset, selection=git.selection, arguments=git.arguments)
    return manifest.model_copy(update={"toolsets": (files, entry)})


def write(folder: Path, name: str, questions: list[Any], truths: list[Any] | None) -> Path:
    (folder / "possible_answer").mkdir()
    (folder / name).write_text("\n".join(map(json.dumps, questions)), encoding="utf-8")
    if truths is not None:
        (folder / "possible_answer" / name).write_text("\n".join(map(json.dumps, truths)), encoding="utf-8")
    return folder / name


def test_rows_that_the_bundle_has_are_read_with_all_accepted_values(manifest: Manifest, tmp_path: Path) -> None:
    foreign = QUESTION | {"id": "simple_1", "function": [FUNCTIONS[0] | {"name": "other"}]}
    path = write(tmp_path, "simple.json", [QUESTION, foreign], [TRUTH, TRUTH | {"id": "simple_1"}])
    (case,), passed_over = read_bfcl(path, manifest)
    assert passed_over == 1
    assert case.request.call
    assert (case.request.toolset, case.request.call.arguments) == ("git", {"base": 4, "unit": "square units"})
    assert case.offered == {"git": {"math.area"}}


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"base": 4}, None),
        ({"base": 4, "unit": "Square-Units"}, None),
        ({"base": 4, "unit": "metres"}, "arguments with other values"),
        ({"unit": "square units"}, "arguments missing"),
        ({"base": 4, "colour": "red"}, "arguments beyond the expected ones"),
    ],
)
def test_an_accepted_answer_is_right(
    arguments: dict[str, Any], error: str | None, manifest: Manifest, tmp_path: Path
) -> None:
    cases, _ = read_bfcl(write(tmp_path, "simple.json", [QUESTION], [TRUTH]), manifest)
    (found,) = answers(Scripted([result("git", "math.area", arguments)]), cases, lambda _number: None)
    assert found.error() == error


def test_irrelevant_rows_need_no_call(manifest: Manifest, tmp_path: Path) -> None:
    cases, _ = read_bfcl(write(tmp_path, "irrelevance.json", [QUESTION], None), manifest)
    script = Scripted([result("git", None)])
    (found,) = answers(script, cases, lambda _number: None)
    assert found.right
    assert script.offered == [{"git": {"math.area"}}], "the row's functions alone"


def test_a_row_ends_where_its_line_does_and_the_file_may_begin_with_a_mark(manifest: Manifest, tmp_path: Path) -> None:
    """U+2028 ends a line for Python's `splitlines`, and stands in JSON's texts as any other character."""
    said = "area\u2028of 4?"
    row = QUESTION | {"question": [[{"role": "user", "content": said}]]}
    path = write(tmp_path, "simple.json", [QUESTION], [TRUTH])
    path.write_text(json.dumps(row, ensure_ascii=False), encoding="utf-8-sig")
    (case,), _ = read_bfcl(path, manifest)
    assert case.request.messages[0].content == said


@pytest.mark.parametrize(
    ("questions", "truths", "found"),
    [
        ([QUESTION], None, "no such file"),
        ([QUESTION], [TRUTH | {"id": "simple_1"}], "no answer to simple_0"),
        ([QUESTION], [{"id": "simple_0"}], "no answer to simple_0"),
        ([QUESTION], [TRUTH | {"ground_truth": [{}, {}]}], "several calls"),
        ([QUESTION | {"question": [[], []]}], [TRUTH], "several calls or turns"),
        ([QUESTION | {"function": 3}], [TRUTH], "expected a row of BFCL"),
        ([QUESTION | {"function": [FUNCTIONS[0] | {"name": "x"}]}], [TRUTH], "no toolset"),
        ([QUESTION | {"function": [FUNCTIONS[0] | {"parameters": {"type": "dict"}}]}], [TRUTH], "no toolset"),
        ([{"question": 1}], [TRUTH], "without an id"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    questions: list[Any], truths: list[Any] | None, found: str, manifest: Manifest, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=found):
        read_bfcl(write(tmp_path, "simple.json", questions, truths), manifest)


@pytest.mark.parametrize(
    ("accepted", "value", "right"),
    [
        ([4], 4, True),
        ([4], 4.0, True),
        ([4], "4", False),
        ([1], True, False),
        ([True], True, True),
        (["New York, NY"], "new york ny", True),
        (["it's"], 'it"s', True),
        (["a", ""], "", True),
        (["a", ""], "b", False),
        (["a", ""], "-", True),  # an empty text, without its punctuation
        (["a", ""], 0, False),
        ([["a b", "c"]], ["ab", "C"], True),
        ([["a", "b"]], ["b", "a"], False),
        ([{"x": [1, 2], "y": ["", 3]}], {"x": 2}, True),
        ([{"x": [1]}], {}, False),
        ([{"x": [1]}], {"x": 1, "z": 1}, False),
    ],
)
def test_values_are_compared_as_bfcl_does(accepted: list[Any], value: Any, *, right: bool) -> None:
    assert accepts(accepted, value) is right


def test_a_call_that_is_right_leaves_out_what_may_be_left_out_first() -> None:
    assert first_values({"a": ["", 3], "b": [{"x": ["", 1], "y": [2, ""]}]}) == {"b": {"y": 2}}


@pytest.mark.skipif(not DATA.is_dir(), reason=f"the BFCL data is not at {DATA}")
@pytest.mark.parametrize("name", ["BFCL_v4_simple_python.json", "BFCL_v4_multiple.json"])
def test_of_all_rows_the_first_accepted_values_are_accepted(name: str) -> None:
    questions = (DATA / name).read_text(encoding="utf-8").splitlines()
    assert all(is_bfcl(json.loads(line)) for line in questions)
    for line in (DATA / "possible_answer" / name).read_text(encoding="utf-8").splitlines():
        (truth,) = json.loads(line)["ground_truth"]
        for accepted in truth.values():
            assert all(accepts(accepted[key], value) for key, value in first_values(accepted).items())
