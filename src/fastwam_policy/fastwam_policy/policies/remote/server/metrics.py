"""What a server counts, for Prometheus."""

from __future__ import annotations

from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest

from fastwam_policy.policies.base import PolicyInfo
from fastwam_policy.policies.remote.server.requests import Answer

Outcome = Literal["answered", "refused", "failed", "superseded"]
Refusal = Literal["no key", "too many", "evicted", "idle"]
_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 60)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """Of one server; not shared with others of the process."""

    def __init__(self, info: PolicyInfo) -> None:
        self._registry = registry = CollectorRegistry()
        Info("fastwam_policy", "Which policy is served", registry=registry).info(
            {"name": info.name, "origin": info.identity.origin, "sha256": info.identity.sha256}
        )
        self._requests = Counter("fastwam_requests", "Requests by outcome", ["outcome"], registry=registry)
        self._refusals = Counter("fastwam_connections_refused", "Connections by reason", ["reason"], registry=registry)
        self.clients = Gauge("fastwam_clients", "Clients that are connected", registry=registry)
        self._infer = Histogram("fastwam_infer_seconds", "One inference", buckets=_SECONDS, registry=registry)
        self._wait = Histogram(
            "fastwam_wait_seconds", "From a request to its turn", buckets=_SECONDS, registry=registry
        )

    def count(self, outcome: Outcome) -> None:
        """One more request that ended so."""
        self._requests.labels(outcome).inc()

    def refuse(self, reason: Refusal) -> None:
        """One more connection that was not taken, or ended."""
        self._refusals.labels(reason).inc()

    def answered(self, found: Answer) -> None:
        """One more answer."""
        self.count("answered")
        self._infer.observe(found.infer_ms / 1e3)
        self._wait.observe(found.wait_ms / 1e3)

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self._registry)
