"""What is held out is measured, not learnt, and the best measurement's adapter is what is saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from dualtune_edge.export.finetune import held_out, trainer
from dualtune_edge.export.finetune.batches import start_of
from dualtune_edge.export.finetune.held_out import HeldOut, best
from dualtune_edge.export.finetune.loading.base import Base
from dualtune_edge.export.finetune.processes import Processes
from dualtune_edge.export.finetune.report import Event, Measurement, Score, Start
from dualtune_edge.export.finetune.samples.invocation import invocation_of
from dualtune_edge.export.finetune.samples.make import Samples, listed_tools, make_prompter, make_samples
from dualtune_edge.export.finetune.samples.masks import Sample
from dualtune_edge.export.finetune.samples.turns import TrajectoryFiles, read_turns
from dualtune_edge.export.finetune.settings import FinetuneSettings, ToolsetSource
from dualtune_edge.export.finetune.train import finetune, template_of


def samples_of(run: FinetuneSettings, base: Base) -> Samples:
    prompter = make_prompter(run, template_of(run, base), base.checkpoint.tokenizer, listed_tools(run))
    return make_samples(run, prompter, 2048)


def scored(values: list[tuple[int, float]], monkeypatch: pytest.MonkeyPatch) -> list[dict[str, torch.Tensor]]:
    """Let the measurements be these; returns where the weights of each are put."""
    weights: list[dict[str, torch.Tensor]] = []

    def score(_held: HeldOut, model: Any, step: int) -> Score:
        weights.append({name: weight.detach().clone() for name, weight in model.named_parameters() if "lora" in name})
        right, loss = values[step - 1]
        return Score(step=step, right=right, samples=5, loss=loss)

    monkeypatch.setattr(HeldOut, "score", score)
    return weights


@pytest.mark.parametrize("objective", ["selection", "joint"])
def test_right_is_what_the_model_says_by_itself(base: Base, settings: Any, objective: str) -> None:
    run = settings(objective=objective, held_out=settings().data)
    held = samples_of(run, base).held
    right, loss = 0, 0.0
    for sample in held:
        with torch.no_grad():
            logits = base.model(input_ids=torch.tensor([sample.tokens])).logits[0, -sample.learnt - 1 : -1]
        learnt = torch.tensor(sample.tokens[-sample.learnt :])
        right += bool((logits.argmax(-1) == learnt).all())
        loss += float(torch.nn.functional.cross_entropy(logits, learnt, reduction="sum"))
    score = HeldOut(run, held, 3, Processes(), None).score(base.model, 7)
    assert (score.step, score.right, score.samples) == (7, right, len(held))
    assert score.loss == pytest.approx(loss / sum(sample.learnt for sample in held), rel=1e-5)


def test_an_activated_adapter_is_measured_from_its_invocation_on(base: Base, settings: Any) -> None:
    run = settings(activated=True, held_out=settings().data, batch_size=2)
    prompter = make_prompter(run, template_of(run, base), base.checkpoint.tokenizer, listed_tools(run))
    invocation = invocation_of(prompter)
    held = samples_of(run, base).held
    loss = 0.0
    torch.manual_seed(0)
    with base.adapted(run, invocation) as adapted, torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.fill_(0.02)
        for sample in held:
            offset = len(sample.tokens) - start_of(sample, invocation)
            logits = adapted(torch.tensor([sample.tokens]), alora_offsets=[offset]).logits[0, -sample.learnt - 1 : -1]
            learnt = torch.tensor(sample.tokens[-sample.learnt :])
            loss += float(torch.nn.functional.cross_entropy(logits, learnt, reduction="sum"))
        measured = HeldOut(run, held, 3, Processes(), invocation)
        score = measured.score(adapted, 1)
        with adapted.disable_adapter():
            plain = HeldOut(run, held, 3, Processes(), None).score(adapted, 1)
    assert score.loss == pytest.approx(loss / sum(sample.learnt for sample in held), rel=1e-4)
    assert score.loss != pytest.approx(plain.loss, rel=1e-3), "or this test could not fail"
    assert max(map(len, measured.parts()[0])) <= 2


def test_a_sample_is_right_if_every_learnt_token_is_the_most_probable(base: Base, settings: Any) -> None:
    run, tokens = settings(held_out=settings().data), [5, 6, 7]
    for _ in range(3):
        with torch.no_grad():
            tokens.append(int(base.model(input_ids=torch.tensor([tokens])).logits[0, -1].argmax()))
    held = [Sample(tuple(tokens), 3), Sample((*tokens[:4], tokens[4] ^ 1, tokens[5]), 3), Sample(tuple(tokens[:4]), 1)]
    assert HeldOut(run, held, 3, Processes(), None).score(base.model, 1).right == 2


def test_the_last_step_is_measured_and_a_lower_loss_is_kept(base: Base, settings: Any) -> None:
    run = settings(held_out=settings().data, max_steps=8, epochs=8, learning_rate=2e-2, warm_up_steps=1)
    report = finetune(run, base=base)
    assert [score.step for score in report.held_out] == [3, 6, 8]
    assert report.kept_score
    assert report.held_out[0].loss > report.kept_score.loss


def test_the_step_that_has_most_right_is_saved(base: Base, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = scored([(1, 0.1), (3, 0.4), (3, 0.3), (3, 0.3)], monkeypatch)
    run = settings(held_out=settings().data, measure_every=1)
    report = finetune(run, base=base)
    assert (len(weights), report.kept, report.steps) == (4, 3, 4)
    saved = load_file(run.output / "adapter_model.safetensors")
    for name, weight in weights[2].items():
        key = name.replace(".default", "")
        assert torch.equal(next(saved[other] for other in saved if other.endswith(key)), weight), name
    assert any(not torch.equal(weight, weights[3][name]) for name, weight in weights[2].items())
    record = json.loads((run.output / "training.json").read_text(encoding="utf-8"))
    assert record["kept"] == 3
    assert [score["right"] for score in record["scores"]] == [1, 3, 3, 3]


@pytest.mark.parametrize("at", ["step", "measurement"])
def test_a_run_that_is_stopped_at_a_measurement_ends_as_one_that_was_not(
    base: Base, settings: Any, tmp_path: Path, at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    common = {"held_out": settings().data, "measure_every": 2, "dropout": 0.2, "checkpoint_every": 1}
    whole = settings(output=tmp_path / "whole", **common)
    finetune(whole, base=base)
    cut = settings(output=tmp_path / "cut", **common)
    measured = HeldOut.score

    def stopped(held: HeldOut, model: Any, step: int) -> Score:
        if at == "measurement":
            raise KeyboardInterrupt
        return measured(held, model, step)

    def stop(event: Event) -> None:
        if isinstance(event, Measurement):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(HeldOut, "score", stopped)
        with pytest.raises(KeyboardInterrupt):
            finetune(cut, stop, base=base)
    finetune(cut.model_copy(update={"resume": True}), base=base)
    for path in whole.output.iterdir():
        assert path.read_bytes() == (cut.output / path.name).read_bytes(), path.name


def test_measuring_changes_nothing_of_what_is_learnt(base: Base, settings: Any, tmp_path: Path) -> None:
    plain = finetune(settings(dropout=0.1), base=base)
    measured = finetune(
        settings(dropout=0.1, held_out=settings().data, measure_every=1, output=tmp_path / "other"), base=base
    )
    assert measured.losses == plain.losses


def test_every_step_is_made_in_training_mode_and_nothing_is_measured_in_it(
    base: Base, settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dropout and gradient checkpointing are in force in it alone."""
    modes: list[tuple[str, bool, bool]] = []

    def watched(module: Any, name: str) -> None:
        real = getattr(module, name)

        def compute(model: Any, *others: Any) -> Any:
            dropouts = {part.training for part in model.modules() if isinstance(part, torch.nn.Dropout)}
            modes.append((name, model.training, dropouts == {True}))
            return real(model, *others)

        monkeypatch.setattr(module, name, compute)

    watched(trainer, "summed_loss")
    watched(held_out, "right_and_loss")
    plain = finetune(settings(held_out=settings().data, output=tmp_path / "plain"), base=base)
    modes.clear()
    dropped = finetune(settings(held_out=settings().data, measure_every=2, dropout=0.5), base=base)
    assert {mode for mode in modes if mode[0] == "summed_loss"} == {("summed_loss", True, True)}
    assert {mode for mode in modes if mode[0] == "right_and_loss"} == {("right_and_loss", False, False)}
    assert dropped.losses != plain.losses


def test_a_share_is_drawn_by_conversation_and_is_not_learnt(base: Base, settings: Any, write_data: Any) -> None:
    def line(number: int) -> dict[str, Any]:
        call = {"type": "function", "function": {"name": "status", "arguments": "{}"}}
        return {
            "messages": [{"role": "user", "content": f"Say {number // 2}"}, {"role": "assistant", "tool_calls": [call]}]
        }

    run = settings(held_out_share=0.2, data=write_data([line(number) for number in range(40)]))
    learnt, held = read_turns(run, TrajectoryFiles())
    requests = [{turn.context[0].content for turn in part.turns} for part in (learnt, held)]
    assert [len(part.turns) for part in (learnt, held)] == [32, 8]
    assert not requests[0] & requests[1]
    other, _ = read_turns(run.model_copy(update={"seed": 1}), TrajectoryFiles())
    assert [turn.where for turn in other.turns] != [turn.where for turn in learnt.turns]
    made = samples_of(run, base)
    assert (len(made.samples), len(made.held)) == (32, 8)
    said = "\n".join(made.warnings)
    assert "8 samples are held out" in said
    assert "begin as some that are learnt" not in said


@pytest.mark.parametrize("objective", ["toolset", "answer"])
def test_a_recorded_run_of_two_toolsets_is_in_one_part(settings: Any, write_data: Any, objective: str) -> None:
    """It is a line of each, and both begin with its request."""
    call = {"type": "function", "function": {"name": "status", "arguments": "{}"}}

    def line(toolset: str, at: int) -> dict[str, Any]:
        done = {"role": "assistant", "content": "Done."}
        messages = [{"role": "user", "content": f"Say {at}"}, {"role": "assistant", "tool_calls": [call]}, done]
        return {"toolset": toolset, "messages": messages}

    lines = [line("files", at) for at in range(20)] + [line("git", at) for at in range(10, 30)]
    plain = settings(data=write_data(lines))
    tools = plain.tools if objective == "toolset" else None
    sources = tuple(ToolsetSource(name=name, tools=tools, data=plain.data) for name in ("files", "git"))
    run = settings(objective=objective, data=None, tools=None, toolsets=sources, held_out_share=0.2)
    learnt, held = read_turns(run, TrajectoryFiles())
    requests = [{line.messages[0].content for line in part.trajectories} for part in (learnt, held)]
    assert not requests[0] & requests[1]
    assert len(learnt.trajectories) + len(held.trajectories) == 40
    assert 7 <= len(held.trajectories) <= 9


def test_conversations_without_a_user_are_held_out_too(settings: Any, write_data: Any) -> None:
    """As an agent's that a timer starts: what is said first tells them apart."""
    call = {"type": "function", "function": {"name": "status", "arguments": "{}"}}
    lines = [
        {"messages": [{"role": "system", "content": f"Event {at}"}, {"role": "assistant", "tool_calls": [call]}]}
        for at in range(10)
    ]
    learnt, held = read_turns(settings(held_out_share=0.2, data=write_data(lines)), TrajectoryFiles())
    assert [len(part.turns) for part in (learnt, held)] == [8, 2]


def test_what_a_measurement_cannot_show_is_said(base: Base, settings: Any) -> None:
    events: list[Event] = []
    finetune(settings(held_out=settings().data), events.append, base=base)
    start = events[0]
    assert isinstance(start, Start)
    text = "\n".join(start.warnings)
    assert "one of them is 20.0 points" in text
    assert "3 held-out conversations begin as some that are learnt" in text
    made = samples_of(settings(objective="arguments", tool="read_file", held_out=_without(settings(), "b")), base)
    assert any("nothing of this adapter's is held out" in warning for warning in made.warnings)
    made = samples_of(settings(held_out=_without(settings(), "b")), base)
    assert any("nothing held out calls read_file" in warning for warning in made.warnings)


def _without(run: FinetuneSettings, word: str) -> Path:
    path = run.output.with_name("held.jsonl")
    lines = Path(run.data or "").read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join(line for line in lines if f"show me {word}" not in line), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "changes",
    [{"held_out": "a", "held_out_share": 0.1}, {"measure_every": 3}, {"held_out_share": 1.0}, {"held_out_share": -0.1}],
)
def test_settings_that_contradict_one_another_are_refused(settings: Any, changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        settings(**changes)


def test_a_run_without_it_has_the_settings_of_earlier_records(base: Base, settings: Any) -> None:
    run = settings(max_steps=1)
    finetune(run, base=base)
    record = json.loads((run.output / "training.json").read_text(encoding="utf-8"))
    assert not {"held_out", "held_out_share", "measure_every"} & record["settings"].keys()


def test_of_equal_scores_the_lower_loss_counts_and_then_the_earlier_step() -> None:
    scores = [
        Score(step=step, right=right, samples=9, loss=loss)
        for step, right, loss in ((1, 5, 0.1), (2, 6, 0.5), (3, 6, 0.4), (4, 6, 0.4))
    ]
    assert best(scores).step == 3
