"""The scripts of benchmarks/, as far as they need neither llama.cpp nor a big model."""

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from tokenizers import Tokenizer
from tokenizers.models import BPE

from dualtune_edge import cli
from dualtune_edge.runtime.bench import machine
from dualtune_edge.runtime.bench.requests import made_requests, read_tasks
from dualtune_edge.runtime.bench.scripts import ScriptWriter
from dualtune_edge.runtime.bundle.opening import open_bundle

SCRIPTS = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """Import one, as running it would."""
    monkeypatch.syspath_prepend(SCRIPTS)
    monkeypatch.setattr(machine, "_READ_BYTES", 1 << 20)
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and SCRIPTS in Path(sys.modules[name].__file__ or "").parents:
            del sys.modules[name]


def test_genai_decodes_the_gold_calls_text_whatever_the_way(
    exported: Path, script: Callable[[str], ModuleType]
) -> None:
    peers = script("peers").compare(exported, 1, 1, None)
    bundle = open_bundle(exported)
    answers = [script.answer for script in ScriptWriter(bundle).scripts(made_requests(bundle.manifest, 1)[0])]
    assert [peer.name for peer in peers] == [
        "onnxruntime-genai, fed",
        "onnxruntime-genai, guided",
        "onnxruntime-genai, guided, forwarding",
    ]
    assert peers[0].decoded == sum(map(len, answers))
    special = sum(token in (256, 257, 258) for answer in answers for token in answer)
    assert peers[1].decoded >= peers[0].decoded - special
    assert all(peer.ms > 0 for peer in peers)


def test_every_row_of_the_table_is_filled_from_a_report(
    exported: Path, script: Callable[[str], ModuleType], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main(["bench", str(exported), "--calls", "1", "--no-free", "--threads", "1", "--json"])
    table = script("table")
    report = table.BenchReport.model_validate_json(capsys.readouterr().out)
    speeds = {"selection.merged_r32": 40.0, "selection.external_r8": 38.0, "selection.external_r32": 30.0}
    rows = [*table.whole_calls(report, report, report, {}), *table.decoding(speeds), *table.costs(report, report)]
    assert len(rows) == 14
    peers_only = {row.what for row in rows if not row.found} - {"anonymous memory against the int4 file"}
    assert all("llama.cpp" in what for what in peers_only)
    assert [row.found for row in rows if row.what.startswith("decode, external")] == ["0.95", "0.75"]
    assert any("GB/s" in line for line in table.conditions(report, {}, speeds))


def test_a_task_is_decoded_turn_by_turn(exported: Path, tmp_path: Path, script: Callable[[str], ModuleType]) -> None:
    turn = {"role": "assistant", "tool_calls": [{"function": {"name": "sort", "arguments": {"by": "name"}}}]}
    messages = [{"role": "user", "content": "sort it"}, turn, {"role": "tool", "content": "done"}, turn]
    task = tmp_path / "task.jsonl"
    task.write_text(json.dumps({"toolset": "files", "messages": messages}), encoding="utf-8")
    bundle = open_bundle(exported)
    (requests,) = read_tasks(task, bundle.manifest, 1)
    answers = script("task_peers").plain_genai(exported, task, 1)
    scripts = [ScriptWriter(bundle).scripts(request) for request in requests]
    assert [answer.decoded for answer in answers] == [sum(len(stage.answer) for stage in turn) for turn in scripts]


def test_llama_is_asked_for_the_calls_own_tokens(script: Callable[[str], ModuleType]) -> None:
    server = script("llama_server")
    tokenizer = Tokenizer(BPE({"a": 0, "b": 1}, []))
    tokenizer.add_special_tokens(["</s>"])
    assert server.without_end((0, 1, 2, 0), tokenizer) == [0, 1]
    assert server.without_end((0, 1), tokenizer) == [0, 1]
    assert server.scales(["x", "y"], 1) == [{"id": 1, "scale": 1.0}]
    assert server.scales(["x", "y"], -1) == [{"id": 0, "scale": 0.0}]  # an empty list would put both in force
    assert server.scales([], -1) == []


def test_decoding_is_timed_for_every_adapter(
    exported: Path, script: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    decoding = script("decoding")
    monkeypatch.setattr(decoding, "_ROUNDS", 2)
    names = {adapter.name for adapter in open_bundle(exported).manifest.adapters}
    assert decoding.decode_speeds(exported, 1, 8).keys() == {"base", *names}
