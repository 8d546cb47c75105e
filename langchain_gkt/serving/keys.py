"""Who may send requests: bearer keys, each with its own budget and rate limit."""

from __future__ import annotations

import hmac
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from langchain_core.rate_limiters import InMemoryRateLimiter
from pydantic import BaseModel, ValidationError

from langchain_gkt.costs import Budget, CostTracker
from langchain_gkt.errors import explain, refuse_unknown
from langchain_gkt.serving.errors import APIError


@dataclass(frozen=True, kw_only=True)
class APIKey:
    """A key of a server.

    Attributes:
        name: Its name in logs. The key itself is never logged.
        secret: The key. None lets everybody in.
        budget: The maximum cost of all its requests. None for no limit.
        requests_per_minute: Maximum requests a minute, possibly all at once. None for no limit.
    """

    name: str
    secret: str | None = field(default=None, repr=False)
    budget: Budget | None = None
    requests_per_minute: float | None = None

    def __post_init__(self) -> None:
        """Refuse values that make no sense."""
        if self.secret is not None and not self.secret.strip():
            raise ValueError(f"key {self.name!r} is empty; give it some characters")
        if self.secret is not None and not self.secret.isascii():
            raise ValueError(f"key {self.name!r} must be ASCII, because HTTP headers are")
        rate = self.requests_per_minute
        if rate is not None and not rate > 0:
            raise ValueError(f"requests_per_minute of key {self.name!r} must be more than 0")


class Client:
    """A key in use, with its costs and its number of requests."""

    def __init__(self, key: APIKey, prices: Mapping[str, Any]) -> None:
        """Start at zero. ``prices`` are arguments of `CostTracker`."""
        self.key = key
        self.costs = CostTracker(budget=key.budget, **prices)
        self._limiter = None
        if rate := key.requests_per_minute:
            burst = max(1.0, rate)
            self._limiter = InMemoryRateLimiter(
                requests_per_second=rate / 60, max_bucket_size=burst
            )
            self._limiter.available_tokens = burst  # or the first request would be refused

    def count_request(self) -> None:
        """Count a request. Raises an `APIError` if there were too many in the last minute."""
        if self._limiter is None or self._limiter.acquire(blocking=False):
            return
        rate: Any = self.key.requests_per_minute
        raise APIError(
            429,
            f"key {self.key.name!r} may ask {rate:g} times a minute; wait, or ask for a higher "
            "rate",
            kind="requests",
            code="rate_limit_exceeded",
            headers={"Retry-After": str(math.ceil(60 / rate))},
        )


class KeyRing:
    """The keys of a server."""

    def __init__(self, keys: list[APIKey], prices: Mapping[str, Any]) -> None:
        """Take the keys, which must differ. One without a secret lets everybody in."""
        secrets = [key.secret for key in keys]
        if len(set(secrets)) < len(secrets):
            raise ValueError("two keys of the server are the same; give each client its own")
        self.clients = [Client(key, prices) for key in keys]

    def authenticate(self, authorization: str | None) -> Client:
        """Return the client of an ``Authorization``. Raises an `APIError` if its key is wrong."""
        scheme, _, key = (authorization or "").partition(" ")
        key = key.strip() if scheme.lower() == "bearer" else ""
        for client in self.clients:
            secret = client.key.secret
            if secret is None or hmac.compare_digest(secret.encode(), key.encode()):
                return client
        what = "the API key is wrong" if key else "the API key is missing"
        raise APIError(
            401,
            f"{what}; send the header 'Authorization: Bearer KEY' with a key of this server",
            code="invalid_api_key",
            headers={"WWW-Authenticate": "Bearer"},
        )


def load_keys(path: Path, *, budget: Budget | None, rate: float | None) -> list[APIKey]:
    """Read the keys of a JSON file.

    Args:
        path: A file such as ``{"ada": {"key_env": "ADA_KEY", "budget_usd": "5"}}``. A key has a
            ``key``, or the name of an environment variable that holds it, and may have
            ``budget_usd`` and ``requests_per_minute``.
        budget: The budget of keys without one of their own.
        rate: The rate limit of keys without one of their own.

    Raises:
        ValueError: If the file holds something else.
    """
    try:
        keys = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(keys, dict) or not keys:
            raise ValueError("it must hold an object that maps each key's name to its fields")
        return [_key(name, fields, budget, rate) for name, fields in keys.items()]
    except (ValueError, TypeError) as error:
        raise ValueError(f"--keys {path}: {error}") from error


class _Entry(BaseModel):
    """A file's entry for one key."""

    key: Any = None
    key_env: str | None = None
    budget_usd: Decimal | None = None
    requests_per_minute: float | None = None


def _key(name: str, fields: Any, budget: Budget | None, rate: float | None) -> APIKey:
    if not isinstance(fields, dict):
        raise ValueError(f"{name!r} must be an object such as {{'key_env': 'NAME'}}")
    refuse_unknown(fields, _Entry.model_fields, f"key {name!r}")
    try:
        entry = _Entry.model_validate(fields)
    except ValidationError as error:
        raise ValueError(f"key {name!r}: {explain(error)}") from None
    secret = entry.key
    if entry.key_env and (secret := os.environ.get(entry.key_env)) is None:
        raise ValueError(f"key {name!r}: the environment variable {entry.key_env} is not set")
    if not isinstance(secret, str):
        raise ValueError(f"key {name!r} needs 'key', or 'key_env' with a variable's name")
    if entry.budget_usd is not None:
        exceeded = budget.on_exceeded if budget else "raise"
        budget = Budget(usd=entry.budget_usd, on_exceeded=exceeded)
    own = entry.requests_per_minute
    return APIKey(
        name=name,
        secret=secret,
        budget=budget,
        requests_per_minute=rate if own is None else own,
    )
