"""`dualtune-edge agent`: one task, or a conversation at a terminal."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Final

import typer

from dualtune_edge.runtime.agent.approval import PendingCall, Policy, PolicyApprover, Reply, read_policy
from dualtune_edge.runtime.agent.events import (
    ApprovalEvent,
    ArgumentsEvent,
    DoneEvent,
    Event,
    ResultEvent,
    TextEvent,
    ToolEvent,
)
from dualtune_edge.runtime.agent.loop import RunLimits, run
from dualtune_edge.runtime.agent.recording import Recorder, Replay
from dualtune_edge.runtime.agent.toolbox import Toolbox
from dualtune_edge.runtime.agent.transcript import extended
from dualtune_edge.runtime.options import BundleFolder, Copied, Engine, TrustFile
from dualtune_edge.runtime.pipeline import Agent
from dualtune_edge.toolkit import console
from dualtune_edge.toolkit.console import printable
from dualtune_edge.toolkit.errors import RequestError, SpecError
from dualtune_edge.toolkit.prompts.messages import Message, user

_REPLIES: Final[dict[str, Reply]] = {"y": "once", "t": "tool", "s": "server", "n": "no", "v": "never"}
_LINES: Final = 6  # of a result that a terminal shows
_ENDED: Final = {"answered": 0, "cancelled": 130}  # outcome → exit code
_UNFINISHED: Final = 20  # of any other


def agent(
    bundle: BundleFolder,
    task: Annotated[str | None, typer.Argument(metavar="TASK", help="What to do; default: a conversation.")] = None,
    *,
    mcp: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The MCP servers: an mcpServers file, as desktop hosts have it.")
    ] = None,
    policy: Annotated[Path | None, typer.Option(metavar="FILE", help="Which calls may be made: a TOML file.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Make every call that the policy does not deny.")] = False,
    record: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Append the run to this file, as `finetune --data` reads it.")
    ] = None,
    replay: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Run a recorded task again, against its recorded results.")
    ] = None,
    max_steps: Annotated[int, typer.Option(min=1, help="The most calls for one task.")] = 16,
    deadline: Annotated[
        float | None, typer.Option(min=0.0, metavar="SECONDS", help="The most time for a task.")
    ] = None,
    temperature: Annotated[float, typer.Option(min=0.0, help="Of the answer; 0 takes the most probable token.")] = 0.0,
    copied: Copied = True,
    engine: Engine = "ort",
    trust: TrustFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print each event as a JSON line instead of text.")] = False,
) -> None:
    """Do a task with the tools of MCP servers, and answer.

    Each server is the toolset of its name. A call is made when the policy allows it or you do; without a terminal only
    the policy can. Ctrl-C stops the task, not the conversation.

    Example:
        dualtune-edge agent my-bundle "commit what changed in /srv/atlas" --mcp mcp.json

    """
    rules = read_policy(policy) if policy else Policy()
    rules = rules.model_copy(update={"default": "allow"}) if yes and rules.default == "ask" else rules
    approver = PolicyApprover(rules, _prompt if _at_a_terminal() else None)
    with Agent.open(bundle, engine=engine, trust=trust, copied=copied) as opened, contextlib.ExitStack() as stack:
        tools: Toolbox
        if replay:
            tools = recorded = Replay.read(replay, opened.bundle.manifest)
            task, approver = task or recorded.task[-1].content, PolicyApprover(Policy(default="allow"))
        elif mcp:
            from dualtune_edge.runtime.agent.servers import Servers

            tools = stack.enter_context(Servers.open(mcp))
        else:
            raise SpecError("agent", found="no --mcp", expected="a file that names the servers", fix="Add --mcp FILE.")
        if opened.bundle.overdue:
            console.warn(opened.bundle.overdue)
        for note in tools.offer(opened.bundle.manifest).notes:
            console.warn(note)
        session = _Session(
            opened,
            tools,
            approver,
            RunLimits(steps=max_steps, seconds=deadline),
            temperature,
            Recorder(record) if record else None,
            _show_json if as_json else _show,
        )
        if task is not None:
            ended = session.work(task)
            raise typer.Exit(_ENDED.get(ended.outcome, _UNFINISHED))
        session.converse()


@dataclass
class _Session:
    """A conversation: the messages of earlier tasks are the context of the next."""

    agent: Agent
    tools: Toolbox
    approver: PolicyApprover
    limits: RunLimits
    temperature: float
    recorder: Recorder | None
    show: Callable[[Event], None]
    messages: tuple[Message, ...] = ()

    def converse(self) -> None:
        """Read tasks from the terminal until its end."""
        if not _at_a_terminal():
            raise RequestError(
                "TASK", found="none, and no terminal", expected="a task", fix='Say: dualtune-edge agent BUNDLE "…"'
            )
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401 - gives input() a history; Windows has none
        while True:
            try:
                text = input("> ").strip()
            except EOFError:
                return
            except KeyboardInterrupt:
                typer.echo(err=True)
                continue
            if text:
                self.work(text)

    def work(self, task: str) -> DoneEvent:
        """One task, to its end."""
        self.messages = (*self.messages, user(task))
        tools = self.recorder.begin(self.messages, self.tools) if self.recorder else self.tools
        cancel = threading.Event()
        with _stopped_by_ctrl_c(cancel):
            events = run(
                self.agent,
                self.messages,
                tools,
                self.approver,
                limits=self.limits,
                temperature=self.temperature,
                cancel=cancel,
            )
            for event in events:
                self.messages = extended(self.messages, event)
                if self.recorder:
                    self.recorder.add(event)
                self.show(event)
        if self.recorder:
            self.recorder.write()
        assert isinstance(event, DoneEvent)  # noqa: S101 - a run's last event
        return event


def _show_json(event: Event) -> None:
    typer.echo(event.model_dump_json())


def _show(event: Event) -> None:
    """An event for a reader: the answer on stdout, everything else on stderr."""
    if isinstance(event, TextEvent):
        typer.echo(printable(event.text, keep="\n\t"), nl=False)
    elif isinstance(event, DoneEvent):
        if event.answer:
            typer.echo()
        if event.outcome != "answered":
            typer.echo(f"{event.outcome}: {event.reason}", err=True)
    else:
        for line in _lines(event):
            typer.echo(line, err=True)


def _lines(event: Event) -> Iterator[str]:
    if isinstance(event, ToolEvent):
        name = "no tool" if event.tool is None else f"{event.toolset}.{event.tool}"
        yield f"{name}  {event.probability:.0%}"
    elif isinstance(event, ArgumentsEvent):
        yield f"  {_arguments(event.arguments)}"
    elif isinstance(event, ApprovalEvent) and event.decision != "ask":
        yield f"  {'allowed' if event.decision == 'allow' else 'denied'}: {event.reason}"
    elif isinstance(event, ResultEvent):
        lines = printable(event.text, keep="\n\t").splitlines()
        yield from (f"  | {line}" for line in lines[:_LINES])
        if len(lines) > _LINES:
            yield f"  | … {len(lines) - _LINES} more lines"
        if event.shortened:
            yield f"  {event.shortened} characters of the result are left out of the conversation"


def _arguments(arguments: dict[str, Any]) -> str:
    return printable(json.dumps(arguments, ensure_ascii=False))


def _prompt(call: PendingCall) -> Reply:
    """Ask at the terminal; what is shown is what will be sent. Ctrl-C says no, and stops the task."""
    typer.echo(f"  {call.server}.{call.tool} {_arguments(call.arguments)}", err=True)
    stop = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        while True:
            typer.echo("  Make this call? [y]es, always this [t]ool or [s]erver, [n]o, ne[v]er: ", err=True, nl=False)
            line = sys.stdin.readline()  # not input(), which would put replies among the tasks of its history
            if not line:  # Ctrl-D
                return "no"
            if reply := _REPLIES.get(line.strip().lower()[:1]):
                return reply
    except KeyboardInterrupt:
        typer.echo(err=True)
        signal.signal(signal.SIGINT, stop)
        signal.raise_signal(signal.SIGINT)
        return "no"
    finally:
        signal.signal(signal.SIGINT, stop)


@contextlib.contextmanager
def _stopped_by_ctrl_c(cancel: threading.Event) -> Iterator[None]:
    """While it is open, Ctrl-C sets `cancel`."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        cancel.set()

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _at_a_terminal() -> bool:
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()
