"""Every path that CONTRIBUTING.md names is there, and the decisions are ten."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
PATHS = sorted(set(re.findall(r"`([\w./-]+(?:\.\w+|/))`", PAGE)) - {"../shared/data/bfcl"})
TARGETS = sorted(set(re.findall(r"make (\w+)", PAGE)))


def rows(heading: str) -> list[str]:
    section = PAGE.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    return re.findall(r"^\| (?!what|word|-)(.+?) \|", section, re.MULTILINE)


def test_paths_are_named() -> None:
    assert len(PATHS) > 40


@pytest.mark.parametrize("path", [path for path in PATHS if path not in {"dualtune.yaml", "../shared/data/bfcl"}])
def test_a_path_that_is_named_is_there(path: str) -> None:
    assert (ROOT / path).exists()


def test_ten_decisions_and_every_kind_of_change_have_a_row() -> None:
    assert len(rows("Where is it decided …?")) >= 10
    changes = " ".join(rows("Where do I change …?"))
    kinds = ("architecture", "tool format", "profile", "command", "error", "provider", "recipe", "kind of adapter")
    assert [kind for kind in kinds if kind not in changes] == []


def test_make_has_every_target_that_is_named() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert [target for target in TARGETS if not re.search(rf"^{target}:", makefile, re.MULTILINE)] == []


def test_the_card_has_ten_lines() -> None:
    card = PAGE.split("## English\n", 1)[1]
    assert re.findall(r"^(\d+)\. ", card, re.MULTILINE) == [str(number) for number in range(1, 11)]
