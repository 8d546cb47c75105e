"""Answers one request: the chain runs in a task of its own, which ends with the client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, AIMessageChunk
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from langchain_gkt.costs import CostTracker
from langchain_gkt.serving.catalog import ChainCall
from langchain_gkt.serving.errors import as_api_error
from langchain_gkt.serving.records import RequestRecord, role_fields
from langchain_gkt.serving.responses import (
    DONE,
    choice_of,
    common_fields,
    delta_of,
    event,
    finish_reason,
    usage_fields,
    whole_choice,
)

_POLL_SECONDS = 0.1


class ClientGone(Exception):
    """The client went away before it was answered."""


@dataclass(frozen=True)
class _Answer:
    """The end of an answer: the message as it was joined from its chunks, and its ``gkt``."""

    message: AIMessage
    gkt: dict[str, Any]


class Answering:
    """One request that is being answered."""

    def __init__(
        self,
        call: ChainCall,
        record: RequestRecord,
        costs: CostTracker,
        handlers: list[BaseCallbackHandler],
    ) -> None:
        """Begin to answer; there must be a running event loop.

        Args:
            call: The call of the chain.
            record: Filled with what happens.
            costs: Follows this call alone; may keep its budget.
            handlers: Those that follow further calls: the client's costs and the server's.
        """
        self._call, self._record, self._costs = call, record, costs
        self._config: Any = {
            "callbacks": [costs, *handlers],
            "metadata": {"request_id": record.request_id},
        }
        # Without a limit: an answer is short, and a slow client must not hold the student's place.
        self._parts: asyncio.Queue[AIMessageChunk | _Answer | Exception] = asyncio.Queue()
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        """Have the chain answer; the last part says how that ended."""
        call, record = self._call, self._record
        whole: Any = None
        joined: list[Any] = []
        try:
            if record.stream:
                chunks: Any = call.chain.astream(call.messages, self._config, **call.arguments)
                async with aclosing(chunks):
                    async for chunk in chunks:
                        if delta_of(chunk):
                            record.note_first_token()
                        joined.append(chunk)
                        self._parts.put_nowait(chunk)
                whole = joined[0] + joined[1:]  # at once: one by one, long answers cost more
            else:
                whole = await call.chain.ainvoke(call.messages, self._config, **call.arguments)
                record.note_first_token()
        except Exception as error:  # noqa: BLE001  whatever the models raise
            self._parts.put_nowait(error)
        else:
            self._parts.put_nowait(_Answer(whole, self._describe(whole)))

    def _describe(self, message: AIMessage) -> dict[str, Any]:
        """Return the ``gkt`` of a response, and note it in the record."""
        given, record = message.response_metadata["gkt"], self._record
        report = self._costs.report()
        usage = message.usage_metadata
        written = usage["output_tokens"] if usage else 0
        share = None
        if given["finished_by"] == "teacher":
            share = 1.0
        elif written and usage:
            student = given["student_usage"]
            own = min(written, student["output_tokens"]) if student else written
            share = round((written - own) / written, 4)
        record.finished_by, record.fallback = given["finished_by"], given["fallback"] is not None
        record.guidance_share = share
        money = [role_fields(totals)["usd"] for totals in (report.teacher, report.student)]
        return {
            "mode": given["mode"],
            "finished_by": given["finished_by"],
            "guidance": given["guidance"],
            "guidance_tokens": given["guidance_tokens"],
            "guidance_share": share,
            # A provider's message may name keys and addresses.
            "fallback": given["fallback"] and given["fallback"].partition(":")[0],
            "confidence": given["confidence"],
            "teacher": role_fields(report.teacher),
            "student": role_fields(report.student),
            "usd": None if None in money else role_fields(report.total)["usd"],
        }

    async def whole(self, connection: Request, model: str) -> dict[str, Any]:
        """Return the response of a request that is not streamed.

        Args:
            connection: The client's connection.
            model: The name of the model.

        Raises:
            ClientGone: If the client goes away first.
            Exception: Whatever the chain raises.
        """
        answer = await self._first(connection)
        assert isinstance(answer, _Answer)
        message = answer.message
        return {
            **common_fields("chat.completion", model),
            "choices": [whole_choice(message)],
            "usage": usage_fields(message.usage_metadata),
            "gkt": answer.gkt,
        }

    async def streamed(
        self, connection: Request, model: str, *, include_usage: bool
    ) -> StreamingResponse:
        """Return the response of a request that is streamed, once its first part is there.

        So an error before it has an HTTP status of its own.

        Args:
            connection: The client's connection.
            model: The name of the model.
            include_usage: Whether the stream ends with the usage.

        Raises:
            ClientGone: If the client goes away first.
            Exception: Whatever the chain raises before its first part.
        """
        first = await self._first(connection)
        events = self._events(first, model, include_usage=include_usage)
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        return _Stream(events, self, headers=headers, media_type="text/event-stream")

    async def _first(self, connection: Request) -> AIMessageChunk | _Answer:
        """Return the first part, and look whether the client is still there meanwhile."""
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
        self, part: AIMessageChunk | _Answer | Exception, model: str, *, include_usage: bool
    ) -> AsyncIterator[str]:
        base = common_fields("chat.completion.chunk", model)
        if include_usage:
            base["usage"] = None
        begun: dict[str, Any] = {"role": "assistant", "content": ""}
        yield event({**base, "choices": [choice_of(begun, None)]})
        while not isinstance(part, _Answer):
            if isinstance(part, Exception):
                self._record.note_error(part)
                yield event(as_api_error(part).body)
                return
            if delta := delta_of(part):
                yield event({**base, "choices": [choice_of(delta, None)]})
            part = await self._parts.get()
        ended = {**base, "choices": [choice_of({}, finish_reason(part.message))]}
        if include_usage:
            yield event(ended)
            usage = usage_fields(part.message.usage_metadata)
            yield event({**base, "choices": [], "usage": usage, "gkt": part.gkt})
        else:
            yield event({**ended, "gkt": part.gkt})
        yield DONE

    async def close(self) -> None:
        """Stop both models if they still run, and note what they cost."""
        if not self._task.done():
            self._record.disconnected = True
            self._task.cancel()
            await asyncio.wait([self._task])
            await asyncio.sleep(0)  # the trackers hear of a cancelled task after its end
        self._record.costs = self._costs.report()


class _Stream(StreamingResponse):
    """A streamed response that ends the work behind it, also if it was never begun."""

    def __init__(self, events: AsyncIterator[str], answering: Answering, **options: Any) -> None:
        super().__init__(events, **options)
        self._answering = answering

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            # In a task, because this one may be in the middle of being cancelled.
            await asyncio.shield(asyncio.create_task(self._answering.close()))
