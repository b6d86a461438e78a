import inspect

from dualtune_edge.toolkit import errors
from dualtune_edge.toolkit.errors import EdgeError

TREE = [error for _, error in inspect.getmembers(errors, inspect.isclass) if issubclass(error, EdgeError)]


def test_every_error_has_an_exit_code_of_its_own() -> None:
    codes = [error.exit_code for error in TREE]
    assert len(set(codes)) == len(codes)
    assert all(code > 2 for error, code in zip(TREE, codes, strict=True) if error is not EdgeError)


def test_every_error_says_what_it_is_in_one_sentence() -> None:
    for error in TREE:
        assert error.__doc__ is not None
        assert error.__doc__.rstrip().endswith(".")


def test_an_error_says_where_what_and_what_to_do() -> None:
    error = EdgeError("a.json", found="nothing", expected="a list", fix="Write one.")
    assert str(error) == "a.json: found nothing; expected a list. Write one."
