"""The command ``serve``: options -> a running server."""

from __future__ import annotations

import os
import sys
from logging.config import dictConfig
from typing import Any

from langchain_core.messages import HumanMessage

from langchain_gkt.chain.base import GuidedKnowledgeTransferChain
from langchain_gkt.cli.errors import existing_file
from langchain_gkt.cli.models import open_chain, prices, say
from langchain_gkt.cli.options import ModelOptions, ServeOptions
from langchain_gkt.costs import Budget, CostTracker
from langchain_gkt.teachers.wrappers import models_of


def serve(options: ServeOptions, models: ModelOptions) -> None:
    """Serve until a signal ends it."""
    try:
        from langchain_gkt.serving.app import build_app
        from langchain_gkt.serving.run import LOCAL_HOSTS, bind, default_hosts, run
    except ImportError as error:
        raise ImportError(
            f'{error}. The server needs more: pip install "langchain-gkt[server]"'
        ) from error
    keys, budget = _keys(options), _budget("--budget-usd", options.budget_usd, options)
    if options.host not in LOCAL_HOSTS and any(key.secret is None for key in keys):
        raise ValueError(
            f"--host {options.host} lets others spend your teacher's money; give --api-key-env or "
            "--keys, or listen on 127.0.0.1"
        )
    given_prices = prices(models)
    listener = bind(options.host, options.port)
    try:
        with open_chain(models, tell=say if sys.stderr.isatty() else _log) as chain:
            chain = chain.model_copy(update={"on_teacher_error": options.on_teacher_error})
            if budget or any(key.budget for key in keys):
                _require_price(chain, given_prices)
            app = build_app(
                chain,
                name=options.name,
                keys=keys,
                budget=budget,
                prices=given_prices,
                max_body_bytes=options.max_body_bytes,
                read_seconds=options.read_seconds,
                allowed_hosts=_listed(options.allowed_hosts) or default_hosts(options.host),
                cors_origins=_listed(options.cors_origins),
            )
            run(
                app,
                listener,
                shutdown_seconds=options.shutdown_seconds,
                read_seconds=options.read_seconds,
                max_connections=options.max_connections,
            )
    finally:
        listener.close()


def _log(what: str) -> None:
    """Report what is loading to a program, which reads JSON lines."""
    from langchain_gkt.serving.records import log, log_settings

    dictConfig(log_settings())
    log(what)


def _listed(text: str | None) -> list[str]:
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def _budget(name: str, usd: str | None, options: ServeOptions) -> Budget | None:
    if usd is None:
        return None
    try:
        return Budget(usd=usd, on_exceeded=options.on_exceeded)  # type: ignore[arg-type]
    except ValueError as error:
        raise ValueError(f"{name} must be an amount such as 5 or 0.50, not {usd!r}") from error


def _keys(options: ServeOptions) -> list[Any]:
    from langchain_gkt.serving.keys import APIKey, load_keys

    budget = _budget("--key-budget-usd", options.key_budget_usd, options)
    rate = options.requests_per_minute
    keys = []
    if options.keys:
        keys = load_keys(existing_file(options.keys, "--keys"), budget=budget, rate=rate)
    if variable := options.api_key_env:
        secrets = [key.strip() for key in os.environ.get(variable, "").split(",") if key.strip()]
        if not secrets:
            raise ValueError(
                f"--api-key-env {variable}: there is no such environment variable, or it is empty; "
                "put the key that clients must send into it (export "
                f"{variable}=...), not on the command line"
            )
        keys += [
            APIKey(
                name=variable if len(secrets) == 1 else f"{variable}-{number}",
                secret=secret,
                budget=budget,
                requests_per_minute=rate,
            )
            for number, secret in enumerate(secrets, 1)
        ]
    return keys or [APIKey(name="anyone", budget=budget, requests_per_minute=rate)]


def _require_price(chain: GuidedKnowledgeTransferChain, given_prices: dict[str, Any]) -> None:
    """Refuse a budget that could not be kept, before the first request."""
    tracker = CostTracker(budget=Budget(usd="1000000"), **given_prices)  # type: ignore[arg-type]
    try:
        tracker.admit_teacher(
            list(models_of(chain.teacher)),
            [HumanMessage("?")],
            call_id="start",
            compared=False,
            limit=1,
        )
    except RuntimeError as error:
        raise ValueError(
            f"--budget-usd cannot be kept: {error}. Give --teacher-price, such as 0.15,0.60"
        ) from error
