"""Whose chat template a stage takes, and what of it one might not expect."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path

from dualtune_edge.export.base.checkpoint import Checkpoint
from dualtune_edge.export.plan.inputs import Inputs
from dualtune_edge.export.plan.toolsets import AdapterInput
from dualtune_edge.export.spec.recipes import TemplateChoice
from dualtune_edge.runtime.reuse.activation import base_part
from dualtune_edge.toolkit.bundle.adapters import OF_THE_BUNDLE, Kind
from dualtune_edge.toolkit.errors import TemplateError
from dualtune_edge.toolkit.prompts.chat_template import ChatTemplate
from dualtune_edge.toolkit.prompts.messages import Message, user
from dualtune_edge.toolkit.prompts.prompter import Prompter


@dataclass(frozen=True)
class Templates:
    """The templates of one export. `chosen`: what is taken in place of the base's own.

    `several`: whether a toolset is chosen. `shared`: a template of activated adapters that shows all toolsets. The
    stages of the base take it too, so that the conversation is read once.
    """

    checkpoint: Checkpoint
    chosen: TemplateChoice | None
    several: bool = False
    shared: ChatTemplate | None = None
    warnings: dict[tuple[str, str], str] = field(default_factory=dict)  # by template, and what it is about

    @classmethod
    def of(cls, inputs: Inputs) -> Templates:
        """Those of these inputs.

        Raises:
            TemplateError: one of an activated adapter cannot be read, or is not a template.

        """
        templates = cls(inputs.checkpoint, inputs.template, several=len(inputs.toolsets) > 1)
        of_activated = (
            templates.choose(adapter.kind, adapter=adapter, named=named)
            for adapter, named in _named(inputs)
            if adapter and adapter.invocation
        )
        shared = next((template for template in of_activated if template.shows_toolsets), None)
        return replace(templates, shared=shared)

    def choose(self, kind: Kind, *, adapter: AdapterInput | None, named: Path | None) -> ChatTemplate:
        """The adapter's own template, else the spec's, else the base's unless another is chosen, else the built-in one.

        A choice or arguments that the base answers take the shared one before the base's.

        Raises:
            TemplateError: it cannot be read, or is not a template.

        """
        bos, eos = self.checkpoint.bos, self.checkpoint.eos
        if adapter and adapter.template:
            return ChatTemplate(adapter.template.source, where=adapter.template.where, bos=bos, eos=eos)
        if named:
            return ChatTemplate.read(named, bos=bos, eos=eos)
        if self.shared and adapter is None and kind != "answer":
            return self.shared
        if self.checkpoint.chat_template is not None and self.chosen != "builtin":
            return ChatTemplate(self.checkpoint.chat_template, where=self._base, bos=bos, eos=eos)
        name: str = "selection" if kind == "toolset" else kind
        if adapter and adapter.invocation:  # its prompts share what the base reads
            name = "toolsets" if self.several else name if kind in OF_THE_BUNDLE else "activated"
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


def _named(inputs: Inputs) -> Iterator[tuple[AdapterInput | None, Path | None]]:
    """Every adapter, with the template that the spec names for its stage."""
    yield inputs.others.toolset, inputs.toolset_template
    for source in inputs.toolsets:
        yield source.selection, source.templates.selection
        yield from ((adapter, source.templates.arguments) for adapter in source.arguments.values())
    yield inputs.others.answer, inputs.answer_template
