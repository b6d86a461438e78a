"""The schemas of JSON Schema itself, each in one piece: a fifth of the time to check a schema by.

Since 2019-09 a metaschema is a list of vocabularies, every one of which refers to all others for each schema within.
"""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any, Final
from urllib.parse import urljoin

from jsonschema_specifications import REGISTRY
from referencing import Registry

_ALL: Final = ('"$dynamicRef": "#meta"', '"$recursiveRef": "#"')  # in a vocabulary: any schema
_ELSEWHERE: Final = re.compile(r'"meta/[\w-]+#')  # a reference into a vocabulary


@cache
def checker(validator_class: Any) -> Any:
    """A validator of schemas in the draft of `validator_class`. Patterns are not looked into."""
    metaschema = validator_class.META_SCHEMA
    if "allOf" not in metaschema:
        return validator_class(metaschema)
    return validator_class(_whole(metaschema), registry=Registry())


def _whole(metaschema: dict[str, Any]) -> dict[str, Any]:
    """A metaschema and its vocabularies as one schema, which refers to itself."""
    parts = [REGISTRY.contents(urljoin(metaschema["$id"], part["$ref"])) for part in metaschema["allOf"]]
    properties: dict[str, Any] = {}
    definitions: dict[str, Any] = {}
    for part in (*parts, metaschema):
        properties |= part["properties"]
        definitions |= part.get("$defs", {})
    text = json.dumps({"type": ["object", "boolean"], "properties": properties, "$defs": definitions})
    for reference in _ALL:
        text = text.replace(reference, '"$ref": "#"')
    whole: dict[str, Any] = json.loads(_ELSEWHERE.sub('"#', text))
    return whole
