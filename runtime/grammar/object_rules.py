"""A schema as grammar rules that let the properties of an object come in any order, each once.

llguidance itself writes properties in the order of the schema. Here an object is a rule with a parameter of 64 bits,
one a property: a property may come while its bit is clear, and the object may end once the bits of the required ones
are set. A part of the schema without such an object stays llguidance's own JSON rule. The text of a copied property is
a terminal that `pieces` makes of a conversation.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from dualtune_edge.runtime.grammar.finite_numbers import NUMBER, with_finite_numbers
from dualtune_edge.runtime.grammar.object_views import (
    KEYWORDS,
    NoRulesError,
    View,
    has_rules,
    is_copyable,
    local,
    merged,
    needed_definitions,
    said,
    views,
)
from dualtune_edge.runtime.grammar.pieces import Piece
from dualtune_edge.runtime.grammar.shared_texts import with_shared_texts
from dualtune_edge.toolkit.prompts.prompt_plan import Frame
from dualtune_edge.toolkit.tools.defaults import leads_to

BITS: Final = 64  # of a rule's parameter: properties of one object that may come in any order
_LINES: Final = 1_024  # rules of one tool
_CHARACTER: Final = r'[^"\\\x00-\x1F\x7F]|\\["\\bfnrt]|\\u[0-9a-fA-F]{4}'  # of a JSON text, as llguidance has it
_ARRAY: Final = {"type", "prefixItems", "items", "minItems", "maxItems"}  # keywords of arrays that have rules
_ANYTHING: Final = "anything"  # the rule of a free value


@dataclass
class ObjectRules:
    """Builds the rules of one tool.

    Args:
        root: the tool's schema.
        frame: how the template writes JSON.
        guidance: the settings of llguidance's own JSON rules.
        possible: whether any value fits a schema, given its own JSON rule; asked of optional properties. By default
            each is thought to be possible.
        copied: places, such as `edits[].oldText`, whose texts are pieces of a conversation. Of these, `held` has those
            that the rules hold to it.

    """

    root: dict[str, Any]
    frame: Frame
    guidance: Mapping[str, Any]
    possible: Callable[[str], bool] | None = None
    copied: Mapping[str, Piece] = field(default_factory=dict)
    impossible: list[str] = field(default_factory=list)  # optional properties that no value fits
    held: frozenset[str] = frozenset()
    _lines: list[str] = field(default_factory=list)
    _names: dict[tuple[str, str | None], str] = field(default_factory=dict)  # reference → rule
    _values: dict[str, str] = field(default_factory=dict)  # schema of a value in which nothing is copied → rule
    _bodies: dict[str, str] = field(default_factory=dict)  # body → rule, each written once

    def source(self) -> str | None:
        """The rules, the first of which is `arguments`; None where there are none, or llguidance's own say the same."""
        try:
            if not self.copied and not self._has_rules(self.root):
                return None
            body = self._objects(self.root, "" if self.copied else None)
        except NoRulesError:
            return None
        return "\n".join([f"arguments: {body}", *self._lines]) + "\n"

    def _value(self, schema: Any, place: str | None = None) -> str:
        """What to write in a rule for a value of this schema. `place`: where something copied stands, or holds some."""
        if schema is True or (isinstance(schema, dict) and not schema.keys() & KEYWORDS):
            return self._anything()
        if place is not None:
            return self._built(schema, place)
        key = json.dumps(schema)
        if key not in self._values:
            self._values[key] = self._built(schema, None)
        return self._values[key]

    def _built(self, schema: Any, place: str | None) -> str:
        held = self.held
        try:
            if place is not None and place in self.copied and is_copyable(schema):
                return self._piece(schema, place)
            if isinstance(schema, dict) and (place is not None or self._has_rules(schema)):
                return self._structure(schema, place)
        except NoRulesError:
            self.held = held
        return self._own(schema)

    def _structure(self, schema: dict[str, Any], place: str | None) -> str:
        keywords = schema.keys() & KEYWORDS
        if keywords == {"$ref"}:
            return self._reference(schema["$ref"], place)
        if keywords == {"allOf"} and len(parts := said(schema["allOf"])) < 2:
            return self._value(parts[0] if parts else True, place)
        for name in ("anyOf", "oneOf"):
            if keywords == {name}:
                return self._any(self._value(branch, place) for branch in schema[name])
        if isinstance(schema.get("type"), list):
            return self._any(self._value({**schema, "type": name}, place) for name in schema["type"])
        return self._typed(schema, keywords, place)

    def _typed(self, schema: dict[str, Any], keywords: Collection[str], place: str | None) -> str:
        if schema.get("type") == "object":
            return self._objects(schema, place)
        if schema.get("type") == "array" and _ARRAY.issuperset(keywords):
            return self._array(schema, place)
        if schema.get("type") == "number" and set(keywords) == {"type"}:
            return self._rule(f"/{NUMBER}/")
        raise NoRulesError

    def _piece(self, schema: dict[str, Any], place: str) -> str:
        """A text that is copied."""
        name = f"V{len(self._lines)}"
        self._add(name, self.copied[place].body(self.frame, schema.get("minLength", 0), schema.get("maxLength")))
        self.held |= {place}
        return name

    def _inside(self, place: str | None, step: str) -> str | None:
        """The place of a property or of items, if it or something in it is copied."""
        if place is None:
            return None
        inner = f"{place}{step}".removeprefix(".")
        return inner if any(leads_to(inner, name) for name in self.copied) else None

    def _has_rules(self, schema: Any) -> bool:
        """Whether rules of ours differ from llguidance's own in the schema, or its properties are looked at."""
        return has_rules(schema, self.root) if self.possible is None else isinstance(schema, dict)

    def _reference(self, reference: str, place: str | None) -> str:
        key = (reference, place)
        if key not in self._names:
            self._names[key] = f"d{len(self._names)}"  # before it is built: it may refer to itself
            self._add(self._names[key], self._value(local(self.root, reference), place))
        return self._names[key]

    def _array(self, schema: dict[str, Any], place: str | None) -> str:
        low, high, item = schema.get("minItems", 0), schema.get("maxItems"), schema.get("items", True)
        longest = len(schema.get("prefixItems", ())) if item is False else high
        if any(bound is not None and bound < low for bound in (longest, high)):
            raise NoRulesError  # no list is so long and so short
        inner = self._inside(place, "[]")
        first = [self._value(part) for part in schema.get("prefixItems", ())][:high]
        separator = json.dumps(self.frame.item_separator)
        if high == 0 or (not first and item is False):
            return self._rule('"[]"')
        if not first:
            first = [self._value(item, inner)]
        rest = ""
        if item is not False and (high is None or high > len(first)):
            most = "" if high is None else high - len(first)
            rest = f"({separator} {self._value(item, inner)}){{{max(low - len(first), 0)},{most}}}"
        for number in range(len(first) - 1, 0, -1):
            rest = f"({separator} {first[number]} {rest}){'?' if number >= low else ''}"
        return self._any([self._rule(f'"[" {first[0]} {rest} "]"'), *([] if low else ['"[]"'])])

    def _anything(self) -> str:
        """Any JSON value, with numbers that a float holds."""
        if (_ANYTHING, None) not in self._names:
            self._names[_ANYTHING, None] = _ANYTHING
            text, item, key = self._json({"type": "string"}), *map(json.dumps, self._separators)
            self._add("any_text", text)
            self._add("any_pair", f"any_text {key} {_ANYTHING}")
            options = (
                '"null" | "true" | "false"', f"/{NUMBER}/", "any_text", '"[]" | "{}"',
                f'"[" {_ANYTHING} ({item} {_ANYTHING})* "]"', f'"{{" any_pair ({item} any_pair)* "}}"',
            )  # fmt: skip
            self._add(_ANYTHING, "\n  | ".join(options))
        return _ANYTHING

    @property
    def _separators(self) -> tuple[str, str]:
        return self.frame.item_separator, self.frame.key_separator

    def _objects(self, schema: dict[str, Any], place: str | None) -> str:
        return self._any(self._object(view, place) for view in views(schema, self.root))

    def _object(self, view: View, place: str | None) -> str:
        """`first` and `rest`: what may stand behind the brace, and behind a property."""
        pairs, required = self._pairs(view, place)
        extra = merged(view.extra)
        bounded = view.low > required or view.high is not None
        if len(pairs) > BITS or (extra is not False and bounded):
            raise NoRulesError
        if view.high == 0:
            if required or view.low:
                raise NoRulesError  # no object is so
            return self._rule('"{}"')
        name = f"o{len(self._lines)}"
        first, rest = f"{name}f", f"{name}r"
        options = [(f"{pair} {rest}::set_bit({bit})", f"bit_clear({bit})") for bit, pair in enumerate(pairs)]
        if extra is not False:
            options.append((f"{self._extra(name, view)} {self._value(extra)} {rest}::_", ""))
        end = [f"is_ones([0:{required}])"] if required else []
        end += [f"bit_count_ge(_, {view.low})"] if view.low > required else []
        more = [f"bit_count_lt(_, {view.high})"] if view.high is not None else []
        separator = json.dumps(self.frame.item_separator)
        nexts = [f"{separator} {body}{_if([condition, *more])}" for body, condition in options]
        self._add(f"{first}::_", "\n  | ".join([*(body for body, _ in options), *([] if end else ['"}"'])]))
        self._add(f"{rest}::_", "\n  | ".join([*nexts, f'"}}"{_if(end)}']))
        return self._rule(f'"{{" {first}::0')

    def _pairs(self, view: View, place: str | None) -> tuple[list[str], int]:
        """`"name": value` of each property that can have a value, required ones first, and how many these are."""
        pairs = []
        for name in sorted(view.properties, key=lambda name: name not in view.required):
            schema = merged(view.properties[name])
            if name not in view.required and (schema is False or not self._is_possible(schema)):
                self.impossible.append(name)
                continue
            value = self._value(schema, self._inside(place, f".{name}"))
            pairs.append(self._rule(f"{json.dumps(self._key(name))} {value}"))
        return pairs, len(view.required)

    def _is_possible(self, schema: Any) -> bool:
        return self.possible is None or self.possible(f"start: {self._json(schema)}\n")

    def _key(self, name: str) -> str:
        return json.dumps(name, ensure_ascii=self.frame.ascii_only) + self.frame.key_separator

    def _extra(self, name: str, view: View) -> str:
        """The names of undeclared properties."""
        quoted = [json.dumps(name, ensure_ascii=self.frame.ascii_only) for name in view.properties]
        taken = f" & ~({' | '.join(map(json.dumps, quoted))})" if quoted else ""
        self._add(f"T{name.upper()}", f'/"({_CHARACTER})*"/{taken}')
        return f"T{name.upper()} {json.dumps(self.frame.key_separator)}"

    def _own(self, schema: Any) -> str:
        """The rule of llguidance itself for a part of the schema."""
        return self._rule(self._json(schema))

    def _json(self, schema: Any) -> str:
        """`%json`, with the definitions that the part needs."""
        if not isinstance(schema, dict):
            if not schema:
                raise NoRulesError
            schema = {}
        if definitions := needed_definitions(schema, self.root):
            if schema.keys() & definitions.keys():
                raise NoRulesError
            schema = {**schema, **definitions}
        if "$schema" in self.root:
            schema = {"$schema": self.root["$schema"], **schema}
        schema = with_shared_texts(with_finite_numbers(schema))
        return f"%json {json.dumps({**schema, 'x-guidance': self.guidance})}"

    def _any(self, bodies: Iterable[str]) -> str:
        options = list(dict.fromkeys(bodies))
        if not options:
            raise NoRulesError
        return options[0] if len(options) == 1 else self._rule(" | ".join(options))

    def _rule(self, body: str) -> str:
        if body not in self._bodies:
            name = f"r{len(self._lines)}"
            self._add(name, body)
            self._bodies[body] = name
        return self._bodies[body]

    def _add(self, name: str, body: str) -> None:
        if len(self._lines) == _LINES:
            raise NoRulesError
        self._lines.append(f"{name}: {body}")


def _if(conditions: Sequence[str]) -> str:
    """The condition of an option: all of these."""
    given = [condition for condition in conditions if condition]
    if not given:
        return ""
    whole = given[0]
    for condition in given[1:]:
        whole = f"and({whole}, {condition})"
    return f" %if {whole}"
