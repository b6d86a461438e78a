"""`dualtune-edge init`: a `dualtune.yaml` to train and export by."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dualtune_edge.toolkit import console

if TYPE_CHECKING:
    from dualtune_edge.export.init.new_spec import NewSpec


def init(
    *,
    base: Annotated[Path, typer.Option(metavar="DIR", help="The base model's folder.")],
    tools: Annotated[
        list[str], typer.Option(metavar="[NAME=]FILE", help="A toolset's tool list; several: one option each.")
    ],
    data: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The conversations that the adapters learn from.")
    ] = None,
    templates: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Chat templates of your own: selection.jinja, arguments.jinja, or one."),
    ] = None,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="The spec; nothing may be there yet.")
    ] = Path("dualtune.yaml"),
    as_json: console.AsJson = False,
) -> None:
    """Write a dualtune.yaml for new adapters.

    It names an adapter for each thing to learn: among several toolsets the choice, of each toolset the choice of the
    tool, and the arguments of each tool that takes any. They go to `adapters/` beside it.

    Example:
        dualtune-edge init --base qwen2.5-0.5b --tools notes=data/tools/notes.json --data parts/train.jsonl

    """
    from dualtune_edge.export.data.lines import named_files
    from dualtune_edge.export.init.new_spec import write_spec

    lists = {name or path.stem: path for name, path in named_files(tools).items()}
    report = write_spec(output, base=base, tools=lists, data=data, templates=templates)
    console.result(report, "\n".join(_lines(report, data)), as_json=as_json)


def _lines(report: NewSpec, data: Path | None) -> Iterator[str]:
    yield f"{report.spec}: {', '.join(report.toolsets)}; {report.tools} tools, {report.adapters} adapters to train"
    if len(report.toolsets) > 1:
        yield "Say in each `description` what the toolset is for: it is chosen by that."
    yield f"next: dualtune-edge finetune {report.spec}{'' if data else ' --data FILE'}"
