"""An engine of somebody else's is one entry; here one that could as well run in another process."""

from __future__ import annotations

import asyncio

import pytest
from langchain_core.messages import AIMessage, HumanMessage

from langchain_gkt import HuggingFaceStudent
from langchain_gkt.students.backends import choosing
from langchain_gkt.students.backends.entry import EngineEntry
from langchain_gkt.students.backends.protocol import PrefillHandle
from langchain_gkt.students.engine.context_window import ContextWindow
from langchain_gkt.students.engine.requests.request import TokenChunk
from langchain_gkt.students.engine.token_healing import TokenSpelling

ADDRESS = "http://127.0.0.1:9/v1"
ASKED = [HumanMessage("What is 3 plus 4?")]


class ServerEngine:
    """Answers 'seven' to everything, and notes what it was sent."""

    name, description, repeatable, fingerprint = "server", "a server", "never", "0"
    unsupported = {"seed": "the server draws by itself; leave seed out"}
    first_token_detail, first_tokens = "none", None

    def __init__(self, source) -> None:
        self.tokenizer, self.window, self.closed = source.tokenizer, ContextWindow(512), False
        self.end_ids, self.vocabulary = {self.tokenizer.eos_token_id}, len(self.tokenizer)
        self.spelling = TokenSpelling(self.tokenizer, self.vocabulary)
        self.sent, self.ahead, self.freed = [], [], []

    def prefill(self, prompt):
        self.ahead.append(prompt)
        return PrefillHandle(prompt, lambda handle: self.freed.append(handle.ids))

    def generate(self, request, cancelled, *, stream=True):
        self.sent.append(request)
        yield TokenChunk(text=" sev", tokens=1)
        yield TokenChunk(text="en", tokens=2, finish_reason="stop")

    async def agenerate(self, request, *, stream=True):
        for chunk in self.generate(request, None):
            await asyncio.sleep(0)
            yield chunk

    def close(self) -> None:
        self.closed = True


def refuse(model) -> None:
    if not str(model).startswith("http"):
        raise ValueError(f"backend='server' takes an address, not model={model!r}")


@pytest.fixture
def server(monkeypatch, pair):
    entry = EngineEntry(
        name="server",
        load=ServerEngine,
        refuse=refuse,
        claim=lambda model: "the model is an address" if str(model).startswith("http") else None,
    )
    monkeypatch.setattr(choosing, "ENGINES", (*choosing.ENGINES, entry))
    return HuggingFaceStudent(model=ADDRESS, tokenizer=pair[1])


def test_it_is_chosen_and_asked_like_any_other(server, pair) -> None:
    assert server.backend_reason == "a server: the model is an address"
    with pytest.raises(ValueError, match=r"take one of auto, torch, llamacpp, openvino, .*server"):
        HuggingFaceStudent(model=ADDRESS, backend="tgi")
    with pytest.raises(ValueError, match="takes an address"):
        HuggingFaceStudent(model="some/folder", backend="server")
    assert server.invoke(ASKED).text == " seven"
    assert server.check(ASKED) == 0
    with pytest.raises(ValueError, match=r"seed=1 is not supported by .*backend='server'"):
        server.invoke(ASKED, seed=1)
    with pytest.raises(NotImplementedError, match="backend='server' does not report"):
        server.first_tokens(ASKED)


async def test_it_prefills_ahead_and_continues_guidance(server) -> None:
    with server.prefill(ASKED) as ahead:
        begun = [*ASKED, AIMessage("The sum of both numbers is")]
        assert (await server.ainvoke(begun)).text == " seven"
    engine = server._engine
    (request,) = engine.sent
    assert engine.ahead == [request.prompt] == engine.freed == [ahead.ids]
    assert engine.tokenizer.decode(request.answer_prefix) == "The sum of both numbers is"
