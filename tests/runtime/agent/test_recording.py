import json
from pathlib import Path
from typing import Any

import pytest

from dualtune_edge.runtime.agent.events import ArgumentsEvent, DoneEvent, Event, ResultEvent
from dualtune_edge.runtime.agent.offer import Offer
from dualtune_edge.runtime.agent.outcome import ToolOutcome
from dualtune_edge.runtime.agent.recording import Recorder, Replay
from dualtune_edge.runtime.bundle.opening import open_bundle
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


class Tools:
    """On offer: `read` of files, at first `log` of git too."""

    def __init__(self) -> None:
        self.git = ["log"]

    def offer(self, manifest: object, *, cancel: object = None) -> Offer:
        del manifest, cancel
        tools = {"git": self.git.pop()} if self.git else {}
        return Offer(
            {"files": frozenset({"read"})} | {name: frozenset({tool}) for name, tool in tools.items()}, frozenset(), ()
        )

    def call(self, server: str, tool: str, arguments: dict[str, object], *, cancel: object = None) -> ToolOutcome:
        return ToolOutcome(f"{server} {tool} {arguments} {cancel}")


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
    tools = recorder.begin([user("read what changed")], Tools())
    manifest: Any = None
    for event in RUN:
        if isinstance(event, ArgumentsEvent | DoneEvent):
            tools.offer(manifest)
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
    recorder.begin([user("again")], Tools())
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


def test_each_call_of_a_replay_is_chosen_from_what_was_on_offer_then(recorded: Path, exported: Path) -> None:
    manifest = open_bundle(exported).manifest
    replay = Replay.read(recorded, manifest)
    first, later = {"files": {"read"}, "git": {"log"}}, {"files": {"read"}}
    assert replay.offer(manifest).tools == replay.offer(manifest).tools == first
    replay.call("git", "log", {"count": 2})
    assert replay.offer(manifest).tools == later
    replay.call("files", "read", {"path": "a"})
    replay.call("files", "read", {"path": "b"})
    assert replay.offer(manifest).tools == later


def test_where_a_file_does_not_say_every_tool_is_on_offer(recorded: Path, exported: Path) -> None:
    lines = [json.loads(line) for line in recorded.read_text(encoding="utf-8").splitlines()]
    recorded.write_text("".join(json.dumps(line | {"offered": []}) + "\n" for line in lines), encoding="utf-8")
    manifest = open_bundle(exported).manifest
    assert Replay.read(recorded, manifest).offer(manifest).tools == {"files": {"read", "sort", "roots"}, "git": {"log"}}


def test_what_is_recorded_is_passed_on(tmp_path: Path) -> None:
    tools = Recorder(tmp_path / "run.jsonl").begin([user("x")], Tools())
    assert tools.call("git", "log", {}).text == "git log {} None"


def test_a_file_without_a_run_is_refused(tmp_path: Path, exported: Path) -> None:
    path = tmp_path / "empty.jsonl"
    path.write_text("\n", encoding="utf-8")
    with pytest.raises(DataError, match="no run"):
        Replay.read(path, open_bundle(exported).manifest)


def test_a_run_without_a_call_leaves_no_line(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "run.jsonl")
    recorder.begin([user("hello")], Tools())
    recorder.add(DONE)
    recorder.write()
    assert recorder.path.read_text(encoding="utf-8") == ""


def test_lines_are_json_with_the_texts_as_they_are(recorded: Path) -> None:
    line = json.loads(recorded.read_text(encoding="utf-8").splitlines()[0])
    assert line["messages"][2]["content"] == "a\nb"
