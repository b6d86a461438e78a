"""A gold call as tokens: for each stage its adapter, its prompt and the tokens that a system is made to decode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from dualtune_edge.runtime.bench.requests import Request
from dualtune_edge.runtime.bundle.folder import Bundle
from dualtune_edge.toolkit.bundle.manifest import Stage
from dualtune_edge.toolkit.errors import DataError
from dualtune_edge.toolkit.prompts.chat_template import ChatTemplate
from dualtune_edge.toolkit.prompts.frames import wrapping_of
from dualtune_edge.toolkit.prompts.messages import FunctionCall, Message, call
from dualtune_edge.toolkit.prompts.prompt_plan import PromptPlan
from dualtune_edge.toolkit.prompts.prompter import Prompter, common_prefix

StageName = Literal["toolset", "selection", "arguments"]


@dataclass(frozen=True)
class Script:
    """One stage of a gold call. `answer` follows the prompt; of a choice's, `decided` tokens had an alternative."""

    stage: StageName
    adapter: str | None
    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    text: str  # the answer's
    decided: int | None  # None: arguments, where the schema says what is left to decide

    def next_token(self, adapter: str | None, held: tuple[int, ...]) -> int | None:
        """What follows `held` under `adapter`; None where it is no part of this stage, or its end."""
        written = held[len(self.prompt) :]
        if adapter != self.adapter or len(written) >= len(self.answer) or held[: len(self.prompt)] != self.prompt:
            return None
        return self.answer[len(written)] if self.answer[: len(written)] == written else None


@dataclass(frozen=True)
class _Prompt:
    plan: PromptPlan
    prompter: Prompter
    adapter: str | None


class ScriptWriter:
    """Writes scripts for a bundle's stages; templates are read once."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._prompts: dict[str, _Prompt] = {}

    def prompt(self, stage: Stage, messages: Sequence[Message]) -> tuple[int, ...]:
        """A stage's prompt for these messages."""
        return self._prompt(stage).prompter.tokens(messages)

    def stages(self, toolset: str, tool: str | None) -> list[tuple[StageName, Stage]]:
        """The stages of a call, in order; `tool` None: no tool is called."""
        manifest, entry = self._bundle.manifest, self._bundle.toolset(toolset)
        found: list[tuple[StageName, Stage]] = [("selection", entry.selection)]
        if manifest.toolset_choice:
            found.insert(0, ("toolset", manifest.toolset_choice))
        if tool in entry.arguments:
            found.append(("arguments", entry.arguments[tool]))
        return found

    def scripts(self, request: Request) -> tuple[Script, ...]:
        """The stages of the request's gold call.

        Raises:
            DataError: the template does not write the call as the arguments' frame says.
            TemplateError: a chat template cannot render the messages.

        """
        tool = request.call.name if request.call else None
        return tuple(self._script(name, stage, request) for name, stage in self.stages(request.toolset, tool))

    def _script(self, name: StageName, stage: Stage, request: Request) -> Script:
        prompt = self._prompt(stage)
        tokens = prompt.prompter.tokens(request.messages)
        if name == "arguments" and request.call:
            answer, text = self._arguments(prompt, request, request.call)
            return Script(name, stage.adapter, tokens, answer, text, None)
        called = request.call.name if request.call else self._bundle.manifest.no_tool
        winner = request.toolset if name == "toolset" else called
        completions = prompt.plan.completions
        answer = completions[winner]
        text = self._bundle.tokenizer.decode(list(answer), skip_special_tokens=False)
        return Script(name, stage.adapter, tokens, answer, text, branchings(list(completions.values()), answer))

    def _arguments(self, prompt: _Prompt, request: Request, gold: FunctionCall) -> tuple[tuple[int, ...], str]:
        """The call in tokens and text, to where the constraint is satisfied: the end of turn is not decoded."""
        frame = prompt.plan.frame
        complete = prompt.prompter.complete(request.messages, call(gold.name, gold.arguments))
        written = wrapping_of(prompt.prompter).head + (frame.dumps(gold.arguments) + frame.tail if frame else "")
        if frame is None or not complete.text.startswith(written):
            raise DataError(
                request.where, found=f"the call {complete.text!r}", expected=repr(written), fix="Export it again."
            )
        end = len(complete.prompt) + len(written)
        ends = [offset for offset in complete.encoding.offsets[complete.start :] if offset[0] < end]
        return complete.tokens[: len(ends)], written

    def _prompt(self, stage: Stage) -> _Prompt:
        if stage.prompt not in self._prompts:
            plan, tokenizer = self._bundle.plan(stage), self._bundle.manifest.tokenizer
            template = ChatTemplate(plan.template, where=stage.prompt, bos=tokenizer.bos, eos=tokenizer.eos)
            prompter = Prompter.of(plan, template, self._bundle.tokenizer, self._bundle.all_toolsets)
            self._prompts[stage.prompt] = _Prompt(plan, prompter, stage.adapter)
        return self._prompts[stage.prompt]


def branchings(completions: Sequence[tuple[int, ...]], winner: tuple[int, ...]) -> int:
    """At how many places another completion parts from the winner: what a choice decides."""
    return len({len(common_prefix([winner, other])) for other in completions if other != winner})
