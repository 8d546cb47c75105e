from __future__ import annotations

import subprocess
import sys
import time
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda
from support.fakes import MODELS, Recorder, WordTeacher

from langchain_gkt import (
    Guidance,
    GuidancePolicy,
    GuidedKnowledgeTransferChain,
    HuggingFaceStudent,
    TeacherError,
)


def make(teacher: Any, student: Any, **kwargs: Any) -> GuidedKnowledgeTransferChain:
    return GuidedKnowledgeTransferChain(teacher=teacher, student=student, **kwargs)


def limit_inside(plan: str, solution: str) -> int:
    """A limit, in characters, that stops three characters into the step after the plan."""
    assert solution[: len(plan)] == plan
    return len(plan) + 3


async def run(chain: Any, how: str, question: str, config: dict[str, Any]) -> str:
    if how == "invoke":
        return chain.invoke(question, config).text
    if how == "ainvoke":
        return (await chain.ainvoke(question, config)).text
    if how == "stream":
        return "".join(chunk.text for chunk in chain.stream(question, config))
    if how == "astream":
        return "".join([chunk.text async for chunk in chain.astream(question, config)])
    if how == "batch":
        return chain.batch([question], config)[0].text
    if how == "abatch":
        return (await chain.abatch([question], config))[0].text
    if how == "astream_events":
        events = [e async for e in chain.astream_events(question, config, version="v2")]
        return next(e for e in events if e["event"] == "on_chat_model_end" and not e["parent_ids"])[
            "data"
        ]["output"].text
    prompt = ChatPromptTemplate.from_messages([("human", "{question}")])
    return (prompt | chain | StrOutputParser()).invoke({"question": question}, config)


HOWS = ["invoke", "ainvoke", "stream", "astream", "batch", "abatch", "astream_events", "lcel"]


@pytest.mark.parametrize("how", HOWS)
async def test_both_models_run_under_the_chain(how, teacher, student, problem) -> None:
    chain = make(teacher, student, guidance_tokens=limit_inside(problem.plan, problem.solution))
    recorder = Recorder()
    config = {"callbacks": [recorder], "tags": ["mine"], "metadata": {"user": "x"}}
    assert await run(chain, how, problem.question, config) == problem.solution
    assert len(recorder.runs) == 3
    (own,), (taught,), (learned,) = map(recorder.by_role, (None, "teacher", "student"))
    for child, role in ((taught, "teacher"), (learned, "student")):
        assert child["parent"] == own["id"]
        assert child["name"] == role
        assert {"nostream", f"gkt:{role}", "mine"} <= set(child["tags"])
        assert child["metadata"]["user"] == "x"
        assert child["metadata"]["ls_model_name" if role == "student" else "gkt_mode"]
        assert child["end"] == "ok"
    assert taught["metadata"]["gkt_call_id"] == learned["metadata"]["gkt_call_id"]
    assert taught["usage"]["output_tokens"] == chain.guidance_tokens
    assert own["usage"]["output_tokens"] == (
        taught["usage"]["output_tokens"] + learned["usage"]["output_tokens"]
    )
    assert recorder.ended[-1] == own["id"]


@pytest.mark.parametrize("how", ["stream", "astream"])
async def test_closing_a_stream_ends_every_run(how, teacher, student, problem) -> None:
    chain, recorder = make(teacher, student, guidance_tokens=30), Recorder()
    config = {"callbacks": [recorder]}
    if how == "stream":
        stream = chain.stream(problem.question, config)
        next(stream), next(stream)
        stream.close()
    else:
        astream = chain.astream(problem.question, config)
        await anext(astream), await anext(astream)
        await astream.aclose()
    assert [run["end"] for run in recorder.runs.values()] == [
        "GeneratorExit",
        "ok",
        "GeneratorExit",
    ]


async def test_nested_in_another_runnable_the_chain_keeps_its_parent(
    teacher, student, problem
) -> None:
    chain, recorder = make(teacher, student), Recorder()
    outer = RunnableLambda(lambda q, config: "".join(c.text for c in chain.stream(q, config)))
    outer.invoke(problem.question, {"callbacks": [recorder]})
    (own,) = recorder.by_role(None)
    assert own["parent"] is not None
    assert {r["parent"] for r in recorder.runs.values()} == {own["parent"], own["id"]}


def test_metadata_says_what_happened(teacher, student, problem) -> None:
    limit = limit_inside(problem.plan, problem.solution)
    message = make(teacher, student, guidance_tokens=limit).invoke(problem.question)
    gkt = message.response_metadata["gkt"]
    assert gkt["guidance"] == problem.plan
    assert gkt["guidance_tokens"] == limit  # what was cut away was paid for
    assert gkt["finished_by"] == "student"
    assert gkt["fallback"] is None
    assert gkt["teacher_usage"]["output_tokens"] == limit
    assert gkt["student_usage"]["output_tokens"] > 0
    assert message.response_metadata["model_name"] == "langchain-gkt"
    assert message.usage_metadata["output_tokens"] == limit + gkt["student_usage"]["output_tokens"]


def test_guidance_changes_the_answer(teacher, student, problem) -> None:
    chain = make(teacher, student, guidance_tokens=len(problem.plan) + 3)
    alone = chain.invoke(problem.question, mode="student")
    assert alone.text != problem.solution
    assert alone.response_metadata["gkt"]["teacher_usage"] is None
    assert chain.invoke(problem.question).text == problem.solution


def test_a_teacher_that_finishes_needs_no_student(teacher, student, problem) -> None:
    recorder = Recorder()
    chain = make(teacher, student, guidance_tokens=500)
    message = chain.invoke(problem.question, {"callbacks": [recorder]})
    assert message.text == problem.solution
    assert message.response_metadata["gkt"]["finished_by"] == "teacher"
    assert not recorder.by_role("student")


def test_modes(teacher, student, problem) -> None:
    recorder = Recorder()
    alone = make(teacher, student, mode="teacher").invoke(
        problem.question, {"callbacks": [recorder]}
    )
    assert alone.text == problem.solution
    assert not recorder.by_role("student")
    assert teacher.asked[-1]["limit"] is None
    for chain in (
        make(teacher, student, mode="student"),
        make(teacher, student, guidance_tokens=0),
    ):
        count = len(teacher.asked)
        assert chain.invoke(problem.question).response_metadata["gkt"]["finished_by"] == "student"
        assert len(teacher.asked) == count


def test_guide_gives_the_guidance_alone(teacher, student, problem) -> None:
    chain = make(teacher, student, guidance_tokens=limit_inside(problem.plan, problem.solution))
    guidance = chain.guide(problem.question)
    assert isinstance(guidance, Guidance)
    assert guidance.text == problem.plan
    assert guidance.written == problem.solution[: chain.guidance_tokens]
    assert not guidance.complete
    with pytest.raises(ValueError, match="guidance_tokens of 1 or more"):
        make(teacher, student, guidance_tokens=0).guide(problem.question)


async def test_aguide_is_guide(teacher, student, problem) -> None:
    chain = make(teacher, student)
    assert await chain.aguide(problem.question) == chain.guide(problem.question)


def test_max_tokens_bounds_the_whole_answer(teacher, student, problem) -> None:
    chain = make(teacher, student, guidance_tokens=20, max_tokens=26)
    gkt = chain.invoke(problem.question).response_metadata["gkt"]
    assert gkt["student_usage"]["output_tokens"] == 6
    chain.invoke(problem.question, max_tokens=5)
    assert teacher.asked[-1]["limit"] == 5


def test_stop_reaches_both(teacher, student, problem) -> None:
    chain = make(teacher, student, guidance_tokens=len(problem.plan) + 3, stop=[" The answer"])
    assert chain.invoke(problem.question).text == problem.solution.split(" The answer")[0]
    early = make(teacher, student, guidance_tokens=len(problem.plan))
    message = early.invoke(problem.question, stop=["lan"])
    assert message.text == "P"
    assert message.response_metadata["gkt"]["finished_by"] == "teacher"


def test_a_failing_teacher_is_named(student, problem) -> None:
    teacher = WordTeacher(answer="x", asked=[], fails_with=ConnectionError("refused"))
    with pytest.raises(TeacherError, match=r"ConnectionError: refused.*on_teacher_error") as caught:
        make(teacher, student).invoke(problem.question)
    assert isinstance(caught.value.__cause__, ConnectionError)
    chain = make(teacher, student, on_teacher_error="student")
    gkt = chain.invoke(problem.question).response_metadata["gkt"]
    assert gkt["fallback"] == "ConnectionError: refused"
    assert gkt["finished_by"] == "student"


def test_one_failing_row_loses_no_other(teacher, student, problem) -> None:
    chain = make(teacher, student, guidance_tokens=len(problem.plan) + 3)
    good, bad = chain.batch([problem.question, ""], return_exceptions=True)
    assert good.text == problem.solution
    assert isinstance(bad, ValueError)


@pytest.mark.parametrize("how", HOWS[:-1])
async def test_an_empty_prompt_is_refused_before_anything_is_paid(how, teacher, student) -> None:
    with pytest.raises(ValueError, match="prompt is empty"):
        await run(make(teacher, student), how, "  ", {})
    assert not teacher.asked


def test_a_silent_teacher_is_refused(student, problem) -> None:
    teacher = WordTeacher(answer="", asked=[])
    with pytest.raises(TeacherError, match=r"returned no text.*on_teacher_error='student'"):
        make(teacher, student).invoke(problem.question)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"guidance_token": 3}, "did you mean 'guidance_tokens'"),
        ({"guidance_tokens": -1}, "guidance_tokens must be 0"),
        ({"mode": "both"}, "'guided', 'teacher' or 'student'"),
        ({"guidance_tokens": 3, "guidance": GuidancePolicy(tokens=4)}, "disagree"),
        ({"teacher": "gpt-4o-mini"}, "teacher must be a LangChain chat model"),
        ({"student": 3}, "student must be a folder or hub id"),
        ({"student": "/no/such/folder"}, "is not a folder"),
        ({"student_kwargs": {"max_tokens": 3}}, "do not apply"),
    ],
)
def test_bad_arguments_are_named(arguments, says, teacher, student) -> None:
    with pytest.raises((ValueError, TypeError, OSError), match=says):
        GuidedKnowledgeTransferChain(**{"teacher": teacher, "student": student, **arguments})


def test_bad_call_time_arguments_are_named(teacher, student, problem) -> None:
    chain = make(teacher, student)
    with pytest.raises(TypeError, match="did you mean 'guidance_tokens'"):
        chain.invoke(problem.question, guidance_toks=3)
    with pytest.raises(ValueError, match="guidance_tokens must be 0"):
        chain.invoke(problem.question, guidance_tokens=-3)


def test_the_cache_tells_chains_apart(teacher, student, problem) -> None:
    cache = InMemoryCache()
    chain = make(teacher, student, cache=cache)
    other = make(WordTeacher(answer="Other.", asked=[]), student, guidance_tokens=500, cache=cache)
    same_policy = make(teacher, student, guidance_tokens=9, cache=cache)
    first = chain.invoke(problem.question)
    asked = len(teacher.asked)
    assert chain.invoke(problem.question).text == first.text
    assert len(teacher.asked) == asked
    assert other.invoke(problem.question).text == "Other."
    same_policy.invoke(problem.question)
    assert len(teacher.asked) == asked + 1


def test_student_by_path_takes_student_kwargs(teacher) -> None:
    chain = make(teacher, str(MODELS / "student"), student_kwargs={"max_tokens": 9})
    assert chain.student.max_tokens == 9
    assert "WordTeacher" not in repr(chain)


def test_importing_the_package_imports_no_torch() -> None:
    code = "import sys, langchain_gkt, langchain_gkt.costs; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


class SlowTeacher(WordTeacher):
    """Waits for the student's reading to begin before it answers."""

    student: Any = None
    seen: list[int] = []

    def _generate(self, *args: Any, **kwargs: Any) -> Any:
        scheduler = self.student._engine.scheduler
        for _ in range(500):
            if scheduler.stats()["prefix_bytes"]:
                break
            time.sleep(0.01)
        self.seen.append(scheduler.stats()["prefix_bytes"])
        return super()._generate(*args, **kwargs)


@pytest.mark.parametrize("how", ["invoke", "ainvoke", "stream", "astream"])
async def test_the_student_reads_while_the_teacher_writes(how, problem) -> None:
    student = HuggingFaceStudent(model=MODELS / "student")
    answer, limit = problem.solution, limit_inside(problem.plan, problem.solution)
    teacher = SlowTeacher(answer=answer, asked=[], student=student, seen=[])
    fed: list[int] = []
    forward = student._engine.scheduler.model_runner
    prefill = forward.prefill
    forward.prefill = lambda held, ids: fed.append(len(ids)) or prefill(held, ids)
    chain = make(teacher, student, guidance_tokens=limit)
    assert await run(chain, how, problem.question, {}) == answer
    assert teacher.seen[0] > 0
    assert len(fed) == 2 and fed[1] < fed[0]  # the prompt first, then the guidance alone
    student.close()


@pytest.mark.parametrize("how", ["invoke", "ainvoke"])
async def test_what_the_student_read_for_nothing_is_freed(how, problem) -> None:
    student = HuggingFaceStudent(model=MODELS / "student")
    scheduler = student._engine.scheduler
    fails = SlowTeacher(answer="", asked=[], student=student, seen=[], fails_with=OSError("gone"))
    with pytest.raises(TeacherError):
        await run(make(fails, student, guidance_tokens=5), how, problem.question, {})
    finishes = SlowTeacher(answer="12.", asked=[], student=student, seen=[])
    chain = make(finishes, student, guidance_tokens=50)
    assert await run(chain, how, problem.question, {}) == "12."
    assert fails.seen[0] > 0 and finishes.seen[0] > 0
    for _ in range(500):
        if not scheduler.stats()["prefix_bytes"]:
            break
        time.sleep(0.01)
    assert scheduler.stats()["prefix_bytes"] == 0
    student.close()
