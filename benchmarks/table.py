"""Prints the table of docs/performance.md from one run on one machine.

    python benchmarks/table.py OUT KIT [--llama-server PATH]

OUT is what shapes.py wrote (and, for llama.cpp, llama_files.py into OUT/llama); KIT a bundle of the built-in kit
(`dualtune-edge demo -o KIT`). Without OUT/tools117_full that row is empty. Nothing else should run meanwhile.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import typer
from decoding import decode_speeds
from dualtune_edge_kit import FOLDER
from llama_server import LlamaServer
from peers import EACH_SLOT, ONE_SLOT, Peer, compare

from dualtune_edge.profiles.detect import detect
from dualtune_edge.runtime.bench.report import BenchReport

_HELDOUT: Final = FOLDER / "heldout.jsonl"
_PROMPT: Final = 512  # tokens before decoding is timed
_STEPS: Final = 32


@dataclass(frozen=True)
class Row:
    """A line of the table; `found` is empty where it was not measured."""

    what: str
    found: str
    target: str


def main(
    out: Annotated[Path, typer.Argument(help="What shapes.py wrote.")],
    kit: Annotated[Path, typer.Argument(help="The kit's bundle.")],
    *,
    calls: Annotated[int, typer.Option(min=1, help="Calls of each kind; one of 117 tools in full JSON.")] = 5,
    threads: Annotated[int | None, typer.Option(min=1, help="Of everybody; default: the physical cores.")] = None,
    llama_server: Annotated[
        Path | None, typer.Option(help="llama.cpp's server, built; without it, no such row.")
    ] = None,
) -> None:
    """Measure everything, and print the table as Markdown."""
    count = threads or detect().cpu.physical_cores
    few, many = (bench(out / name, calls, count, "--no-free") for name in ("tools14", "tools117"))
    full = None
    if (out / "tools117_full").exists():
        full = bench(out / "tools117_full", 1, count, "--no-free")  # its naive path takes minutes
    own = bench(kit, calls, count, "--requests", str(_HELDOUT))
    llama = (llama_server, out / "llama") if llama_server else None
    peers = {peer.name: peer for peer in compare(out / "tools14", calls, count, llama)}
    speeds = decode_speeds(out / "decode", count, _PROMPT)
    if llama:
        with LlamaServer(*llama, [], threads=count, slots=1) as server:
            server.decode_per_s(_PROMPT, _STEPS)
            speeds["llama.cpp"] = server.decode_per_s(_PROMPT, _STEPS)
    rows = (*whole_calls(few, many, full, peers), *decoding(speeds), *costs(few, own))
    print("| what | measured | target |\n|---|---|---|")
    for row in rows:
        print(f"| {row.what} | {row.found or '–'} | {row.target} |")
    print("\n".join(("", *conditions(few, peers, speeds), *lists((few, many, full)))))


def bench(bundle: Path, calls: int, threads: int, *more: str) -> BenchReport:
    """`dualtune-edge bench` in a process of its own."""
    code = "from dualtune_edge.cli import main; main()"
    words = ["bench", str(bundle), "--calls", str(calls), "--threads", str(threads), "--json", *more]
    done = subprocess.run([sys.executable, "-c", code, *words], check=True, stdout=subprocess.PIPE)  # noqa: S603
    return BenchReport.model_validate_json(done.stdout)


def whole_calls(few: BenchReport, many: BenchReport, full: BenchReport | None, peers: dict[str, Peer]) -> Iterator[Row]:
    """Ratios of a whole gold call's time, ours below."""
    yield Row("whole call, 14 tools, against our own naive path", f"{few.passes[0].speedup:.1f} ×", "≥ 8 ×")
    found = f"{full.passes[0].speedup:.1f} ×" if full else ""
    yield Row("whole call, 117 tools in full JSON, the same", found, "≥ 20 ×")
    yield Row("whole call, 117 tools by first sentences, the same", f"{many.passes[0].speedup:.1f} ×", "≥ 20 ×")
    targets = {ONE_SLOT: "≥ 25 ×", EACH_SLOT: "≥ 5 ×"}
    for name in (*(name for name in peers if name not in targets), *targets):
        found = f"{peers[name].against_ours:.1f} ×" if name in peers else ""
        yield Row(f"whole call, 14 tools, against {name}", found, targets.get(name, "≥ 15 ×"))
    yield Row("whole call, 14 tools, against its roofline", f"{few.passes[0].over_roofline:.2f} ×", "≤ 2 ×")


def decoding(speeds: dict[str, float]) -> Iterator[Row]:
    """Ratios of tokens a second, one at a time."""
    merged = speeds["selection.merged_r32"]
    against = f"{merged / speeds['llama.cpp']:.2f} ×" if "llama.cpp" in speeds else ""
    yield Row("decode, merged, against llama.cpp Q4_0 --pure", against, "≥ 1.4 ×")
    for rank, target in ((8, "≥ 0.97"), (32, "≥ 0.93")):
        external = speeds[f"selection.external_r{rank}"]
        yield Row(f"decode, external r={rank} against merged", f"{external / merged:.2f}", target)


def costs(few: BenchReport, kit: BenchReport) -> Iterator[Row]:
    """What opening, swapping and memory cost, and the kit's forwards."""
    if few.swap_ms and few.swap_ms.restore:
        swap, restore, tokens = few.swap_ms.swap.p50, few.swap_ms.restore.p50, few.swap_ms.tokens
        yield Row("adapter swap, without KV", f"{swap:.3f} ms", "≤ 1 ms")
        yield Row(f"adapter swap, with the KV of {tokens:,} tokens", f"{swap + restore:.2f} ms", "≤ 10 ms")
    first = few.open_ms.first_call / few.passes[0].ms.p50
    yield Row("first call in a new process against a later one", f"{first:.2f} ×", "≤ 1.2 ×")
    for request in kit.passes:
        shown = "" if request.forwards_per_argument_token is None else f"{request.forwards_per_argument_token:.2f}"
        yield Row(f"forwards for each argument token, the kit's held-out calls ({request.kind})", shown, "≤ 0.35")
    memory = few.memory_used
    share = f"{memory.anonymous / few.weights_bytes:.2f} ×" if memory else ""
    yield Row("anonymous memory against the int4 file", share, "≤ 0.2 ×")


def conditions(few: BenchReport, peers: dict[str, Peer], speeds: dict[str, float]) -> Iterator[str]:
    """What the figures depend on, and the absolute ones behind the ratios."""
    where, gold = few.where, few.passes[0]
    yield f"{where.cpu}, {where.threads} threads, {', '.join(where.features)}; memory {few.bandwidth / 1e9:.1f} GB/s."
    yield f"Integer products: {few.operations / 1e9:,.0f} billion operations a second."
    yield f"Versions: {', '.join(f'{name} {version}' for name, version in where.versions.items())}."
    naive = f", naive {gold.naive_ms.p50:.0f} ms"
    others = (f"; {peer.name} {peer.ms:.0f} ms for {peer.decoded:.0f} tokens" for peer in peers.values())
    yield f"14 tools: ours {gold.ms.p50:.0f} ms (median of {gold.ms.samples}){naive}{''.join(others)}."
    yield f"Decoding behind {_PROMPT} tokens: " + (
        ", ".join(f"{name} {speed:.1f}" for name, speed in speeds.items()) + " tokens/s."
    )


def lists(reports: Iterable[BenchReport | None]) -> Iterator[str]:
    """Of each tool list the times of a whole call, its prompts, and the memory behind ours."""
    for name, report in zip(("14 tools", "117 by first sentences", "117 in full JSON"), reports, strict=True):
        if report is None:
            continue
        gold, memory = report.passes[0], report.memory_used
        times = f"{gold.ms.p50:.0f} ms, naive {gold.naive_ms.p50:.0f}"
        held = f"; {memory.anonymous / 1e6:.0f} MB anonymous, {memory.file / 1e6:.0f} from files" if memory else ""
        prompts = (f"{stage.stage} {stage.prompt:.0f} tokens, {stage.reused:.0f} reused" for stage in gold.stages)
        yield f"{name}: {times}; {', '.join(prompts)}{held}."


if __name__ == "__main__":
    typer.run(main)
