"""Jinja's sandbox with bounds: it stops code by itself, and here also what takes too long or grows too large.

Every turn of a loop and every call looks at the clock; what multiplies (`*`, `**`, `~`, formats with a width, replace,
join, padding) is estimated before it is made. Known gap: a nest of lists that share their parts can still be slow to
print inside one `%` or `format`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from jinja2 import nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from dualtune_edge.toolkit import limits

_DIGITS: Final = 4096  # binary digits of a power
_WIDTH: Final = 256  # characters that a format, an indent or a padding may ask for; items of a batch
_WIDE: Final = re.compile(r"\d{4,}")  # in a format: a width or precision over three digits
_NESTED: Final = re.compile(r"\{[^{}]*:[^{}]*\{")  # a width that is an argument
_PADDING: Final = ("center", "ljust", "rjust", "zfill", "expandtabs", "indent", "batch", "slice", "round", "tojson")
_LOOKED_AT: Final = (*_PADDING, "format", "format_map", "replace", "join", "translate")


class TooMuchError(Exception):
    """A render went over its bounds."""


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """An environment for one template. `start` sets the clock of a render."""

    intercepted_binops = frozenset(("+", "*", "**", "%"))

    def __init__(self, extensions: list[Any], filters: dict[str, Callable[..., Any]]) -> None:
        # autoescape: prompts are text, not HTML
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, extensions=extensions, autoescape=False, finalize=_countable
        )
        self.deadline = float("inf")
        del self.globals["lipsum"]  # text by the megabyte
        self.filters.update(filters)
        for name in _LOOKED_AT:
            if name in self.filters:
                self.filters[name] = _looked_at(name, self.filters[name])
        self.filters["_watched"] = self._watched
        self.filters["_joined"] = _joined

    def start(self) -> None:
        """From now, a render has its time."""
        self.deadline = time.monotonic() + limits.RENDER_SECONDS

    def check_time(self) -> None:
        """Raise if the render's time is over."""
        if time.monotonic() > self.deadline:
            raise TooMuchError(f"over {limits.RENDER_SECONDS} s")

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree: nodes.Template = _Watch().visit(super()._parse(source, name, filename))
        return tree

    def _watched(self, items: Iterable[Any]) -> Iterator[Any]:
        for item in items:
            self.check_time()
            yield item

    def call(self, context: Any, function: Any, /, *args: Any, **kwargs: Any) -> Any:  # noqa: D102 - jinja2's
        self.check_time()
        owner, name = getattr(function, "__self__", None), getattr(function, "__name__", "")
        if isinstance(owner, str) and name in _LOOKED_AT:
            _estimate(name, owner, [*args, *kwargs.values()])
        return super().call(context, function, *args, **kwargs)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:  # noqa: D102 - jinja2's
        if operator == "*":
            _bound(max(_length(left), 1) * max(_length(right), 1) * _factor(left, right))
        elif operator == "**" and isinstance(left, int) and isinstance(right, int):
            if left.bit_length() * max(right, 0) > _DIGITS:
                raise TooMuchError(f"a power of over {_DIGITS} binary digits")
        elif operator == "%" and isinstance(left, str):
            _estimate("format", left, [])
        elif operator == "+":
            _bound(_length(left) + _length(right))
        return super().call_binop(context, operator, left, right)


class _Watch(NodeTransformer):
    """Has loops look at the clock and `~` at the length."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802 - jinja2's
        self.generic_visit(node)
        items: Any = node.iter  # jinja2 says Node; it is an expression
        node.iter = _filtered(items, "_watched")
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802 - jinja2's
        self.generic_visit(node)
        parts: list[nodes.Expr] = node.nodes
        return _filtered(nodes.List(parts, lineno=node.lineno), "_joined")


def _filtered(node: nodes.Expr, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


def _looked_at(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The filter, after its arguments have been looked at; jinja2's own marks (pass_environment …) are kept."""

    def filtered(*args: Any, **kwargs: Any) -> Any:
        values = [arg for arg in args if not hasattr(arg, "filters") and not hasattr(arg, "eval_ctx")]
        values = [value for value in values if not hasattr(value, "autoescape")]
        _estimate(name, values[0] if values else "", [*values[1:], *kwargs.values()])
        return function(*args, **kwargs)

    if hasattr(function, "jinja_pass_arg"):
        vars(filtered)["jinja_pass_arg"] = vars(function)["jinja_pass_arg"]
    return filtered


def _estimate(name: str, subject: Any, arguments: list[Any]) -> None:
    """Refuse a call of a string method or filter that would make something too large."""
    text = str(subject) if isinstance(subject, str) else ""
    if name in _PADDING:
        for argument in arguments:
            if isinstance(argument, int) and abs(argument) > _WIDTH:
                raise TooMuchError(f"{name} by over {_WIDTH}")
    if name in ("format", "format_map") and ("*" in text or _WIDE.search(text) or _NESTED.search(text)):
        raise TooMuchError("a format with a width of over three digits, or from an argument")
    lengths = [_length(argument) for argument in arguments]
    if name == "replace":
        _bound(text.count(str(arguments[0])) * max(lengths) + len(text))
    if name == "translate":
        _bound(len(text) * max((_length(value) for each in arguments for value in dict(each).values()), default=1))
    if name == "join":
        _countable(subject)
        pieces = (
            arguments[0] if isinstance(subject, str) and arguments and not isinstance(arguments[0], str) else subject
        )
        _bound(_size(pieces) + max(lengths, default=0) * _length(pieces))


def _length(value: Any) -> int:
    return len(value) if isinstance(value, (str, bytes, list, tuple, dict, range)) else 0


def _factor(left: Any, right: Any) -> int:
    """How often `*` repeats a sequence; numbers do not grow by it."""
    if _length(left) and isinstance(right, int):
        return abs(right)
    return abs(left) if _length(right) and isinstance(left, int) else 1


def _size(value: Any) -> int:
    """Characters of the texts directly in a collection."""
    return sum(map(_length, value)) if isinstance(value, (list, tuple)) else _length(value)


def _bound(length: int) -> None:
    if length > limits.RENDER_CHARS:
        raise TooMuchError(f"over {limits.RENDER_CHARS} characters")


def _joined(items: list[Any]) -> str:
    texts = [str(_countable(item)) for item in items]
    _bound(sum(map(len, texts)))
    return "".join(texts)


def _countable(value: Any) -> Any:
    """The value, if printing it is bounded: lists that share their parts can stand for endless text."""
    if isinstance(value, (list, tuple, dict)):
        budget, stack = limits.RENDER_CHARS // 4, [value]
        while stack:
            item = stack.pop()
            inner = [*item.keys(), *item.values()] if isinstance(item, dict) else item
            budget -= len(inner)
            if budget < 0:
                raise TooMuchError("a value of too many parts")
            stack.extend(each for each in inner if isinstance(each, (list, tuple, dict)))
    return value
