"""Jinja as transformers sets it up for chat templates: a sandbox that stops code. What stops time is the process.

Source of the dialect: `transformers/utils/chat_template_utils.py` (trim_blocks, lstrip_blocks, `tojson` without HTML
escapes, `raise_exception`, `strftime_now`, the `generation` block).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment


class TooMuchError(Exception):
    """A render went over its bounds."""


class _Generation(Extension):
    """`{% generation %}…{% endgeneration %}` marks what is learnt; for rendering it is its body."""

    tags = {"generation"}  # noqa: RUF012 - the name and type are jinja2's

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        # A call block, as in transformers: what is set inside is not seen outside.
        return nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller: Callable[[], str]) -> str:
        return caller()


class Template:
    """One compiled template.

    Raises:
        jinja2.TemplateSyntaxError, RecursionError, MemoryError, SyntaxError: the source is no template.

    """

    def __init__(self, source: str) -> None:
        self._environment = _environment()
        self._template = self._environment.from_string(source)
        tree = self._environment.parse(source)
        written = {node.data for node in tree.find_all(nodes.TemplateData)}
        written |= {node.value for node in tree.find_all(nodes.Const) if isinstance(node.value, str)}
        self.literals = "\0".join(sorted(written))  # the texts that the template itself writes or compares with

    def render(self, variables: Mapping[str, Any], *, where: str, characters: int) -> str:
        """The text.

        Args:
            variables: names that the template may use.
            where: the name that `raise_exception` gives the template.
            characters: the most that may be written.

        Raises:
            Exception: whatever the template and its filters raise; TooMuchError: it writes more.

        """
        pieces, length = [], 0
        for piece in self._template.generate(**variables, raise_exception=_raiser(where)):
            length += len(piece)
            if length > characters:
                raise TooMuchError(f"over {characters} characters")
            pieces.append(piece)
        return "".join(pieces)


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # prompts are text, not HTML
        extensions=[_Generation, "jinja2.ext.loopcontrols"],
    )
    del environment.globals["lipsum"]  # text at random
    environment.globals["strftime_now"] = _strftime_now
    environment.filters["tojson"] = _tojson
    return environment


def _tojson(
    value: Any,
    ensure_ascii: bool = False,  # noqa: FBT001, FBT002 - positional in templates
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,  # noqa: FBT001, FBT002
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raiser(where: str) -> Callable[[str], NoReturn]:
    def raise_exception(message: str) -> NoReturn:
        raise jinja2.TemplateError(f"{message} (raised by {where})")

    return raise_exception


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)  # noqa: DTZ005 - as transformers has it: %Z is empty
