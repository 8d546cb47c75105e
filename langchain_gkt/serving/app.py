"""The web application: a chain behind OpenAI's chat completions API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from langchain_gkt.chain.base import GuidedKnowledgeTransferChain
from langchain_gkt.costs import Budget, CostTracker
from langchain_gkt.serving.answering import Answering, ClientGone
from langchain_gkt.serving.catalog import Catalog
from langchain_gkt.serving.errors import APIError, as_api_error
from langchain_gkt.serving.gate import Gate
from langchain_gkt.serving.keys import APIKey, KeyRing
from langchain_gkt.serving.metrics import Metrics
from langchain_gkt.serving.schema import ChatCompletionRequest

MAX_BODY_BYTES = 2**20


def build_app(
    chain: GuidedKnowledgeTransferChain,
    *,
    name: str = "langchain-gkt",
    keys: Sequence[APIKey] = (APIKey(name="anyone"),),
    budget: Budget | None = None,
    prices: Mapping[str, Any] | None = None,
    max_body_bytes: int = MAX_BODY_BYTES,
) -> FastAPI:
    """Build the web application.

    Args:
        chain: The pair that answers.
        name: What clients call it; see `Catalog`.
        keys: Who may ask.
        budget: The most that all requests together may cost; None for no limit.
        prices: ``teacher_price`` and ``student_price``, as for `CostTracker`.
        max_body_bytes: Most bytes of a request's body.

    Returns:
        An ASGI application; ``app.state.costs`` is the tracker of all requests.

    Raises:
        ValueError: If two keys are the same.
    """
    prices = dict(prices or {})
    app = FastAPI(openapi_url=None)
    catalog, metrics = Catalog(chain, name), Metrics()
    costs = CostTracker(budget=budget, **prices)
    app.state.costs, app.state.metrics = costs, metrics
    app.add_middleware(
        Gate, keys=KeyRing(list(keys), prices), metrics=metrics, max_body_bytes=max_body_bytes
    )

    @app.exception_handler(Exception)
    @app.exception_handler(RequestValidationError)
    @app.exception_handler(APIError)
    async def refuse(request: Request, error: Exception) -> JSONResponse:
        request.state.record.note_error(error)
        return as_api_error(error).response()

    @app.exception_handler(HTTPException)
    async def refuse_path(request: Request, error: HTTPException) -> JSONResponse:
        says = f"{request.method} on this path is not known; this server has POST "
        says += "/v1/chat/completions, GET /v1/models, /health and /metrics"
        return APIError(error.status_code, says, code="not_found").response()

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/metrics")
    async def show_metrics() -> Response:
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [catalog.describe(one) for one in catalog.modes]}

    @app.get("/v1/models/{model}")
    async def model(model: str) -> dict[str, Any]:
        return catalog.describe(model)

    @app.post("/v1/chat/completions", response_model=None)
    async def chat_completions(
        body: ChatCompletionRequest, connection: Request
    ) -> dict[str, Any] | Response:
        record, client = connection.state.record, connection.state.client
        catalog.mode(body.model)
        record.model, record.stream = body.model, body.stream
        try:
            call = await run_in_threadpool(catalog.call, body)
            limit = body.gkt.budget_usd
            per_call = None if limit is None else Budget(per_call_usd=limit)  # type: ignore[arg-type]
            answering = Answering(
                call, record, CostTracker(budget=per_call, **prices), [client.costs, costs]
            )
            if body.stream:
                return await answering.streamed(
                    connection, body.model, include_usage=body.includes_usage
                )
            try:
                return await answering.whole(connection, body.model)
            finally:
                await answering.close()
        except ClientGone:
            record.status, record.disconnected = 499, True
            return Response(status_code=499)
        except Exception as error:  # noqa: BLE001  whatever the models raise
            record.note_error(error)
            return as_api_error(error).response()

    return app
