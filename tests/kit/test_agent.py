"""Whole runs of the kit: with servers that misbehave, on the real git server, recorded, replayed and learnt from."""

from __future__ import annotations

import json
import os
import select
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pytest
from dualtune_edge_kit import FOLDER

from checkable.servers import configs, missing
from dualtune_edge import cli
from dualtune_edge.export.demo import task as demo_task
from dualtune_edge.profiles.schema import SessionSettings
from dualtune_edge.runtime import Agent
from dualtune_edge.runtime.agent import Policy, PolicyApprover, RunLimits, run
from dualtune_edge.runtime.agent.config import ServerConfig
from dualtune_edge.runtime.agent.events import ApprovalEvent, DoneEvent, Event, ResultEvent
from dualtune_edge.runtime.agent.servers import Servers, Timeouts
from dualtune_edge.runtime.evaluate.tasks.report import TaskEvaluation

SERVER: Final = Path(__file__).with_name("listing_server.py")
FAULTS: Final = ("", "dies", "half", "silent", "asks", "changes", "huge", "bytes", "noise", "fails")
REQUESTS: Final = {
    "git": (
        "I want to see the newest 16 commits in /media/kayak_quartz",
        "With the message 'Stabilize the zeppelin', commit the changes in /net/sapphire",
        demo_task.TASK,
    ),
    "filesystem": (
        "I am looking for files matching *.vue under /shared/orchid",
        "Please draw /net/waterfall as a tree",
        "Could you create one more folder named /vol/quartz/walnut?",
    ),
}
SECONDS: Final = Timeouts(connect=30, list_tools=10, call=1, close=1)
LIMITS: Final = RunLimits(steps=4, repeats=3, answer_tokens=32)
ALLOW: Final = Policy(default="allow")
TASKS: Final = """
[worlds.empty]

[[tasks]]
name = "log"
world = "empty"
toolsets = ["git"]
request = "Show me the newest 4 commits in work/atlas"
gold = [{ call = "git.git_log", arguments = { repo_path = "work/atlas", max_count = 4 } }]
check.facts = ["done"]

[[tasks]]
name = "write"
world = "empty"
toolsets = ["git"]
request = "Show me the newest 4 commits in work/atlas"
check.files = { "note.txt" = "" }
"""


@pytest.fixture(scope="module")
def agent(kit_bundle: Path) -> Iterator[Agent]:
    with Agent.open(kit_bundle, settings=SessionSettings(intra_op_threads=1, spinning=False)) as opened:
        yield opened


def config(name: str, fault: str, log: Path) -> ServerConfig:
    listed = FOLDER / "servers" / f"{name}.json"
    return ServerConfig(command=sys.executable, args=(str(SERVER), str(listed), fault, str(log)))


def reached(log: Path) -> list[str]:
    """The tools whose calls have reached a server."""
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else []


def allowed(events: Sequence[Event]) -> list[str]:
    return [event.tool for event in events if isinstance(event, ApprovalEvent) and event.decision == "allow"]


def ended(events: Sequence[Event]) -> DoneEvent:
    """The end of a run: an answer, or the reason why there is none."""
    done = events[-1]
    assert isinstance(done, DoneEvent)
    assert done.answer if done.outcome == "answered" else done.reason
    return done


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", REQUESTS)
def test_whatever_a_server_does_a_run_ends_and_no_call_is_made_unapproved(
    agent: Agent, name: str, fault: str, tmp_path: Path
) -> None:
    results: list[ResultEvent] = []
    for number, request in enumerate(REQUESTS[name]):
        log = tmp_path / f"{number}.log"
        with Servers({name: config(name, fault, log)}, SECONDS) as servers:
            events = list(run(agent, request, servers, PolicyApprover(ALLOW), limits=LIMITS))
        ended(events)
        assert reached(log) == allowed(events)[: len(reached(log))]
        results += [event for event in events if isinstance(event, ResultEvent)]
    assert {event.error for event in results} == {fault in {"dies", "half", "silent", "fails"}}
    longest = agent.context_length // 4 + 60  # and the line that says what is left out
    assert all(len(agent.tokenizer.encode(event.text).ids) <= longest for event in results)


@pytest.mark.parametrize("name", REQUESTS)
def test_without_a_word_of_the_user_nothing_reaches_a_server(agent: Agent, name: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with Servers({name: config(name, "", log)}, SECONDS) as servers:
        runs = [list(run(agent, text, servers, PolicyApprover(Policy()), limits=LIMITS)) for text in REQUESTS[name]]
    results = [event for events in runs for event in events if isinstance(event, ResultEvent)]
    assert results
    assert all(event.error for event in results)
    assert [ended(events) and allowed(events) for events in runs] == [[], [], []]
    assert reached(log) == []


@pytest.mark.parametrize("fault", FAULTS)
def test_of_two_servers_the_faulty_one_does_not_harm_the_other(agent: Agent, fault: str, tmp_path: Path) -> None:
    """All 26 tools are on offer; the base chooses the toolset."""
    logs = {"git": tmp_path / "git.log", "filesystem": tmp_path / "filesystem.log"}
    faults = {"git": fault, "filesystem": ""}
    with Servers({name: config(name, faults[name], logs[name]) for name in logs}, SECONDS) as servers:
        assert sum(map(len, servers.offer(agent.bundle.manifest).tools.values())) == 26
        first = list(run(agent, REQUESTS["git"][0], servers, PolicyApprover(ALLOW), limits=LIMITS))
        second = list(run(agent, REQUESTS["filesystem"][0], servers, PolicyApprover(ALLOW), limits=LIMITS))
    ended(first)
    ended(second)
    assert reached(logs["git"])[:1] == ["git_log"]
    assert reached(logs["filesystem"])[:1] == ["search_files"]


def test_a_list_that_changed_is_chosen_from_in_the_next_step(agent: Agent, tmp_path: Path) -> None:
    with Servers({"git": config("git", "changes", tmp_path / "log")}, SECONDS) as servers:
        events = list(run(agent, demo_task.TASK, servers, PolicyApprover(ALLOW), limits=LIMITS))
    assert ended(events)
    called = reached(tmp_path / "log")
    assert called[0] == "git_add"
    assert len(called) == len(set(called)), "a tool that was taken away is not called again"


@pytest.mark.skipif(bool(missing()), reason=missing())
def test_the_demos_task_is_done_on_the_real_git_server(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    command = configs(Path())["git"].command
    assert command
    monkeypatch.setenv("PATH", str(Path(command).parent), prepend=":")
    report = demo_task.do_task(agent)
    assert report.not_run == ""
    assert [step.tool for step in report.steps] == ["git_add", "git_commit"]
    assert all(finding.right for finding in report.findings), report


def command(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        cli.main(list(arguments))
    return int(stopped.value.code or 0)


def steps(output: str) -> list[dict[str, Any]]:
    """What a run decided and read, of the events that `--json` printed: no times."""
    events = [json.loads(line) for line in output.splitlines()]
    kept = ("event", "step", "toolset", "tool", "arguments", "decision", "text", "error", "outcome", "answer")
    return [{key: event[key] for key in kept if key in event} for event in events if event["event"] != "approval"]


@pytest.fixture
def recorded(kit_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[Path, list[dict[str, Any]]]:
    """A recorded run of two calls, the second of which the policy denies; and its steps."""
    server = config("git", "", tmp_path / "log")
    hosts = {"mcpServers": {"git": {"command": server.command, "args": list(server.args)}}}
    policy = tmp_path / "policy.toml"
    (tmp_path / "mcp.json").write_text(json.dumps(hosts), encoding="utf-8")
    policy.write_text('default = "allow"\n[servers.git.tools]\ngit_commit = "deny"\n', encoding="utf-8")
    record = tmp_path / "run.jsonl"
    flags = ("--mcp", str(tmp_path / "mcp.json"), "--policy", str(policy), "--record", str(record), "--json")
    assert command("agent", str(kit_bundle), demo_task.TASK, *flags, "--max-steps", "2") in {0, 20}
    assert reached(tmp_path / "log") == ["git_add"]
    return record, steps(capsys.readouterr().out)


def test_a_recorded_run_replays_to_the_same_steps(
    kit_bundle: Path, recorded: tuple[Path, list[dict[str, Any]]], capsys: pytest.CaptureFixture[str]
) -> None:
    record, first = recorded
    assert [event["tool"] for event in first if event["event"] == "arguments"] == ["git_add", "git_commit"]
    command("agent", str(kit_bundle), "--replay", str(record), "--json", "--max-steps", "2")
    assert steps(capsys.readouterr().out) == first


class Terminal:
    """`agent` at a terminal of its own."""

    def __init__(self, *arguments: str) -> None:
        import pty

        self.pid, self._terminal = pty.fork()
        if self.pid == 0:  # the child
            os.execv(sys.executable, [sys.executable, "-m", "dualtune_edge", "agent", *arguments])  # noqa: S606

    def read_to(self, text: str) -> str:
        """What is printed from here to a text, which comes within a minute."""
        seen = b""
        while text.encode() not in seen:
            assert select.select([self._terminal], [], [], 60)[0], seen.decode(errors="replace")
            seen += os.read(self._terminal, 4096)
        return seen.decode()

    def interrupt(self, prompt: str) -> str:
        """What is printed after a Ctrl-C, to the next prompt.

        It is sent again after 20 s of silence: Python loses a signal that comes just before it waits for keys.
        """
        seen = b""
        while prompt.encode() not in seen:
            self.type("\x03")
            while prompt.encode() not in seen and select.select([self._terminal], [], [], 20)[0]:
                seen += os.read(self._terminal, 4096)
            assert seen.count(b"^C") < 5, seen.decode(errors="replace")
        return seen.decode()

    def type(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    def end(self) -> int:
        """Ctrl-D, and the exit code."""
        self.type("\x04")
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.mark.skipif(sys.platform == "win32", reason="a pseudo-terminal")
def test_at_a_terminal_ctrl_c_stops_the_task_and_not_the_conversation(
    kit_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    log = tmp_path / "log"
    server = config("git", "silent", log)
    hosts = {"mcpServers": {"git": {"command": server.command, "args": list(server.args)}}}
    (tmp_path / "mcp.json").write_text(json.dumps(hosts), encoding="utf-8")
    terminal = Terminal(str(kit_bundle), "--mcp", str(tmp_path / "mcp.json"))
    terminal.read_to("\n> ")
    terminal.interrupt("\n> ")
    terminal.type(f"{demo_task.TASK}\n")
    asked = terminal.read_to("ne[v]er: ")
    assert '"files": ["maps.txt"]' in asked
    assert "cancelled" in terminal.interrupt("\n> ")
    assert reached(log) == [], "Ctrl-C at the question is a no"
    terminal.type(f"{REQUESTS['git'][0]}\n")
    terminal.read_to("ne[v]er: ")
    terminal.type("what?\n")
    terminal.read_to("ne[v]er: ")
    terminal.type("y\n")
    terminal.read_to("allowed: the user allowed it")
    assert "cancelled" in terminal.interrupt("\n> "), "the server never answers"
    assert terminal.end() == 0
    assert len(reached(log)) <= 1, "an allowed call is sent once at most"


@pytest.mark.parametrize(
    ("objective", "tool", "samples"),
    [("selection", None, 2), ("arguments", "git_add", 1), ("arguments", "git_commit", 0)],
)
def test_what_was_approved_trains_an_adapter(
    objective: str,
    tool: str | None,
    samples: int,
    *,
    recorded: tuple[Path, list[dict[str, Any]]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The file is given to `finetune` as it is; the call that was denied is not learnt."""
    output = tmp_path / "adapter"
    flags = [
        *("--objective", objective, "--base", str(FOLDER / "base"), "--tools", str(FOLDER / "servers" / "git.json")),
        *("--data", str(recorded[0]), "-o", str(output), "--rank", "2", "--max-steps", "2", "--threads", "1"),
        *("--template", str(FOLDER / "templates" / f"{objective}.jinja"), "--json"),
    ]
    code = command("finetune", *flags, *(("--tool", tool) if tool else ()))
    report = json.loads(capsys.readouterr().out)
    if samples:
        assert (code, report["samples"]) == (0, samples)
        assert (output / "adapter_model.safetensors").is_file()
    else:
        assert code == 14


def test_tasks_of_two_bundles_stand_side_by_side(
    kit_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Servers that list the tools and do none: what is called is noted, and what is checked is not there."""
    tasks, page, log = tmp_path / "tasks.toml", tmp_path / "page.html", tmp_path / "calls"
    tasks.write_text(TASKS, encoding="utf-8")
    started = config("git", "", log)
    entry = {"command": started.command, "args": started.args}
    mcp = tmp_path / "mcp.json"
    mcp.write_text(json.dumps({"mcpServers": {"git": entry}}), encoding="utf-8")
    words = ["evaluate", kit_bundle, "--tasks", tasks, "--mcp", mcp, "--against", kit_bundle, "--html", page]
    with pytest.raises(SystemExit) as ended:
        cli.main([*map(str, words), "--threads", "1", "--json"])
    assert not ended.value.code
    report = TaskEvaluation.model_validate_json(capsys.readouterr().out)
    log_task, write = report.ours.results
    assert (log_task.done, log_task.matched, log_task.calls[0].state) == (True, 1, "done")
    assert write.faults == ("note.txt is not there",)
    assert [group.done.right for group in report.ours.groups] == [1, 1, 1]
    assert report.against
    assert (report.against.done.difference, report.against.other.groups) == (0, report.ours.groups)
    assert reached(log).count("git_log") >= 4, "two tasks of two bundles"
    assert "note.txt is not there" in page.read_text(encoding="utf-8")
