"""What the device needs to prompt one stage: a static prefix, each tool's completion, or the arguments' frame."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from dualtune_edge.toolkit.frozen import Frozen
from dualtune_edge.toolkit.tools.toolset import Tool


@dataclass(frozen=True)
class JsonStyle:
    """How a template writes JSON."""

    item_separator: str
    key_separator: str
    ascii_only: bool

    def dumps(self, value: dict[str, Any]) -> str:
        """The value as the template writes it."""
        separators = (self.item_separator, self.key_separator)
        return json.dumps(value, ensure_ascii=self.ascii_only, separators=separators)


STYLES: Final = tuple(
    JsonStyle(*marks, ascii_only) for marks in ((", ", ": "), (",", ":")) for ascii_only in (False, True)
)


class Frame(Frozen):
    """What surrounds the arguments of one tool's call, and how the template writes JSON.

    `tokens` follow the prompt; then come, as text, `pending` + the arguments + `tail`. Tokens may straddle these
    borders, so the constraint on the arguments covers all three.
    """

    tokens: tuple[int, ...]
    pending: str
    tail: str
    item_separator: str
    key_separator: str
    ascii_only: bool

    def dumps(self, arguments: dict[str, Any]) -> str:
        """The arguments as the template writes them."""
        return JsonStyle(self.item_separator, self.key_separator, self.ascii_only).dumps(arguments)


class PromptPlan(Frozen):
    """All that the device needs to prompt one adapter (or the base): kept as one JSON file of the bundle.

    `stage` says what it is for: `completions` (tool → tokens after the prompt, to the end of the turn) is filled for
    a selection (of a tool, or of a toolset), `frame` for arguments; an answer in words has neither, and no tools.
    `tool` is the tool whose arguments are written. `shows_toolsets`: the template is given all toolsets of the bundle,
    and `toolset` is the one whose tools are called, None for the toolset's choice and the answer. Both are left out of
    JSON where it is given `tools` alone.
    """

    stage: Literal["toolset", "selection", "arguments", "answer"]
    template: str
    tools: tuple[Tool, ...]
    tool: str | None = None
    prefix: tuple[int, ...] = ()
    completions: dict[str, tuple[int, ...]] = Field(default_factory=dict)
    frame: Frame | None = None
    shows_toolsets: bool = False
    toolset: str | None = None

    @model_serializer(mode="wrap")
    def _without_toolsets(self, dump: SerializerFunctionWrapHandler) -> dict[str, object]:
        alone = () if self.shows_toolsets else ("shows_toolsets", "toolset")
        return {name: value for name, value in dump(self).items() if name not in alone}
