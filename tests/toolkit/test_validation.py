from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field

from dualtune_edge.toolkit.errors import SpecError
from dualtune_edge.toolkit.frozen import Frozen
from dualtune_edge.toolkit.validation import validate


class Leaf(Frozen):
    colour: str = "green"
    size: int = Field(default=1, ge=1)


class Tree(Frozen):
    name: str
    leaves: tuple[Leaf, ...] = ()
    by_name: dict[str, Leaf] = Field(default_factory=dict)
    crown: Leaf | None = None


def read(value: object) -> Tree:
    return validate(Tree, value, where="tree.yaml", error=SpecError)


def test_what_is_right_is_read() -> None:
    assert read({"name": "oak", "leaves": [{"size": 2}]}) == Tree(name="oak", leaves=(Leaf(size=2),))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"nam": "oak"}, r"tree\.yaml, nam: found the unknown key 'nam'; .* Did you mean 'name'"),
        (
            {"name": "oak", "leaves": [{"color": "x"}]},
            r"leaves\.0\.color: .* one of colour, size. Did you mean 'colour'",
        ),
        ({"name": "oak", "by_name": {"a": {"colr": "x"}}}, r"by_name\.a\.colr: .* Did you mean 'colour'"),
        ({"name": "oak", "crown": {"zzz": 1}}, r"crown\.zzz: .* one of colour, size. Use one of these"),
        ({"leaves": []}, r"tree\.yaml, name: found nothing"),
        ({"name": "oak", "crown": {"size": 0}}, r"crown\.size: found 0; expected at least 1"),
        ({"name": "x" * 3, "leaves": "y" * 200}, r"leaves: found 'y{70,80}…; expected a list"),
        (None, r"^tree\.yaml: found None; expected an object"),
        (5, r"^tree\.yaml: found 5; expected an object"),
        ({"name": 5}, "name: found 5; expected a text"),
        ({"name": "oak", "by_name": []}, r"by_name: found \[\]; expected an object"),
        ({"name": "oak", "leaves": [{"size": "x"}]}, "expected a whole number"),
        ({"name": "oak", "leaves": [{"size": 1.5}]}, "expected a whole number"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(value: object, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        read(value)


class Fields(Frozen):
    words: tuple[str, ...] = Field((), min_length=1, max_length=2)
    text: str = Field("abc", min_length=2, max_length=3, pattern="^[a-z]+$")
    above: float = Field(1.0, gt=0, lt=9)
    switch: bool = True
    place: Path = Path()
    kind: Literal["a", "b"] = "a"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"words": []}, "at least 1 of them"),
        ({"words": ["a"] * 3}, "at most 2 of them"),
        ({"text": "a"}, "a text of at least 2 characters"),
        ({"text": "abcd"}, "a text of at most 3 characters"),
        ({"text": "ABC"}, r"a text that matches \^\[a-z\]\+\$"),
        ({"text": "\ud800a"}, "Unicode text"),
        ({"above": 0}, "more than 0"),
        ({"above": 9}, "less than 9"),
        ({"above": "x"}, "a number"),
        ({"switch": "maybe"}, "true or false"),
        ({"place": 5}, "a path"),
        ({"kind": "c"}, "'a' or 'b'"),
    ],
)
def test_what_was_expected_is_said_in_plain_words(value: object, expected: str) -> None:
    """None of pydantic's own: a `Tuple` and what `should match` are its words, and nobody else's."""
    with pytest.raises(SpecError, match=f"expected {expected}[.]") as refusal:
        validate(Fields, value, where="tree.yaml", error=SpecError)
    assert not any(word in str(refusal.value) for word in ("Tuple", "should", "valid ", "Input", "String"))
