"""A schema cannot stall the device: each bomb is refused at once, or compiled in little time and memory."""
# ruff: noqa: E501 - a list of bombs

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

Schema = dict[str, Any]
MEASURE: Final = Path(__file__).with_name("measure_schemas.py")
REFUSED_MS, COMPILED_MS, COMPILED_MB = 10, 100, 64  # what is promised
LENIENCE: Final = 3  # a busy machine's caches
READ_WHOLE: Final = {"references to nowhere", "patterns together"}  # refused by what comes after the caps


def nest(times: int, wrap: Callable[[Any], Any], inner: Any) -> Any:
    for _ in range(times):
        inner = wrap(inner)
    return inner


def chain(length: int, step: Callable[[str], Schema], end: Any = None) -> Schema:
    steps: Schema = {f"d{number}": step(f"#/$defs/d{number + 1}") for number in range(length)}
    last = {"type": "integer"} if end is None else end
    return {"properties": {"a": {"$ref": "#/$defs/d0"}}, "$defs": {**steps, f"d{length}": last}}


def argument(schema: Any) -> Schema:
    return {"type": "object", "properties": {"a": schema}, "required": ["a"]}


def properties(schema: Callable[[int], Schema], count: int = 250) -> Schema:
    return {"type": "object", "properties": {f"p{number}": schema(number) for number in range(count)}}


def text(pattern: str, **more: Any) -> Schema:
    return argument({"type": "string", "pattern": pattern, **more})


OBJECTS = [{"properties": {"k": {"const": n}, "v": {"type": "string"}}, "required": ["k"]} for n in range(150)]
PRODUCT = [{"anyOf": [{"properties": {f"p{i}{j}": {"type": "string"}}} for j in range(6)]} for i in range(8)]
BOMBS: dict[str, Any] = {
    # numbers
    **{f"multiples of {n}": argument({"type": "integer", "multipleOf": n}) for n in (997, 9_973, 99_991, 9_999_991)},
    **{f"multiples of {n}": argument({"type": "number", "multipleOf": n}) for n in (0.01, 1e-9, 1e-300, 1e300, 0.0123457)},
    "multiples together": argument({"type": "integer", "allOf": [{"multipleOf": p} for p in (97, 89, 83, 79)]}),
    "a multiple within bounds": argument({"type": "integer", "multipleOf": 997, "minimum": -(10**15), "maximum": 10**15}),
    "wide bounds": argument({"type": "integer", "minimum": 10**300, "maximum": 10**301}),
    "bounds of floats": argument({"type": "number", "minimum": -1e300, "maximum": 1e-300}),
    "bounds of many digits": argument({"type": "number", "minimum": 0.12345678901234567, "exclusiveMaximum": 9.87654321e99}),
    "a number of 4,000 digits": argument({"const": 10**4_000}),
    "multiples of many values": {"properties": {f"p{n}": {"type": "integer", "multipleOf": 9_900 + n} for n in range(100)}},
    "lists of long patterns": argument({"type": "array", "items": {"type": "string", "pattern": "^x{4000}$"}, "minItems": 500}),
    # texts
    "a constant of 5 MB": argument({"const": "x" * 5_000_000}),
    "a constant of 32 K": argument({"const": "x" * 32_000}),
    "15 values of 1 MB": argument({"enum": [str(n) * 1_000_000 for n in range(15)]}),
    "1,500 values": argument({"enum": [f"{n * 7919:0100d}" for n in range(1_500)]}),
    "1,900 numbers": argument({"enum": list(range(0, 19_000, 10))}),
    "a name of 1 MB": argument({"properties": {"x" * 1_000_000: {}}}),
    "long names": {"properties": {f"{n}{'x' * 1_000}": {"type": "integer"} for n in range(250)}},
    "texts of any length": argument({"type": "string", "minLength": 10**6, "maxLength": 10**9}),
    "lists of any length": argument({"type": "array", "items": {"type": "string"}, "minItems": 10**6, "maxItems": 10**9}),
    "lists in lists": argument(nest(6, lambda x: {"type": "array", "items": x, "minItems": 500, "maxItems": 1_000}, {})),
    "lists of many kinds": argument({"type": "array", "prefixItems": [{"type": "integer", "minimum": n} for n in range(400)]}),
    "properties without number": argument({"type": "object", "minProperties": 10**9, "maxProperties": 10**12}),
    # patterns
    "a repetition beyond all": text("a{99999999999999}"),
    "repetitions of repetitions": text("^(((a{1,100}){1,100}){1,100}){1,100}$"),
    "a long repetition": text("^a{100000}$"),
    "repetitions in a row": text("^" + "[a-z]{0,500}[0-9]?" * 30 + "$"),
    "5,000 groups": text("(" * 5_000 + "a" + ")" * 5_000),
    "240 groups": text("(" * 240 + "a" + ")" * 240),
    "5,000 groups in a not": argument({"not": {"pattern": "(" * 5_000 + ")" * 5_000}}),
    "backtracking": text("^(a+)+$"),
    "backtracking in a not": argument({"enum": ["a" * 5_000 + "!"], "not": {"pattern": "^(a+)+b$"}}),
    "backtracking in names": argument({"type": "object", "propertyNames": {"pattern": "^(a+)+b$"}}),
    "an exponential automaton": text("^(a|b)*a(a|b){500}$"),
    "another exponential automaton": text(".*[ab].{15}.*[cd].{15}.*[ef].{15}"),
    "all of Unicode": text(r"^(\p{L}|\p{N}){1,500}$"),
    "all of Unicode without case": text(r"(?i)^[\p{L}\w]{200}\W{200}$"),
    "many alternatives": text("|".join(f"w{n}x" for n in range(1_500))),
    "patterns together": argument({"allOf": [{"type": "string", "pattern": f"{c}.*{c}.*{c}"} for c in "abcdefghijklmnop"]}),
    "200 patterns of names": {"type": "object", "patternProperties": {f"^p{n}$": {"type": "integer"} for n in range(200)}},
    "patterns of names that overlap": {"type": "object", "patternProperties": {f"p{n}": {} for n in range(200)}},
    "a pattern within a length": text("^[a-z]*(b|c)[a-z]*$", minLength=5_000, maxLength=9_000),
    "formats together": argument({"allOf": [{"type": "string", "format": f} for f in ("date-time", "email", "uri")]}),
    **{f"250 of {f}": properties(lambda _, f=f: {"type": "string", "format": f}) for f in ("uri", "ipv6", "date-time")},
    "250 of uri or null": properties(lambda n: {"type": ["string", "null"], "format": "uri", "description": f"{n}"}),
    "250 lists of uri": properties(lambda _: {"type": "array", "items": {"type": "string", "format": "uri"}}),
    "250 of uri, each of a length": properties(lambda n: {"type": "string", "format": "uri", "maxLength": n}),
    "40 of uri, each of a length": properties(lambda n: {"type": "string", "format": "uri", "maxLength": n + 9}, 40),
    "40 of uri with others": properties(lambda n: {"allOf": [{"type": "string", "format": "uri"}, {"maxLength": n + 9}]}, 40),
    "250 equal patterns": properties(lambda _: {"type": "string", "pattern": r"^\p{L}[\w.-]{1,60}$"}),
    "250 patterns": properties(lambda n: {"type": "string", "pattern": rf"^[a-z]{{1,{n + 1}}}$"}),
    "128 patterns": properties(lambda n: {"type": "string", "pattern": rf"^[a-z]{{1,{n + 1}}}$"}, 128),
    "40 patterns of Unicode": properties(lambda n: {"type": "string", "pattern": rf"^\p{{L}}{{1,{n + 1}}}$"}, 40),
    # references
    "itself": {"$ref": "#"},
    "not itself": {"not": {"$ref": "#"}},
    "not itself, deeper": argument({"allOf": [{"anyOf": [{"not": {"$ref": "#/properties/a"}}]}]}),
    "each other": {"$ref": "#/$defs/a", "$defs": {"a": {"if": {"$ref": "#/$defs/b"}}, "b": {"oneOf": [{"$ref": "#/$defs/a"}]}}},
    "what requires itself": {"properties": {"a": {"$ref": "#"}}, "required": ["a"]},
    "what requires itself twice": {"properties": {"a": {"$ref": "#"}, "b": {"$ref": "#"}}, "required": ["a", "b"]},
    "a tree": {"properties": {"a": {"type": "array", "items": {"$ref": "#"}}, "b": {"$ref": "#"}}},
    "doubling by anyOf": chain(30, lambda to: {"anyOf": [{"$ref": to}, {"$ref": to}]}),
    "doubling by allOf": chain(30, lambda to: {"allOf": [{"$ref": to}, {"$ref": to}]}),
    "doubling by oneOf": chain(30, lambda to: {"oneOf": [{"$ref": to}, {"type": "array", "items": {"$ref": to}}]}),
    "doubling by properties": chain(
        40, lambda to: {"type": "object", "properties": {"x": {"$ref": to}, "y": {"$ref": to}}, "required": ["x", "y"]}
    ),
    "doubling by items": chain(40, lambda to: {"type": "array", "items": {"anyOf": [{"$ref": to}, {"type": "null"}]}}),
    "doubling by additional properties": chain(40, lambda to: {"properties": {"x": {"$ref": to}}, "additionalProperties": {"$ref": to}}),
    "doubling by a condition": chain(20, lambda to: {"if": {"$ref": to}, "then": {"$ref": to}, "else": {"$ref": to}}),
    "a chain of 1,000": chain(1_000, lambda to: {"$ref": to}),
    "a chain of objects": chain(300, lambda to: {"properties": {"x": {"$ref": to}}}),
    "references to nowhere": argument({"anyOf": [{"$ref": f"#/$defs/{n}"} for n in range(500)]}),
    # shapes
    "depth": argument(nest(200, lambda x: {"items": x}, {})),
    "depth within the cap": argument(nest(28, lambda x: {"type": "object", "properties": {"x": x}}, {"type": "string"})),
    "255 optional properties": {"properties": {f"p{n}": {"type": "string"} for n in range(255)}},
    "255 required properties": {"properties": {f"p{n}": {"type": "string"} for n in range(255)}, "required": [f"p{n}" for n in range(255)]},
    "10,000 properties": {"properties": {f"p{n}": True for n in range(10_000)}},
    "50 objects of 15": properties(lambda n: properties(lambda m: {"type": "string", "maxLength": 20 * n + m + 1}, 15), 50),
    "2,500 numbers": argument({"enum": list(range(0, 25_000, 10))}),
    "500 alternatives": argument({"anyOf": [{"type": "string"}] * 500}),
    "150 objects, one of": argument({"oneOf": OBJECTS}),
    "150 objects, any of": argument({"anyOf": OBJECTS}),
    "a product of alternatives": argument({"type": "object", "allOf": PRODUCT}),
    "a product of patterns": argument(
        {"allOf": [{"anyOf": [{"type": "string", "pattern": f"{c}{d}"} for d in "abcdef"]} for c in "abcdefgh"]}
    ),
    "600 ranges": argument({"oneOf": [{"type": "integer", "minimum": n * 10, "maximum": n * 10 + 5} for n in range(300)]}),
    "dependent schemas": {"properties": {"a": {}}, "dependentSchemas": {f"p{n}": {"required": [f"p{n + 1}"]} for n in range(500)}},
    "unevaluated": {"allOf": [{"properties": {f"p{n}": {}}} for n in range(500)], "unevaluatedProperties": False},
    "contains": argument({"type": "array", "contains": {"const": 1}, "minContains": 10**6, "uniqueItems": True}),
    "false": argument(False),  # noqa: FBT003 - a schema
}  # fmt: skip


@pytest.fixture(scope="module")
def costs(exported: Path) -> dict[str, dict[str, Any]]:
    """What each bomb costs, measured in one process after the other."""
    lines = "".join(f"{json.dumps(schema)}\n" for schema in BOMBS.values())
    command = [sys.executable, str(MEASURE), str(exported / "model" / "tokenizer.json")]
    outputs = subprocess.run(command, input=lines.encode(), capture_output=True, check=True).stdout.splitlines()
    return dict(zip(BOMBS, map(json.loads, outputs), strict=True))


@pytest.mark.parametrize("name", BOMBS)
def test_it_is_refused_at_once_or_compiled_in_bounds(costs: dict[str, dict[str, Any]], name: str) -> None:
    cost = costs[name]
    if cost["found"] is None:
        assert cost["compile"] < LENIENCE * COMPILED_MS
        assert cost["memory"] < COMPILED_MB
    else:
        assert cost["read"] < LENIENCE * (COMPILED_MS if name in READ_WHOLE else REFUSED_MS)
        assert cost["memory"] < COMPILED_MB


def test_what_it_costs(costs: dict[str, dict[str, Any]], figure: Callable[[str, str], None]) -> None:
    refused = [cost for cost in costs.values() if cost["found"] is not None]
    compiled = [cost for cost in costs.values() if cost["found"] is None]
    assert len(costs) >= 60
    slowest = f"{max(cost['read'] for cost in refused):.0f} ms"
    longest = (
        f"{max(cost['compile'] for cost in compiled):.0f} ms and {max(cost['memory'] for cost in compiled):.0f} MB"
    )
    tried = f"{len(costs)} bombs: {len(refused)} refused in at most {slowest}, {len(compiled)} compiled in at most {longest}"
    figure("A schema cannot stall the device", tried)
