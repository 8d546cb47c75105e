"""The chain among other runnables."""

from __future__ import annotations

import time
from typing import Any

import pytest
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.rate_limiters import InMemoryRateLimiter
from langchain_core.runnables import RunnableLambda
from support.models.fakes import Recorder, WordTeacher, make


class Flaky(WordTeacher):
    """Fails a number of times first."""

    failures: Any = None

    def _generate(self, *args, **kwargs):
        if self.failures:
            raise self.failures.pop()
        return super()._generate(*args, **kwargs)


def test_between_a_prompt_and_a_parser(teacher, whole_student, problem) -> None:
    chain, recorder = (
        make(teacher, whole_student, guidance_tokens=len(problem.plan) + 3),
        Recorder(),
    )
    prompt = ChatPromptTemplate.from_messages([("human", "{question}")])
    pipeline = prompt | chain | StrOutputParser()
    config = {"callbacks": [recorder], "tags": ["mine"]}
    assert pipeline.invoke({"question": problem.question}, config) == problem.solution
    (own,) = recorder.by_role(None)
    children = [*recorder.by_role("teacher"), *recorder.by_role("student")]
    assert [child["parent"] for child in children] == [own["id"]] * 2
    assert all("mine" in child["tags"] for child in children)


@pytest.mark.slow
def test_map_and_concurrency(teacher, whole_student, problem) -> None:
    chain = make(teacher, whole_student, guidance_tokens=len(problem.plan) + 3)
    mapped = chain.map().invoke([problem.question] * 3)
    assert [message.text for message in mapped] == [problem.solution] * 3
    one_by_one = chain.with_config(max_concurrency=1).batch([problem.question, "3 + 4?"])
    assert one_by_one[0].text == problem.solution


@pytest.mark.slow
def test_retries_and_fallbacks_of_the_chain(whole_student, problem, teacher) -> None:
    limit = len(problem.plan) + 3
    flaky = Flaky(answer=problem.solution, asked=[], failures=[ConnectionError("a")])
    again = make(flaky, whole_student, guidance_tokens=limit).with_retry(
        stop_after_attempt=2, wait_exponential_jitter=False
    )
    assert again.invoke(problem.question).text == problem.solution
    down = WordTeacher(asked=[], fails_with=ConnectionError("down"))
    spare = make(teacher, whole_student, guidance_tokens=limit)
    assert make(down, whole_student).with_fallbacks([spare]).invoke(problem.question).text == (
        problem.solution
    )


@pytest.mark.slow
def test_retries_and_fallbacks_of_the_teacher(whole_student, problem, teacher) -> None:
    limit, recorder = len(problem.plan) + 3, Recorder()
    flaky = Flaky(answer=problem.solution, asked=[], failures=[ConnectionError("a")])
    again = flaky.with_retry(stop_after_attempt=2, wait_exponential_jitter=False)
    chain = make(again, whole_student, guidance_tokens=limit)
    assert chain.invoke(problem.question, {"callbacks": [recorder]}).text == problem.solution
    assert [run["end"] for run in recorder.by_role("teacher")] == ["ConnectionError", "ok"]
    down = WordTeacher(asked=[], fails_with=ConnectionError("down"))
    chain = make(down.with_fallbacks([teacher]), whole_student, guidance_tokens=limit)
    assert "".join(c.text for c in chain.stream(problem.question)) == problem.solution


def test_a_rate_limiter_on_the_teacher_waits(student, problem) -> None:
    limiter = InMemoryRateLimiter(
        requests_per_second=5, check_every_n_seconds=0.01, max_bucket_size=1
    )
    teacher = WordTeacher(answer=problem.solution, asked=[], rate_limiter=limiter)
    chain = make(teacher, student, guidance_tokens=500)
    waits: list[bool] = []
    acquire = limiter.acquire
    object.__setattr__(limiter, "acquire", lambda **kw: waits.append(True) or acquire(**kw))
    started = time.monotonic()
    chain.batch([problem.question] * 3)
    # Three calls of one teacher take two pauses; the student has no such limit.
    assert len(waits) == 3
    assert time.monotonic() - started >= 0.3


def test_runnable_lambdas_nest(teacher, whole_student, problem) -> None:
    chain = make(teacher, whole_student, guidance_tokens=len(problem.plan) + 3)
    pipeline = RunnableLambda(str.upper) | (lambda _: problem.question) | chain
    assert pipeline.invoke("x").text == problem.solution
