import re
from pathlib import Path

from dualtune_edge.export.base.architectures import ARCHITECTURES, COMPOSITES
from dualtune_edge.toolkit import limits

PAGE = Path(__file__).parents[2] / "docs" / "limits.md"


def test_the_page_has_every_cap_with_its_value() -> None:
    written = dict(re.findall(r"^\| `([A-Z_]+)` \| (\S+) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    assert written == {name: f"{value:,}" for name, value in vars(limits).items() if name.isupper()}


def test_the_page_has_every_architecture_with_what_its_row_says() -> None:
    row = r"^\| `(\w+)` \| ([\w, ]+) \| (yes|no) \| (yes|no) \|"
    written = {name: facts for name, *facts in re.findall(row, PAGE.read_text(encoding="utf-8"), re.MULTILINE)}
    said = {True: "yes", False: "no"}
    assert written == {
        name: [", ".join(row.rope), said[row.optimum], said[row.static]] for name, row in ARCHITECTURES.items()
    }


def test_the_page_has_every_model_with_images() -> None:
    paragraph = next(
        part for part in PAGE.read_text(encoding="utf-8").split("\n\n") if "Of a model with images" in part
    )
    exported, _, _refused = paragraph.partition("Others, such as")
    assert set(re.findall(r"`(\w+ForConditionalGeneration)`", exported)) == set(COMPOSITES)
