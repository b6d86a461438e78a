"""Counts and times for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest


class Metrics:
    """One server's figures, in a registry of its own."""

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

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self.registry)
