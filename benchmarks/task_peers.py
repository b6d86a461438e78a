"""The same recorded task by peers: each turn's gold call, with what their caches hold of earlier turns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from answered import Answered
from genai_plain import GenaiPlain
from llama_server import LlamaServer

from dualtune_edge.runtime.bench.replay import in_other_words
from dualtune_edge.runtime.bench.requests import Request, read_tasks
from dualtune_edge.runtime.bench.scripts import Script, ScriptWriter
from dualtune_edge.runtime.bundle.folder import Bundle
from dualtune_edge.runtime.bundle.opening import open_bundle

_Call = Callable[[Sequence[Script]], Answered]
_ROOM: Final = 512  # tokens of a slot besides its longest prompt


def plain_genai(bundle: Path, task: Path, threads: int) -> list[Answered]:
    """onnxruntime-genai as its examples drive it: a generator a stage, which reads the whole prompt."""
    opened = open_bundle(bundle, verify="never")
    plain = GenaiPlain(opened, threads)
    return list(_turns(opened, task, lambda scripts: plain.call(scripts, "fed")))


def llama(bundle: Path, task: Path, threads: int, server: tuple[Path, Path], *, slots: int) -> list[Answered]:
    """llama.cpp's server: `server` is its binary and the folder of its files, named as the bundle's adapters.

    Plain adapters are at their best with a slot for each and one for the base, activated ones with one slot for all.
    """
    opened = open_bundle(bundle, verify="never")
    names = list(dict.fromkeys(_file(adapter.name) for adapter in opened.manifest.adapters))
    (requests,) = read_tasks(task, opened.manifest, 1)
    longest = max(len(script.prompt) for script in ScriptWriter(opened).scripts(requests[-1]))
    with LlamaServer(*server, names, threads=threads, slots=slots, context=longest + _ROOM) as process:

        def call(scripts: Sequence[Script]) -> Answered:
            adapters = [script.adapter and _file(script.adapter) for script in scripts]
            return process.call(scripts, adapters, opened.tokenizer)

        return list(_turns(opened, task, call))


def _turns(bundle: Bundle, task: Path, call: _Call) -> Iterator[Answered]:
    """Every turn's call, after one in other words: what a peer keeps of the tool lists, it holds then."""
    (requests,) = read_tasks(task, bundle.manifest, 1)
    writer = ScriptWriter(bundle)
    warm: Request = in_other_words(requests[-1])
    call(writer.scripts(warm))
    for request in requests:
        yield call(writer.scripts(request))


def _file(adapter: str) -> str:
    """The file of a stage's adapter: the toolsets' selections are one, and all arguments."""
    return adapter.split(".", maxsplit=1)[0]
