"""What is evaluated: turns of held-out conversations, or rows of BFCL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dualtune_edge.runtime.bench.requests import Request


@dataclass(frozen=True)
class Case:
    """A request, and what counts as right.

    `accepted`: each argument's values that do, `""` among them where it may be left out; None: the request's own call
    alone. `offered`: toolset → the tools that can be called; None: all.
    """

    request: Request
    accepted: Mapping[str, Sequence[Any]] | None = None
    offered: Mapping[str, frozenset[str]] | None = None
