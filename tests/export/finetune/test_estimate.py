from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from dualtune_edge import cli
from dualtune_edge.export.finetune import estimate as estimates
from dualtune_edge.export.finetune import held_out, train, trainer
from dualtune_edge.export.finetune.batches import part_cost
from dualtune_edge.export.finetune.estimate import Estimate, RunEstimate, estimate
from dualtune_edge.export.finetune.estimate_text import duration, shortage, summary, table
from dualtune_edge.export.finetune.loading.base import Base
from dualtune_edge.export.finetune.processes import Processes
from dualtune_edge.export.finetune.samples.masks import Sample
from dualtune_edge.export.finetune.train import RunData, finetune
from dualtune_edge.export.work import room
from dualtune_edge.toolkit.errors import OutputError, RoomError
from tests.export.finetune.conftest import CONVERSATIONS


def counting(monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> list[int]:
    """The costs of the parts that a module computes by this function."""
    costs, real = list[int](), getattr(module, name)

    def count(model: Any, prefix: tuple[int, ...], part: Sequence[Sample], *others: Any) -> Any:
        costs.append(part_cost(part, len(prefix)))
        return real(model, prefix, part, *others)

    monkeypatch.setattr(module, name, count)
    return costs


def of_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every token take a second."""
    monkeypatch.setattr(
        estimates, "_measure", lambda _run, work, _settings: estimates._Pace(1.0, 1.0, held=1, taken=1, cost=work.cost)
    )


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"micro_batch": 1},
        {"held_out_share": 0.4, "measure_every": 2},
        {"activated": True},
        {"gradient_checkpointing": True},
    ],
)
def test_the_time_is_that_of_every_token_that_the_run_computes(
    base: Base, settings: Any, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    run = settings(max_steps=5, epochs=9, **changes)
    of_a_second(monkeypatch)
    needed = estimate([RunData.read(run, base)], base, Processes())
    learnt = counting(monkeypatch, trainer, "summed_loss")
    measured = counting(monkeypatch, held_out, "right_and_loss")
    report = finetune(run, base=base)
    assert len(report.losses) == needed.adapters[0].steps == 5
    assert bool(measured) == ("held_out_share" in changes)
    assert needed.seconds == pytest.approx(sum(learnt) + sum(measured), rel=1e-6)


def test_an_estimate_changes_nothing_of_what_is_learnt_and_counts_what_is_left(
    base: Base, settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone, after = (settings(output=tmp_path / name, dropout=0.2) for name in ("alone", "after"))
    finetune(alone, base=base)
    of_a_second(monkeypatch)
    whole = estimate([RunData.read(after, base)], base, Processes())
    assert not after.output.exists()
    finetune(after, base=base)
    for path in alone.output.iterdir():
        assert path.read_bytes() == (after.output / path.name).read_bytes(), path.name
    cut = settings(output=tmp_path / "cut", dropout=0.2)
    with pytest.raises(ZeroDivisionError):
        finetune(cut, lambda event: 1 / 0 if getattr(event, "step", 0) == 1 else None, base=base)
    left = estimate([RunData.read(cut.model_copy(update={"resume": True}), base)], base, Processes())
    assert left.adapters[0].steps == 3
    assert left.seconds < whole.seconds


def test_of_several_runs_one_of_each_objective_is_tried(
    base: Base, settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [
        settings(output=tmp_path / "a"),
        settings(output=tmp_path / "b", seed=3),
        settings(output=tmp_path / "c", objective="arguments", tool="read", activated=True, held_out_share=0.4),
    ]
    tried = list[str]()
    real = estimates._measure
    monkeypatch.setattr(
        estimates, "_measure", lambda run, work, own: (tried.append(own.objective), real(run, work, own))[1]
    )
    needed = estimate([RunData.read(run, base) for run in runs], base, Processes())
    assert tried == ["selection", "arguments"]
    assert needed.seconds == pytest.approx(sum(adapter.seconds for adapter in needed.adapters))
    assert needed.memory == max(adapter.memory or 0 for adapter in needed.adapters)


def test_a_pace_is_of_a_token(base: Base, settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where each takes a millisecond, so does the estimate's; a much larger step is measured for itself."""
    prefixes = list[int]()

    def timed(_compute: object, parts: Sequence[Sequence[Sample]], _model: object) -> float:
        return sum(part_cost(part, prefixes[-1]) for part in parts) / 1000

    real, paces = estimates._measure, list[estimates._Pace]()

    def measure(run: Any, work: Any, own: Any) -> estimates._Pace:
        prefixes.append(len(run.trainer.prefix))
        paces.append(real(run, work, own))
        return paces[-1]

    monkeypatch.setattr(estimates, "_timed", timed)
    monkeypatch.setattr(estimates, "_measure", measure)
    held = settings().data
    runs = [settings(output=tmp_path / str(size), batch_size=size, held_out=held) for size in (1, 5)]
    estimate([RunData.read(run, base) for run in runs], base, Processes())
    assert [pace.learnt for pace in paces] == pytest.approx([0.001, 0.001])
    assert [pace.measured for pace in paces] == pytest.approx([0.001, 0.001])


def test_memory_is_what_is_held_what_the_step_takes_and_what_the_optimizer_will(
    base: Base, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        estimates,
        "_measure",
        lambda _run, work, _settings: estimates._Pace(1.0, 1.0, held=1_000, taken=100, cost=work.cost // 2),
    )
    run = settings(max_steps=4)
    needed = estimate([RunData.read(run, base)], base, Processes())
    with base.adapted(run) as adapted:
        weights = sum(weight.numel() for weight in adapted.parameters() if weight.requires_grad)
    assert needed.memory == pytest.approx(1_000 + 2 * 100 + 12 * weights, abs=2)


def test_many_steps_are_taken_to_be_like_the_first(base: Base, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    of_a_second(monkeypatch)
    data = RunData.read(settings(max_steps=6, epochs=9, batch_size=5), base)  # all samples in each
    whole = estimate([data], base, Processes()).seconds
    monkeypatch.setattr(estimates, "_STEPS", 2)
    assert estimate([data], base, Processes()).seconds == pytest.approx(whole)


def test_measuring_takes_time_where_the_first_run_measures_nothing(
    base: Base, settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the arguments of a tool that nothing held out calls, and then those of one that something does."""
    held = tmp_path / "held.jsonl"
    held.write_text(f"{json.dumps({'messages': CONVERSATIONS[1]})}\n", encoding="utf-8")
    runs = [
        settings(output=tmp_path / tool, objective="arguments", tool=tool, held_out=held, max_steps=1)
        for tool in ("read", "read_file")
    ]
    monkeypatch.setattr(
        estimates,
        "_measure",
        lambda _run, work, _settings: estimates._Pace(1.0, float(work.measured > 0), held=1, taken=1, cost=work.cost),
    )
    read = [RunData.read(run, base) for run in runs]
    (alone,) = estimate(read[1:], base, Processes()).adapters
    without, measured = estimate(read, base, Processes()).adapters
    assert (without.held_out, measured.held_out) == (0, 1)
    assert measured.seconds == alone.seconds


def test_a_dry_run_says_it_and_writes_nothing(
    settings: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = settings()
    made, real = list[Any](), train.make_samples
    monkeypatch.setattr(train, "make_samples", lambda *args: (made.append(real(*args)), made[-1])[1])
    flags = ["--objective", "selection", "--base", run.base, "--tools", run.tools, "--data", run.data, "-o", run.output]
    flags += ["--rank", "2", "--threads", "1", "--batch-size", "2", "--max-length", "2048"]
    before = sorted(run.output.parent.iterdir())
    arguments = ["finetune", *map(str, flags)]

    def code(*more: str) -> int:
        with pytest.raises(SystemExit) as ended:
            cli.main([*arguments, *more])
        return int(ended.value.code or 0)

    assert code("--dry-run", "--json") == 0
    shown, said = capsys.readouterr()
    needed = Estimate.model_validate_json(shown)
    assert sorted(run.output.parent.iterdir()) == before
    assert needed.adapters[0].samples == 5  # turns of the assistant in CONVERSATIONS
    assert needed.memory
    assert needed.memory_free
    assert "these are few" in said
    made.clear()
    assert code("--max-steps", "1") == 0
    assert len(made) == 1, "the run goes on with the samples of the estimate"
    assert "about " in capsys.readouterr().err, "a run says it before its first step"
    assert code("--dry-run") == OutputError.exit_code


def test_a_base_that_does_not_fit_the_memory_is_refused_before_it_is_read(
    base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = sum(weight.numel() for weight in base.model.parameters())
    monkeypatch.setattr(room, "free_memory", lambda: 4 * weights)
    with Base.open(base.checkpoint.folder):
        pass
    monkeypatch.setattr(room, "free_memory", lambda: 4 * weights - 1)
    with pytest.raises(RoomError, match="float32"), Base.open(base.checkpoint.folder):
        pass


ONE = RunEstimate(
    output="a",
    objective="arguments",
    tool="read",
    toolset="files",
    samples=40,
    held_out=4,
    steps=12,
    seconds=99.4,
    memory=2_000_000_000,
    warnings=(),
)


def test_it_is_said_in_units_of_a_reader() -> None:
    needed = Estimate(adapters=(ONE, ONE), seconds=198.8, memory=2_000_000_000, memory_free=1_500_000_000)
    assert summary(needed) == "2 adapters: about 3 min, 2.0 GB of memory (1.5 GB are free)"
    assert "files, arguments of read" in table(needed)
    assert "--micro-batch 1" in shortage(needed)
    assert not shortage(needed.model_copy(update={"memory_free": 3_000_000_000}))
    unknown = needed.model_copy(update={"memory": None, "adapters": (ONE.model_copy(update={"memory": None}),)})
    assert summary(unknown) == "about 3 min"
    assert not shortage(unknown)
    assert table(Estimate(adapters=(), seconds=0, memory=None, memory_free=None)) == "nothing to train"
    assert [duration(seconds) for seconds in (3.2, 99, 100, 3599, 7500)] == [
        "3 s",
        "99 s",
        "2 min",
        "60 min",
        "2 h 5 min",
    ]
    assert json.loads(needed.model_dump_json())["adapters"][0]["tool"] == "read"
