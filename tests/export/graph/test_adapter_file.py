"""LoRA by way of the graph's slots gives PEFT's logits, exactly switched."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnxruntime
import onnxruntime_genai
import pytest
from numpy.typing import NDArray

if sys.platform != "win32":
    import resource

from dualtune_edge.export.adapter.read import AdapterWeights, LoraPair, read_adapter
from dualtune_edge.export.base.checkpoint import Checkpoint
from dualtune_edge.export.graph.adapter_file import write_adapter
from dualtune_edge.toolkit.errors import AdapterError

MakeAdapter: TypeAlias = Callable[..., Path]
PeftLogits: TypeAlias = Callable[[Path, Path | None], NDArray[np.float32]]

TOKENS = (257, 72, 105, 40, 11, 99, 3, 258, 17)  # the fixtures' prompt
CONFIGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "rslora": {"use_rslora": True, "r": 8, "lora_alpha": 16},
    "rank_pattern": {"rank_pattern": {"layers.0.self_attn.k_proj": 2, "down_proj": 6}},
    "alpha_pattern": {"alpha_pattern": {"up_proj": 32, "layers.1.self_attn.v_proj": 1}},
    "both_patterns_rslora": {"rank_pattern": {"q_proj": 7}, "alpha_pattern": {"q_proj": 3}, "use_rslora": True},
    "q_and_v": {"target_modules": ["q_proj", "v_proj"]},
    "k_alone": {"target_modules": ["k_proj"]},
    "regex": {"target_modules": r".*layers\.1\.(self_attn\.(k|o)_proj|mlp\.gate_proj)"},
    "second_layer": {"layers_to_transform": [1]},
    "one_excluded": {"exclude_modules": ["o_proj"]},
    "all_linear": {"target_modules": "all-linear"},
}


@pytest.mark.parametrize("config", CONFIGS)
def test_slots_give_pefts_logits(
    config: str, tiny: Checkpoint, float_graph: Any, make_adapter: MakeAdapter, peft_logits: PeftLogits
) -> None:
    folder = make_adapter(tiny, **CONFIGS[config])
    path = folder / "a.onnx_adapter"
    write_adapter(read_adapter(folder, tiny, "external"), float_graph.slots, path)
    reference = peft_logits(tiny.folder, folder)
    np.testing.assert_allclose(float_graph.logits(path), reference, atol=1e-4)
    assert np.abs(reference - peft_logits(tiny.folder, None)).max() > 0.1  # the adapter does change something


def test_untied_bfloat16_gives_pefts_logits(
    untied: Checkpoint, untied_graph: Any, make_adapter: MakeAdapter, peft_logits: PeftLogits, tmp_path: Path
) -> None:
    folder = make_adapter(untied)
    path = tmp_path / "a.onnx_adapter"
    write_adapter(read_adapter(folder, untied, "external"), untied_graph.slots, path)
    np.testing.assert_allclose(untied_graph.logits(path), peft_logits(untied.folder, folder), atol=1e-4)


def test_without_an_adapter_the_base_answers(tiny: Checkpoint, float_graph: Any, peft_logits: PeftLogits) -> None:
    np.testing.assert_allclose(float_graph.logits(), peft_logits(tiny.folder, None), atol=1e-4)


def test_genai_gives_the_same_and_switches_without_a_trace(
    tiny: Checkpoint, float_graph: Any, make_adapter: MakeAdapter, tmp_path: Path
) -> None:
    paths = {}
    for seed, modules in ((1, ["q_proj", "down_proj"]), (2, ["k_proj", "o_proj", "down_proj"])):
        name = str(seed)
        paths[name] = tmp_path / f"{name}.onnx_adapter"
        folder = make_adapter(tiny, seed=seed, target_modules=modules)
        write_adapter(read_adapter(folder, tiny, "external"), float_graph.slots, paths[name])
    model = onnxruntime_genai.Model(str(float_graph.folder))
    adapters = onnxruntime_genai.Adapters(model)
    for name, path in paths.items():
        adapters.load(str(path), name)

    def logits(name: str | None) -> NDArray[np.float32]:
        params = onnxruntime_genai.GeneratorParams(model)
        params.set_search_options(max_length=32)
        generator = onnxruntime_genai.Generator(model, params)
        if name:
            generator.set_active_adapter(adapters, name)
        generator.append_tokens(list(TOKENS))
        return generator.get_logits()[0, -1].copy()

    first, second, again = logits("1"), logits("2"), logits("1")
    np.testing.assert_array_equal(first, again)
    np.testing.assert_allclose(first, float_graph.logits(paths["1"]), atol=1e-5)
    np.testing.assert_allclose(second, float_graph.logits(paths["2"]), atol=1e-5)
    np.testing.assert_allclose(logits(None), float_graph.logits(), atol=1e-5)
    assert np.abs(first - second).max() > 0.1


def test_plain_onnxruntime_switches_bit_for_bit(
    tiny: Checkpoint, int4_graph: Any, make_adapter: MakeAdapter, tmp_path: Path
) -> None:
    for name, seed in (("a", 1), ("b", 2)):
        weights = read_adapter(make_adapter(tiny, seed=seed), tiny, "external")
        write_adapter(weights, int4_graph.slots, tmp_path / name)
    a, b, again = (int4_graph.logits(tmp_path / name) for name in "aba")
    np.testing.assert_array_equal(a, again)
    assert (a != b).any()


def test_same_adapter_same_bytes(tiny: Checkpoint, float_graph: Any, make_adapter: MakeAdapter, tmp_path: Path) -> None:
    folder = make_adapter(tiny)
    for name in "ab":
        write_adapter(read_adapter(folder, tiny, "external"), float_graph.slots, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of a file's size")
def test_a_file_that_the_system_does_not_take_is_its_error(
    tiny: Checkpoint, float_graph: Any, make_adapter: MakeAdapter, tmp_path: Path
) -> None:
    """onnxruntime's error does not say that the disk is full."""
    weights = read_adapter(make_adapter(tiny), tiny, "external")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_adapter(weights, float_graph.slots, tmp_path / "a")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("failures", [1, 2])
def test_a_write_that_failed_for_a_moment_is_made_good(
    failures: int,
    *,
    tiny: Checkpoint,
    float_graph: Any,
    make_adapter: MakeAdapter,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    weights = read_adapter(make_adapter(tiny), tiny, "external")
    write_adapter(weights, float_graph.slots, tmp_path / "first")
    export, calls = onnxruntime.AdapterFormat.export_adapter, iter(range(failures))

    def refused(file: onnxruntime.AdapterFormat, path: str) -> None:
        """Half of the file, and an error without a reason, as onnxruntime ends where the disk is full."""
        export(file, path)
        if next(calls, None) is not None:
            os.truncate(path, Path(path).stat().st_size // 2)
            raise RuntimeError("Failed to write adapter to file")

    monkeypatch.setattr(onnxruntime.AdapterFormat, "export_adapter", refused)
    if failures == 1:
        write_adapter(weights, float_graph.slots, tmp_path / "second")
        assert (tmp_path / "second").read_bytes() == (tmp_path / "first").read_bytes()
        return
    with pytest.raises(OSError, match="Failed to write") as caught:
        write_adapter(weights, float_graph.slots, tmp_path / "second")
    assert caught.value.errno == errno.EIO


def test_a_pair_without_a_slot_is_refused(
    tiny: Checkpoint, float_graph: Any, make_adapter: MakeAdapter, tmp_path: Path
) -> None:
    weights = read_adapter(make_adapter(tiny), tiny, "external")
    head = LoraPair(np.ones((4, 64), np.float32), np.ones((288, 4), np.float32), 1.0)
    strange = AdapterWeights(**vars(weights) | {"pairs": {**weights.pairs, "lm_head": head}})
    with pytest.raises(AdapterError, match=r"lm_head.*mode: merged"):
        write_adapter(strange, float_graph.slots, tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_a_pair_of_another_shape_is_refused(
    tiny: Checkpoint, float_graph: Any, make_adapter: MakeAdapter, tmp_path: Path
) -> None:
    weights = read_adapter(make_adapter(tiny), tiny, "external")
    module = "model.layers.0.mlp.up_proj"
    short = LoraPair(weights.pairs[module].a, weights.pairs[module].b[:-1], 1.0)
    strange = AdapterWeights(**vars(weights) | {"pairs": {**weights.pairs, module: short}})
    with pytest.raises(AdapterError, match=r"up_proj.*127 outputs.*64 and 128"):
        write_adapter(strange, float_graph.slots, tmp_path / "a")
