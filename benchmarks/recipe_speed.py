"""Prints tokens a second of a merged adapter by recipe, and of llama.cpp's Q4_0: decoding, and a prompt of 512.

    python benchmarks/recipe_speed.py OUT [--llama-server PATH]

OUT is what tasks.py wrote. A bundle a recipe is exported if it is missing: the base and one adapter of rank 32, merged.
Blocks rounded by calibration (`gptq-128`) are laid out as those of `int4-128`, and as quick. All take turns.
"""

from __future__ import annotations

import statistics
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Final

import typer
from llama_server import LlamaServer

from dualtune_edge.export import run
from dualtune_edge.export.spec.document import ExportSpec
from dualtune_edge.export.spec.parts import AdapterSpec, ToolsetSpec
from dualtune_edge.profiles.detect import detect
from dualtune_edge.profiles.schema import SessionSettings
from dualtune_edge.runtime import Engine, open_bundle, open_engine

RECIPES: Final = ("int4-32", "int4-128")
LLAMA: Final = "llama.cpp Q4_0 --pure"
_PROMPT: Final = 512
_STEPS: Final = 32
_ROUNDS: Final = 7  # the first is a warm-up


def main(
    out: Annotated[Path, typer.Argument(help="What tasks.py wrote.")],
    *,
    threads: Annotated[int | None, typer.Option(min=1, help="Default: the physical cores.")] = None,
    llama_server: Annotated[
        Path | None, typer.Option(help="llama.cpp's server, built; without it, no such row.")
    ] = None,
) -> None:
    """Export what is missing, measure, and print the table as Markdown."""
    for recipe in RECIPES:
        if not (out / f"merged-{recipe}").exists():
            export(out, recipe)
    speeds = measure(out, threads or detect().cpu.physical_cores, llama_server)
    base = speeds.get(LLAMA)
    print("| | decode, tokens/s | of llama.cpp | prompt of 512, tokens/s | of llama.cpp |\n|---|---:|---:|---:|---:|")
    for name, (decode, prompt) in speeds.items():
        parts = (f"{decode / base[0]:.2f} ×", f"{prompt / base[1]:.2f} ×") if base else ("", "")
        print(f"| {name} | {decode:.1f} | {parts[0]} | {prompt:.0f} | {parts[1]} |")


def export(out: Path, recipe: str) -> None:
    """A bundle whose one stage has a merged adapter."""
    adapter = AdapterSpec.model_validate({"path": out / "plain" / "selection", "mode": "merged"})
    toolset = ToolsetSpec(name="tools14", tools=out / "tools14.json", selection=adapter)
    spec = {"base": out / "base", "toolsets": (toolset,), "parity": "off", "quantization": recipe}
    run.run(ExportSpec.model_validate(spec), out / f"merged-{recipe}")


def measure(out: Path, threads: int, server: Path | None) -> dict[str, tuple[float, float]]:
    """Medians of decoding and of the prompt, tokens a second, by recipe."""
    taken: dict[str, list[tuple[float, float]]] = {recipe: [] for recipe in RECIPES}
    with ExitStack() as stack:
        engines = {}
        for recipe in RECIPES:
            bundle = open_bundle(out / f"merged-{recipe}", verify="never")
            engines[recipe] = stack.enter_context(open_engine(bundle.model, SessionSettings(intra_op_threads=threads)))
            engines[recipe].use(bundle.manifest.toolsets[0].selection.adapter)
        peer = None
        if server:
            peer = stack.enter_context(LlamaServer(server, out / "llama" / "plain", [], threads=threads, slots=1))
            taken[LLAMA] = []
        for number in range(_ROUNDS):
            for recipe, engine in engines.items():
                taken[recipe].append(speed(engine, number))
            if peer:
                taken[LLAMA].append(peer.speed(_PROMPT, _STEPS, number))
    return {
        name: (statistics.median(run[0] for run in runs[1:]), statistics.median(run[1] for run in runs[1:]))
        for name, runs in taken.items()
    }


def speed(engine: Engine, number: int) -> tuple[float, float]:
    """Tokens a second of decoding behind a prompt, and of the prompt; `number` makes it another one."""
    engine.rewind(0)
    start = time.perf_counter()
    engine.forward([1 + (at + number) % 200 for at in range(_PROMPT)])
    read = time.perf_counter()
    for token in range(_STEPS):
        engine.forward([token + 1])
    return _STEPS / (time.perf_counter() - read), _PROMPT / (read - start)


if __name__ == "__main__":
    typer.run(main)
