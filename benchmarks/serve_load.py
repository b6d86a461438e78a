"""Calls a second and the time of a call, by one client and by eight: `dualtune-edge serve`, and llama.cpp's server.

    python benchmarks/serve_load.py /tmp/kit kit/dualtune_edge_kit --calls 100 [--llama-server PATH]

On the kit's held-out requests. Ours decides each call: toolset, tool and arguments, over chat completions. llama.cpp's
server is given the same prompts stage by stage and spells the gold call under a grammar of its tokens, with a warm slot
for each adapter. Nothing else should run meanwhile.
"""

from __future__ import annotations

import http.client
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from llama_server import LlamaServer
from serve_process import ServeProcess

from dualtune_edge.runtime.bench.requests import Request, read_requests
from dualtune_edge.runtime.bench.scripts import Script, ScriptWriter
from dualtune_edge.runtime.bundle.folder import Bundle
from dualtune_edge.runtime.bundle.opening import open_bundle

_CLIENTS: Final = (1, 8)
_ARGUMENTS: Final = 60  # tokens: the kit's arguments do not always end
_LOCAL: Final = threading.local()


def main(
    bundle: Annotated[Path, typer.Argument(help="The kit's bundle.")],
    kit: Annotated[Path, typer.Argument(help="The kit itself: base, adapters, heldout.jsonl.")],
    *,
    calls: Annotated[int, typer.Option(min=1, help="Calls of each kind.")] = 100,
    threads: Annotated[int, typer.Option(min=1, help="Of each server's model.")] = 2,
    llama_server: Annotated[
        Path | None, typer.Option(help="llama.cpp's server, built; without it, ours alone.")
    ] = None,
) -> None:
    """Measure both, one after the other, and print a table."""
    opened = open_bundle(bundle)
    requests = [request for request in read_requests(kit / "heldout.jsonl", opened.manifest, calls) if request.call]
    toolsets = [entry.toolset for entry in opened.manifest.toolsets]
    tools = [{"type": "function", "function": {"name": tool.name}} for entry in toolsets for tool in entry.tools]
    print("| | clients | calls/s | median | 90% |\n|---|---:|---:|---:|---:|")
    with ServeProcess(bundle, "--threads", str(threads), "--waiting", "8") as server:
        measure("dualtune-edge serve", [partial(_ask, server, tools, request) for request in requests])
    if llama_server:
        with tempfile.TemporaryDirectory() as folder:
            names, writer = _write_gguf(opened, kit, Path(folder)), ScriptWriter(opened)
            written = [writer.scripts(request) for request in requests]
            with LlamaServer(llama_server, Path(folder), names, threads=threads, slots=len(names) + 1) as peer:
                measure("llama.cpp's server", [partial(_spell, peer, opened, scripts) for scripts in written])


def measure(name: str, calls: Sequence[Callable[[], None]]) -> None:
    """Print a line for each number of clients."""
    for call in calls:  # once, so that all is warm
        call()
    for clients in _CLIENTS:
        times: list[float] = []

        def timed(call: Callable[[], None], times: list[float] = times) -> None:
            start = time.perf_counter()
            call()
            times.append(1e3 * (time.perf_counter() - start))

        start = time.perf_counter()
        with ThreadPoolExecutor(clients) as pool:
            list(pool.map(timed, calls))
        rate = len(calls) / (time.perf_counter() - start)
        late = statistics.quantiles(times, n=10)[-1]
        print(f"| {name} | {clients} | {rate:.1f} | {statistics.median(times):.0f} ms | {late:.0f} ms |", flush=True)


def _ask(server: ServeProcess, tools: Sequence[dict[str, Any]], request: Request) -> None:
    """A chat completion; each thread keeps its connection, as clients do."""
    if not hasattr(_LOCAL, server.address):
        setattr(_LOCAL, server.address, http.client.HTTPConnection(server.address))
    connection: http.client.HTTPConnection = getattr(_LOCAL, server.address)
    messages = [message.for_template() for message in request.messages]
    for message in messages:
        for made in message.get("tool_calls", ()):
            made["function"]["arguments"] = json.dumps(made["function"]["arguments"])
    body = {"model": server.model, "messages": messages, "tools": tools, "max_tokens": _ARGUMENTS}
    connection.request("POST", "/v1/chat/completions", json.dumps(body))
    response = connection.getresponse()
    answer = response.read()
    if response.status not in {200, 400}:  # 400: arguments that do not end
        raise SystemExit(f"status {response.status}: {answer.decode()}")


def _spell(server: LlamaServer, bundle: Bundle, scripts: Sequence[Script]) -> None:
    """A gold call by llama.cpp's server."""
    server.call(scripts, [script.adapter for script in scripts], bundle.tokenizer)


def _write_gguf(bundle: Bundle, kit: Path, folder: Path) -> list[str]:
    """The kit's base and adapters as GGUF; the adapters' names, as the bundle has them."""
    from llama_files import write_adapter, write_base  # noqa: PLC0415 - the package gguf is needed here only

    write_base(kit / "base", folder / "base.gguf")
    names = [adapter.name for adapter in bundle.manifest.adapters]
    for name in names:
        stage, toolset, *tool = name.split(".")
        write_adapter(Path(kit, "adapters", toolset, stage, *tool), kit / "base", folder / f"{name}.gguf")
    return names


if __name__ == "__main__":
    typer.run(main)
