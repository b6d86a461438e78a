import io
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from dualtune_edge import cli
from dualtune_edge.runtime import Agent, CallResult, open_bundle
from dualtune_edge.toolkit.errors import BundleError, ProfileError, RequestError, StoppedError

SCHEMA = {"toolset", "tool", "arguments", "outcome", "probability", "alternatives", "timings_ms", "tokens"}
SCHEMA |= {"notes", "placement", "toolset_probability", "variant", "arguments_probability", "not_in_conversation"}
TURNS = [
    {"role": "user", "content": "how long is the history?"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "1", "type": "function", "function": {"name": "log", "arguments": '{"count": 9}'}}],
    },
    {"role": "tool", "tool_call_id": "1", "content": "nine commits"},
]


def run(arguments: Sequence[str | Path]) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


def printed(capsys: pytest.CaptureFixture[str]) -> Any:
    """The one JSON object on stdout."""
    return json.loads(capsys.readouterr().out)


def test_call_prints_one_line(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["call", exported, "read it", "--toolset", "files", "--threads", "1"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("files")
    assert out.count("\n") == 1
    assert "%" in out
    assert " ms" in out
    assert err == ""


def test_call_prints_json(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["call", exported, "read it", "--json", "--threads", "1"]) == 0
    answer = printed(capsys)
    assert set(answer) == SCHEMA
    CallResult.model_validate(answer)


@pytest.mark.parametrize("engine", ["ort", "genai"])
def test_call_takes_a_conversation(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], engine: str
) -> None:
    file = tmp_path / "turns.json"
    file.write_text(json.dumps(TURNS), encoding="utf-8")
    assert run(["call", exported, "--messages", file, "--toolset", "git", "--engine", engine, "--json"]) == 0
    assert printed(capsys)["toolset"] == "git"


def test_call_reads_a_conversation_from_stdin(
    exported: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(json.dumps(TURNS).encode())))
    assert run(["call", exported, "--messages", "-", "--json", "--threads", "1"]) == 0
    assert printed(capsys)["tokens"]["prompt"] > 0


@pytest.mark.parametrize("said", ["read it\n", "read it\r\n", "read it"])
def test_call_reads_a_text_from_stdin(
    exported: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], said: str
) -> None:
    answers = []
    for text in ("-", "read it"):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(said.encode())))
        assert run(["call", exported, text, "--json", "--threads", "1"]) == 0
        answers.append(printed(capsys))
    assert answers[0]["tokens"] == answers[1]["tokens"]


def test_call_refuses_bytes_on_stdin_that_are_no_text(
    exported: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"caf\xe9")))
    assert run(["call", exported, "-"]) == RequestError.exit_code
    assert "not UTF-8" in capsys.readouterr().err


def test_call_names_a_file_that_is_no_conversation(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "README.md"
    file.write_text("# Read me\n", encoding="utf-8")
    assert run(["call", exported, "--messages", file]) == RequestError.exit_code
    assert (
        f"{file}: found no JSON from line 1, column 1 on; expected a JSON list of messages" in capsys.readouterr().err
    )
    assert run(["call", exported, "--messages", tmp_path]) == RequestError.exit_code
    assert "Is a directory" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (["--deadline", "0"], StoppedError.exit_code, "its deadline is over"),
        (["--deadline", "-1"], 2, "--deadline"),
        (["--max-argument-tokens", "0"], 2, "--max-argument-tokens"),
        (["--min-probability", "1.5"], 2, "--min-probability"),
        (["--deadline", "60", "--max-argument-tokens", "500", "--min-probability", "1"], 0, "unsure"),
    ],
)
def test_call_has_bounds(
    exported: Path, capsys: pytest.CaptureFixture[str], flags: list[str], code: int, words: str
) -> None:
    assert run(["call", exported, "read it", "--toolset", "files", *flags]) == code
    assert words in "".join(capsys.readouterr())


def test_call_shortens_results_where_it_is_asked_to(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "turns.json"
    file.write_text(json.dumps([*TURNS[:2], {**TURNS[2], "content": "x" * 9_000}]), encoding="utf-8")
    flags = ["call", exported, "--messages", file, "--toolset", "git", "--threads", "1"]
    assert run(flags) == RequestError.exit_code
    assert "at most 2,048" in capsys.readouterr().err
    assert run([*flags, "--shorten-results"]) == 0
    assert "warning: on_overflow" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "{", '{"role": "user"}', "[1]", "[]"])
def test_call_refuses_a_conversation_that_is_none(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    file = tmp_path / "turns.json"
    file.write_text(text, encoding="utf-8")
    assert run(["call", exported, "--messages", file, "--json"]) == RequestError.exit_code
    assert printed(capsys)["error"]["type"] == "RequestError"


@pytest.mark.parametrize("arguments", [[], ["x", "--messages", "y.json"]])
def test_call_wants_a_text_or_a_conversation(
    exported: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert run(["call", exported, *arguments]) == RequestError.exit_code
    assert "TEXT" in capsys.readouterr().err


def test_call_of_no_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["call", tmp_path, "x"]) == BundleError.exit_code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") <= 2


def test_call_with_an_unknown_profile(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["call", exported, "x", "--profile", "absent"]) == ProfileError.exit_code
    assert "absent" in capsys.readouterr().err


def test_inspect_prints_the_manifests_summary(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", exported, "--json"]) == 0
    summary, manifest = printed(capsys), open_bundle(exported).manifest
    assert set(summary) == {
        "base", "tokenizer", "quantization", "cache", "profile", "toolsets", "adapters", "states", "copied", "files",
        "size_bytes", "parity", "variants", "here", "simulated", "licences", "release", "signer", "manifest_sha256",
    }  # fmt: skip
    assert [set(adapter) for adapter in summary["adapters"]] == [
        {"name", "kind", "toolset", "tool", "mode", "rank", "scale", "sha256"}
    ] * len(manifest.adapters)
    assert summary["size_bytes"] == sum(path.stat().st_size for path in exported.rglob("*") if path.is_file())
    assert [toolset["name"] for toolset in summary["toolsets"]] == ["files", "git"]
    assert {state["state"] for state in summary["states"]} == {entry.path for entry in manifest.states}
    assert {state["unused"] for state in summary["states"]} == {None}


def test_inspect_says_why_a_state_is_not_used(
    bundle: Path,
    change_manifest: Callable[[Callable[[dict[str, Any]], object]], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    change_manifest(lambda manifest: manifest["states"][0]["key"].update(graph="0" * 64))
    assert run(["inspect", bundle]) == 0
    assert "is for other graph or adapter files" in capsys.readouterr().out


def test_copied_properties_are_shown_and_can_be_written_freely(
    bundle: Path,
    change_manifest: Callable[[Callable[[dict[str, Any]], object]], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    def declare(manifest: dict[str, Any]) -> None:
        manifest["toolsets"][0]["arguments"]["read"]["copied"] = [{"name": "path", "border": "characters"}]

    change_manifest(declare)
    assert run(["inspect", bundle]) == 0
    assert "copied          files.read: path (characters)" in capsys.readouterr().out
    seen: list[bool] = []
    for flags in ([], ["--copied"], ["--no-copied"]):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Agent, "call", lambda self, *_, **__: seen.append(self._copied) or sys.exit(0))
            assert run(["call", bundle, "x", *flags]) == 0
    assert seen == [True, True, False]


def test_inspect_shows_who_answers_each_stage(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", exported]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["git", "log", "the", "base"] in rows
    assert any(row[:4] == ["git", "selection", "selection.git", "merged"] for row in rows)
    assert any(row[:4] == ["files", "read", "arguments.files.read", "external"] for row in rows)


def test_inspect_refuses_a_damaged_bundle(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = bundle / "model" / "model.onnx.data"
    data.write_bytes(b"\x01" + data.read_bytes()[1:])
    assert run(["inspect", bundle, "--json"]) == BundleError.exit_code
    assert printed(capsys)["error"]["where"].endswith("model.onnx.data")
