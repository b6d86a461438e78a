"""What `dualtune-edge serve` takes in memory over many calls: Linux only.

    python benchmarks/serve_memory.py /tmp/kit kit/dualtune_edge_kit/heldout.jsonl --calls 10000

Prints calls, seconds, and the server's memory in MB as it goes: pages that it wrote; with them its private pages of
mapped files, which the system may drop; and all that is resident. Of ten calls seven choose among the tools of one
toolset and one among all; one streams, and one is a text of 20 tokens at most. Arguments have 60 at most: this kit's do
not always end.
"""

from __future__ import annotations

import http.client
import itertools
import json
import re
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from serve_process import ServeProcess

from dualtune_edge.runtime.bundle.opening import open_bundle
from dualtune_edge.toolkit.prompts.trajectories import read_trajectories


def main(
    bundle: Annotated[Path, typer.Argument(help="The bundle's folder.")],
    requests: Annotated[Path, typer.Argument(help="Conversations, one a line; the first message of each is asked.")],
    calls: Annotated[int, typer.Option(help="How many.")] = 10_000,
    every: Annotated[int, typer.Option(help="Calls between two lines.")] = 1_000,
) -> None:
    """Call, and print what is held."""
    toolsets = {
        entry.toolset.name: [{"type": "function", "function": {"name": tool.name}} for tool in entry.toolset.tools]
        for entry in open_bundle(bundle).manifest.toolsets
    }
    asked = [(trajectory.toolset, trajectory.messages[0].content) for trajectory in read_trajectories(requests)]
    print(f"{'calls':>6} {'s':>7} {'written':>8} {'private':>8} {'resident':>8}")
    with ServeProcess(bundle) as server:
        connection, start = http.client.HTTPConnection(server.address), time.perf_counter()
        for count, (toolset, text) in zip(range(calls + 1), itertools.cycle(asked)):
            if count % every == 0 or count == 100:
                written, private, resident = memory(server.pid)
                held = f"{written:8.1f} {private:8.1f} {resident:8.1f}"
                print(f"{count:6d} {time.perf_counter() - start:7.1f} {held}", flush=True)
            body: dict[str, Any] = {"model": server.model, "messages": [{"role": "user", "content": text}]}
            among = [tool for tools in toolsets.values() for tool in tools] if count % 10 == 1 else toolsets[toolset]
            kind = {"max_tokens": 20} if count % 10 == 0 else {"tools": among, "max_tokens": 60}
            body |= kind | {"stream": count % 10 == 2}
            connection.request("POST", "/v1/chat/completions", json.dumps(body))
            response = connection.getresponse()
            response.read()
            if response.status not in {200, 400}:  # 400: arguments that do not end
                raise SystemExit(f"status {response.status}")


def memory(pid: int) -> tuple[float, float, float]:
    """(written, private, resident) MB of a process."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8")
    sizes = {name: int(kilobytes) for name, kilobytes in re.findall(r"(\w+): +(\d+) kB", rollup)}
    clean, written, resident = (sizes[name] * 1024 / 1e6 for name in ("Private_Clean", "Private_Dirty", "Rss"))
    return written, clean + written, resident


if __name__ == "__main__":
    typer.run(main)
