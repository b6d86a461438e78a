"""What a call answers."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from dualtune_edge.profiles.resolve import Candidate
from dualtune_edge.toolkit.frozen import Frozen


class Alternative(Frozen):
    """A tool that was not chosen (or the no-tool entry), and its probability."""

    tool: str
    probability: float


class Timings(Frozen):
    """Milliseconds of each stage; next to none for one that was not needed."""

    toolset: float
    selection: float
    arguments: float
    total: float


class Tokens(Frozen):
    """Tokens of all stages together.

    `prompt`: of the prompts, `reused` of these from KV state that was kept or came with the bundle. Of the answers,
    `decided` were the model's choice among several, `forced` had no alternative. `drafted` were proposed to the model,
    and `accepted` of these were its own choice. `forwards`: runs of the model, those for the prompts included.
    """

    prompt: int
    reused: int
    forced: int
    decided: int
    drafted: int
    accepted: int
    forwards: int


class AnswerTokens(Frozen):
    """Tokens of a text: of its prompt, `reused` of these from KV state that was kept, and those written.

    `ended` is false where a limit cut the text off.
    """

    prompt: int
    reused: int
    written: int
    ended: bool


class Placement(Frozen):
    """Who runs the model. `instead` says why it is not the provider that was asked for.

    `on_cpu`: operators (type → nodes of one graph) that another provider leaves to the CPU's; empty for the CPU's own.
    `weights`: whether the CPU provider packs them into this process's memory or maps them from the cache folder, and
    `not_mapped` says why they are not mapped where that was asked for.
    """

    provider: str = "CPUExecutionProvider"
    device: str = "CPU"
    instead: str = ""
    on_cpu: dict[str, int] = Field(default_factory=dict)
    weights: Literal["memory", "mapped"] = "memory"
    not_mapped: str = ""


class VariantChoice(Frozen):
    """Which model of a bundle with variants runs, by which profile; `candidates` are its variants, best first."""

    profile: str
    model: str
    candidates: tuple[Candidate, ...]


class CallResult(Frozen):
    """One tool call, or none, or one that is less probable than was asked for (`outcome`).

    `probability` is that of `tool` (or of calling none) among the entries of `toolset`; `alternatives` are all others
    of 0.01 or more. `toolset_probability` is null where there was nothing to choose: one toolset, or a given one.

    `arguments` is empty for a tool that takes none, and null where no tool is called or they were not written.
    `arguments_probability` is the product over their decided tokens of each one's share among the tokens that the
    schema allowed. It is null without arguments to write.

    `not_in_conversation`: where `arguments` hold a text that neither the messages nor the schema have, as
    `edits[0].newText`. `notes`: what of the bundle could not be used to answer sooner, and what was shortened.
    """

    toolset: str
    tool: str | None
    arguments: dict[str, Any] | None
    outcome: Literal["call", "no_tool", "unsure"]
    probability: float
    alternatives: tuple[Alternative, ...]
    timings_ms: Timings
    tokens: Tokens
    notes: tuple[str, ...] = ()
    placement: Placement = Placement()
    variant: VariantChoice | None = None  # None: the bundle has none
    toolset_probability: float | None = None
    arguments_probability: float | None = None
    not_in_conversation: tuple[str, ...] = ()
