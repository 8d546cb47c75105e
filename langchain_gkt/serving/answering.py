"""Answers one request: the chain runs in a task of its own, which ends with the client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from typing import Any, NamedTuple, TypeAlias

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, AIMessageChunk
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from langchain_gkt.costs import CostTracker
from langchain_gkt.serving.api.chat_completions import ChatAnswer
from langchain_gkt.serving.api.responses_answer import ResponsesAnswer
from langchain_gkt.serving.catalog import ServedCall
from langchain_gkt.serving.errors import NO_RETRY, APIError, as_api_error
from langchain_gkt.serving.records import RequestRecord, role_fields

_POLL_SECONDS = 0.1


AnswerFormat: TypeAlias = ChatAnswer | ResponsesAnswer
"""Writes one answer in an API's form."""


class ClientGone(Exception):
    """The client went away before it was answered."""


class _Answer(NamedTuple):
    """The end of an answer: the message joined from its chunks, and its ``gkt``."""

    message: AIMessage
    gkt: dict[str, Any]


class Answering:
    """A request in progress."""

    def __init__(
        self,
        call: ServedCall,
        record: RequestRecord,
        costs: CostTracker,
        handlers: list[BaseCallbackHandler],
    ) -> None:
        """Begin to answer. There must be a running event loop.

        Args:
            call: The call of the chain.
            record: Collects the facts of the request.
            costs: Tracks only this call. May keep its budget.
            handlers: Trackers over several calls: the client's costs and the server's.
        """
        self._call, self._record, self._costs = call, record, costs
        self._config: Any = {
            "callbacks": [costs, *handlers],
            "metadata": {"request_id": record.request_id},
        }
        # No limit, because an answer is short, and a slow client must not hold the student's place.
        self._parts: asyncio.Queue[AIMessageChunk | _Answer | Exception] = asyncio.Queue()
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        """Have the chain answer. The last part says how that ended."""
        call, record = self._call, self._record
        whole: Any = None
        joined: list[Any] = []
        try:
            if record.stream:
                chunks: Any = call.chain.astream(call.messages, self._config, **call.arguments)
                async with aclosing(chunks):
                    async for chunk in chunks:
                        if chunk.text or chunk.tool_call_chunks:
                            record.note_first_token()
                        joined.append(chunk)
                        self._parts.put_nowait(chunk)
                # at once, because joining one by one is slow for long answers
                whole = joined[0] + joined[1:]
            else:
                whole = await call.chain.ainvoke(call.messages, self._config, **call.arguments)
                record.note_first_token()
            _require_call(whole, call.forced_tool)
            self._parts.put_nowait(_Answer(whole, self._describe(whole)))
        except Exception as error:  # noqa: BLE001  whatever the models raise
            self._parts.put_nowait(error)

    def _describe(self, message: AIMessage) -> dict[str, Any]:
        """Return the ``gkt`` of a response, and note it in the record."""
        gkt, record = message.response_metadata["gkt"], self._record
        report = self._costs.report()
        usage = message.usage_metadata
        written = usage["output_tokens"] if usage else 0
        share = None
        if gkt["finished_by"] == "teacher":
            share = 1.0
        elif written:
            student = gkt["student_usage"]
            own = min(written, student["output_tokens"]) if student else written
            share = round((written - own) / written, 4)
        record.finished_by, record.fallback = gkt["finished_by"], gkt["fallback"] is not None
        record.guidance_share = share
        return {
            "mode": gkt["mode"],
            "finished_by": gkt["finished_by"],
            "guidance": gkt["guidance"],
            "guidance_tokens": gkt["guidance_tokens"],
            "guidance_share": share,
            # A provider's message may name keys and addresses.
            "fallback": gkt["fallback"] and gkt["fallback"].partition(":")[0],
            "confidence": gkt["confidence"],
            "teacher": role_fields(report.teacher),
            "student": role_fields(report.student),
            "usd": role_fields(report.total)["usd"],
        }

    async def whole(self, connection: Request, form: AnswerFormat) -> dict[str, Any]:
        """Return the response of a request that is not streamed. Raises as `streamed`."""
        answer: Any = await self._first(connection)
        await self.close()
        return form.whole(*answer)

    async def streamed(self, connection: Request, form: AnswerFormat) -> StreamingResponse:
        """Return the response of a streamed request, once its first part is there.

        So an earlier error of the chain has an HTTP status of its own. Raises a `ClientGone` if the
        client goes away first.
        """
        first = await self._first(connection)
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        events = self._events(first, form)
        return _Stream(events, self, headers=headers, media_type="text/event-stream")

    async def _first(self, connection: Request) -> AIMessageChunk | _Answer:
        """Return the first part, and check meanwhile whether the client is still there."""
        try:
            while True:
                with suppress(asyncio.TimeoutError):
                    part = await asyncio.wait_for(self._parts.get(), _POLL_SECONDS)
                    if isinstance(part, Exception):
                        raise part
                    return part
                if await connection.is_disconnected():
                    raise ClientGone
        except BaseException:
            await self.close()
            raise

    async def _events(
        self, part: AIMessageChunk | _Answer | Exception, form: AnswerFormat
    ) -> AsyncIterator[str]:
        for event in form.begin():
            yield event
        while isinstance(part, AIMessageChunk):
            for event in form.more(part):
                yield event
            part = await self._parts.get()
        if isinstance(part, _Answer):
            last = form.end(*part)
        else:
            self._record.note_error(part)
            last = form.fail(as_api_error(part).body)
        for event in last:
            yield event

    async def close(self) -> None:
        """Stop both models if they still run, and record their costs."""
        if not self._task.done():
            self._record.disconnected = True
            self._task.cancel()
            await asyncio.wait([self._task])
            await asyncio.sleep(0)  # the trackers learn of a cancelled task after its end
        self._record.costs = self._costs.report()


def _require_call(message: AIMessage, forced_tool: str | None) -> None:
    """Refuse to return an answer without the call that the request demands."""
    if forced_tool is None:
        return
    calls = [*message.tool_calls, *message.invalid_tool_calls]
    if any(not forced_tool or call["name"] == forced_tool for call in calls):
        return
    raise APIError(
        502,
        f"tool_choice asks for a call of {forced_tool or 'a tool'}, but the model wrote none; ask "
        "again, or give it a larger max_tokens or another model",
        kind="api_error",
        code="tool_call_missing",
        headers=NO_RETRY,
    )


class _Stream(StreamingResponse):
    """A streamed response that ends the work behind it, even if it never began."""

    def __init__(self, events: AsyncIterator[str], answering: Answering, **options: Any) -> None:
        super().__init__(events, **options)
        self._answering = answering

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            # In a task, because this one may be in the middle of its cancellation.
            await asyncio.shield(asyncio.create_task(self._answering.close()))
