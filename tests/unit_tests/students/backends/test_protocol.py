"""What every engine does behind the protocol, whatever runs the model."""

from __future__ import annotations

import asyncio
import copy
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import pytest

from langchain_gkt import StudentError
from langchain_gkt.students.backends.protocol import refuse_unsupported
from langchain_gkt.students.engine.engine import Engine
from langchain_gkt.students.engine.requests.request import Request


def make(backend, text: str = "What is 3 plus 4?", begun: str = "", **options) -> Request:
    tokenizer = backend.tokenizer
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": text}], add_generation_prompt=True
    )["input_ids"]
    ids = tokenizer(begun, add_special_tokens=False)["input_ids"] if begun else []
    seam = backend.spelling.seam(ids) if ids else None
    return Request(prompt=prompt, answer_prefix=ids, seam=seam, **{"max_tokens": 12, **options})


def run(backend, request: Request, **options):
    return list(backend.generate(request, threading.Event(), **options))


def text_of(chunks) -> str:
    return "".join(chunk.text for chunk in chunks)


@pytest.fixture(scope="session")
def of_torch(pair):
    """What the engine on torch writes, asked once for each question."""
    engine = Engine(*pair)
    yield cache(lambda question, begun: run(engine, make(engine, question, begun)))
    engine.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("question", "begun"),
    [
        ("What is 3 plus 4?", ""),
        ("What is 3 plus 4?", "The su"),
        ("What is 3 plus 4?", "The sum of 3 and 4 is"),
        ("What is 12 minus 5?", "The sum:\n"),
    ],
)
def test_greedy_text_and_counts_are_those_of_torch(backend, of_torch, question, begun) -> None:
    request = make(backend, question, begun)
    expected = of_torch(question, begun)
    found = run(backend, request)
    assert text_of(found) == text_of(expected)
    assert (found[-1].tokens, found[-1].finish_reason) == (
        expected[-1].tokens,
        expected[-1].finish_reason,
    )
    (whole,) = run(backend, request, stream=False)
    assert (whole.text, whole.tokens) == (text_of(found), found[-1].tokens)


def test_stop_strings_and_limits_end_an_answer(backend) -> None:
    whole = text_of(run(backend, make(backend)))
    stop = whole[3:6]
    cut = run(backend, make(backend, stop=(stop,)))
    assert text_of(cut) == whole[: whole.index(stop)]
    assert cut[-1].finish_reason == "stop"
    short = run(backend, make(backend, max_tokens=2))
    assert (short[-1].tokens, short[-1].finish_reason) == (2, "length")
    assert whole.startswith(text_of(short))
    assert run(backend, make(backend, max_tokens=0))[-1].finish_reason == "length"


def test_a_request_that_does_not_fit_is_refused(backend) -> None:
    with pytest.raises(StudentError, match="context holds"):
        run(backend, make(backend, max_tokens=10**6))
    with pytest.raises(StudentError, match="no prompt"):
        run(backend, Request(prompt=[], answer_prefix=[], max_tokens=1))


@pytest.mark.slow
async def test_the_event_loop_gives_the_same(backend) -> None:
    request = make(backend)
    expected = text_of(run(backend, request))
    answers = await asyncio.gather(*[collect(backend, request) for _ in range(3)])
    assert answers == [expected] * 3
    told = [one.probability for one in await backend.afirst_tokens(request)]
    assert told == pytest.approx(likely(backend, request), rel=1e-3)


def likely(backend, request) -> list[float]:
    return [one.probability for one in backend.first_tokens(request)]


async def collect(backend, request) -> str:
    return "".join([chunk.text async for chunk in backend.agenerate(request)])


@pytest.mark.slow
def test_many_threads_share_it_and_wait_in_order(backend) -> None:
    questions = [f"What is {n} plus 4?" for n in range(4)]
    alone = [text_of(run(backend, make(backend, q))) for q in questions]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda q: text_of(run(backend, make(backend, q))), questions))
    assert together == alone


def test_closing_an_answer_leaves_the_engine_usable(backend) -> None:
    chunks = backend.generate(make(backend), threading.Event())
    next(chunks)
    chunks.close()
    cancelled = threading.Event()
    cancelled.set()
    assert list(backend.generate(make(backend), cancelled)) == []
    assert run(backend, make(backend))[-1].finish_reason


def test_a_prompt_is_prefilled_ahead(backend) -> None:
    request = make(backend)
    expected = text_of(run(backend, request))
    with backend.prefill(request.prompt):
        assert text_of(run(backend, request)) == expected


def test_it_tells_how_likely_its_tokens_are(backend, pair) -> None:
    request = make(backend, max_tokens=5)
    told = likely(backend, request)
    texts = [one.text for one in backend.first_tokens(request)]
    assert "".join(texts) == text_of(run(backend, request))
    assert len(told) == 5
    assert all(0 < probability <= 1 for probability in told)
    torch_engine = Engine(*pair)
    assert told == pytest.approx(likely(torch_engine, request), rel=1e-3)
    torch_engine.close()


def test_a_closed_engine_says_so(backend) -> None:
    backend.close()
    assert backend.closed
    with pytest.raises(StudentError, match="closed"):
        run(backend, make(backend))
    backend.prefill([1, 2, 3]).close()
    assert copy.deepcopy(backend) is backend


def test_what_an_engine_cannot_do_is_refused_with_the_fix(backend) -> None:
    refuse_unsupported(backend, "seed", 3)
    backend.unsupported = {"seed": "it draws by itself; leave seed out"}
    with pytest.raises(ValueError, match=r"seed=3 is not supported by .*leave seed out"):
        refuse_unsupported(backend, "seed", 3)
