from __future__ import annotations

import itertools
import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from dualtune_edge.export.adapter.read import read_adapter
from dualtune_edge.export.finetune import trainer
from dualtune_edge.export.finetune.batches import summed_loss
from dualtune_edge.export.finetune.loading.base import Base
from dualtune_edge.export.finetune.report import Event, Interruption, OnEvent, Start, Step
from dualtune_edge.export.finetune.samples.make import listed_tools, make_prompter, make_samples
from dualtune_edge.export.finetune.settings import FinetuneSettings
from dualtune_edge.export.finetune.train import finetune, template_of, threads
from dualtune_edge.profiles.detect import detect
from dualtune_edge.toolkit.errors import DataError, OutputError, RoomError, SpecError

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


@pytest.mark.parametrize(("objective", "tool"), [("selection", None), ("arguments", "read"), ("joint", None)])
def test_the_loss_goes_down_and_the_base_stays_as_it_was(base: Base, settings: Any, objective: str, tool: str) -> None:
    before = {name: weight.clone() for name, weight in base.model.state_dict().items()}
    run = settings(objective=objective, tool=tool, max_steps=12, epochs=12, learning_rate=2e-2, warm_up_steps=1)
    report = finetune(run, base=base)
    assert report.losses[-1] < 0.8 * report.losses[0]
    assert report.steps == len(report.losses) == 12
    after = base.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert any(weight.abs().max() > 0 for name, weight in weights(run).items() if "lora_B" in name)


def test_an_epoch_learns_every_sample_and_a_larger_number_of_steps_adds_none(base: Base, settings: Any) -> None:
    run = settings(epochs=1, max_steps=50, batch_size=3)
    prompter = make_prompter(run, template_of(run, base), base.checkpoint.tokenizer, listed_tools(run))
    samples = make_samples(run, prompter, 2048).samples
    report = finetune(run, base=base)
    assert (report.samples, report.steps) == (5, 2)  # three a step
    assert report.learnt == sum(sample.learnt for sample in samples)
    assert report.tokens < sum(len(sample.tokens) for sample in samples), "two of like length share a pass"


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
    assert all(weight.dtype == torch.float16 for weight in weights(run).values())
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
        settings(output=tmp_path / "d", dropout=0.1, objective="joint"),
    ]
    for run in runs:
        finetune(run, base=base)
    first, same, seed, joint = runs
    for path in first.output.iterdir():
        assert path.read_bytes() == (same.output / path.name).read_bytes()
    for other in (seed, joint):
        assert any(not torch.equal(weight, weights(other)[name]) for name, weight in weights(first).items())


def test_the_seed_draws_the_adapter_that_a_run_begins_with(base: Base, settings: Any, tmp_path: Path) -> None:
    runs = [settings(output=tmp_path / str(seed), seed=seed, max_steps=1, learning_rate=1e-9) for seed in (0, 1)]
    for run in runs:
        finetune(run, base=base)
    first, second = map(weights, runs)
    assert all(not torch.allclose(weight, second[name]) for name, weight in first.items() if "lora_A" in name)


def test_a_run_takes_its_threads_and_gives_them_back() -> None:
    before = torch.get_num_threads()
    cores = detect().cpu.physical_cores
    torch.set_num_threads(cores + 3)
    try:
        with threads(2):
            assert torch.get_num_threads() == 2
        assert torch.get_num_threads() == cores + 3
        with threads(None):
            assert torch.get_num_threads() == cores, "no more than a container's quota, whatever PyTorch sees"
    finally:
        torch.set_num_threads(before)


def stopping_after(step: int, error: type[BaseException] = KeyboardInterrupt) -> OnEvent:
    def stop(event: Event) -> None:
        if isinstance(event, Step) and event.step == step:
            raise error

    return stop


def steps_of(events: list[Event]) -> list[int]:
    return [event.step for event in events if isinstance(event, Step)]


@pytest.mark.parametrize("every", [None, 1, 2, 50])
@pytest.mark.parametrize("stop", [1, 3])
def test_an_interrupted_run_resumes_after_its_last_step_and_ends_as_an_uninterrupted_one(
    base: Base, settings: Any, tmp_path: Path, every: int | None, stop: int
) -> None:
    common = {"dropout": 0.2, "checkpoint_every": every, "max_steps": 5}
    whole = settings(output=tmp_path / "whole", **common)
    finetune(whole, base=base)
    cut = settings(output=tmp_path / "cut", **common)
    with pytest.raises(KeyboardInterrupt):
        finetune(cut, stopping_after(stop), base=base)
    assert not cut.output.exists()
    events: list[Event] = []
    finetune(cut.model_copy(update={"resume": True}), events.append, base=base)
    assert isinstance(events[0], Start)
    assert (events[0].done, steps_of(events)) == (stop, [*range(stop + 1, 6)])
    for path in whole.output.iterdir():
        assert path.read_bytes() == (cut.output / path.name).read_bytes(), path.name
    assert sorted(path.name for path in tmp_path.iterdir() if "checkpoint" in path.name) == []


def test_a_step_that_a_signal_cuts_is_made_again(
    base: Base, settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    common = {"dropout": 0.2, "max_steps": 3, "micro_batch": 1}
    whole = settings(output=tmp_path / "whole", **common)
    finetune(whole, base=base)
    cut = settings(output=tmp_path / "cut", **common)
    passes = itertools.count(1)

    def loss(*arguments: Any) -> torch.Tensor:
        if next(passes) == 4:  # the second half of the second step
            signal.raise_signal(signal.SIGTERM)
        return summed_loss(*arguments)

    events: list[Event] = []
    monkeypatch.setattr(trainer, "summed_loss", loss)
    with pytest.raises(SystemExit) as stopped:
        finetune(cut, events.append, base=base)
    assert stopped.value.code == 128 + signal.SIGTERM
    assert events[-1] == Interruption(step=1, steps=3)
    finetune(cut.model_copy(update={"resume": True}), base=base)
    assert weights(whole).keys() == weights(cut).keys()
    assert all(torch.equal(weight, weights(cut)[name]) for name, weight in weights(whole).items())


def test_a_run_that_is_stopped_before_its_first_step_leaves_nothing(
    base: Base, settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path.name for path in settings().data.parent.iterdir()}
    monkeypatch.setattr(trainer, "summed_loss", lambda *_: signal.raise_signal(signal.SIGINT))
    events: list[Event] = []
    with pytest.raises(KeyboardInterrupt):
        finetune(settings(), events.append, base=base)
    assert events[-1] == Interruption(step=0, steps=4)
    assert {path.name for path in tmp_path.iterdir()} == before


def test_a_checkpoint_belongs_to_one_run(base: Base, settings: Any) -> None:
    run = settings(max_steps=3)
    with pytest.raises(KeyboardInterrupt):
        finetune(run, stopping_after(2), base=base)
    with pytest.raises(OutputError, match=r"checkpoint of an interrupted run.*--resume"):
        finetune(run, base=base)
    with pytest.raises(OutputError, match="other settings"):
        finetune(run.model_copy(update={"resume": True, "seed": 9}), base=base)


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_FSIZE that is an error, and no signal")
@pytest.mark.parametrize(("every", "steps"), [(None, 0), (50, 4)])
def test_where_the_disk_is_full_a_run_ends_with_its_error(
    base: Base, settings: Any, tmp_path: Path, every: int | None, steps: int
) -> None:
    """In its first checkpoint, or in the adapter: each library that writes has an error of its own for it."""
    import resource

    events: list[Event] = []
    run = settings(checkpoint_every=every)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, limits[1]))
    try:
        with pytest.raises(RoomError, match="Make room"):
            finetune(run, events.append, base=base)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert len(steps_of(events)) == steps
    assert sorted(path.name for path in tmp_path.iterdir()) == ["compact.jinja", "data.jsonl", "tools.json"]


def test_what_cannot_be_done_is_refused_and_leaves_nothing(base: Base, settings: Any, tmp_path: Path) -> None:
    before = {path.name for path in (settings().data.parent).iterdir()}
    with pytest.raises(SpecError, match=r"'qkv'; expected linear modules of tiny: down_proj, .*v_proj"):
        finetune(settings(targets=("q_proj", "qkv")), base=base)
    with pytest.raises(SpecError, match="2049; expected at most 2048, the context length of tiny"):
        finetune(settings(max_length=2049), base=base)
    with pytest.raises(DataError, match=r"at most 2\."):
        finetune(settings(max_length=2), base=base)
    with pytest.raises(OutputError, match="no checkpoint"):
        finetune(settings(resume=True), base=base)
    with pytest.raises(SpecError, match="a loss of nan at step"):
        finetune(settings(learning_rate=1e30, max_grad_norm=1e30, warm_up_steps=0), base=base)
    assert {path.name for path in tmp_path.iterdir()} == before
    settings().output.mkdir()
    with pytest.raises(OutputError, match="already there"):
        finetune(settings(), base=base)


@pytest.mark.parametrize(("objective", "tool"), [("selection", None), ("arguments", "read"), ("joint", None)])
def test_an_activated_adapter_learns_and_names_its_invocation(
    base: Base, settings: Any, objective: str, tool: str
) -> None:
    changes = {"template": None, "activated": True, "max_steps": 12, "epochs": 12, "learning_rate": 2e-2}
    run = settings(objective=objective, tool=tool, warm_up_steps=1, **changes)
    report = finetune(run, base=base)
    assert report.losses[-1] < 0.8 * report.losses[0]
    read = read_adapter(run.output, base.checkpoint, "external")
    assert read.invocation is not None
    text = base.checkpoint.tokenizer.decode(list(read.invocation), skip_special_tokens=False)
    assert text == "<|im_start|>assistant\n"
    assert read.chat_template is not None
    assert "`summarize`" in read.chat_template.source


def test_an_activated_adapter_with_the_built_in_template_has_its_name_for_no_tool(settings: Any) -> None:
    with pytest.raises(ValueError, match="no_tool"):
        settings(template=None, activated=True, no_tool="none")


def test_an_activated_adapter_is_trained_and_measured_in_bfloat16_too(
    base: Base, settings: Any, tmp_path: Path
) -> None:
    common = {"activated": True, "max_steps": 2, "held_out_share": 0.4}
    runs = [settings(output=tmp_path / str(autocast), autocast=autocast, **common) for autocast in (False, True)]
    reports = [finetune(run, base=base) for run in runs]
    assert reports[1].losses == pytest.approx(reports[0].losses, rel=0.05)
    assert reports[1].held_out[-1].loss == pytest.approx(reports[0].held_out[-1].loss, rel=0.05)


@pytest.mark.parametrize(
    "changes",
    [{"gradient_checkpointing": True}, {"micro_batch": 1}, {"gradient_checkpointing": True, "micro_batch": 1}],
)
def test_an_activated_adapter_is_the_same_however_its_gradient_is_computed(
    base: Base, settings: Any, tmp_path: Path, changes: dict[str, Any]
) -> None:
    common = {"activated": True, "max_steps": 2}
    runs = [settings(output=tmp_path / "a", **common), settings(output=tmp_path / "b", **common, **changes)]
    reports = [finetune(run, base=base) for run in runs]
    assert reports[0].losses == pytest.approx(reports[1].losses, rel=1e-4)
    for one, other in zip(*(weights(run).values() for run in runs), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-4)
