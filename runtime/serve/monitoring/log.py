"""One JSON object a line, on stderr; what was said is left out unless it is asked for."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dualtune_edge.runtime.agent.events import DoneEvent

if TYPE_CHECKING:
    from dualtune_edge.runtime.serve.completions import Completion
    from dualtune_edge.runtime.serve.errors import ApiError


@dataclass(frozen=True)
class CallLog:
    """Writes the lines. `contents`: with messages and answers."""

    quiet: bool = False
    contents: bool = False

    def completed(self, completion: Completion, seconds: float) -> None:
        """One completion, or what it came to."""
        call = completion.call
        line: dict[str, Any] = {
            "event": "completion",
            "id": completion.id,
            "outcome": completion.outcome,
            "seconds": round(seconds, 3),
            "toolset": call.toolset if call else None,
            "tool": call.tool if call else None,
            "probability": round(call.probability, 4) if call else None,
            **{name: value for name, value in completion.usage().items() if isinstance(value, int)},
        }
        if self.contents:
            line |= {"messages": completion.request.messages, "answer": completion.whole()["choices"][0]["message"]}
        self.write(line)

    def done(self, run: str, done: DoneEvent | None, seconds: float) -> None:
        """One whole task; `done` is None where its client left."""
        line: dict[str, Any] = {
            "event": "task",
            "id": run,
            "outcome": done.outcome if done else "stopped",
            "seconds": round(seconds, 3),
            "steps": done.steps if done else None,
        }
        self.write(line | ({"answer": done.answer, "reason": done.reason} if self.contents and done else {}))

    def refused(self, path: str, error: ApiError) -> None:
        """A request that got an error. Its message may repeat what was sent."""
        line: dict[str, Any] = {"event": "error", "path": path, "status": error.status, "code": error.code}
        self.write(line | {"param": error.param} | ({"message": error.message} if self.contents else {}))

    def write(self, line: dict[str, Any]) -> None:
        """Write a line, with the time before it."""
        if not self.quiet:
            now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            sys.stderr.write(json.dumps({"time": now, **line}, ensure_ascii=False) + "\n")
            sys.stderr.flush()
