"""Counts and times for Prometheus."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest


class Metrics:
    """One server's figures, in a separate registry."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "dualtune_edge_requests", "Requests by path and status.", ("path", "status"), registry=self.registry
        )
        self.seconds = Histogram(
            "dualtune_edge_answer_seconds", "From a request to the end of its answer.", registry=self.registry
        )
        self.waiting = Gauge("dualtune_edge_waiting", "Requests at the engine or before it.", registry=self.registry)
        self.tokens = Counter("dualtune_edge_tokens", "Tokens by kind.", ("kind",), registry=self.registry)

    def completed(self, usage: Mapping[str, Any], seconds: float) -> None:
        """One answer; `usage` in OpenAI's form."""
        self.seconds.observe(seconds)
        self.tokens.labels("prompt").inc(usage["prompt_tokens"])
        self.tokens.labels("cached").inc(usage["prompt_tokens_details"]["cached_tokens"])
        self.tokens.labels("written").inc(usage["completion_tokens"])

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self.registry)
