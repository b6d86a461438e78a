"""What an export says about itself: how far its graphs are from PEFT in float32. One JSON file of the bundle."""

from __future__ import annotations

from typing import Final

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from dualtune_edge.toolkit.bundle.quantization import Quantization
from dualtune_edge.toolkit.frozen import Frozen

PARITY: Final = "parity.json"
EXACT: Final = 1e-3  # the largest logit error that rounding in float32 explains
SURE: Final = 0.9  # probability from which on a choice of the reference counts as sure


class ParityLimits(Frozen):
    """What a stage of the bundle may differ by. The shares of 0 enforce nothing: a near tie may fall either way."""

    max_kl: float = Field(default=1.0, ge=0, strict=True)  # nats, mean over a stage's positions
    max_sure_flips: float = Field(
        default=0.0, ge=0, le=1, strict=True
    )  # share of the choices of which the reference is sure
    min_top1: float = Field(default=0.0, ge=0, le=1, strict=True)  # share of the positions
    min_exact: float = Field(default=0.0, ge=0, le=1, strict=True)  # share of the arguments


class StageParity(Frozen):
    """One stage: what the bundle answers against what the reference answers to the same prompts.

    A position is a forward after which the bundle decided something; the reference read the same tokens. Errors are
    absolute differences of logits over the whole vocabulary; the divergence is KL(reference ‖ bundle) in nats.
    """

    stage: str
    adapter: str | None  # None: the base answers
    prompts: int
    positions: int
    before_quantization: float | None  # largest logit error of the graph in float32; None: not compared
    max_error: float
    mean_error: float
    top1: float  # share of the positions where both have the same most probable token
    mean_kl: float
    max_kl: float
    choices: int
    flips: int  # choices that came out differently
    sure: int  # choices of which the reference was sure
    sure_flips: int  # and of these, those that came out differently
    arguments: int
    exact: int  # arguments that are wholly the reference's
    unfinished: int  # arguments and texts that did not end within the tokens allowed, compared as far as they go
    texts: int = 0  # 0 is left out of JSON, and so is the next then
    same_texts: int = 0  # texts that are wholly the reference's, as far as they are compared

    @model_serializer(mode="wrap")
    def _without_texts(self, dump: SerializerFunctionWrapHandler) -> dict[str, object]:
        absent = () if self.texts else ("texts", "same_texts")
        return {name: value for name, value in dump(self).items() if name not in absent}


class StateParity(Frozen):
    """A prefix state that was to be stored in float16.

    `stages` begin with it: what they answer behind the rounded values against what they answer behind the exact ones.
    """

    path: str
    exact_because: str | None  # why it is stored in float32 after all
    stages: tuple[StageParity, ...]


class RefusedRecipe(Frozen):
    """A way to quantize that was tried, and whose stages were not all within the limits."""

    recipe: str
    quantization: Quantization
    why: str  # of the first such stage
    stages_beyond: int
    max_kl: float  # nats, the largest mean over a stage's positions


class Depth(Frozen):
    """How many of the base's layers took part: its first ones, with embedding, last norm and head.

    Adapters took part with what they have on these layers, which is something of each.
    """

    layers: int  # that the base has
    compared: int  # of the bundle's graphs
    before_quantization: int | None  # of the graphs in float32; None: not compared


class ParityReport(Frozen):
    """The whole of `parity.json`. Where `skipped` says why, nothing was compared."""

    skipped: str | None = None
    before_quantization_skipped: str | None = None  # why the graphs in float32 were not compared
    depth: Depth | None = None  # None: nothing was compared, or by an export that always took all layers
    prompts: int = 0  # messages made from the tools, a stage
    calibration: int = 0  # conversations of the user's own
    limits: ParityLimits = ParityLimits()
    refused: tuple[RefusedRecipe, ...] = ()  # tried before the one that was taken, or all of them
    stages: tuple[StageParity, ...] = ()
    states: tuple[StateParity, ...] = ()  # none where they are stored as they are, or without a comparison

    def line(self) -> str:
        """The report in a line."""
        if self.skipped is not None:
            return f"not compared: {self.skipped}"
        before = [stage.before_quantization for stage in self.stages if stage.before_quantization is not None]
        choices, arguments = sum(stage.choices for stage in self.stages), sum(stage.arguments for stage in self.stages)
        texts = sum(stage.texts for stage in self.stages)
        rounded = sum(state.exact_because is None for state in self.states)
        parts = [
            f"within {max(before):.1e} of PEFT before quantization{self._on(before=True)}" if before else "",
            f"KL up to {max(stage.mean_kl for stage in self.stages):.3f} after{self._on(before=False)}",
            f"{choices - sum(stage.flips for stage in self.stages)} of {choices} choices" if choices else "",
            f"{sum(stage.exact for stage in self.stages)} of {arguments} arguments the same" if arguments else "",
            f"{sum(stage.same_texts for stage in self.stages)} of {texts} answers the same" if texts else "",
            f"recipes refused: {len(self.refused)}" if self.refused else "",
            f"{rounded} of {len(self.states)} prefix states in float16" if self.states else "",
        ]
        return ", ".join(filter(None, parts))

    def _on(self, *, before: bool) -> str:
        """Which layers took part, if not all."""
        count = None if self.depth is None else self.depth.before_quantization if before else self.depth.compared
        if self.depth is None or count is None or count == self.depth.layers:
            return ""
        return f" (first {count} of {self.depth.layers} layers)"
