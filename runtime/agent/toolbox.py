"""What runs tools for a run of the loop."""

from __future__ import annotations

from typing import Any, Protocol

from dualtune_edge.runtime.agent.offer import Offer
from dualtune_edge.runtime.agent.outcome import ToolOutcome
from dualtune_edge.toolkit.bundle.manifest import Manifest


class Cancellation(Protocol):
    """Says whether to stop waiting: a `threading.Event`, or a run that looks at its deadline too."""

    def is_set(self) -> bool:
        """Whether to stop."""


class Toolbox(Protocol):
    """What runs tools: connected servers, or a recorded run. Both methods return soon after `cancel` is set."""

    def offer(self, manifest: Manifest, *, cancel: Cancellation | None = None) -> Offer:
        """What can be called now."""

    def call(
        self, server: str, tool: str, arguments: dict[str, Any], *, cancel: Cancellation | None = None
    ) -> ToolOutcome:
        """Run a tool; its failure is an outcome."""
