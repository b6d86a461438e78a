import inspect

from dualtune_edge.toolkit import errors
from dualtune_edge.toolkit.errors import EdgeError

TREE = [each for _, each in inspect.getmembers(errors, inspect.isclass) if issubclass(each, EdgeError)]


def test_every_error_has_an_exit_code_of_its_own() -> None:
    codes = [each.exit_code for each in TREE]
    assert len(set(codes)) == len(codes)
    assert all(code > 2 for each, code in zip(TREE, codes, strict=True) if each is not EdgeError)


def test_every_error_says_what_it_is_in_one_sentence() -> None:
    for each in TREE:
        assert each.__doc__ is not None
        assert each.__doc__.rstrip().endswith(".")


def test_an_error_says_where_what_and_what_to_do() -> None:
    error = EdgeError("a.json", found="nothing", expected="a list", fix="Write one.")
    assert str(error) == "a.json: found nothing; expected a list. Write one."
