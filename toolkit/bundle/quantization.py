"""How a graph's weights are stored and computed."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import SerializerFunctionWrapHandler, model_serializer, model_validator

from dualtune_edge.toolkit.frozen import Frozen


class Quantization(Frozen):
    """How the base's weights are stored and computed. What is None has `bits`, and is left out of JSON."""

    bits: Literal[4, 8, 32] = 4  # 32: not quantized
    block_size: Literal[16, 32, 64, 128, 256] = 32  # weights that share one scale
    accuracy_level: Literal[0, 1, 2, 3, 4] = 4  # 4: int8 activations, the only fast one on CPUs
    algorithm: Literal["default", "rtn", "k_quant", "gptq"] = "default"
    lm_head_bits: Literal[8] | None = None  # of the head; a tied embedding reads the same table
    sensitive_bits: Literal[8] | None = None  # of qkv_proj and down_proj in `sensitive_layers`

    @model_validator(mode="after")
    def _mixes_where_it_can(self) -> Self:
        """By `default` the builder names an 8-bit head differently from the tied embedding that reads it."""
        if self.algorithm == "gptq" and self.bits != 4:
            raise ValueError("`bits: 4` with `algorithm: gptq`")
        plain = self.algorithm in ("default", "gptq")
        if (self.lm_head_bits or self.sensitive_bits) and (self.bits != 4 or plain):
            raise ValueError(
                "`bits: 4` and `algorithm: rtn` or `k_quant` where `lm_head_bits` or `sensitive_bits` are given"
            )
        return self

    @model_serializer(mode="wrap")
    def _without_none(self, dump: SerializerFunctionWrapHandler) -> dict[str, object]:
        return {name: value for name, value in dump(self).items() if value is not None}

    def line(self, layers: int) -> str:
        """In a line, for a model of so many layers."""
        if self.bits == 32:
            return "fp32"
        parts = [f"int{self.bits}", self.algorithm, f"blocks of {self.block_size}"]
        if self.lm_head_bits:
            parts.append(f"head int{self.lm_head_bits}")
        if self.sensitive_bits:
            listed = " ".join(map(str, sensitive_layers(layers)))
            parts.append(f"qkv and down of layers {listed} int{self.sensitive_bits}")
        return ", ".join(parts)


class QdqQuantization(Frozen):
    """Weights and activations in integers, by QuantizeLinear and DequantizeLinear: what NPUs' compilers take."""

    weight_bits: Literal[4, 8]
    activation_bits: Literal[8, 16]
    block_size: Literal[16, 32, 64, 128] | None = None  # weights that share one scale; None: an output channel's


def sensitive_layers(layers: int) -> tuple[int, ...]:
    """Those whose qkv_proj and down_proj are worth more bits: an eighth at either end, every third in between.

    The rule of llama.cpp's mixed types (`use_more_bits` in src/llama-quant.cpp), as onnxruntime-genai's builder has it.
    """
    start = round(layers / 8)
    return tuple(
        layer for layer in range(layers) if layer < layers / 8 or layer >= 7 * layers / 8 or (layer - start) % 3 == 2
    )
