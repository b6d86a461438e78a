from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dualtune_edge.export.checkpoint import Checkpoint
from dualtune_edge.export.parity.streamed import float32_bytes, streamed_model
from dualtune_edge.export.parity.torch_engine import TorchEngine

TOKENS = (257, 72, 105, 40, 11, 99, 3, 258, 17)


def stored_bytes(model: object) -> int:
    """Of the storages behind the layers' matrices."""
    matrices = [each for name, each in model.named_parameters() if ".layers." in name and each.dim() > 1]  # type: ignore[attr-defined]
    assert len(matrices) == 14
    return sum(each.untyped_storage().nbytes() for each in matrices)


@pytest.mark.parametrize("adapter", [None, "a.wide", "a.narrow"])
def test_it_gives_the_logits_of_the_whole_model(
    adapter: str | None, checkpoint: Checkpoint, adapters: dict[str, Path], reference: TorchEngine
) -> None:
    model = streamed_model(checkpoint)
    with TorchEngine(checkpoint.folder, adapters, model=model) as streamed:
        for engine in (reference, streamed):
            engine.use(adapter)
        np.testing.assert_array_equal(streamed.forward(TOKENS), reference.forward(TOKENS))
        np.testing.assert_array_equal(streamed.forward((5,)), reference.forward((5,)))  # from the KV cache
        streamed.forget_adapters()
        reference.forget_adapters()
        np.testing.assert_array_equal(streamed.forward(TOKENS), reference.forward(TOKENS))


def test_no_layer_is_held_between_forwards(checkpoint: Checkpoint) -> None:
    model = streamed_model(checkpoint)
    during: list[int] = []
    model.get_submodule("model.layers.0.mlp").register_forward_hook(lambda *_: during.append(stored_bytes(model)))
    before = stored_bytes(model)
    TorchEngine(checkpoint.folder, {}, model=model).forward(TOKENS)
    assert before == stored_bytes(model) < 100
    assert 0 < during[0] < 0.6 * float32_bytes(checkpoint)  # of two layers, one
