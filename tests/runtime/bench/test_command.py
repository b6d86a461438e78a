import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from dualtune_edge import cli
from dualtune_edge.runtime.bench import machine
from dualtune_edge.runtime.bench.report import BenchReport
from dualtune_edge.toolkit.errors import BundleError, DataError


@pytest.fixture(autouse=True)
def little_to_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_READ_BYTES", 1 << 20)


def run(arguments: Sequence[str | Path]) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(["bench", *[str(argument) for argument in arguments], "--threads", "1"])
    return int(ended.value.code or 0)


def test_it_prints_json_and_draws(exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([exported, "--calls", "2", "--json", "--plot", tmp_path / "call.svg"]) == 0
    report = BenchReport.model_validate_json(capsys.readouterr().out)
    assert report.passes[0].kind == "gold"
    assert len(report.passes[0].calls) == report.passes[0].right == 2
    assert report.swap_ms
    assert report.open_ms.first_call > 0
    assert (tmp_path / "call.svg").read_text(encoding="utf-8").startswith("<svg ")


def test_it_prints_a_table(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([exported, "--calls", "1", "--no-free", "--engine", "genai"]) == 0
    out = capsys.readouterr().out
    for word in (
        "threads",
        "onnxruntime",
        "GB/s",
        "anonymous",
        "restores no KV state",
        "selection",
        "the naive path",
        "made up from",
    ):
        assert word in out
    assert "free calls" not in out


def test_requests_come_from_a_file(exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    turns = [
        {"role": "user", "content": "four commits"},
        {"role": "assistant", "tool_calls": [{"function": {"name": "log", "arguments": {"count": 4}}}]},
    ]
    line = json.dumps({"toolset": "git", "messages": turns})
    (tmp_path / "r.jsonl").write_text(line + "\n", encoding="utf-8")
    assert run([exported, "--requests", tmp_path / "r.jsonl", "--no-free", "--json"]) == 0
    report = BenchReport.model_validate_json(capsys.readouterr().out)
    assert [call.arguments for call in report.passes[0].calls] == [{"count": 4}]


def test_its_errors_are_named(exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([tmp_path]) == BundleError.exit_code
    assert run([exported, "--requests", tmp_path / "absent.jsonl"]) == DataError.exit_code
    assert capsys.readouterr().out == ""


def test_bandwidth_is_bytes_a_second() -> None:
    assert machine.bandwidth(1) > 1e8  # the slowest memory of any machine that runs this
