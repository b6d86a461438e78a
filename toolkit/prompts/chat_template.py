"""A Hugging Face chat template in Jinja's sandbox, with the filters and names that transformers gives it.

Source of the dialect: `transformers/utils/chat_template_utils.py` (trim_blocks, lstrip_blocks, `tojson` without HTML
escapes, `raise_exception`, `strftime_now`, the `generation` block). Size, output and seconds of a render are bounded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser

from dualtune_edge.toolkit import limits
from dualtune_edge.toolkit.errors import TemplateError
from dualtune_edge.toolkit.prompts.messages import Message
from dualtune_edge.toolkit.prompts.template_sandbox import BoundedEnvironment, TooMuchError
from dualtune_edge.toolkit.tools.toolset import Tool

CHAT_TEMPLATE: Final = "chat_template.jinja"  # the name that Hugging Face folders use


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


class ChatTemplate:
    """One compiled template.

    Args:
        source: the Jinja text.
        where: the name that errors give it.
        bos: the text that `bos_token` stands for.
        eos: the text that `eos_token` stands for.

    Raises:
        TemplateError: the text is too long or is not a template.

    """

    def __init__(self, source: str, *, where: str, bos: str = "", eos: str = "") -> None:
        if len(source) > limits.TEMPLATE_CHARS:
            raise TemplateError(
                where,
                found=f"a template of {len(source)} characters",
                expected=f"at most {limits.TEMPLATE_CHARS}",
                fix="Shorten it; tools and messages are passed in, not written out.",
            )
        self.source, self.where, self.bos, self.eos = source, where, bos, eos
        try:
            self._environment = _environment(where)
            self._template = self._environment.from_string(source)
        except jinja2.TemplateSyntaxError as error:
            raise TemplateError(
                f"{where}, line {error.lineno}",
                found=str(error.message),
                expected="a Jinja chat template",
                fix="Mend the template; `transformers` must render it too.",
            ) from None

    @classmethod
    def read(cls, path: Path, *, bos: str = "", eos: str = "") -> ChatTemplate:
        """Read a template file.

        Raises:
            TemplateError: the file cannot be read as UTF-8, or is not a template.

        """
        return cls(read_source(path), where=str(path), bos=bos, eos=eos)

    @property
    def sha256(self) -> str:
        """Of the source text in UTF-8."""
        return hashlib.sha256(self.source.encode()).hexdigest()

    @property
    def literals(self) -> str:
        """The texts that the template itself writes or compares with, parted by null characters."""
        tree = self._environment.parse(self.source)
        written = {each.data for each in tree.find_all(nodes.TemplateData)}
        written |= {each.value for each in tree.find_all(nodes.Const) if isinstance(each.value, str)}
        return "\0".join(sorted(written))

    def render(self, messages: Sequence[Message], tools: Sequence[Tool], *, tool: str | None, generate: bool) -> str:
        """The prompt's text. `tool` names the chosen tool in the arguments stage.

        Raises:
            TemplateError: the template raised, or went over the limits.

        """
        self._environment.start()
        pieces = self._template.generate(
            messages=[message.for_template() for message in messages],
            tools=[each.for_template() for each in tools] or None,
            documents=None,
            tool=tool,
            add_generation_prompt=generate,
            bos_token=self.bos,
            eos_token=self.eos,
        )
        try:
            return "".join(_bounded(pieces))
        except Exception as error:  # noqa: BLE001 - a template can raise anything that its filters can
            raise TemplateError(
                self.where,
                found=f"{type(error).__name__}: {error}",
                expected="a render of these messages and tools",
                fix="Check the template with the messages that it was given.",
            ) from None


def read_source(path: Path) -> str:
    """The text of a template's file.

    Raises:
        TemplateError: the file cannot be read as UTF-8.

    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TemplateError(str(path), found=str(error), expected="a UTF-8 text file", fix="Check the path.") from None


def _bounded(pieces: Iterable[str]) -> Iterator[str]:
    """The pieces, for as long as their length stays within the limit."""
    length = 0
    for piece in pieces:
        length += len(piece)
        if length > limits.RENDER_CHARS:
            raise TooMuchError(f"over {limits.RENDER_CHARS} characters")
        yield piece


def _environment(where: str) -> BoundedEnvironment:
    environment = BoundedEnvironment([_Generation, "jinja2.ext.loopcontrols"], {"tojson": _tojson})
    environment.globals["raise_exception"] = _raiser(where)
    environment.globals["strftime_now"] = _strftime_now
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
