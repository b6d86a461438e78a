"""The same gold calls by us, by onnxruntime-genai and by llama.cpp's server, one after the other."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from answered import Answered
from genai_plain import WAYS, GenaiPlain
from llama_server import LlamaServer

from dualtune_edge.profiles.schema import SessionSettings
from dualtune_edge.runtime import Bundle, open_bundle, open_engine
from dualtune_edge.runtime.bench.replay import Replay, in_other_words
from dualtune_edge.runtime.bench.requests import made_requests
from dualtune_edge.runtime.bench.roofline import measure_roofline
from dualtune_edge.runtime.bench.scripts import Script
from dualtune_edge.runtime.bench.watched import watch

_FILES: Final = {"toolset": None, "selection": "r32", "arguments": "r32b"}  # as shapes.py names the adapters
ONE_SLOT: Final = "llama.cpp, one slot"
EACH_SLOT: Final = "llama.cpp, a warm slot for each adapter"


@dataclass(frozen=True)
class Peer:
    """A peer's whole call: median milliseconds, median over the calls of its time against ours, tokens decoded."""

    name: str
    ms: float
    against_ours: float
    decoded: float


_Call = Callable[[Sequence[Script]], Answered]


def compare(bundle: Path, calls: int, threads: int, llama: tuple[Path, Path] | None) -> list[Peer]:
    """Every peer on the bundle's tools; `llama`: the server's binary and the folder of its files."""
    opened = open_bundle(bundle)
    requests = made_requests(opened.manifest, calls)
    with ExitStack() as stack:
        engine = stack.enter_context(open_engine(opened.model, SessionSettings(intra_op_threads=threads)))
        ours = Replay(opened, watch(engine), measure_roofline(opened, threads))
        peers = dict(_genai(opened, threads))
        if llama:
            for name, slots in ((ONE_SLOT, 1), (EACH_SLOT, 3)):
                server = stack.enter_context(LlamaServer(*llama, ["r32", "r32b"], threads=threads, slots=slots))
                peers[name] = _llama(server, opened)
        taken: dict[str, list[tuple[Answered, float]]] = {name: [] for name in peers}
        for request in requests:
            own = ours.gold(request).ms
            for name, call in peers.items():
                if name == EACH_SLOT:  # a call in other words, so that its prompt cache holds the tool lists
                    call(ours.scripts(in_other_words(request)))
                taken[name].append((call(ours.scripts(request)), own))
    return [_peer(name, answers) for name, answers in taken.items()]


def _genai(bundle: Bundle, threads: int) -> Iterator[tuple[str, _Call]]:
    plain = GenaiPlain(bundle, threads)
    for way in WAYS:
        yield f"onnxruntime-genai, {way}", partial(plain.call, way=way)


def _llama(server: LlamaServer, bundle: Bundle) -> _Call:
    return lambda scripts: server.call(scripts, [_FILES[script.stage] for script in scripts], bundle.tokenizer)


def _peer(name: str, answers: Sequence[tuple[Answered, float]]) -> Peer:
    return Peer(
        name=name,
        ms=round(statistics.median(answer.ms for answer, _ in answers), 1),
        against_ours=round(statistics.median(answer.ms / own for answer, own in answers), 2),
        decoded=statistics.median(answer.decoded for answer, _ in answers),
    )
