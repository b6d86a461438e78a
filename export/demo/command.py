"""`dualtune-edge demo`: export the built-in kit, and make calls with it."""

from __future__ import annotations

import importlib.util
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from dualtune_edge.toolkit import console
from dualtune_edge.toolkit.bundle.sharing import variant_lines
from dualtune_edge.toolkit.console import printable
from dualtune_edge.toolkit.errors import MissingExtraError

if TYPE_CHECKING:
    from dualtune_edge.export.demo.calls import Call, DemoReport
    from dualtune_edge.export.demo.task import TaskReport

_KIT: Final = "dualtune_edge_kit"


def demo(
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Keep the bundle in this folder; nothing may be there yet.")
    ] = None,
    *,
    profile: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Export for this hardware profile; several times: a variant for each."),
    ] = None,
    as_json: console.AsJson = False,
) -> None:
    """Export the built-in kit, make calls with it and do a task.

    The kit is a base model of 5 million weights with 28 adapters for the tools of two real MCP servers, filesystem
    and git. Nothing is downloaded. The right answer of each request is known: ✓ marks the calls that are right, ✗ the
    others. At the end a task of two steps is done on the real git server, in a temporary repository, where the package
    mcp-server-git is installed.

    Example:
        dualtune-edge demo
        dualtune-edge demo -o demo-bundle
        dualtune-edge call demo-bundle "What changed in /srv/atlas?"
        dualtune-edge demo --profile cpu-x64 --profile openvino -o demo-bundle

    """
    kit = _kit()
    from dualtune_edge.export.demo.calls import run

    with tempfile.TemporaryDirectory() as scratch:
        report = run(kit, output or Path(scratch) / "bundle", tuple(profile or ()), kept=output is not None)
    console.result(report, _text(report), as_json=as_json)


def _kit() -> Path:
    """The folder of the distribution `dualtune-edge-kit`, of which nothing is imported.

    Raises:
        MissingExtraError: it is not installed.

    """
    spec = importlib.util.find_spec(_KIT)
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError(
            "dualtune-edge demo",
            found="no package dualtune-edge-kit",
            expected="the kit: a base model and its adapters",
            fix="Run: pip install ./kit, in a checkout of the repository.",
        )
    return Path(spec.submodule_search_locations[0])


def _text(report: DemoReport) -> str:
    where = report.bundle or "a temporary folder"
    lines = [f"Exported to {where}: {report.size_bytes / 1e6:.1f} MB in {report.export_seconds:.0f} s."]
    lines += variant_lines(report.variants)
    for call in report.calls:
        lines += ["", *_call_lines(call)]
    right = sum(call.right for call in report.calls)
    lines += ["", f"{right} of {len(report.calls)} calls are right.", "", *_task_lines(report.task)]
    return "\n".join(lines)


def _task_lines(report: TaskReport) -> list[str]:
    if report.not_run:
        return [f"A task on the real git server was not done: {report.not_run}"]
    lines = ["A task, done on the real git server in a temporary repository:", report.task]
    for step in report.steps:
        lines += [f"  {_signature(step.toolset, step.tool, step.arguments)}", f"    {printable(step.result)}"]
    return [*lines, *(f"  {_mark(right=finding.right)} {printable(finding.what)}" for finding in report.findings)]


def _call_lines(call: Call) -> list[str]:
    answer = printable(call.refusal or "")
    if result := call.result:
        answer = f"{_signature(result.toolset, result.tool, result.arguments)}   {result.timings_ms.total:.0f} ms"
    lines = [call.request, f"  {_mark(right=call.right)} {answer}"]
    if not call.right:
        lines.append(f"    expected {_signature(call.toolset, call.expected.name, call.expected.arguments)}")
    return lines


def _mark(*, right: bool) -> str:
    return typer.style("✓", fg="green") if right else typer.style("✗", fg="red")


def _signature(toolset: str, tool: str | None, arguments: dict[str, Any] | None) -> str:
    """`git > git_log(max_count=3)`."""
    values = ", ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in (arguments or {}).items())
    return f"{toolset} > {tool}({values})" if tool else f"{toolset} > no tool"
