import re
from pathlib import Path

from dualtune_edge.toolkit import errors

PAGE = Path(__file__).parents[2] / "docs" / "errors.md"


def test_the_page_has_every_error_with_its_code_and_its_sentence() -> None:
    written = set(re.findall(r"^\| (\d+) \| `(\w+)` \| (.+) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    kinds = errors.EdgeError.__subclasses__()
    assert written == {(str(kind.exit_code), kind.__name__, kind.__doc__) for kind in kinds}


def test_no_two_errors_share_a_code() -> None:
    codes = [kind.exit_code for kind in errors.EdgeError.__subclasses__()]
    assert len(codes) == len(set(codes))
    assert set(codes).isdisjoint({0, 1, 2, 130})
