from __future__ import annotations

import os
import subprocess
import sys
from typing import Final

import pytest

from dualtune_edge.export.finetune.progress import Lines, shown
from dualtune_edge.export.finetune.report import Interruption, Start, Step


def start(done: int = 0, device: str = "cpu", processes: int = 1) -> Start:
    return Start(
        samples=480,
        held_out=0,
        done=done,
        steps=120,
        processes=processes,
        threads=2,
        device=device,
        warnings=("too few",),
    )


def test_a_gpu_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    Lines()(start(device="cuda:0"))
    assert capsys.readouterr().err.splitlines()[-1] == "480 samples, 120 steps, on cuda:0"


@pytest.mark.parametrize(("device", "each"), [("cpu", "2 threads"), ("cuda:1", "on cuda:1")])
def test_several_processes_are_said(device: str, each: str, capsys: pytest.CaptureFixture[str]) -> None:
    Lines()(start(device=device, processes=4))
    assert capsys.readouterr().err.splitlines()[-1] == f"480 samples, 120 steps, 4 processes, each {each}"


def test_without_a_terminal_a_line_comes_every_ten_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    now = [50.0]
    lines = Lines(lambda: now[0])
    lines(start())
    for step in range(1, 121):
        now[0] += 1.0
        lines(Step(step, 120, 2.5))
    shown, *rest = capsys.readouterr()
    assert shown == ""
    written = rest[0].splitlines()
    assert written[:2] == ["warning: too few", "480 samples, 120 steps, 2 threads"]
    assert written[2] == "step 1 of 120, loss 2.500, 0:01:59 left"
    assert [line.split()[1] for line in written[2:]] == ["1", *(str(step) for step in range(11, 121, 10)), "120"]


def test_the_time_left_of_a_resumed_run_counts_its_own_steps(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    lines = Lines(lambda: now[0])
    lines(start(done=100))
    now[0] = 20.0
    lines(Step(110, 120, 1.0))
    assert capsys.readouterr().err.splitlines()[-2:] == [
        "480 samples, 120 steps, 100 of them done, 2 threads",
        "step 110 of 120, loss 1.000, 0:00:20 left",
    ]


@pytest.mark.parametrize("terminal", [False, True])
def test_an_interruption_says_how_far_it_came(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *, terminal: bool
) -> None:
    monkeypatch.setenv("FORCE_COLOR" if terminal else "NO_COLOR", "1")
    with shown() as on_event:
        on_event(start())
        on_event(Step(1, 120, 2.0))
        on_event(Interruption(1, 120))
        on_event(Interruption(0, 120))
    written = capsys.readouterr().err
    assert "stopped after step 1 of 120: --resume goes on from there" in written
    assert "stopped after step 0 of 120: there is nothing to resume" in written
    assert ("━" in written) == terminal


_AT_A_TERMINAL: Final = """
from dualtune_edge.export.finetune.progress import shown
from dualtune_edge.export.finetune.report import Measurement, Score, Start, Step
with shown() as on_event:
    on_event(Start(samples=5, held_out=1, done=0, steps=2, processes=1, threads=1, device="cpu", warnings=("few",)))
    on_event(Step(1, 2, 0.5))
    on_event(Measurement(Score(step=1, right=1, samples=1, loss=0.5)))
    on_event(Step(2, 2, 0.5))
"""


def test_on_a_terminal_what_is_said_stands_on_lines_apart_from_the_bar() -> None:
    reading, terminal = os.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100"}
    environment.pop("NO_COLOR", None)
    with subprocess.Popen([sys.executable, "-c", _AT_A_TERMINAL], stderr=terminal, env=environment) as process:
        os.close(terminal)
        written = b""
        while piece := _read(reading):
            written += piece
    os.close(reading)
    assert process.returncode == 0
    text = written.decode()
    cleared = "\r\x1b[2K"  # the line on which the bar stood
    for said in ("5 samples, 1 held out, 2 steps, 1 threads", "step 1: 1 of 1 held out right (100.0%), loss 0.500"):
        assert f"{cleared}{said}\r\n" in text
    assert "few\r\n" in text
    assert "2/2" in text


def _read(terminal: int) -> bytes:
    """A piece of what was written; nothing where its last writer ended."""
    try:
        return os.read(terminal, 4096)
    except OSError:  # Linux: EIO
        return b""
