"""Remake the kit, part by part: `python -m dualtune_edge_kit.training.make PART WORK`.

Parts, in this order: tokenizer, base, adapters, activated, heldout, table. A base has two courses, each in a folder
of WORK/courses: from random weights, 80 minutes on two idle cores; with two layers and more words, 70 minutes. Its
adapters take 150 minutes of one core. A run that is stopped goes on where it was; adapters that are in WORK are not
made again. `probe` says what a base knows by itself. `kinds` compares plain and activated adapters of a short
training, `joint` decoupled adapters and joint ones of as many samples. `engines` compares the engines, `levers` calls
with and without the levers that make them fast. WORK is a folder laid out like this package. Training data is not
kept: it follows from the seeds.

A remake of the committed kit has its size, schedule and data, but not its bits. The first course was run in bfloat16
by two processes that shared every step, its schedule followed the clock (4,470 steps, 18 million tokens), and its
data had fewer random values (`values.one`) and called the edits of made-up tools texts. Both selections were begun as
runs of 350 steps and lengthened at steps 235 and 265, so that their rate had fallen once before.
"""

import argparse
import itertools
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Final

import torch
from tokenizers import Tokenizer
from transformers import Qwen2ForCausalLM

from dualtune_edge.export.run import run
from dualtune_edge.runtime.levers import NAIVE, Levers
from dualtune_edge.runtime.pipeline import Agent
from dualtune_edge_kit.training.adapters import kinds, routing, runs
from dualtune_edge_kit.training.data import toolsets, trajectories
from dualtune_edge_kit.training.measuring import evaluate, specs
from dualtune_edge_kit.training.measuring.evaluate import Turn
from dualtune_edge_kit.training.pretraining import base, courses, growing, probe, seeding, texts, vocabulary
from dualtune_edge_kit.training.pretraining import tokenizer as bpe
from dualtune_edge_kit.training.pretraining.courses import Course

SEED: Final = 0
NEW_LAYERS: Final = (1, 3)  # of the second course, each after the layer of this number
VOCABULARY: Final = 2496  # tokens, of the second course
_TOKENIZER_TEXTS: Final = 12_000
_HELDOUT: Final = 470  # conversations, with more than 500 calls
_EXTERNAL: Final = "int4, external | onnxruntime"
_HEADER: Final = (
    "| adapters | weights | engine | toolset % | tool % | whole call % | toolset and call % |\n"
    "|---|---|---|---|---|---|---|\n"
)


def make_tokenizer(work: Path) -> None:
    """Train the BPE on pretraining texts."""
    templates = texts.read_templates()
    documents = texts.documents(SEED + 1, templates, copying=0.3, echoing=0.3)
    drawn = (document.context + document.text for document in itertools.islice(documents, _TOKENIZER_TEXTS))
    bpe.save(bpe.train(drawn), work / "courses" / "first", templates.base.source)


def make_base(work: Path) -> None:
    """Pretrain the base model in two courses."""
    first, second = (work / "courses" / name for name in ("first", "second"))
    tokenizer = Tokenizer.from_file(str(first / "tokenizer.json"))
    torch.manual_seed(SEED)
    model = Qwen2ForCausalLM(base.configuration(tokenizer))
    seeding.seed_copying(model, SEED)
    _course(courses.FIRST, model, tokenizer, first)
    larger = vocabulary.extended(tokenizer, vocabulary.words(), VOCABULARY)
    grown = growing.grown(vocabulary.with_words(_trained(first), tokenizer, larger), NEW_LAYERS)
    _course(courses.SECOND, grown, larger, second)
    shutil.copytree(second, work / "base", ignore=shutil.ignore_patterns("*.pt"), dirs_exist_ok=True)


def _course(course: Course, model: Qwen2ForCausalLM, tokenizer: Tokenizer, folder: Path) -> None:
    bpe.save(tokenizer, folder, texts.read_templates().base.source)
    base.pretrain(model, tokenizer, course, folder, folder / "state.pt", seed=f"{SEED} {folder.name}", say=_say)


def _trained(folder: Path) -> Qwen2ForCausalLM:
    return Qwen2ForCausalLM.from_pretrained(folder, dtype=torch.float32)


def probe_base(work: Path) -> None:
    """Write what WORK's base knows by itself to WORK/probe.md."""
    tokenizer = Tokenizer.from_file(str(work / "base" / "tokenizer.json"))
    model = _trained(work / "base").eval()
    (work / "probe.md").write_text(probe.table(probe.probe(model, tokenizer)), encoding="utf-8", newline="\n")


def make_adapters(work: Path) -> None:
    """Train all adapters on generated conversations."""
    with tempfile.TemporaryDirectory() as scratch:
        runs.make(work / "base", Path(scratch) / "train.jsonl", work / "adapters", runs.all_runs(), seed=SEED, say=_say)
        routing.make(work / "base", Path(scratch) / "routes.jsonl", work / "adapters" / "toolset", _say)


def make_activated(work: Path) -> None:
    """Train the selections and arguments as activated adapters: equal data and steps, beside the plain ones."""
    with tempfile.TemporaryDirectory() as scratch:
        data, out = Path(scratch) / "train.jsonl", work / runs.ACTIVATED
        runs.make(work / "base", data, out, runs.all_runs(), seed=SEED, say=_say, activated=True)


def compare_kinds(work: Path) -> None:
    """Train plain and activated adapters for fewer steps, below WORK/kinds, and write what they reach beside them."""
    kinds.make(work, work / "kinds", _say)
    (work / "kinds.md").write_text(kinds.table(work / "kinds"), encoding="utf-8", newline="\n")


def compare_joint(work: Path) -> None:
    """Train joint adapters and decoupled ones of as many samples below WORK/equal, and measure both."""
    equal = work / "equal"
    for made in (Path("base"), Path("adapters", "toolset")):
        shutil.copytree(work / made, equal / made, dirs_exist_ok=True)
    wanted, data = [*runs.joint_runs(), *runs.all_runs()], equal / "train.jsonl"
    runs.make(work / "base", data, equal / "adapters", wanted, seed=SEED, say=_say, plan=runs.EQUAL)
    turns, rows = evaluate.read_turns(work / "heldout.jsonl", toolsets.NAMES), list[str]()
    for method in specs.COMPARED:
        with tempfile.TemporaryDirectory() as scratch:
            run(specs.spec(method, "external", equal), Path(scratch) / "bundle")
            with Agent.open(Path(scratch) / "bundle", copied=False) as agent:
                rows.append(_row(method, _EXTERNAL, agent, turns))
    _write_table(work / "joint.md", rows, turns)


def make_heldout(work: Path) -> None:
    """Write the held-out conversations."""
    trajectories.write(work / "heldout.jsonl", list(trajectories.generate(SEED, "heldout", _HELDOUT)))


def make_table(work: Path) -> None:
    """Measure base and decoupled, external and merged, and PyTorch in float32 for comparison; also activated ones."""
    turns = evaluate.read_turns(work / "heldout.jsonl", toolsets.NAMES)
    rows: list[str] = []
    for method in specs.METHODS:
        if not specs.trained(method, work):
            rows.append(f"| {method} | not trained in this kit | | | | | |")
            continue
        with tempfile.TemporaryDirectory() as scratch:
            external, merged = Path(scratch) / "external", Path(scratch) / "merged"
            run(specs.spec(method, "external", work), external)
            with evaluate.reference(external, work, method) as agent:
                rows.append(_row(method, "float32 | PyTorch", agent, turns))
            with Agent.open(external, copied=False) as agent:
                rows.append(_row(method, _EXTERNAL, agent, turns))
            if method != "base":
                with Agent.open(external) as agent:
                    rows.append(_row(f"{method}, values copied", _EXTERNAL, agent, turns))
            if method == "decoupled":
                run(specs.spec(method, "merged", work), merged)
                with Agent.open(merged, copied=False) as agent:
                    rows.append(_row(method, "int4, merged | onnxruntime", agent, turns))
    _write_table(work / "table.md", rows, turns)


def _row(name: str, way: str, agent: Agent, turns: Sequence[Turn]) -> str:
    """A row of the table; ``way`` names the weights and the engine."""
    row = f"| {name} | {way} | {evaluate.measure(agent, turns, _quiet).cells()} |"
    _say(row)
    return row


def _write_table(path: Path, rows: list[str], turns: Sequence[Turn]) -> None:
    calls = sum(turn.call is not None for turn in turns)
    head = f"{len(turns)} held-out turns, {calls} of them calls.\n\n{_HEADER}"
    path.write_text(head + "\n".join(rows) + "\n", encoding="utf-8", newline="\n")


def compare_engines(work: Path) -> None:
    """Answer every held-out turn by onnxruntime and by onnxruntime-genai, and print the differences."""
    turns = evaluate.read_turns(work / "heldout.jsonl", toolsets.NAMES)
    with tempfile.TemporaryDirectory() as scratch:
        run(specs.spec("decoupled", "external", work), Path(scratch) / "bundle")
        with (
            Agent.open(Path(scratch) / "bundle", engine="ort") as one,
            Agent.open(Path(scratch) / "bundle", engine="genai") as other,
        ):
            count = evaluate.differences(one, other, turns, _say)
    _say(f"{count} of {len(turns)} turns answered differently")


def compare_levers(work: Path) -> None:
    """Answer every held-out turn with all levers on, with one of them off, and with all off."""
    turns = evaluate.read_turns(work / "heldout.jsonl", toolsets.NAMES)
    ways = {lever.name: replace(Levers(), **{lever.name: False}) for lever in fields(Levers)} | {"all": NAIVE}
    with tempfile.TemporaryDirectory() as scratch:
        run(specs.spec("decoupled", "external", work), Path(scratch) / "bundle")
        with Agent.open(Path(scratch) / "bundle") as one:
            for name, levers in ways.items():
                with Agent.open(Path(scratch) / "bundle", levers=levers) as other:
                    count = evaluate.differences(one, other, turns, _say)
                _say(f"{name} off: {count} of {len(turns)} turns answered differently")


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _quiet(_text: str) -> None:
    """Print nothing: wrong answers are only counted."""


PARTS: Final[dict[str, Callable[[Path], None]]] = {
    "tokenizer": make_tokenizer,
    "base": make_base,
    "probe": probe_base,
    "adapters": make_adapters,
    "activated": make_activated,
    "heldout": make_heldout,
    "table": make_table,
    "kinds": compare_kinds,
    "joint": compare_joint,
    "engines": compare_engines,
    "levers": compare_levers,
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("work", type=Path)
    arguments = parser.parse_args()
    PARTS[arguments.part](arguments.work)
