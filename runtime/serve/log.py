"""One JSON object a call, on stderr; what was said is left out unless it is asked for."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dualtune_edge.runtime.serve.completions import Completion


@dataclass(frozen=True)
class CallLog:
    """Writes the lines. `contents`: with messages and answers."""

    quiet: bool = False
    contents: bool = False

    def completed(self, completion: Completion, seconds: float) -> None:
        """One answer."""
        call = completion.call
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "event": "completion",
            "id": completion.id,
            "seconds": round(seconds, 3),
            "toolset": call.toolset if call else None,
            "tool": call.tool if call else None,
            "probability": round(call.probability, 4) if call else None,
            **{name: value for name, value in completion.usage().items() if isinstance(value, int)},
        }
        if self.contents:
            line |= {"messages": completion.request.messages, "answer": completion.whole()["choices"][0]["message"]}
        self.write(line)

    def write(self, line: dict[str, Any]) -> None:
        """Write a line."""
        if not self.quiet:
            sys.stderr.write(json.dumps(line, ensure_ascii=False) + "\n")
            sys.stderr.flush()
