"""The report, as values, as text and as a page."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from html import unescape
from pathlib import Path

import pytest
from scripted_answers import Scripted, request, result

from dualtune_edge.runtime.evaluate.answers import Answer, answers
from dualtune_edge.runtime.evaluate.cases import Case
from dualtune_edge.runtime.evaluate.page import page, refuse_unwritable, write_page
from dualtune_edge.runtime.evaluate.report import Evaluation, Side, compare, side
from dualtune_edge.runtime.evaluate.text import describe, percent
from dualtune_edge.toolkit.errors import DataError, OutputError, RequestError

LOG = {"path": "/srv", "count": 3}
REFUSED = RequestError("arguments", found="no end", expected="an end", fix="Ask again.")
ASKED = [
    request("git", "log", LOG),
    request("git", "log", LOG, said="<b>\x1b[31m & more"),
    request("git", "show", {"path": "/srv"}),
    request("git", None),
    request("files", "read", {"path": "x"}),
    request("files", None),
]


@pytest.fixture
def found() -> list[Answer]:
    script = [
        result("git", "log", LOG, probability=0.9),
        result("git", "log", {"path": "/etc", "all": True}, probability=0.3),
        result("git", "log", LOG, probability=0.6),
        result("git", None, probability=0.95),
        result("git", "log", LOG, probability=0.5),
        result("files", "read", {"path": "x"}),
        REFUSED,
    ]
    return answers(Scripted(list(script)), map(Case, ASKED), lambda _number: None)


@pytest.fixture
def ours(found: list[Answer]) -> Side:
    return side("mine", found, toolsets=2, aim=0.9)


@pytest.fixture
def report(found: list[Answer], ours: Side) -> Evaluation:
    worse = [one.model_copy(update={"within": None, "answer": None}) for one in found]
    other = side("theirs", worse, toolsets=2, aim=0.9)
    return Evaluation(data="heldout.jsonl", turns=6, ours=ours, against=compare(found, worse, other))


def test_sides_that_answered_other_turns_are_not_compared(found: list[Answer], ours: Side) -> None:
    for others in (found[1:], [found[0].model_copy(update={"where": "elsewhere:1"}), *found[1:]]):
        with pytest.raises(DataError, match=f"the {len(found)} that the first one answers"):
            compare(found, others, ours)


def test_every_score_has_its_own_turns(ours: Side) -> None:
    scores = ours.scores
    assert scores.toolsets
    assert [(share.right, share.of) for share in (scores.toolsets, scores.tools, scores.calls)] == [
        (4, 6),
        (4, 6),
        (2, 4),
    ]
    assert [(share.right, share.of) for share in (scores.routed_calls, scores.abstentions, scores.needed)] == [
        (1, 4),
        (1, 2),
        (4, 4),
    ]
    assert (scores.answers.right, scores.answers.of) == (2, 6), "a call and an abstention"


def test_no_tool_is_right_in_any_toolset() -> None:
    script = Scripted([result("files", None), result("git", "log", LOG)])
    scores = side(
        "mine", answers(script, [Case(request("git", None))], lambda _number: None), toolsets=2, aim=0.9
    ).scores
    assert scores.toolsets
    assert (scores.abstentions.right, scores.answers.right, scores.tools.right, scores.toolsets.right) == (1, 1, 0, 0)


def test_with_one_toolset_there_is_no_routing_to_count(found: list[Answer]) -> None:
    assert side("mine", found, toolsets=1, aim=0.9).scores.toolsets is None


def test_arguments_are_counted_by_name_the_worst_first(ours: Side) -> None:
    assert [
        (score.tool, score.name, score.right.right, score.right.of, score.wrong, score.missing, score.extra)
        for score in ours.properties
    ] == [
        ("log", "all", 0, 1, 0, 0, 1),
        ("log", "path", 1, 2, 1, 0, 0),
        ("log", "count", 1, 2, 0, 1, 0),
        ("read", "path", 1, 1, 0, 0, 0),
    ]


def test_confusions_are_within_the_expected_toolset(ours: Side) -> None:
    assert {(entry.toolset, entry.expected, entry.answered): entry.count for entry in ours.confusions} == {
        ("files", "read", "read"): 1,
        ("git", "log", "log"): 2,
        ("git", "show", "log"): 1,
        ("git", None, None): 1,
    }


def test_errors_are_grouped_with_examples(ours: Side) -> None:
    assert {entry.kind: entry.count for entry in ours.mistakes} == {
        "arguments with other values": 1,
        "another tool": 1,
        "another toolset": 1,
        "refused": 1,
    }
    assert all(len(entry.examples) == 1 for entry in ours.mistakes)
    assert {entry.kind: entry.examples[0].probability for entry in ours.mistakes} == {
        "arguments with other values": 0.3,
        "another tool": 0.6,
        "another toolset": 0.5,
        "refused": 0.0,
    }


def test_of_many_errors_a_few_are_shown(found: list[Answer]) -> None:
    (mistakes,) = side("mine", [found[2]] * 9, toolsets=1, aim=0.9).mistakes
    assert (mistakes.count, len(mistakes.examples)) == (9, 3)


def test_the_comparison_is_of_the_same_turns(report: Evaluation) -> None:
    assert report.against
    assert (report.against.tools.only_ours, report.against.tools.only_theirs) == (4, 0)
    assert report.against.right.difference == pytest.approx(2 / 6)


def test_the_text_says_all_of_it(report: Evaluation) -> None:
    text = describe(report)
    for words in (
        "whole call",
        "50.0% (15.0–85.0)",
        "theirs",
        "git.log.path",
        "min_probability 0.9000",
        "1 of 4 calls",
    ):
        assert words in text
    assert "\x1b" not in text
    assert "files.read.path" not in text, "it is right wherever it is given"
    assert "tools: +66.7 points" in text


def test_the_page_is_whole_and_loads_nothing(report: Evaluation) -> None:
    text = page(report)
    for words in ("<b>", "http:", "https:", "<script", "src=", "\x1b"):
        assert words not in text.partition("<body>")[2].replace("http://www.w3.org", "")
    assert "&lt;b&gt;\\x1b[31m &amp; more" in text
    pictures = ["<svg" + part.partition("</svg>")[0] + "</svg>" for part in text.split("<svg")[1:]]
    assert len(pictures) == 7 + 2  # a bar a score, reliability, thresholds
    for picture in pictures:
        ET.fromstring(picture)  # noqa: S314 - our own text


def test_a_side_without_probabilities_has_no_pictures_of_them(found: list[Answer]) -> None:
    plain = side("endpoint", found, toolsets=2, aim=0.9, calibrated=False)
    report = Evaluation(data="x", turns=6, ours=plain, against=None)
    assert "min_probability" not in page(report) + describe(report)


def test_a_page_that_cannot_be_written_is_a_named_error(report: Evaluation, tmp_path: Path) -> None:
    with pytest.raises(OutputError):
        write_page(tmp_path / "absent" / "page.html", page(report))


def test_that_it_cannot_be_written_is_known_before_anything_is_answered(tmp_path: Path) -> None:
    for path in (tmp_path / "absent" / "page.html", tmp_path):
        with pytest.raises(OutputError):
            refuse_unwritable(path)
    new, old = tmp_path / "new.html", tmp_path / "old.html"
    old.write_text("yesterday's", encoding="utf-8")
    refuse_unwritable(new)
    refuse_unwritable(old)
    assert [(path.name, path.read_text("utf-8")) for path in tmp_path.iterdir()] == [("old.html", "yesterday's")]


def test_text_page_and_values_say_the_same(report: Evaluation) -> None:
    """Every score, every difference, the probabilities and the suggestion."""
    text, html = describe(report), unescape(page(report))
    calibration, scores = report.ours.calibration, report.ours.scores
    assert calibration
    assert calibration.suggested
    shares = [getattr(scores, name) for name in type(scores).model_fields]
    said = [percent(share) for share in shares]
    said += [f"{calibration.error:.3f}", f"{calibration.suggested.min_probability:.4f}"]
    assert report.against
    said += [f"{100 * report.against.tools.difference:+.1f} points", f"{100 * report.against.right.low:+.1f} to"]
    said += [f"{mistakes.count} wrong: {mistakes.kind}" for mistakes in report.ours.mistakes]
    for words in said:
        assert words in text, words
        assert words in html, words


def test_the_pictures_show_the_aim_and_the_share_of_each_row(found: list[Answer]) -> None:
    pages = [
        page(Evaluation(data="x", turns=6, ours=side("mine", found, toolsets=2, aim=aim), against=None))
        for aim in (0.2, 0.8)
    ]
    lines = ["".join(line for line in text.split("<") if "#e45756" in line) for text in pages]
    assert lines[0] != lines[1]
    assert "rgba(76,120,168,0.85)" in pages[0], "all of a row, on the diagonal"
    assert "rgba(228,87,86,0.85)" in pages[0]


@pytest.mark.parametrize("aim", [0.9, 0.995, 1.0])
def test_an_aim_that_nothing_reaches_is_said_as_it_was_given(found: list[Answer], aim: float) -> None:
    wrong = [one for one in found if one.error() == "another tool"]
    report = Evaluation(data="x", turns=1, ours=side("mine", wrong, toolsets=2, aim=aim), against=None)
    for text in (describe(report), page(report)):
        assert f"leaves calls that are right in {100 * aim:g}%" in text


def test_a_curve_has_some_of_many_thresholds_and_the_last(found: list[Answer]) -> None:
    many = [found[0].model_copy(update={"probability": number / 500}) for number in range(500)]
    curve = side("mine", many, toolsets=2, aim=0.9).curve
    assert len(curve) <= 60
    assert (curve[-1].min_probability, curve[-1].kept.of) == (0, 500)
