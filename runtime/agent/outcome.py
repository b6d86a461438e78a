"""What a tool's server answered, as the conversation will hold it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable


@dataclass(frozen=True)
class ToolOutcome:
    """A result as text. `error`: the tool failed, was not reached in time, or was not called."""

    text: str
    error: bool = False


@runtime_checkable
class _HasText(Protocol):
    text: str


def as_text(content: Sequence[Any], structured: Any) -> str:
    """The text of an MCP result.

    Text blocks stand as they are, one below the other. An image or a sound is named with its type and size, a linked
    resource with its address: none of them is fetched. The structured result is JSON, where there is no text.

    Source: the Model Context Protocol's schema, `ContentBlock`.
    """
    parts = [_block(block) for block in content]
    if structured is not None and not any(block.type == "text" for block in content):
        parts.append(json.dumps(structured, ensure_ascii=False))
    return "\n".join(parts)


def _block(block: Any) -> str:
    if block.type == "text":
        return str(block.text)
    if block.type in {"image", "audio"}:
        return f"[{block.type}, {block.mime_type}, {len(block.data) * 3 // 4} bytes]"
    if block.type == "resource_link":
        return f"[resource {block.name}: {block.uri}]"
    if block.type == "resource":
        resource = block.resource
        return resource.text if isinstance(resource, _HasText) else f"[resource {resource.uri}]"
    return f"[{block.type}]"
