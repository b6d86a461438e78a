"""Prints what a whole task takes with plain and with activated adapters, and by peers, in one run.

    python benchmarks/tasks.py OUT [--toolsets 2] [--result 2000] [--shape qwen2.5-0.5b] [--genai] [--llama-server PATH]

OUT gets the checkpoint, adapters of rank 32 and the bundles that are measured: of the filesystem server's 14 tools
alone, and beside the git server's as a second toolset. A task is six turns of the former with seeded words; every tool
result has about as many tokens as its row says. The kinds take turns, and their medians are compared. Peers have one
toolset: the plain bundle's prompts, and llama.cpp the activated one's too. Nothing else should run, but where counts
are wanted alone: those are the same with `--shape small --runs 1`, on any machine.
"""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Annotated, Any, Final

import typer
from dualtune_edge_kit.random_checkpoint import MODULES, write_adapter
from peft import LoraConfig
from shapes import checkpoint, export, tools
from task_peers import llama, plain_genai
from tokenizers import Tokenizer

from dualtune_edge.export.spec.parts import AdapterSpec, TemplatesSpec, ToolsetSpec
from dualtune_edge.profiles.detect import detect
from dualtune_edge.profiles.resolve import resolve
from dualtune_edge.runtime.bench.replay import Replay
from dualtune_edge.runtime.bench.report import TaskRun
from dualtune_edge.runtime.bench.requests import fitting, read_tasks
from dualtune_edge.runtime.bench.roofline import Roofline, measure_roofline
from dualtune_edge.runtime.bench.task import replay_task
from dualtune_edge.runtime.bench.watched import watch
from dualtune_edge.runtime.bundle.opening import open_bundle
from dualtune_edge.runtime.engines.engine import open_engine
from dualtune_edge.toolkit.tools.tool_files import read_tools

_HEADER: Final = "<|im_start|>assistant\n"
_SERVERS: Final = {"one": ("tools14",), "several": ("tools14", "git")}
_NAMES: Final = dict(enumerate(_SERVERS, start=1))  # by the number of toolsets
_KINDS: Final = ("plain", "activated")
_LLAMA: Final = (  # kind, slots, name
    ("plain", 3, "llama.cpp, plain, a warm slot for each adapter"),
    ("activated", 1, "llama.cpp, activated"),
)
_WORDS: Final = ("report", "total", "north", "draft", "value", "index", "entry", "final", "notes", "april")


def main(
    out: Annotated[Path, typer.Argument(help="Folder that gets everything, or has it from before.")],
    *,
    shape: Annotated[str, typer.Option(help="Of the base.")] = "qwen2.5-0.5b",
    turns: Annotated[int, typer.Option(min=2, help="Of a task.")] = 6,
    results: Annotated[
        list[int] | None, typer.Option("--result", help="Tokens of a result; default: 50, 500 and 2,000.")
    ] = None,
    runs: Annotated[int, typer.Option(min=1, help="Of each task and kind; the median counts.")] = 3,
    threads: Annotated[int | None, typer.Option(min=1, help="Default: the physical cores.")] = None,
    toolsets: Annotated[
        list[int] | None, typer.Option(min=1, max=2, help="How many toolsets a bundle has; default: 1, and 2.")
    ] = None,
    genai: Annotated[bool, typer.Option("--genai", help="onnxruntime-genai, driven plainly; one run.")] = False,
    llama_server: Annotated[
        Path | None, typer.Option(help="llama.cpp's server, built; without it, no such row.")
    ] = None,
) -> None:
    """Build what is missing, and print the table as Markdown."""
    if not (out / "base").exists():
        prepare(out, shape)
    if llama_server and not (out / "llama").exists():
        write_llama(out)
    names = [_NAMES[number] for number in toolsets or _NAMES]
    write_bundles(out, names)
    count = threads or detect().cpu.physical_cores
    roofline = measure_roofline(open_bundle(out / f"plain-{names[0]}", verify="never"), count)
    rates = roofline.rates
    print(f"{count} threads; {rates.bandwidth / 1e9:.1f} GB/s; billions of operations a second:", end=" ")
    print(f"{rates.integer / 1e9:.0f} integer, {rates.floats / 1e9:.0f} float32")
    print("\n| result, tokens | system | computed for a new token | s a turn | of plain | roofline | states, MB |")
    print("|---|---|---|---|---|---|---|")
    for size in results or (50, 500, 2000):
        task = out / f"task-{size}.jsonl"
        task.write_text(json.dumps({"toolset": "tools14", "messages": messages(out, turns, size)}), encoding="utf-8")
        for name in names:
            found: dict[str, list[TaskRun]] = {kind: [] for kind in _KINDS}
            for _ in range(runs):
                for kind in _KINDS:
                    found[kind].append(replayed(out / f"{kind}-{name}", task, count, roofline))
            for kind, taken in found.items():
                line = cells(out / f"{kind}-{name}", taken, found["plain"])
                print(f"| {size} | {line} |", flush=True)
            if name == "one":
                plain = seconds(found["plain"])
                for peer, took in peers(out, task, count, runs, llama_server, genai=genai):
                    print(f"| {size} | {peer} | – | {took / turns:.2f} | {took / plain:.2f} | – | – |", flush=True)


def peers(
    out: Path, task: Path, threads: int, runs: int, llama_server: Path | None, *, genai: bool
) -> Iterator[tuple[str, float]]:
    """Each peer's name and seconds of the task; llama.cpp's are medians."""
    if llama_server:
        for kind, slots, name in _LLAMA:
            server = llama_server, out / "llama" / kind
            taken = [llama(out / f"{kind}-one", task, threads, server, slots=slots) for _ in range(runs)]
            yield name, statistics.median(sum(turn.ms for turn in run) for run in taken) / 1e3
    if genai:
        yield "onnxruntime-genai", sum(turn.ms for turn in plain_genai(out / "plain-one", task, threads)) / 1e3


def write_llama(out: Path) -> None:
    """The base and both kinds of adapter as GGUF, a folder a kind."""
    from llama_files import write_adapter, write_base  # noqa: PLC0415 - the package gguf is needed here only

    for kind in _KINDS:
        folder = out / "llama" / kind
        folder.mkdir(parents=True)
        for name in ("selection", "arguments"):
            write_adapter(out / kind / name, out / "base", folder / f"{name}.gguf")
    first, second = (out / "llama" / kind / "base.gguf" for kind in _KINDS)
    write_base(out / "base", first)
    os.link(first, second)


def prepare(out: Path, shape: str) -> None:
    """Write the base, and both kinds of adapter."""
    out.mkdir(parents=True, exist_ok=True)
    for name in ("tools14", "git"):
        (out / f"{name}.json").write_text(json.dumps({"tools": tools(name)}), encoding="utf-8")
    checkpoint(out / "base", shape, tools("tools14") + tools("git"))
    tokenizer = Tokenizer.from_file(str(out / "base" / "tokenizer.json"))
    invocation = tokenizer.encode(_HEADER, add_special_tokens=False).ids
    for kind in _KINDS:
        for seed, name in enumerate(("selection", "arguments"), start=1):
            config = LoraConfig(
                r=32,
                lora_alpha=64,
                use_rslora=True,
                target_modules=list(MODULES),
                task_type="CAUSAL_LM",
                alora_invocation_tokens=invocation if kind == "activated" else None,
            )
            write_adapter(out / kind / name, out / "base", config, seed=seed)


def write_bundles(out: Path, names: Sequence[str]) -> None:
    """Those that are missing, of both kinds of adapter."""
    for name in names:
        for kind in _KINDS:
            if not (out / f"{kind}-{name}").exists():
                export(out, f"{kind}-{name}", tuple(toolset(out, kind, server) for server in _SERVERS[name]))


def toolset(out: Path, kind: str, server: str) -> ToolsetSpec:
    """One adapter selects, another writes the arguments of every tool, each in the built-in layout of its kind."""
    takers = [tool["name"] for tool in tools(server) if tool.get("inputSchema", {}).get("properties")]
    return ToolsetSpec(
        name=server,
        description=f"The tools of {server}",
        tools=out / f"{server}.json",
        selection=AdapterSpec(path=out / kind / "selection"),
        arguments=dict.fromkeys(takers, AdapterSpec(path=out / kind / "arguments")),
        templates=TemplatesSpec(),
    )


def messages(out: Path, turns: int, size: int) -> list[dict[str, Any]]:
    """A user's request, then calls of the filesystem's tools with their results, the same for every kind."""
    tokenizer = Tokenizer.from_file(str(out / "base" / "tokenizer.json"))
    random = Random(f"task {size}")  # noqa: S311 - no secret
    takers = [tool for tool in read_tools(out / "tools14.json") if tool.takes_arguments and fitting(tool, 0)]
    found: list[dict[str, Any]] = [{"role": "user", "content": "Sum up the notes of April, file by file."}]
    for number in range(turns):
        tool = takers[number % len(takers)]
        function = {"name": tool.name, "arguments": fitting(tool, number)}
        found.append({"role": "assistant", "tool_calls": [{"function": function}]})
        found.append({"role": "tool", "content": words(tokenizer, random, size)})
    return found[:-1]


def words(tokenizer: Tokenizer, random: Random, size: int) -> str:
    """A text of about so many tokens."""
    text = " ".join(random.choice(_WORDS) for _ in range(size))
    ids = tokenizer.encode(text, add_special_tokens=False).ids[:size]
    written: str = tokenizer.decode(ids)
    return written


def cells(bundle: Path, taken: Sequence[TaskRun], plain: Sequence[TaskRun]) -> str:
    """What a bundle's runs took, and the part of the plain bundle's time."""
    took = seconds(taken)
    states = sum(path.stat().st_size for path in (bundle / "states").iterdir()) / 1e6
    turns = [turn for run in taken for turn in run.turns]
    computed = sum(turn.read for turn in turns) / sum(turn.new for turn in turns)
    each = took / len(taken[0].turns)
    roofline = statistics.median(run.over_roofline for run in taken)
    part = took / seconds(plain)
    return f"{bundle.name} | {computed:.2f} | {each:.2f} | {part:.2f} | {roofline:.2f} × | {states:,.0f}"


def seconds(runs: Sequence[TaskRun]) -> float:
    """The median of a task's runs."""
    return statistics.median(run.seconds for run in runs)


def replayed(bundle: Path, task: Path, threads: int, roofline: Roofline) -> TaskRun:
    """One replay in a fresh engine."""
    opened = open_bundle(bundle, verify="never")
    resolution = resolve(None, detect(), threads=threads)
    (requests,) = read_tasks(task, opened.manifest, 1)
    with open_engine(opened.model, resolution.settings) as engine:
        return replay_task(opened, Replay(opened, watch(engine), roofline), requests)


if __name__ == "__main__":
    typer.run(main)
