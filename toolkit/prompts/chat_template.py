"""A Hugging Face chat template. A process with bounded time and memory compiles and renders it: `template_process`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Final

from dualtune_edge.toolkit import limits
from dualtune_edge.toolkit.errors import TemplateError
from dualtune_edge.toolkit.prompts.all_toolsets import AllToolsets
from dualtune_edge.toolkit.prompts.messages import Message, user
from dualtune_edge.toolkit.prompts.template_process import TEMPLATES, TemplateFault, ToolList
from dualtune_edge.toolkit.strict_json import LFS_POINTER
from dualtune_edge.toolkit.tools.toolset import Tool, Toolset

CHAT_TEMPLATE: Final = "chat_template.jinja"  # the name that Hugging Face folders use
_DATE_STRING: Final = "%d %b %Y"
# Names that no template writes by itself.
_PROBES: Final = tuple(
    AllToolsets((Toolset(name=name, tools=(Tool(name=name),)),), Tool(name=name)) for name in ("qzalpha", "qzomega")
)


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
        # Of the latest render.
        self._tools: tuple[Sequence[Tool], ToolList] = ((), ToolList("null"))
        self._all_toolsets: tuple[AllToolsets | None, ToolList | None] = (None, None)
        try:
            # The texts that the template itself writes or compares with, parted by null characters.
            self.literals: Final = TEMPLATES.literals(source)
        except TemplateFault as fault:
            raise TemplateError(
                where if fault.line is None else f"{where}, line {fault.line}",
                found=fault.found,
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

    @cached_property
    def shows_toolsets(self) -> bool:
        """Whether its prompts show all toolsets where they are given to it."""
        try:
            texts = [self.render([user("a")], (), tool=None, generate=True, all_toolsets=probe) for probe in _PROBES]
        except TemplateError:  # a stage that takes it says why
            return False
        return texts[0] != texts[1]

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Tool],
        *,
        tool: str | None,
        generate: bool,
        now: datetime | None = None,
        date: datetime | None = None,
        all_toolsets: AllToolsets | None = None,
        toolset: str | None = None,
    ) -> str:
        """The prompt's text.

        Args:
            messages: the conversation.
            tools: the tools that it shows.
            tool: the chosen tool, in the arguments stage.
            generate: whether it ends where the assistant's next words begin.
            now: what `strftime_now` writes; by default the time at which it is called.
            date: the date of the request, if it gives one: the same, and the text of `date_string` as Llama writes it.
            all_toolsets: for a template that shows them; None: it is given none.
            toolset: whose tool the last message calls, where it is the answer (without `generate`); None: it calls a
                toolset. A prompt never depends on it.

        Raises:
            TemplateError: the template raised, or went over the limits.

        """
        now = date or now
        variables = {
            "messages": [message.for_template() for message in messages],
            "documents": None,
            "tool": tool,
            "add_generation_prompt": generate,
            "bos_token": self.bos,
            "eos_token": self.eos,
            **({"date_string": date.strftime(_DATE_STRING)} if date else {}),
            **({"toolset": toolset} if all_toolsets and not generate else {}),
        }
        lists = self._listed(tools), self._all_listed(all_toolsets)
        try:
            return TEMPLATES.render(self.source, variables, *lists, where=self.where, now=now)
        except TemplateFault as fault:
            raise TemplateError(
                self.where,
                found=fault.found,
                expected="a render of these messages and tools",
                fix="Check the template with the messages that it was given.",
            ) from None

    def _listed(self, tools: Sequence[Tool]) -> ToolList:
        """The tools as JSON, written once while they stay the same."""
        if self._tools[0] is not tools:
            self._tools = tools, ToolList(json.dumps([tool.for_template() for tool in tools] or None))
        return self._tools[1]

    def _all_listed(self, all_toolsets: AllToolsets | None) -> ToolList | None:
        """All toolsets as JSON, written once while they stay the same."""
        if self._all_toolsets[0] is not all_toolsets:
            listed = ToolList(json.dumps(all_toolsets.for_template())) if all_toolsets else None
            self._all_toolsets = all_toolsets, listed
        return self._all_toolsets[1]


def read_source(path: Path) -> str:
    """The text of a template's file.

    Raises:
        TemplateError: the file cannot be read as UTF-8.

    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TemplateError(str(path), found=str(error), expected="a UTF-8 text file", fix="Check the path.") from None
    if text.startswith(LFS_POINTER):  # it would be a template that writes this text
        found, fix = "a pointer of Git LFS, which stands for the file", "Fetch it: `git lfs pull`."
        raise TemplateError(str(path), found=found, expected="the template itself", fix=fix)
    return text
