"""`dualtune-edge serve`: an OpenAI-compatible endpoint."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TypeAlias

import typer

from dualtune_edge.runtime.agent.approval import Policy, read_policy
from dualtune_edge.runtime.options import BundleFolder, Copied, Engine, Profile, Threads, TrustFile
from dualtune_edge.runtime.pipeline import Agent
from dualtune_edge.toolkit import console
from dualtune_edge.toolkit.errors import SpecError

if TYPE_CHECKING:
    from dualtune_edge.runtime.serve.guard import Guard

KEY: Final = "DUALTUNE_EDGE_API_KEY"
_HOST: Final = "127.0.0.1"
_PORT: Final = 8080

Host: TypeAlias = Annotated[
    str | None, typer.Option(help="The address to listen on; beyond loopback an API key is needed. [127.0.0.1]")
]
Port: TypeAlias = Annotated[int | None, typer.Option(min=0, max=65535, help="The port; 0 takes a free one. [8080]")]
Socket: TypeAlias = Annotated[
    Path | None,
    typer.Option(metavar="PATH", help="Listen on a Unix socket of this user instead, and on no port."),
]
UntilStdinCloses: TypeAlias = Annotated[
    bool, typer.Option("--until-stdin-closes", help="End with the app that started it: docs/sidecar.md.")
]
HostNames: TypeAlias = Annotated[
    list[str] | None, typer.Option(metavar="HOST", help="A name under which clients reach it; several times.")
]
Origins: TypeAlias = Annotated[
    list[str] | None, typer.Option(metavar="ORIGIN", help="A web page's origin that may use it; several times.")
]
Waiting: TypeAlias = Annotated[int, typer.Option(min=0, help="The most requests that wait; further ones get 429.")]
Deadline: TypeAlias = Annotated[float, typer.Option(min=0.1, metavar="SECONDS", help="The most time for a request.")]
Grace: TypeAlias = Annotated[
    int, typer.Option(min=0, metavar="SECONDS", help="How long requests in flight may go on after SIGTERM.")
]
McpServers: TypeAlias = Annotated[
    Path | None, typer.Option(metavar="FILE", help="MCP servers: /v1/agent and the page do whole tasks with them.")
]
PolicyFile: TypeAlias = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Which calls may be made: a TOML file.")
]
LogContents: TypeAlias = Annotated[bool, typer.Option("--log-contents", help="Log messages and answers too.")]
Spans: TypeAlias = Annotated[
    bool, typer.Option("--spans", help="Send OpenTelemetry spans to where OTEL_EXPORTER_OTLP_ENDPOINT says.")
]


def serve(
    bundle: BundleFolder,
    *,
    host: Host = None,
    port: Port = None,
    socket: Socket = None,
    until_stdin_closes: UntilStdinCloses = False,
    name: HostNames = None,
    allow_origin: Origins = None,
    waiting: Waiting = 16,
    deadline: Deadline = 120.0,
    grace: Grace = 10,
    mcp: McpServers = None,
    policy: PolicyFile = None,
    log_contents: LogContents = False,
    spans: Spans = False,
    copied: Copied = True,
    engine: Engine = "ort",
    profile: Profile = None,
    threads: Threads = None,
    trust: TrustFile = None,
) -> None:
    """Serve a bundle to OpenAI's clients.

    /v1/chat/completions with tools and streams, /v1/models, /health and /metrics. The model's name is the bundle
    folder's. With --mcp, /v1/agent does whole tasks, and a page at / shows each step and asks for approval. With
    DUALTUNE_EDGE_API_KEY set, every request needs that key, and there is no page. SIGHUP opens the bundle again, beside
    the one that is served; SIGTERM lets requests in flight end, within --grace.

    Example:
        dualtune-edge serve my-bundle --port 8080
        dualtune-edge serve my-bundle --mcp mcp.json
        dualtune-edge serve my-bundle --socket "$XDG_RUNTIME_DIR/my-app.sock" --until-stdin-closes

    """
    import uvicorn

    from dualtune_edge.runtime.agent.servers import Servers
    from dualtune_edge.runtime.serve.agent_route import AgentRoute
    from dualtune_edge.runtime.serve.app import Service
    from dualtune_edge.runtime.serve.current_agent import CurrentAgent
    from dualtune_edge.runtime.serve.monitoring.log import CallLog
    from dualtune_edge.runtime.serve.monitoring.spans import export_spans
    from dualtune_edge.runtime.serve.server import Server
    from dualtune_edge.runtime.serve.sidecar import listening, when_stdin_closes

    host, port = _address(host, port, socket)
    guard = _guard(host, name or (), allow_origin or ())
    rules = read_policy(policy) if policy else Policy()
    log = CallLog(contents=log_contents)
    if spans:
        export_spans()

    def opening() -> Agent:  # by the folder: where a link is replaced, calls go on in the old one
        agent = Agent.open(
            bundle.resolve(), engine=engine, profile=profile, threads=threads, trust=trust, copied=copied
        )
        if agent.bundle.overdue:
            console.warn(agent.bundle.overdue)
        return agent

    until = when_stdin_closes() if until_stdin_closes else None
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(listening(socket))] if socket else None  # who connects early waits
        agents, runs = stack.enter_context(CurrentAgent(opening(), bundle)), None
        if mcp:
            servers = stack.enter_context(Servers.open(mcp))
            for note in servers.offer(agents.agent.bundle.manifest).notes:
                console.warn(note)
            runs = AgentRoute(agents, servers, rules, log)
        service = Service(agents, guard, runs, waiting, deadline, log)
        config = uvicorn.Config(
            service.application(),
            host=host,
            port=port,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=grace,
        )
        Server(config, service, opening, until).run(sockets)


def _address(host: str | None, port: int | None, socket: Path | None) -> tuple[str, int]:
    """Where to listen, if it is not on a Unix socket."""
    if socket is not None and (host is not None or port is not None):
        raise SpecError(
            "--socket", found="--host or --port too", expected="one place to listen on", fix="Leave one of them out."
        )
    return host or _HOST, _PORT if port is None else port


def _guard(host: str, names: Sequence[str], origins: Sequence[str]) -> Guard:
    """Who may use it; beyond loopback nobody without a key."""
    from dualtune_edge.runtime.serve.guard import LOOPBACK, Guard

    key = os.environ.get(KEY) or None
    if host not in LOOPBACK and key is None:
        raise SpecError(
            "--host",
            found=f"{host} without an API key",
            expected=f"a loopback address, or the environment variable {KEY}",
            fix=f"Set {KEY}.",
        )
    return Guard(hosts={*LOOPBACK, host, *names}, origins=tuple(origins), key=key)
