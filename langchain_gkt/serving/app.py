"""The web application: a chain behind OpenAI's chat completions API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from langchain_gkt.chain.base import GuidedKnowledgeTransferChain
from langchain_gkt.costs import Budget, CostTracker
from langchain_gkt.serving.answering import AnswerFormat, Answering, ClientGone
from langchain_gkt.serving.api.chat_completions import ChatAnswer
from langchain_gkt.serving.api.responses_answer import ResponsesAnswer
from langchain_gkt.serving.api.responses_request import ResponsesRequest
from langchain_gkt.serving.api.schema import ChatCompletionRequest, CompletionRequest
from langchain_gkt.serving.catalog import Catalog
from langchain_gkt.serving.errors import APIError, as_api_error
from langchain_gkt.serving.keys import APIKey, KeyRing
from langchain_gkt.serving.metrics import Metrics
from langchain_gkt.serving.request_middleware import RequestMiddleware

MAX_BODY_BYTES = 2**20
READ_SECONDS = 30.0
_READ = ["GET", "HEAD"]


def build_app(
    chain: GuidedKnowledgeTransferChain,
    *,
    name: str = "langchain-gkt",
    keys: Sequence[APIKey] = (APIKey(name="anyone"),),
    budget: Budget | None = None,
    prices: Mapping[str, Any] | None = None,
    max_body_bytes: int = MAX_BODY_BYTES,
    read_seconds: float = READ_SECONDS,
    allowed_hosts: Sequence[str] = ("*",),
    cors_origins: Sequence[str] = (),
) -> FastAPI:
    """Build the web application.

    Args:
        chain: The pair that answers.
        name: The model name for clients. See `Catalog`.
        keys: Who may send requests.
        budget: The maximum cost of all requests together. None for no limit.
        prices: ``teacher_price`` and ``student_price``, as for `CostTracker`.
        max_body_bytes: Maximum bytes of a request's body.
        read_seconds: How long a client may take to send its body.
        allowed_hosts: Names that the header ``Host`` may hold, such as ``*.example.com``. The
            default is any. See `run.default_hosts`.
        cors_origins: Origins whose pages may send requests from a browser, or ``*``. The default is
            none.

    Returns:
        An ASGI application. ``app.state.costs`` is the tracker of all requests.

    Raises:
        ValueError: If two keys are the same.
    """
    prices = dict(prices or {})
    app = FastAPI(openapi_url=None)
    catalog, metrics = Catalog(chain, name), Metrics()
    costs = CostTracker(budget=budget, **prices)
    app.state.costs, app.state.metrics = costs, metrics
    app.add_middleware(
        RequestMiddleware,
        keys=KeyRing(list(keys), prices),
        metrics=metrics,
        max_body_bytes=max_body_bytes,
        read_seconds=read_seconds,
        allowed_hosts=allowed_hosts,
    )
    if cors_origins:  # outside the key check, because a browser asks for permission without a key
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(cors_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=["x-request-id"],
        )

    @app.exception_handler(Exception)
    @app.exception_handler(RequestValidationError)
    @app.exception_handler(HTTPException)
    @app.exception_handler(APIError)
    async def refuse(request: Request, error: Exception) -> Response:
        request.state.record.note_error(error)
        return as_api_error(error).response()

    @app.api_route("/health", methods=_READ)
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.api_route("/metrics", methods=_READ)
    async def show_metrics() -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    @app.api_route("/v1/models", methods=_READ)
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [catalog.describe(model) for model in catalog.modes]}

    @app.api_route("/v1/models/{model}", methods=_READ)
    async def model(model: str) -> dict[str, Any]:
        return catalog.describe(model)

    async def answer(
        body: CompletionRequest, form: AnswerFormat, connection: Request
    ) -> dict[str, Any] | Response:
        record, client = connection.state.record, connection.state.client
        catalog.mode(body.model)
        record.model, record.stream = body.model, body.stream
        try:
            call = await run_in_threadpool(catalog.call, body)
            limit = body.gkt.budget_usd
            per_call = None if limit is None else Budget(per_call_usd=limit)
            answering = Answering(
                call, record, CostTracker(budget=per_call, **prices), [client.costs, costs]
            )
            if body.stream:
                return await answering.streamed(connection, form)
            return await answering.whole(connection, form)
        except ClientGone:
            record.status, record.disconnected = 499, True
            return Response(status_code=499)
        except Exception as error:  # noqa: BLE001  whatever the models raise
            record.note_error(error)
            return as_api_error(error).renamed(body.names).response()

    @app.post("/v1/chat/completions", response_model=None)
    async def chat_completions(
        body: ChatCompletionRequest, connection: Request
    ) -> dict[str, Any] | Response:
        form = ChatAnswer(body.model, include_usage=body.includes_usage)
        return await answer(body, form, connection)

    @app.post("/v1/responses", response_model=None)
    async def responses(body: ResponsesRequest, connection: Request) -> dict[str, Any] | Response:
        return await answer(body, ResponsesAnswer(body), connection)

    return app
