import json
from pathlib import Path

import pytest

from dualtune_edge.runtime.agent.events import ArgumentsEvent, DoneEvent, Event, ResultEvent
from dualtune_edge.runtime.agent.outcome import ToolOutcome
from dualtune_edge.runtime.agent.recording import Recorder, Replay
from dualtune_edge.runtime.bundle.folder import open_bundle
from dualtune_edge.toolkit.errors import DataError
from dualtune_edge.toolkit.prompts.messages import user
from dualtune_edge.toolkit.prompts.trajectories import read_trajectories


def call(
    step: int, toolset: str, tool: str, arguments: dict[str, object], text: str, *, error: bool = False
) -> list[Event]:
    return [
        ArgumentsEvent(step=step, toolset=toolset, tool=tool, arguments=arguments, milliseconds=1.0),
        ResultEvent(step=step, toolset=toolset, tool=tool, text=text, error=error),
    ]


DONE = DoneEvent(outcome="answered", answer="Done.", steps=3, reason="", seconds=1.0)
RUN = [
    *call(1, "git", "log", {"count": 2}, "a\nb"),
    *call(2, "files", "read", {"path": "a"}, "error: no", error=True),
    *call(3, "files", "read", {"path": "b"}, "text"),
    DONE,
]


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    recorder = Recorder(tmp_path / "run.jsonl")
    recorder.begin([user("read what changed")])
    for event in RUN:
        recorder.add(event)
    recorder.write()
    return recorder.path


def test_a_line_a_toolset_as_finetune_reads_it(recorded: Path) -> None:
    git, files = read_trajectories(recorded)
    assert (git.toolset, files.toolset) == ("git", "files")
    assert [message.role for message in git.messages] == ["user", *["assistant", "tool"] * 3, "assistant"]
    assert [message.weight for message in git.messages] == [None, None, None, 0, None, 0, None, None]
    assert [message.weight for message in files.messages] == [None, 0, None, 0, None, None, None, None]


def test_runs_are_appended(recorded: Path) -> None:
    recorder = Recorder(recorded)
    recorder.begin([user("again")])
    for event in [*call(1, "git", "log", {"count": 1}, "x"), DONE]:
        recorder.add(event)
    recorder.write()
    assert len(recorded.read_text(encoding="utf-8").splitlines()) == 3


def test_a_replay_answers_the_recorded_calls_and_no_other(recorded: Path, exported: Path) -> None:
    replay = Replay.read(recorded, open_bundle(exported).manifest)
    assert [message.content for message in replay.task] == ["read what changed"]
    assert replay.call("git", "log", {"count": 2}) == ToolOutcome("a\nb")
    assert replay.call("files", "read", {"path": "a"}) == ToolOutcome("error: no", error=True)
    with pytest.raises(DataError, match=r"step 3: found files\.read.*expected read"):
        replay.call("files", "read", {"path": "c"})


def test_a_file_without_a_run_is_refused(tmp_path: Path, exported: Path) -> None:
    path = tmp_path / "empty.jsonl"
    path.write_text("\n", encoding="utf-8")
    with pytest.raises(DataError, match="no run"):
        Replay.read(path, open_bundle(exported).manifest)


def test_a_run_without_a_call_leaves_no_line(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "run.jsonl")
    recorder.begin([user("hello")])
    recorder.add(DONE)
    recorder.write()
    assert recorder.path.read_text(encoding="utf-8") == ""


def test_lines_are_json_with_the_texts_as_they_are(recorded: Path) -> None:
    line = json.loads(recorded.read_text(encoding="utf-8").splitlines()[0])
    assert line["messages"][2]["content"] == "a\nb"
