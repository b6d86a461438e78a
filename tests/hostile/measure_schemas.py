"""Reads and compiles schemas, one a line of stdin, each in a process of its own: a line of JSON with its cost.

`found`: why it is refused; None: it is compiled. `read` and `compile` are milliseconds of CPU time, at the desk and on
the device; `memory` is what the compiling takes, in MB.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

from llguidance import LLTokenizer

from dualtune_edge.runtime.grammar.grammar import compile_grammar
from dualtune_edge.toolkit.errors import ToolsError
from dualtune_edge.toolkit.prompts.prompt_plan import Frame
from dualtune_edge.toolkit.tools.tool_files import parse_tools

FRAME = Frame(tokens=(), pending="", tail="\n", item_separator=", ", key_separator=": ", ascii_only=False)


def measure(schema: Any, tokenizer: LLTokenizer) -> dict[str, Any]:
    """What one schema costs, or why it is refused."""
    cost: dict[str, Any] = {"found": None, "compile": 0.0}
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    try:
        (tool,) = parse_tools([{"name": "act", "inputSchema": schema}], where="tools.json")
        read = time.process_time()
        cost["read"] = 1e3 * (read - started)
        matcher = compile_grammar(tool, FRAME, tokenizer).matcher()
        matcher.compute_bitmask()
        cost["compile"] = 1e3 * (time.process_time() - read)
    except ToolsError as error:
        cost |= {"found": error.found, "read": 1e3 * (time.process_time() - started)}
    cost["memory"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return cost


def main() -> None:
    """Measure what stdin has."""
    tokenizer = LLTokenizer(Path(sys.argv[1]).read_text(encoding="utf-8"))
    measure({"properties": {"a": {"type": "string", "pattern": "^a$"}}}, tokenizer)  # what is made once
    gc.freeze()  # else a collection in the child copies every page of the parent
    for line in sys.stdin:
        if not os.fork():
            sys.stdout.write(json.dumps(measure(json.loads(line), tokenizer)) + "\n")
            sys.stdout.flush()
            os._exit(0)
        os.wait()


main()
