"""Data for live servers' tools: a teacher writes requests and does them, and its calls are really run.

Each conversation begins with a server that was just started and the same files, so none depends on another.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from dualtune_edge.export.data.generation import Generated, GenerationRun, GenerationSettings, OnProgress
from dualtune_edge.export.data.generation_journal import Journal
from dualtune_edge.export.data.teacher import Teacher
from dualtune_edge.runtime.agent.config import ServerConfig
from dualtune_edge.runtime.agent.offer import LiveTool
from dualtune_edge.runtime.agent.sandbox import Sandbox
from dualtune_edge.runtime.agent.servers import Servers
from dualtune_edge.toolkit.errors import OutputError, ToolsError
from dualtune_edge.toolkit.files import published_folder, refuse_existing, safe_name, sha256_file
from dualtune_edge.toolkit.lock import held_folder
from dualtune_edge.toolkit.tools.toolset import Tool

CONVERSATIONS: Final = "conversations.jsonl"
_JOURNAL: Final = "journal.jsonl"
_BEGUN: Final = "begun"  # the sandbox is this run's


def generate(
    settings: GenerationSettings,
    configs: Callable[[Mapping[str, str]], dict[str, ServerConfig]],
    teacher: Teacher,
    on_progress: OnProgress,
) -> Generated:
    """Make the data, or go on with it, and publish its folder.

    Args:
        settings: of the run.
        configs: reads the servers with these variables.
        teacher: writes the requests and does them.
        on_progress: called after each conversation.

    Raises:
        OutputError: the output exists, the sandbox is not empty, or another run is interrupted or at work there.
        ToolsError: a server does not list its tools.
        EngineError: the teacher or a server is gone; what was made is kept, and the same call goes on.

    """
    refuse_existing(settings.output)
    sandbox = Sandbox(settings.sandbox, settings.files)
    servers = sandbox.placed(configs(sandbox.environment()))
    with _held(settings.output) as work, _cleared(work, sandbox):
        sandbox.fill(0)
        listed = _listed(servers)
        journal = Journal(work / _JOURNAL, _origin(settings, servers, listed))
        run = GenerationRun(settings, servers, listed, teacher, sandbox, journal)
        report = run.report(run.work(on_progress))
        _publish(settings.output, run, report)
        journal.path.unlink(missing_ok=True)
    return report


@contextlib.contextmanager
def _held(output: Path) -> Iterator[Path]:
    """The folder beside the output that keeps the journal."""
    work = output.parent / f".{output.name}.generating"
    try:
        with held_folder(work):
            yield work
    except BlockingIOError:
        raise OutputError(
            str(output),
            found="another run at work on it",
            expected="one at a time",
            fix="Wait for it, or name another.",
        ) from None


@contextlib.contextmanager
def _cleared(work: Path, sandbox: Sandbox) -> Iterator[None]:
    """Take the sandbox, and remove it at the end; without a journal nothing is left."""
    begun = work / _BEGUN
    if not begun.exists():
        sandbox.refuse_foreign()
        begun.touch()
    try:
        yield
    finally:
        sandbox.remove()
        begun.unlink(missing_ok=True)


def _listed(servers: Mapping[str, ServerConfig]) -> dict[str, tuple[LiveTool, ...]]:
    with Servers(servers) as connected:
        return {name: _tools(name, listing) for name, listing in connected.listed().items()}


def _tools(name: str, listing: tuple[LiveTool, ...] | str) -> tuple[LiveTool, ...]:
    if isinstance(listing, str) or not any(live.tool for live in listing):
        found = listing if isinstance(listing, str) else "no tool whose schema can be read"
        raise ToolsError(name, found=found, expected="a server that lists its tools", fix="Check its entry.")
    return listing


def _origin(
    settings: GenerationSettings, servers: Mapping[str, ServerConfig], listed: Mapping[str, Sequence[LiveTool]]
) -> str:
    """SHA-256 of all that a run is made from; limits and prices only end it."""
    files = [
        [path.relative_to(start).as_posix(), sha256_file(path)]
        for start in settings.files
        for path in sorted(start.rglob("*"))
        if path.is_file()
    ]
    parts: list[Any] = [
        settings.model_dump(mode="json", exclude={"limit_tokens", "limit_cost", "prices", "files"}),
        {name: config.model_dump(mode="json") for name, config in servers.items()},
        {name: [_shown(live) for live in tools] for name, tools in listed.items()},
        files,
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _shown(live: LiveTool) -> list[Any]:
    return [live.name, live.tool and live.tool.model_dump(mode="json"), live.read_only]


def _publish(output: Path, run: GenerationRun, report: Generated) -> None:
    """Write the conversations, the tool lists and the report."""
    with published_folder(output) as folder:
        lines = (json.dumps(entry.line, ensure_ascii=False) + "\n" for entry in run.entries if entry.line)
        (folder / CONVERSATIONS).write_text("".join(lines), encoding="utf-8", newline="\n")
        (folder / "tools").mkdir()
        for name, tools in run.listed.items():
            listing = {"tools": [_listing(live.tool) for live in tools if live.tool]}
            text = json.dumps(listing, ensure_ascii=False, indent=1) + "\n"
            (folder / "tools" / f"{safe_name(name)}.json").write_text(text, encoding="utf-8", newline="\n")
        (folder / "generation.json").write_text(report.model_dump_json(indent=1) + "\n", encoding="utf-8", newline="\n")


def _listing(tool: Tool) -> dict[str, Any]:
    return {"name": tool.name, "description": tool.description, "inputSchema": tool.parameters}
