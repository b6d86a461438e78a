"""A tool's argument schema, read: checked, bounded, and with the constraint by which arguments are written."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from dualtune_edge.toolkit import limits
from dualtune_edge.toolkit.errors import ToolsError
from dualtune_edge.toolkit.tools.constraint import Constraint, constrain, translate
from dualtune_edge.toolkit.tools.dialects import Dialect
from dualtune_edge.toolkit.tools.parts import SchemaReadError
from dualtune_edge.toolkit.tools.schema_bounds import check_bounds
from dualtune_edge.toolkit.tools.schema_faults import fault, is_known, schema_fault


@dataclass(frozen=True)
class Reading:
    """What a tool's schema says. `schema` judges values: as it was given, or else translated to JSON Schema 2020-12."""

    schema: dict[str, Any]
    constraint: Constraint

    def fault(self, arguments: object) -> str | None:
        """Why a call cannot have these arguments: the schema refuses them, or they hold what it does not declare."""
        return fault(arguments, self.schema) or fault(arguments, self.constraint.schema)


def read_schema(schema: object, where: str) -> Reading:
    """Read a tool's schema.

    Args:
        schema: what the tool list says.
        where: the name that errors give it.

    Raises:
        ToolsError: not a JSON Schema of an object, too large, or a reference to another document or to nowhere.

    """
    if not isinstance(schema, dict):
        raise _refuse(where, f"a schema that is {type(schema).__name__}", "a JSON object", "Correct the tool list.")
    check_bounds(schema, where)
    try:
        return _reading(json.dumps(schema))
    except SchemaReadError as error:
        fix = "Correct the tool list; docs/limits.md says what is read."
        raise _refuse(where, str(error), "a JSON Schema of the arguments", fix) from None
    except RecursionError:
        found = "references through too many schemas"
        raise _refuse(where, found, "a smaller schema", "Write the definitions out.") from None


@lru_cache(maxsize=limits.TOOLS)
def _reading(text: str) -> Reading:
    """Of the schema's JSON: a tool list is read once, and its tools are asked often."""
    schema: dict[str, Any] = json.loads(text)
    dialect = Dialect.of(schema)
    _refuse_drafts(schema)
    _refuse_types(dialect.read(schema))
    known = is_known(schema) if dialect.draft else not dialect.bfcl
    refused = schema_fault(schema)
    judge = schema
    if refused or not known:
        judge = translate(schema)
        if still := schema_fault(judge):
            raise SchemaReadError(still if dialect.bfcl else refused or still)  # the draft does not know BFCL's types
    return Reading(judge, constrain(schema))


def _refuse_types(words: dict[str, Any]) -> None:
    types = words.get("type", "object")
    if types != "object" and not (isinstance(types, list) and "object" in types):
        raise SchemaReadError(f"arguments of type {types!r}")


def _refuse_drafts(schema: dict[str, Any]) -> None:
    name = schema.get("$schema")
    if name is not None and not isinstance(name, str):
        raise SchemaReadError(f"$schema {name!r}")
    if name and "json-schema.org/draft-03/" in name:
        raise SchemaReadError("a schema of draft 3, which is read no more")


def _refuse(where: str, found: str, expected: str, fix: str) -> ToolsError:
    return ToolsError(where, found=found, expected=expected, fix=fix)
