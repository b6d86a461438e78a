from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from dualtune_edge.export.adapter.read import read_adapter
from dualtune_edge.export.finetune.base import Base
from dualtune_edge.export.finetune.batches import batches, learning_rate, shared_prefix, summed_loss
from dualtune_edge.export.finetune.masks import Sample
from dualtune_edge.export.finetune.report import Step
from dualtune_edge.export.finetune.settings import FinetuneSettings
from dualtune_edge.export.finetune.train import finetune
from dualtune_edge.toolkit.errors import OutputError, SpecError

COMPACT = """\
{% for message in messages %}
<|im_start|>{{ message.role }}
{% for call in message.tool_calls %}
{"name": {{ call.function.name | tojson }}, "parameters": {{ call.function.arguments | tojson }}}
{%- else %}
{{ message.content }}
{%- endfor -%}
<|im_end|>
{% endfor %}
{% if add_generation_prompt %}
<|im_start|>assistant
{% endif %}
"""


@pytest.fixture
def settings(settings: Any, tmp_path: Path) -> Callable[..., FinetuneSettings]:
    """Short prompts, one thread: quick on a busy machine."""
    template = tmp_path / "compact.jinja"
    template.write_text(COMPACT, encoding="utf-8", newline="\n")
    return lambda **changes: settings(**{"template": template, "threads": 1} | changes)


def weights(settings: FinetuneSettings) -> dict[str, torch.Tensor]:
    return load_file(settings.output / "adapter_model.safetensors")


@pytest.mark.parametrize(("stage", "tool"), [("selection", None), ("arguments", "read"), ("joint", None)])
def test_the_loss_goes_down_and_the_base_stays_as_it_was(base: Base, settings: Any, stage: str, tool: str) -> None:
    before = {name: each.clone() for name, each in base.model.state_dict().items()}
    run = settings(stage=stage, tool=tool, max_steps=12, epochs=12, learning_rate=2e-2, warm_up_steps=1)
    report = finetune(run, base=base)
    assert report.losses[-1] < 0.8 * report.losses[0]
    assert report.steps == len(report.losses) == 12
    after = base.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert any(each.abs().max() > 0 for name, each in weights(run).items() if "lora_B" in name)


def test_the_folder_is_peft_s_and_names_no_path_of_this_machine(base: Base, settings: Any, tmp_path: Path) -> None:
    run = settings(rank=3, alpha=5.0, dtype="float16")
    finetune(run, base=base)
    names = sorted(path.name for path in run.output.iterdir())
    assert names == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "base_fingerprint.txt",
        "chat_template.jinja",
        "training.json",
    ]
    config = json.loads((run.output / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["base_model_name_or_path"] == base.checkpoint.name
    assert (config["r"], config["lora_alpha"], config["use_rslora"]) == (3, 5.0, True)
    assert not any(str(tmp_path) in path.read_text(encoding="utf-8") for path in run.output.glob("*.json"))
    assert all(each.dtype == torch.float16 for each in weights(run).values())
    assert read_adapter(run.output, base.checkpoint, "external").rank == 3
    fresh = AutoModelForCausalLM.from_pretrained(base.checkpoint.folder, dtype=torch.float32)
    tokens = torch.tensor([[5, 6, 7]])
    plain = fresh(tokens).logits
    adapted = PeftModel.from_pretrained(fresh, run.output)
    assert not torch.equal(adapted(tokens).logits, plain)


def test_equal_runs_give_equal_folders_and_another_seed_or_mask_another_adapter(
    base: Base, settings: Any, tmp_path: Path
) -> None:
    runs = [
        settings(output=tmp_path / "a", dropout=0.1),
        settings(output=tmp_path / "b", dropout=0.1),
        settings(output=tmp_path / "c", dropout=0.1, seed=1),
        settings(output=tmp_path / "d", dropout=0.1, stage="joint"),
    ]
    for run in runs:
        finetune(run, base=base)
    first, same, seed, joint = runs
    for path in first.output.iterdir():
        assert path.read_bytes() == (same.output / path.name).read_bytes()
    for other in (seed, joint):
        assert any(not torch.equal(each, weights(other)[name]) for name, each in weights(first).items())


def test_a_resumed_run_ends_as_an_uninterrupted_one(base: Base, settings: Any, tmp_path: Path) -> None:
    common = {"dropout": 0.2, "checkpoint_every": 2, "max_steps": 5}
    whole = settings(output=tmp_path / "whole", **common)
    finetune(whole, base=base)

    def interrupt(step: Step) -> None:
        if step.step == 3:
            raise KeyboardInterrupt

    cut = settings(output=tmp_path / "cut", **common)
    with pytest.raises(KeyboardInterrupt):
        finetune(cut, interrupt, base=base)
    assert not cut.output.exists()
    with pytest.raises(OutputError, match="checkpoint of an interrupted run"):
        finetune(cut, base=base)
    with pytest.raises(OutputError, match="other settings"):
        finetune(cut.model_copy(update={"resume": True, "seed": 9}), base=base)
    steps: list[int] = []
    finetune(cut.model_copy(update={"resume": True}), lambda step: steps.append(step.step), base=base)
    assert steps == [3, 4, 5]
    for path in whole.output.iterdir():
        assert path.read_bytes() == (cut.output / path.name).read_bytes(), path.name
    assert sorted(path.name for path in tmp_path.iterdir() if "checkpoint" in path.name) == []


def test_what_cannot_be_done_is_refused_and_leaves_nothing(base: Base, settings: Any, tmp_path: Path) -> None:
    before = {path.name for path in (settings().data.parent).iterdir()}
    with pytest.raises(SpecError, match=r"'qkv'; expected linear modules of tiny: down_proj, .*v_proj"):
        finetune(settings(targets=("q_proj", "qkv")), base=base)
    with pytest.raises(OutputError, match="no checkpoint"):
        finetune(settings(resume=True), base=base)
    with pytest.raises(SpecError, match="a loss of nan at step"):
        finetune(settings(learning_rate=1e30, max_grad_norm=1e30, warm_up_steps=0), base=base)
    assert {path.name for path in tmp_path.iterdir()} == before
    settings().output.mkdir()
    with pytest.raises(OutputError, match="already there"):
        finetune(settings(), base=base)


SAMPLES = [Sample((1, 2, 3, 4, *range(9, 9 + extra), 40 + extra, 50), learnt=2) for extra in range(1, 6)]


def test_the_shared_prefix_changes_no_loss_and_no_gradient(base: Base, settings: Any) -> None:
    gradients = []
    with base.adapted(settings()) as adapted:
        parameters = [each for name, each in adapted.named_parameters() if "lora_B" in name]
        with torch.no_grad():
            for each in parameters:
                each.fill_(0.01)
        for prefix in ((), shared_prefix(SAMPLES)):
            loss = summed_loss(adapted.get_base_model(), prefix, SAMPLES)
            gradients.append([loss.detach(), *torch.autograd.grad(loss, parameters)])
        tokens = [torch.tensor([sample.tokens]) for sample in SAMPLES]
        alone = sum(-adapted(each).logits.log_softmax(-1)[0, [-3, -2], each[0, -2:]].sum() for each in tokens)
    for whole, shared in zip(*gradients, strict=True):
        torch.testing.assert_close(shared, whole, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gradients[0][0], alone, rtol=1e-4, atol=1e-5)


def test_the_shared_prefix_ends_before_what_predicts_a_target() -> None:
    assert shared_prefix(SAMPLES) == (1, 2, 3, 4)
    assert shared_prefix([Sample((1, 2, 3), 2), Sample((1, 2, 3, 4), 2)]) == ()
    assert shared_prefix([Sample((1, 2, 3), 1)]) == (1,)


def test_an_epoch_holds_every_sample_once_in_an_order_of_its_own() -> None:
    endless = batches(SAMPLES, size=2, seed=3)
    epochs = [[next(endless) for _ in range(3)] for _ in range(4)]
    flat = [[sample for batch in epoch for sample in batch] for epoch in epochs]
    assert all(sorted(each, key=len_of) == SAMPLES for each in flat)
    assert len({tuple(each) for each in flat}) > 1


def len_of(sample: Sample) -> int:
    return len(sample.tokens)


def test_the_learning_rate_rises_linearly_and_falls_by_half_a_cosine() -> None:
    rates = [learning_rate(step, 10, peak=2.0, warm_up=2) for step in range(10)]
    assert rates[:3] == [1.0, 2.0, 2.0]
    assert rates[6] == pytest.approx(1.0)
    assert rates[2:] == sorted(rates[2:], reverse=True)
