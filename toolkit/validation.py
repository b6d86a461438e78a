"""What a user wrote → a frozen value, or one named error: the field, what stood there, and the nearest known name."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from dualtune_edge.toolkit.errors import EdgeError

Model = TypeVar("Model", bound=BaseModel)

# By pydantic's name of the fault; others say by themselves what was expected.
_EXPECTED: Final = {
    **dict.fromkeys(("dict_type", "mapping_type", "model_type", "model_attributes_type"), "an object"),
    **dict.fromkeys(("tuple_type", "list_type", "set_type", "frozen_set_type"), "a list"),
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    "string_type": "a text",
    "string_unicode": "Unicode text",
    "path_type": "a path",
    "missing": "a value",
    "extra_forbidden": "a known key",
    "too_short": "at least {min_length} of them",
    "too_long": "at most {max_length} of them",
    "string_too_short": "a text of at least {min_length} characters",
    "string_too_long": "a text of at most {max_length} characters",
    "string_pattern_mismatch": "a text that matches {pattern}",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
}


def validate(
    model: type[Model],
    value: Any,
    *,
    where: str | Callable[[tuple[int | str, ...]], str],
    error: type[EdgeError],
    context: object = None,
) -> Model:
    """Read `value` (parsed TOML, YAML or JSON) as `model`.

    Args:
        model: what it is read as.
        value: what was parsed.
        where: the document's name, or a function that names a place in it.
        error: the class of the error.
        context: what the model's validators are given.

    Raises:
        EdgeError: of class `error`: a key is unknown, missing, or holds the wrong thing. It names one fault.

    """
    try:
        return model.model_validate(value, context=context)
    except ValidationError as failure:
        faults = failure.errors()
        # A misspelt key also leaves the right one missing; the misspelling says more.
        first = next((fault for fault in faults if fault["type"] == "extra_forbidden"), faults[0])
        loc = first["loc"]
        place = where(loc) if callable(where) else ", ".join(filter(None, (where, ".".join(map(str, loc)))))
        if first["type"] == "extra_forbidden":
            known = sorted(_known_keys(model, loc[:-1]))
            raise error(
                place,
                found=f"the unknown key {str(loc[-1])!r}",
                expected=listing(known),
                fix=nearest(str(loc[-1]), known),
            ) from None
        if first["type"] == "missing":
            raise error(place, found="nothing", expected=expectation(first), fix="Add it; it has no default.") from None
        together = first["type"] == "value_error" and isinstance(first["input"], dict)
        found = "keys that do not go together" if together else repr(first["input"])
        found = found if len(found) <= 80 else found[:77] + "…"  # a line's worth
        raise error(place, found=found, expected=expectation(first), fix="Correct this value.") from None


def nearest(name: str, known: Iterable[str]) -> str:
    """What to do about an unknown name: take the nearest known one, or any of them."""
    match = difflib.get_close_matches(name, list(known), n=1)
    return f"Did you mean {match[0]!r}?" if match else "Use one of these."


def listing(names: Iterable[str]) -> str:
    """Names for the `expected` part of an error."""
    return "one of " + ", ".join(names)


def expectation(fault: ErrorDetails) -> str:
    """What a fault of pydantic's expected, in our words: 'Input should be a valid tuple' is a list."""
    template = _EXPECTED.get(fault["type"])
    if template is not None:
        return template.format(**fault.get("ctx", {}))
    message = fault["msg"]
    for prefix in ("Input should be ", "Value error, "):
        message = message.removeprefix(prefix)
    return message


def _known_keys(model: type[BaseModel], path: Sequence[int | str]) -> set[str]:
    """The keys of the models that stand at `path` inside `model`."""
    here = [model]
    for part in path:
        inner = [
            m for outer in here if part in outer.model_fields for m in _models(outer.model_fields[str(part)].annotation)
        ]
        here = inner or here  # an index, a mapping's key or a union's tag: the same models still stand
    return {field.alias or name for m in here for name, field in m.model_fields.items()}


def _models(annotation: Any) -> list[type[BaseModel]]:
    """Every pydantic model inside a type: `tuple[A, ...] | None` → [A]."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]
