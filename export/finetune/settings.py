"""The settings of a fine-tuning run."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal, TypeAlias

from pydantic import Field, model_validator

from dualtune_edge.toolkit.frozen import Frozen
from dualtune_edge.toolkit.prompts.no_tool import NO_TOOL

Objective: TypeAlias = Literal["toolset", "selection", "arguments", "joint", "answer"]
TARGETS: Final = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")  # as DualTune's


class ToolsetSource(Frozen):
    """A toolset, and its conversations: the lines that name it, or all of a file. Answers need no `tools`."""

    name: str
    description: str = ""
    tools: Path | None = None
    data: Path
    named: bool = True  # False: all lines are its own


class ListedToolset(Frozen):
    """A toolset of a spec, as a template may show it to every stage."""

    name: str
    description: str = ""
    tools: Path


class FinetuneSettings(Frozen):
    """One run: a base, trajectories and the tools in them → one adapter. The defaults suit a small base.

    An adapter of one toolset learns from `data` with `tools`, that of the toolset choice from all `toolsets`, that of
    the answer from `data` or all `toolsets`.

    DualTune's own, for 7B: rank 32, alpha 64, dropout 0.1, learning rate 5e-6, 5 warm-up steps, batch 16, 4 epochs.
    """

    objective: Objective  # what the adapter learns: a choice, arguments, whole calls, or the answers in words
    base: Path  # folder of the base model
    data: Path | None = None  # trajectories, one JSON object a line
    tools: Path | None = None  # the toolset's tool list
    toolsets: tuple[ToolsetSource, ...] = ()  # in the order of the spec, as the choice lists them
    output: Path  # folder of the adapter
    tool: str | None = None  # whose arguments are learnt
    toolset: str | None = None  # only the trajectories that name this toolset
    all_toolsets: tuple[ListedToolset, ...] = ()  # all toolsets of a spec, for a template that shows them
    own_toolset: str | None = None  # the one of them whose calls are learnt; None: of all
    template: Path | None = None  # chat template; None: the built-in one of the objective, or that of `activated`
    activated: bool = False  # in force from the generation prompt on: the base reads the conversation
    no_tool: str = NO_TOOL  # what a turn without a call is learnt as
    keep: dict[str, float] = Field(default_factory=dict)  # share of a too frequent tool's turns that is learnt
    too_long: Literal["refuse", "drop"] = "refuse"  # what becomes of samples over max_length
    max_length: int | None = Field(None, ge=2)  # tokens of a sample; None: the base's context length
    held_out: Path | None = None  # trajectories that are not learnt: the step that has most of them right is kept
    held_out_share: float = Field(0.0, ge=0, lt=1)  # of the data that is held out instead, drawn by the seed
    measure_every: int | None = Field(None, ge=1)  # steps between two measurements; None: an epoch

    rank: int = Field(32, ge=1)
    alpha: float = Field(64.0, gt=0)
    rslora: bool = True  # scale alpha / sqrt(rank) instead of alpha / rank
    targets: tuple[str, ...] = Field(TARGETS, min_length=1)
    dropout: float = Field(0.0, ge=0, lt=1)
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"  # of the saved adapter; training is in float32

    learning_rate: float = Field(1e-3, gt=0)
    epochs: int = Field(4, ge=1)
    max_steps: int | None = Field(None, ge=1)  # ends the run earlier
    batch_size: int = Field(16, ge=1)  # samples a step
    micro_batch: int | None = Field(None, ge=1)  # samples held at once; None: the whole batch
    warm_up_steps: int = Field(5, ge=0)
    weight_decay: float = Field(0.01, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    autocast: bool = False  # multiply in bfloat16
    gradient_checkpointing: bool = False  # compute activations a second time instead of keeping them
    base_dtype: Literal["float32", "bfloat16"] = "float32"  # in which the base is held; the adapter is in float32
    base_bits: Literal[4] | None = None  # of its linear layers but the head, as NF4; None: they are in `base_dtype` too
    optimizer: Literal["adamw", "adamw-8bit"] = "adamw"  # with its moments in float32, or as codes of 8 bits
    seed: int = Field(0, ge=0, lt=2**32)

    threads: int | None = Field(None, ge=1)  # None: one for each physical core
    checkpoint_every: int | None = Field(None, ge=1)  # steps; None: after the first one, then once a minute
    resume: bool = False  # go on from the checkpoint of an interrupted run

    @model_validator(mode="after")
    def _has_its_sources(self) -> FinetuneSettings:
        of_one = self.data is not None and not self.toolsets
        of_all = self.toolsets and not (self.data or self.toolset)
        match self.objective:
            case "toolset":
                if not of_all or self.tools or any(source.tools is None for source in self.toolsets):
                    raise ValueError("the `toolsets` of a spec for the objective 'toolset', and no `data` or `tools`")
            case "answer":
                if not (of_one or of_all) or self.tools:
                    raise ValueError("`data`, or the `toolsets` of a spec, for the objective 'answer', and no `tools`")
            case _:
                if not of_one or self.tools is None:
                    raise ValueError(f"`data` and `tools`, and no `toolsets`, for the objective {self.objective!r}")
        return self

    @model_validator(mode="after")
    def _measures_something(self) -> FinetuneSettings:
        if self.held_out and self.held_out_share:
            raise ValueError("a file of what is held out, or a share of the data")
        if self.measure_every and not (self.held_out or self.held_out_share):
            raise ValueError("something held out to measure with: a file, or a share of the data")
        return self

    @model_validator(mode="after")
    def _fits_together(self) -> FinetuneSettings:
        if (self.objective == "arguments") != (self.tool is not None):
            raise ValueError("a tool for the objective 'arguments', and for no other")
        if self.keep and self.objective in ("arguments", "answer"):
            raise ValueError("`keep` for the objectives 'toolset', 'selection' and 'joint' only")
        lists_none = self.objective not in ("toolset", "answer")
        builtin = self.activated and self.template is None and not self.shares_toolsets
        if lists_none and builtin and self.no_tool != NO_TOOL:
            raise ValueError(f"`no_tool: {NO_TOOL}` with the built-in template for activated adapters, which lists it")
        if lists_none and self.all_toolsets and self.own_toolset not in {toolset.name for toolset in self.all_toolsets}:
            raise ValueError("`own_toolset`, one of `all_toolsets`, where its calls are learnt")
        for tool, share in self.keep.items():
            if not 0 < share <= 1:
                raise ValueError(f"a share of {tool!r} above 0 and up to 1")
        return self

    @property
    def shares_toolsets(self) -> bool:
        """Whether the built-in template is the one that shows all toolsets to every stage."""
        return self.activated and self.template is None and len(self.all_toolsets) > 1

    @property
    def sources(self) -> tuple[ToolsetSource, ...]:
        """Where the samples come from: the toolsets, or the one of `data` and `tools`."""
        if self.data is None:
            return self.toolsets
        named = self.toolset is not None
        return (ToolsetSource(name=self.toolset or "", tools=self.tools, data=self.data, named=named),)


def adapter_name(objective: Objective, tool: str | None, toolset: str | None) -> str:
    """What an adapter is for: `git, arguments of git_log`."""
    return (f"{toolset}, " if toolset else "") + objective + (f" of {tool}" if tool else "")
