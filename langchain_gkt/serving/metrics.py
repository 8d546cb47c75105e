"""Metrics for Prometheus."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from langchain_gkt.serving.records import RequestRecord

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160)
_SHARES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


class Metrics:
    """The metrics of one server, in a registry of their own."""

    def __init__(self) -> None:
        """Start at zero."""
        self.registry = CollectorRegistry()
        own: Any = {"registry": self.registry}
        ended = "Requests that ended, by model and HTTP status (499: the client went away)."
        tokens = "Tokens that each model read (prompt) and wrote (completion)."
        usd, unpriced = "US dollars that each model cost.", "Calls whose price is not known."
        self.requests = Counter("gkt_requests", ended, ("model", "status"), **own)
        self.tokens = Counter("gkt_tokens", tokens, ("role", "kind"), **own)
        self.usd = Counter("gkt_usd", usd, ("role",), **own)
        self.unpriced = Counter("gkt_unpriced_calls", unpriced, ("role",), **own)
        share = "Share of an answer's tokens that the teacher wrote."
        self.guidance_share = Histogram("gkt_guidance_share", share, buckets=_SHARES, **own)
        by_model: Any = {"labelnames": ("model",), "buckets": _SECONDS, **own}
        first = "Time until the first token of an answer was there."
        self.first_token = Histogram("gkt_time_to_first_token_seconds", first, **by_model)
        self.seconds = Histogram(
            "gkt_request_seconds", "Time until the end of a request.", **by_model
        )
        running = "Requests that are being answered"
        self.running = Gauge("gkt_requests_running", f"{running}.", **own)
        self.queue = Gauge("gkt_requests_waiting", f"{running} and have no token yet.", **own)
        self._open: set[RequestRecord] = set()
        self.queue.set_function(self._waiting)

    def _waiting(self) -> int:
        return sum(
            record.model is not None and record.first_token_seconds is None for record in self._open
        )

    def begin(self, record: RequestRecord) -> None:
        """Count a request as running."""
        self._open.add(record)
        self.running.set(len(self._open))

    def observe(self, record: RequestRecord) -> None:
        """Add a finished request."""
        self._open.discard(record)
        self.running.set(len(self._open))
        model = record.model or "unknown"  # a client's own words would make labels without end
        self.requests.labels(model, str(record.status)).inc()
        if record.model is None:
            return
        self.seconds.labels(model).observe(record.seconds)
        if record.first_token_seconds is not None:
            self.first_token.labels(model).observe(record.first_token_seconds)
        if record.guidance_share is not None:
            self.guidance_share.observe(record.guidance_share)
        if record.costs is None:
            return
        for role in ("teacher", "student"):
            totals = getattr(record.costs, role)
            prompt = totals.prompt_tokens + totals.unreported_prompt_tokens
            completion = totals.completion_tokens + totals.unreported_completion_tokens
            self.tokens.labels(role, "prompt").inc(prompt)
            self.tokens.labels(role, "completion").inc(completion)
            self.usd.labels(role).inc(float(totals.known_cost + totals.unreported_cost))
            unpriced = totals.unpriced_calls + totals.unreported_unpriced_calls
            self.unpriced.labels(role).inc(unpriced)
