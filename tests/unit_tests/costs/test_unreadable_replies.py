"""A call that was answered was paid for: what its body does not tell is unreported, never $0."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from langchain_openai import ChatOpenAI
from support.models.fakes import WordTeacher, make

from langchain_gkt import GKTError, Price, track_costs

CHOICE: dict[str, Any] = {
    "index": 0,
    "message": {"role": "assistant", "content": "Six apples and four"},
    "finish_reason": "length",
}
BODY = {
    "id": "c",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [CHOICE],
    "usage": {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14},
}
BODIES: dict[str, Any] = {
    "truncated": json.dumps(BODY)[:150],
    "no choice": {**BODY, "choices": []},
    "choices null": {**BODY, "choices": None, "usage": None},
    "message null": {**BODY, "choices": [{**CHOICE, "message": None}]},
    "error": {"error": {"message": "overloaded"}},
    "zeros": {**BODY, "usage": dict.fromkeys(BODY["usage"], 0)},
    "nulls": {**BODY, "usage": dict.fromkeys(BODY["usage"])},
    "part": {**BODY, "usage": {"completion_tokens": 5}},
    "strings": {**BODY, "usage": dict.fromkeys(BODY["usage"], "many")},
    "negative": {**BODY, "usage": dict.fromkeys(BODY["usage"], -5)},
    "floats": {**BODY, "usage": dict.fromkeys(BODY["usage"], 5.5)},
    "long": {
        **BODY,
        "choices": [{**CHOICE, "message": {"role": "assistant", "content": "word " * 400}}],
        "usage": None,
    },
}


def chain_of(body: Any) -> Any:
    """A chain whose teacher's server answers every request with this body."""

    def answer(request: httpx.Request) -> httpx.Response:
        text = body if isinstance(body, str) else json.dumps(body)
        if not json.loads(request.content).get("stream"):
            return httpx.Response(200, content=text)
        text = text.replace("chat.completion", "chat.completion.chunk").replace("message", "delta")
        kind = {"content-type": "text/event-stream"}
        return httpx.Response(200, content=f"data: {text}\n\ndata: [DONE]\n\n", headers=kind)

    transport = httpx.MockTransport(answer)
    teacher = ChatOpenAI(
        model="m",
        api_key="k",
        base_url="http://127.0.0.1:1/v1",
        max_retries=0,
        stream_usage=True,
        http_client=httpx.Client(transport=transport),
        http_async_client=httpx.AsyncClient(transport=transport),
    )
    return make(teacher, WordTeacher(answer=" and so on."), guidance_tokens=6)


async def asked(chain: Any, how: str) -> list[Any]:
    """What each question gives: an answer or an error."""
    try:
        if how == "invoke":
            return [chain.invoke("How many?")]
        if how == "stream":
            return list(chain.stream("How many?"))
        if how == "batch":
            return list(chain.batch(["How many?", "How much?"], return_exceptions=True))
        return list(await chain.abatch(["How many?", "How much?"], return_exceptions=True))
    except Exception as error:  # noqa: BLE001  the test says which may come
        return [error]


@pytest.mark.filterwarnings("ignore:the teacher:UserWarning")
@pytest.mark.parametrize("how", ["invoke", "stream", "batch", "abatch"])
@pytest.mark.parametrize("name", BODIES)
async def test_what_was_answered_is_never_free(name, how) -> None:
    chain = chain_of(BODIES[name])
    with track_costs(teacher_price=Price("1", "1")) as costs:
        given = await asked(chain, how)
    wrong = [one for one in given if isinstance(one, Exception) and not isinstance(one, GKTError)]
    assert wrong == []
    teacher, calls = costs.report().teacher, 2 if "batch" in how else 1
    told = teacher.calls - teacher.unreported_calls
    assert teacher.calls == calls
    assert teacher.prompt_tokens == 9 * told
    assert (teacher.known_cost > 0) is (told > 0)
    assert costs.report().running == 0
    untracked = await asked(chain_of(BODIES[name]), how)
    assert [type(one) for one in untracked] == [type(one) for one in given]
