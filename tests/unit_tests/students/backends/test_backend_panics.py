"""A panic of a Rust library behind any engine leaves nobody waiting, and harms no other request."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from langchain_gkt import StudentError
from langchain_gkt.students.engine.requests.request import Request


class Panic(BaseException):
    """As pyo3 raises it: no Exception."""


class Panics:
    """A constraint that panics, whatever an engine asks it."""

    done = False
    may_end = False

    def _panic(self, *arguments):
        raise Panic("index out of bounds")

    choose = accepts = take = _panic
    allowed = property(_panic)
    forced = property(_panic)


def request(backend, **options) -> Request:
    messages = [{"role": "user", "content": "What is 3 plus 4?"}]
    ids = backend.tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    return Request(prompt=ids, answer_prefix=[], max_tokens=8, **options)


def text(backend, **options) -> str:
    answer = backend.generate(request(backend, **options), threading.Event())
    return "".join(chunk.text for chunk in answer)


def test_a_panic_of_one_constraint_is_its_requests_own(backend) -> None:
    expected = text(backend)
    with ThreadPoolExecutor(2) as pool:
        broken = pool.submit(text, backend, constraint=Panics())
        other = pool.submit(text, backend)
        with pytest.raises(StudentError, match="Panic: index out of bounds") as caught:
            broken.result(60)
        assert other.result(60) == expected
    assert isinstance(caught.value.__cause__, Panic)
    assert text(backend) == expected


@pytest.mark.parametrize("backend", ["llamacpp", "openvino"], indirect=True)
def test_the_next_request_is_answered_if_the_engine_itself_panics(backend, monkeypatch) -> None:
    expected = text(backend)
    owner, step = (
        (backend._server, "handle_completions")
        if backend.name == "llamacpp"
        else (backend._scheduler._pipeline, "step")
    )

    def panic(*arguments):
        raise Panic("index out of bounds")

    with monkeypatch.context() as broken, ThreadPoolExecutor(1) as pool:
        broken.setattr(owner, step, panic)
        failing = pool.submit(text, backend)
        with pytest.raises(StudentError, match="Panic: index out of bounds"):
            failing.result(60)
    assert text(backend) == expected
