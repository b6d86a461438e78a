from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from dualtune_edge_kit.random_checkpoint import Shape, write_checkpoint

from dualtune_edge.export.base.checkpoint import Checkpoint, read_checkpoint
from dualtune_edge.export.reference import streamed
from dualtune_edge.export.reference.streamed import float32_bytes, streamed_model
from dualtune_edge.export.reference.torch_engine import TorchEngine

TOKENS = (257, 72, 105, 40, 11, 99, 3, 258, 17)


def stored_bytes(model: object) -> int:
    """Of the storages behind the matrices: of two layers, and the table that embedding and head share."""
    matrices = [parameter for _, parameter in model.named_parameters() if parameter.dim() > 1]  # type: ignore[attr-defined]
    assert len(matrices) == 15
    storages = {
        matrix.data_ptr() - matrix.storage_offset() * 4: matrix.untyped_storage().nbytes() for matrix in matrices
    }
    return sum(storages.values())


@pytest.mark.parametrize("whole_tables", [False, True])
@pytest.mark.parametrize("adapter", [None, "a.wide", "a.narrow"])
def test_it_gives_the_logits_of_the_whole_model(
    adapter: str | None,
    checkpoint: Checkpoint,
    adapters: dict[str, Path],
    reference: TorchEngine,
    *,
    whole_tables: bool,
) -> None:
    model = streamed_model(checkpoint, whole_tables=whole_tables)
    with TorchEngine(checkpoint, adapters, model=model) as ours:
        for engine in (reference, ours):
            engine.use(adapter)
        np.testing.assert_array_equal(ours.forward(TOKENS), reference.forward(TOKENS))
        np.testing.assert_array_equal(ours.forward((5,)), reference.forward((5,)))  # from the KV cache
        ours.forget_adapters()
        reference.forget_adapters()
        np.testing.assert_array_equal(ours.forward(TOKENS), reference.forward(TOKENS))


@pytest.mark.parametrize("model_type", ["gemma", "llama"])
def test_tables_that_are_scaled_or_two(model_type: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gemma scales what its embedding gives; the head comes in pieces, the last of them a short one."""
    shape = Shape(64, 128, 1, 4, 2, 288, 512, tied=model_type == "gemma", model_type=model_type)
    write_checkpoint(tmp_path / "base", shape)
    checkpoint = read_checkpoint(tmp_path / "base")
    monkeypatch.setattr(streamed, "_PIECE", 100 * 64)
    model = streamed_model(checkpoint)
    expected = TorchEngine(checkpoint, {}).forward(TOKENS)
    np.testing.assert_allclose(TorchEngine(checkpoint, {}, model=model).forward(TOKENS), expected, atol=1e-5)


def test_no_weight_is_held_between_forwards(checkpoint: Checkpoint) -> None:
    model = streamed_model(checkpoint)
    during: list[int] = []
    model.get_submodule("model.layers.0.mlp").register_forward_hook(lambda *_: during.append(stored_bytes(model)))
    before = stored_bytes(model)
    TorchEngine(checkpoint, {}, model=model).forward(TOKENS)
    assert before == stored_bytes(model) < 100
    assert 0 < during[0] < 0.6 * float32_bytes(checkpoint)  # of two layers, one


def test_every_layer_takes_the_memory_of_the_one_before(checkpoint: Checkpoint, adapters: dict[str, Path]) -> None:
    """Also on the twin that an adapter is put on."""
    model = streamed_model(checkpoint)
    taken: set[int] = set()

    def note(module: torch.nn.Module, *_: object) -> None:
        taken.add(module.get_parameter("down_proj.weight").data_ptr())

    for index in range(2):
        model.get_submodule(f"model.layers.{index}.mlp").register_forward_hook(note)
    with TorchEngine(checkpoint, adapters, model=model) as engine:
        engine.forward(TOKENS)
        engine.use("a.narrow")
        engine.forward(TOKENS)
    assert len(taken) == 1
