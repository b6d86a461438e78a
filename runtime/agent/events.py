"""What happens in a run, as frozen values. `event` names their kind in JSON."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from dualtune_edge.runtime.result import Alternative
from dualtune_edge.toolkit.frozen import Frozen

Outcome: TypeAlias = Literal["answered", "steps", "repeated", "cancelled", "deadline", "failed"]


class ToolsetEvent(Frozen):
    """A toolset was chosen. `probability` is None where one toolset alone is offered."""

    event: Literal["toolset"] = "toolset"
    step: int
    toolset: str
    probability: float | None


class ToolEvent(Frozen):
    """A tool was chosen, or none (`tool` is None): then the answer follows."""

    event: Literal["tool"] = "tool"
    step: int
    toolset: str
    tool: str | None
    probability: float
    alternatives: tuple[Alternative, ...]


class ArgumentsEvent(Frozen):
    """The arguments as they will be sent to the server."""

    event: Literal["arguments"] = "arguments"
    step: int
    toolset: str
    tool: str
    arguments: dict[str, Any]
    milliseconds: float  # the whole decision: toolset, tool and arguments


class ApprovalEvent(Frozen):
    """`ask`: the run waits for the user. `allow` and `deny`: what was decided, and by whom."""

    event: Literal["approval"] = "approval"
    step: int
    toolset: str
    tool: str
    decision: Literal["ask", "allow", "deny"]
    reason: str


class ResultEvent(Frozen):
    """What goes back into the conversation. `shortened`: characters that were left out of it."""

    event: Literal["result"] = "result"
    step: int
    toolset: str
    tool: str
    text: str
    error: bool
    shortened: int = 0
    milliseconds: float = 0.0


class TextEvent(Frozen):
    """A piece of the answer."""

    event: Literal["text"] = "text"
    text: str


class DoneEvent(Frozen):
    """The run's end. `steps` counts the calls; `answer` is empty where the run did not come to one."""

    event: Literal["done"] = "done"
    outcome: Outcome
    answer: str
    steps: int
    reason: str
    seconds: float


Event: TypeAlias = ToolsetEvent | ToolEvent | ArgumentsEvent | ApprovalEvent | ResultEvent | TextEvent | DoneEvent
