"""The options that several of the device's commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from dualtune_edge.runtime.engines.engine import EngineKind

BundleFolder: TypeAlias = Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle's folder, or a store.")]
TrustFile: TypeAlias = Annotated[
    Path | None,
    typer.Option("--trust", metavar="FILE", help="Whose signature it must have; default: $DUALTUNE_EDGE_TRUST."),
]
Copied: TypeAlias = Annotated[
    bool, typer.Option("--copied/--no-copied", help="Hold copied properties to pieces of the conversation.")
]
Engine: TypeAlias = Annotated[EngineKind, typer.Option(help="The library that runs it: onnxruntime or its genai.")]
Profile: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="A profile's name or .toml file; default: $DUALTUNE_EDGE_PROFILE, or the bundle's own."
    ),
]
Threads: TypeAlias = Annotated[int | None, typer.Option(min=1, help="Use so many threads, whatever the profile says.")]
