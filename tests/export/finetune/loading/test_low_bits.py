"""A base in 4 bits and AdamW in 8. Their losses are compared with Trainer's in test_losses.py."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from dualtune_edge_kit.random_checkpoint import SHAPES, write_checkpoint
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from dualtune_edge.export.adapter.read import read_adapter
from dualtune_edge.export.finetune import trainer
from dualtune_edge.export.finetune.loading import base as bases
from dualtune_edge.export.finetune.loading.base import Base, Precision, weight_bytes
from dualtune_edge.export.finetune.loading.low_bits import adamw_8bit, moments_bytes
from dualtune_edge.export.finetune.report import Event, Step
from dualtune_edge.export.finetune.run_state import state_path
from dualtune_edge.export.finetune.train import finetune
from dualtune_edge.toolkit.errors import MissingExtraError, OutputError, RoomError, SpecError

bitsandbytes = pytest.importorskip("bitsandbytes", reason="the wheel of bitsandbytes does not exist for this system")
BOTH: dict[str, Any] = {"base_bits": 4, "optimizer": "adamw-8bit"}
IN_4_BITS = Precision(torch.float32, 4, torch.float32)


def stop_after_two(event: Event) -> None:
    if isinstance(event, Step) and event.step == 2:
        raise KeyboardInterrupt


def test_a_resumed_run_ends_as_one_that_was_not_stopped(settings: Any, tmp_path: Path) -> None:
    whole, cut = (settings(output=tmp_path / name, rank=64, threads=1, **BOTH) for name in ("whole", "cut"))
    finetune(whole)
    with pytest.raises(KeyboardInterrupt):
        finetune(cut, stop_after_two)
    moments = torch.load(state_path(cut.output), weights_only=True)["optimizer"]["state"]
    assert torch.uint8 in {dtype for moment in moments.values() for dtype in dtypes(moment)}
    for other in ({"base_bits": None}, {"optimizer": "adamw"}):
        with pytest.raises(OutputError, match="other settings"):
            finetune(cut.model_copy(update={"resume": True, **other}))
    finetune(cut.model_copy(update={"resume": True}))
    for path in whole.output.iterdir():
        assert path.read_bytes() == (cut.output / path.name).read_bytes(), path.name
    record = json.loads((whole.output / "training.json").read_bytes())
    assert record["settings"].items() >= BOTH.items()
    assert "bitsandbytes" in record["versions"]


def dtypes(value: Any) -> set[torch.dtype]:
    """The number formats in a state."""
    if isinstance(value, dict):
        return {dtype for part in value.values() for dtype in dtypes(part)}
    return {value.dtype} if isinstance(value, torch.Tensor) else set()


def test_a_run_in_full_precision_has_neither_in_its_record(base: Base, settings: Any) -> None:
    run = settings(max_steps=1, threads=1)
    finetune(run, base=base)
    record = json.loads((run.output / "training.json").read_bytes())
    assert not BOTH.keys() & record["settings"].keys()
    assert "bitsandbytes" not in record["versions"]


def test_the_steps_are_those_of_bitsandbytes_driven_plainly(
    base: Base, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the gradients of our run, to the bit: no other gradient decides between two neighbouring codes."""
    run = settings(rank=64, threads=1, weight_decay=0.1, optimizer="adamw-8bit")
    steps: list[tuple[float, list[torch.Tensor], list[torch.Tensor]]] = []

    def adamw(weights: Any, weight_decay: float) -> torch.optim.Optimizer:
        optimizer, trained = adamw_8bit(weights := list(weights), weight_decay), weights
        initial.extend(weight.detach().clone() for weight in trained)
        step = optimizer.step

        def recorded() -> None:
            gradients = [weight.grad.clone() for weight in trained]
            step()
            steps.append((optimizer.param_groups[0]["lr"], gradients, [weight.detach().clone() for weight in trained]))

        monkeypatch.setattr(optimizer, "step", recorded)
        return optimizer

    initial: list[torch.Tensor] = []
    monkeypatch.setattr(trainer, "adamw_8bit", adamw)
    finetune(run, base=base)
    weights = [torch.nn.Parameter(tensor) for tensor in initial]
    plain = bitsandbytes.optim.AdamW8bit(weights, weight_decay=0.1)
    assert len(steps) == 4
    for rate, gradients, after in steps:
        plain.param_groups[0]["lr"] = rate
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.grad = gradient
        plain.step()
        for weight, wanted in zip(weights, after, strict=True):
            assert torch.equal(weight, wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_base_is_that_of_transformers_to_the_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    """Of a checkpoint in bfloat16, which transformers rounds to before it quantizes."""
    write_checkpoint(tmp_path, SHAPES["tiny"], seed=1, dtype=torch.bfloat16)
    nf4 = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )
    tokens = torch.tensor([[5, 7, 11, 13] * 40])
    for quantized in (nf4, None):
        theirs = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=dtype, quantization_config=quantized)
        precision = Precision(dtype, 4, dtype) if quantized else Precision(dtype)
        with Base.open(tmp_path, precision=precision) as ours, torch.no_grad():
            assert torch.equal(ours.model(tokens).logits, theirs(tokens).logits)


@pytest.mark.parametrize(
    "changes",
    [
        {"activated": True},
        {"gradient_checkpointing": True, "base_dtype": "bfloat16"},
        {"autocast": True},
    ],
)
def test_other_settings_go_with_them(base: Base, settings: Any, tmp_path: Path, changes: dict[str, Any]) -> None:
    """Rounding the base changes the loss a little, and does not undo what is learnt."""
    full = settings(output=tmp_path / "full", threads=1, max_steps=1, activated="activated" in changes)
    low = settings(output=tmp_path / "low", threads=1, held_out_share=0.4, **BOTH, **changes)
    wanted, report = finetune(full, base=base).losses, finetune(low)
    assert report.losses[0] == pytest.approx(wanted[0], rel=0.2)
    assert report.losses[0] != wanted[0]
    assert report.losses[-1] < report.losses[0]


def test_adapters_one_after_the_other_leave_the_base_as_it_was(base: Base, settings: Any, tmp_path: Path) -> None:
    with Base.open(base.checkpoint.folder, precision=IN_4_BITS) as opened:
        first, second = (settings(output=tmp_path / name, threads=1, base_bits=4) for name in ("first", "second"))
        for run in (first, second):
            finetune(run, base=opened)
    ours, others = (load_file(run.output / "adapter_model.safetensors") for run in (first, second))
    assert ours.keys() == others.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, others[name])
    assert read_adapter(first.output, base.checkpoint, "external").rank == 4  # an adapter of the checkpoint, as any


def test_a_base_that_is_held_in_another_way_is_refused(base: Base, settings: Any) -> None:
    for changes in ({"base_bits": 4}, {"base_dtype": "bfloat16"}):
        with pytest.raises(SpecError, match="it loaded in float32"):
            finetune(settings(**changes), base=base)


@pytest.mark.parametrize(
    ("changes", "option"),
    [({"base_bits": 4}, "--base-bits 4"), ({"optimizer": "adamw-8bit"}, "--optimizer adamw-8bit")],
)
def test_without_the_package_it_says_what_to_install(
    settings: Any, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], option: str
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(MissingExtraError, match=r"dualtune-edge\[bitsandbytes\]") as raised:
        finetune(settings(**changes))
    assert raised.value.where == option


@pytest.mark.parametrize(
    ("changes", "kernel"),
    [({"base_bits": 4}, "nn.Params4bit.to"), ({"optimizer": "adamw-8bit"}, "optim.AdamW8bit.step")],
)
def test_a_machine_without_kernels_is_refused(
    settings: Any, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], kernel: str
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("\nNo kernel image\n\nDetails")

    monkeypatch.setattr(f"bitsandbytes.{kernel}", fails)
    with pytest.raises(SpecError, match="on cpu: No kernel image; expected a build of bitsandbytes"):
        finetune(settings(**changes))


def test_a_measurement_keeps_the_weights_in_their_layout(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU with AVX512-BF16 the layer would pack them for a kernel that has no gradient."""
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: True)
    with Base.open(base.checkpoint.folder, precision=IN_4_BITS) as opened, torch.no_grad():
        opened.model.eval()(torch.tensor([[1, 2]]))
        layers = [module for module in opened.model.modules() if isinstance(module, bitsandbytes.nn.Linear4bit)]
        assert layers
        assert not any(getattr(layer.weight.quant_state, "packing_format_for_cpu", False) for layer in layers)


@pytest.mark.parametrize(
    "precision", [IN_4_BITS, Precision(torch.bfloat16, 4, torch.bfloat16), Precision(torch.bfloat16)]
)
def test_memory_is_counted_in_the_bits_that_it_takes(
    base: Base, monkeypatch: pytest.MonkeyPatch, precision: Precision
) -> None:
    folder = base.checkpoint.folder
    with Base.open(folder, precision=precision) as opened:
        held = sum(map(bytes_of, {id(weight): weight for weight in opened.model.parameters()}.values()))
    counted, read = weight_bytes(base.model, precision)
    assert counted == pytest.approx(held, rel=0.01)
    for free, fits in ((counted + read, True), (counted + read - 1, False)):
        monkeypatch.setattr(bases.room, "free_memory", lambda free=free: free)
        if fits:
            with Base.open(folder, precision=precision):
                pass
        else:
            with (
                pytest.raises(RoomError, match=f"in {precision}, as they are read"),
                Base.open(folder, precision=precision),
            ):
                pass


@pytest.mark.parametrize(("shape", "name"), [("qwen2.5-0.5b", "Qwen2.5-0.5B"), ("qwen2.5-7b", "Qwen2.5-7B")])
def test_the_page_says_what_is_counted(shape: str, name: str) -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(SHAPES[shape].config())
    precisions = [Precision(dtype, bits) for bits in (None, 4) for dtype in (torch.float32, torch.bfloat16)]
    counted = [f"{weight_bytes(model, precision)[0] / 1e9:.2f}" for precision in precisions]
    page = (Path(__file__).parents[4] / "docs" / "fine-tuning.md").read_text(encoding="utf-8")
    assert f"| {' | '.join((name, *counted))} |" in page


def bytes_of(weight: Any) -> int:
    """A weight's, with its scales and theirs."""
    state = getattr(weight, "quant_state", None)
    return int(weight.nbytes + (state.absmax.nbytes + state.state2.absmax.nbytes if state else 0))


def test_a_base_that_fits_in_4_bits_alone_is_not_refused(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor for the machine's memory where it goes to a GPU: one weight is read at a time."""
    in_full, _ = weight_bytes(base.model, Precision())
    in_4_bits, read = weight_bytes(base.model, IN_4_BITS)
    assert in_4_bits + read < in_full
    monkeypatch.setattr(bases.room, "free_memory", lambda: in_4_bits + read)
    bases._refuse_without_room(base.checkpoint, IN_4_BITS, torch.device("cpu"), 1)
    with pytest.raises(RoomError, match="take --base-bits 4, --base-dtype bfloat16, a smaller base"):
        bases._refuse_without_room(base.checkpoint, Precision(), torch.device("cpu"), 1)
    monkeypatch.setattr(bases.room, "free_memory", lambda: read)
    monkeypatch.setattr(bases, "free_on_gpu", lambda: in_4_bits)
    bases._refuse_without_room(base.checkpoint, IN_4_BITS, torch.device("cuda"), 1)
    with pytest.raises(RoomError):
        bases._refuse_without_room(base.checkpoint, Precision(), torch.device("cuda"), 1)


@pytest.mark.parametrize("shape", [(64, 64), (4, 64), (65, 64)])
def test_the_moments_take_what_is_estimated(shape: tuple[int, int]) -> None:
    weight = torch.nn.Parameter(torch.ones(shape))
    optimizer = adamw_8bit([weight], 0.0)
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    state = optimizer.state[weight]
    held = sum(value.nbytes for name, value in state.items() if name.startswith(("state", "absmax")))
    assert held == moments_bytes(weight, in_8_bits=True)
    assert moments_bytes(weight, in_8_bits=False) == 8 * weight.numel()
