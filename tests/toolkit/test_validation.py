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
        ({"name": "oak", "crown": {"size": 0}}, r"crown\.size: found 0; expected greater than or equal to 1"),
        ({"name": "x" * 3, "leaves": "y" * 200}, r"leaves: found 'y{70,80}…; expected a valid tuple"),
        (None, r"^tree\.yaml: found None"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(value: object, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        read(value)
