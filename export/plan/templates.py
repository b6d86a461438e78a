"""Whose chat template a stage takes, and what of it one might not expect."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

from dualtune_edge.export.base.checkpoint import Checkpoint
from dualtune_edge.export.plan.recipes import TemplateChoice
from dualtune_edge.export.plan.toolsets import AdapterInput
from dualtune_edge.runtime.decode.activation import base_part
from dualtune_edge.toolkit.bundle.adapters import OF_THE_BUNDLE, Kind
from dualtune_edge.toolkit.errors import TemplateError
from dualtune_edge.toolkit.prompts.chat_template import ChatTemplate
from dualtune_edge.toolkit.prompts.messages import Message, user
from dualtune_edge.toolkit.prompts.prompter import Prompter


@dataclass(frozen=True)
class Templates:
    """The templates of one export. `chosen`: what is taken in place of the base's own."""

    checkpoint: Checkpoint
    chosen: TemplateChoice | None
    warnings: dict[tuple[str, str], str] = field(default_factory=dict)  # by template, and what it is about

    def choose(self, kind: Kind, *, adapter: AdapterInput | None, named: Path | None) -> ChatTemplate:
        """The adapter's own template, else the spec's, else the base's unless another is chosen, else the built-in one.

        Raises:
            TemplateError: it cannot be read, or is not a template.

        """
        bos, eos = self.checkpoint.bos, self.checkpoint.eos
        if adapter and adapter.template:
            return ChatTemplate(adapter.template.source, where=adapter.template.where, bos=bos, eos=eos)
        if named:
            return ChatTemplate.read(named, bos=bos, eos=eos)
        if self.checkpoint.chat_template is not None and self.chosen != "builtin":
            return ChatTemplate(self.checkpoint.chat_template, where=self._base, bos=bos, eos=eos)
        # Selection and arguments share what activated adapters leave to the base; other prompts begin differently.
        shared = adapter and adapter.invocation and kind not in OF_THE_BUNDLE
        name = "activated" if shared else "selection" if kind == "toolset" else kind
        file = resources.files("dualtune_edge.toolkit") / "templates" / f"{name}.jinja"
        return ChatTemplate(file.read_text(encoding="utf-8"), where=f"built-in template for {name}", bos=bos, eos=eos)

    @contextmanager
    def advice(self) -> Iterator[None]:
        """Where the base's own template does not do, say how the built-in one is taken."""
        try:
            yield
        except TemplateError as error:
            if error.where != self._base:
                raise
            fix = f"{error.fix} Or take the built-in one: --template builtin, `template: builtin` in the spec."
            raise TemplateError(error.where, found=error.found, expected=error.expected, fix=fix) from None

    def look_for_dates(self, prompter: Prompter, prefix: int) -> None:
        """Warn of a template that writes a date. `prefix`: tokens of the static prefix, which ends before it."""
        where = prompter.template.where
        if (where, "today") not in self.warnings and prompter.writes_date():
            self.warnings[where, "today"] = (
                f"{where} writes today's date: a prompt's static prefix ends before it, after {prefix} tokens; "
                "a request can give another date"
            )
        if (where, "given") not in self.warnings and prompter.reads_date_string():
            self.warnings[where, "given"] = f"{where} writes `date_string`: it is set only where a request gives a date"

    def look_for_invocation(self, adapter: AdapterInput | None, prompter: Prompter, frame: Sequence[int] = ()) -> None:
        """Warn of an activated adapter that its own prompts never activate. `frame`: tokens behind a prompt."""
        if adapter and adapter.invocation:
            given = (*prompter.tokens([user("a")]), *frame)
            if base_part(given, adapter.invocation) == len(given):
                where = prompter.template.where
                self.warnings[where, adapter.name] = (
                    f"{where} writes prompts without the invocation of {adapter.name}: the base answers, as in PEFT"
                )

    def look_for_end(self, prompter: Prompter) -> None:
        """Warn of a template that ends the assistant's text by no token that ends it on the device."""
        try:
            answer = prompter.completion(Message(role="assistant", content="a"))
        except TemplateError:  # it writes something else there than the model: reasoning
            return
        if not set(answer) & set(self.checkpoint.end_of_turn):
            where = prompter.template.where
            self.warnings[where, "end"] = (
                f"{where} ends a turn by no token that ends the base's turns: answers go on to the most tokens allowed"
            )

    @property
    def _base(self) -> str:
        return f"chat template of {self.checkpoint.name}"
