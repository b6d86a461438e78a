"""What a user wrote → a frozen value, or one named error: the field, what stood there, and the nearest known name."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from dualtune_edge.toolkit.errors import EdgeError

Model = TypeVar("Model", bound=BaseModel)


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
            raise error(place, found="nothing", expected="a value", fix="Add it; it has no default.") from None
        together = first["type"] == "value_error" and isinstance(first["input"], dict)
        found = "keys that do not go together" if together else repr(first["input"])
        found = found if len(found) <= 80 else found[:77] + "…"  # a line's worth
        raise error(place, found=found, expected=_sentence(first["msg"]), fix="Correct this value.") from None


def nearest(name: str, known: Iterable[str]) -> str:
    """What to do about an unknown name: take the nearest known one, or any of them."""
    match = difflib.get_close_matches(name, list(known), n=1)
    return f"Did you mean {match[0]!r}?" if match else "Use one of these."


def listing(names: Iterable[str]) -> str:
    """Names for the `expected` part of an error."""
    return "one of " + ", ".join(names)


def _sentence(message: str) -> str:
    """Pydantic's message as what was expected: 'Input should be a valid integer' → 'a valid integer'."""
    if message.startswith("Input is not a valid path"):
        return "a path"
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
