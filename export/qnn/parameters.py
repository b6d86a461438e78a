"""A model's weights, as stored in a static graph: matrices in integers, attention's factor folded in."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from dualtune_edge.export.base.modules import EMBEDDING, HEAD
from dualtune_edge.export.base.weights import Weights
from dualtune_edge.export.qnn.shape import DecoderShape
from dualtune_edge.export.quantize.gptq import Moments, round_by
from dualtune_edge.export.quantize.integers import IntegerWeight, quantize_weight
from dualtune_edge.toolkit.bundle.quantization import QdqQuantization


class ModelParameters:
    """Weights that are read and rounded at first use, and kept: all graphs of a model share them.

    Args:
        weights: the base's, or those with an adapter merged in.
        names: of all the model's weights.
        shape: the decoder's.
        quantization: of the matrices; None: float32. The head always has 8 bits, since every answer depends on it.
        inputs: the moments of the linear modules' inputs, by module: 4-bit weights are rounded by them.

    """

    def __init__(
        self,
        weights: Weights,
        names: frozenset[str],
        shape: DecoderShape,
        quantization: QdqQuantization | None,
        inputs: Mapping[str, Moments] = MappingProxyType({}),
    ) -> None:
        self._weights, self._names, self._shape, self._quantization = weights, names, shape, quantization
        self._inputs = inputs

    @functools.cache  # noqa: B019 - the object lives as long as the export of one model
    def matrix(self, module: str) -> IntegerWeight | NDArray[np.float32]:
        """A linear module's weight, shape (inputs, outputs)."""
        weight = np.ascontiguousarray(self._read(f"{module}.weight").T)
        if module.endswith(".q_proj") and not self._shape.qk_norm:
            weight *= np.float32(1 / math.sqrt(self._shape.head_dim))
        if self._quantization is None:
            return weight
        if module == HEAD or self._quantization.weight_bits == 8:
            return quantize_weight(weight, bits=8, block=None)
        return round_by(weight, self._inputs[module], bits=4, block=self._quantization.block_size)

    def vector(self, name: str) -> NDArray[np.float32] | None:
        """A bias or a norm's weight; None: there is none."""
        if name not in self._names:
            return None
        scaled = ".q_norm." if self._shape.qk_norm else ".q_proj."
        return self._read(name) * np.float32(1 / math.sqrt(self._shape.head_dim) if scaled in name else 1)

    def table(self) -> NDArray[np.float32]:
        """The embedding, shape (vocabulary, hidden)."""
        return self._read(f"{EMBEDDING}.weight")

    def _read(self, name: str) -> NDArray[np.float32]:
        values: NDArray[np.float32] = self._weights.read(name).numpy()
        return values
