"""`dualtune-edge demo`: export the built-in kit, and make calls with it."""

from __future__ import annotations

import importlib.util
import tempfile
from pathlib import Path
from typing import Annotated, Final

import typer

from dualtune_edge.export.plan.spec import read_spec
from dualtune_edge.export.run import run
from dualtune_edge.runtime.pipeline import Agent
from dualtune_edge.runtime.result import CallResult
from dualtune_edge.toolkit import console
from dualtune_edge.toolkit.bundle.sharing import VariantSize, variant_lines
from dualtune_edge.toolkit.errors import MissingExtraError
from dualtune_edge.toolkit.frozen import Frozen

_KIT: Final = "dualtune_edge_kit"
# None of these sentences, nor any value in them, was in the training.
REQUESTS: Final = (
    "The file /vol/lagoon/almond.rst should be renamed to /vol/lagoon/walnut.rst",
    "Could you show me just the last 9 lines in /storage/pelican/volcano.lua?",
    "I am looking for files matching *.vue under /shared/orchid",
    "I want to see the newest 16 commits in /media/kayak_quartz",
    "Could you make bugfix/tulip-otter as a branch based on perf/nebula in /export/windmill?",
    "With the message 'Stabilize the zeppelin', commit the changes in /net/sapphire",
)


class Call(Frozen):
    """One request and its answer."""

    request: str
    result: CallResult


class DemoReport(Frozen):
    """What the demo did. `bundle` is None where it was not kept."""

    bundle: str | None
    export_seconds: float
    size_bytes: int
    variants: tuple[VariantSize, ...]
    calls: tuple[Call, ...]


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
    """Export the built-in kit and make calls with it.

    The kit is a base model of 3 million weights with 27 adapters for the tools of two real MCP servers, filesystem
    and git. Nothing is downloaded.

    Example:
        dualtune-edge demo
        dualtune-edge demo -o demo-bundle
        dualtune-edge call demo-bundle "What changed in /srv/atlas?"
        dualtune-edge demo --profile cpu-x64 --profile openvino -o demo-bundle

    """
    with tempfile.TemporaryDirectory() as scratch:
        report = _run(output or Path(scratch) / "bundle", tuple(profile or ()), kept=output is not None)
    console.result(report, _text(report), as_json=as_json)


def _run(bundle: Path, profiles: tuple[str, ...], *, kept: bool) -> DemoReport:
    spec = read_spec(_kit() / "dualtune.yaml")
    if profiles:
        spec = spec.model_copy(update={"profiles": profiles, "mode": None})  # each profile's own mode
    exported = run(spec, bundle)
    with Agent.open(bundle) as agent:
        calls = tuple(Call(request=request, result=agent.call(request)) for request in REQUESTS)
    return DemoReport(
        bundle=str(bundle) if kept else None,
        export_seconds=exported.seconds,
        size_bytes=exported.sizes.total,
        variants=exported.variants,
        calls=calls,
    )


def _kit() -> Path:
    """The folder of the distribution `dualtune-edge-kit`, of which nothing is imported.

    Raises:
        MissingExtraError: it is not installed.

    """
    found = importlib.util.find_spec(_KIT)
    if found is None or not found.submodule_search_locations:
        raise MissingExtraError(
            "dualtune-edge demo",
            found="no package dualtune-edge-kit",
            expected="the kit: a base model and its adapters",
            fix="Run: pip install ./kit, in a checkout of the repository.",
        )
    return Path(found.submodule_search_locations[0])


def _text(report: DemoReport) -> str:
    where = report.bundle or "a temporary folder"
    lines = [f"Exported to {where}: {report.size_bytes / 1e6:.1f} MB in {report.export_seconds:.0f} s."]
    lines += variant_lines(report.variants)
    for call in report.calls:
        result = call.result
        arguments = ", ".join(f"{name}={value!r}" for name, value in (result.arguments or {}).items())
        called = f"{result.tool}({arguments})" if result.tool else "no tool"
        lines += ["", call.request, f"  {result.toolset} > {called}   {result.timings_ms.total:.0f} ms"]
    return "\n".join(lines)
