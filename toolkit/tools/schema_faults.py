"""Whether a value is what a JSON Schema allows: the same answer at the desk and on the device."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from functools import cache
from typing import Any, Final

import jsonschema
from referencing import Registry
from referencing.exceptions import Unresolvable

from dualtune_edge.toolkit.patterns import PatternError
from dualtune_edge.toolkit.tools.metaschemas import checker
from dualtune_edge.toolkit.tools.schema_keywords import PATTERN_KEYWORDS

_MESSAGE: Final = 200  # characters of a fault in a message


def fault(value: object, schema: dict[str, Any]) -> str | None:
    """Why the schema refuses the value; None if it does not. The draft is the one that `$schema` names."""
    validator = _exact(validator_class(schema))(schema, registry=Registry())  # an empty registry: nothing is fetched
    try:
        error = jsonschema.exceptions.best_match(validator.iter_errors(value))
    except Unresolvable as unresolvable:
        return f"a reference that leads nowhere: {unresolvable}"
    except PatternError as error:
        return str(error)
    except RecursionError:
        return "a value and a schema that are nested too deeply together"
    if error is None:
        return None
    message = error.message if len(error.message) <= _MESSAGE else f"{error.message[:_MESSAGE]}…"  # it holds the value
    return f"{message} (at {error.json_path})"


def schema_fault(schema: dict[str, Any]) -> str | None:
    """Why the schema is none in its own draft; None if it is one. Patterns are read elsewhere."""
    error = next(checker(validator_class(schema)).iter_errors(schema), None)
    if error is None:
        return None
    return f"{error.message[:_MESSAGE]} (at {'/'.join(map(str, error.absolute_path)) or 'the schema'})"


def is_known(schema: dict[str, Any]) -> bool:
    """Whether there is a validator of the draft that `$schema` names, by the very name."""
    absent = jsonschema.Draft3Validator  # which is used for nothing here
    return jsonschema.validators.validator_for(schema, default=absent) is not absent


def validator_class(schema: dict[str, Any]) -> Any:
    """That of the draft that `$schema` names; without one, or with an unknown one, the newest."""
    return jsonschema.validators.validator_for(schema, jsonschema.Draft202012Validator)


@cache
def _exact(validator_class: Any) -> Any:
    return jsonschema.validators.extend(  # type: ignore[no-untyped-call]
        validator_class, {"multipleOf": _multiple_of, "$ref": _reference, **PATTERN_KEYWORDS}
    )


def _reference(validator: Any, reference: str | None, value: object, schema: object) -> Iterator[Any]:
    """One that is null is none: drafts before 2019-09 do not check what it is."""
    if reference is not None:
        yield from jsonschema.Draft202012Validator.VALIDATORS["$ref"](validator, reference, value, schema)


def _multiple_of(
    validator: Any,
    factor: float,
    value: object,
    schema: object,  # noqa: ARG001 - jsonschema passes it
) -> Iterator[jsonschema.ValidationError]:
    """In decimals, as both are written: jsonschema divides floats, by which 19.99 is no multiple of 0.01."""
    if validator.is_type(value, "number") and Fraction(repr(value)) % Fraction(repr(factor)):
        yield jsonschema.ValidationError(f"{value!r} is not a multiple of {factor!r}")
