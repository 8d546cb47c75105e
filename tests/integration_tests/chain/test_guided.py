from __future__ import annotations

import pytest
from langchain_openai import ChatOpenAI
from support.entry_points import ENTRY_POINTS, answer
from support.models.fakes import Recorder

from langchain_gkt import GuidedKnowledgeTransferChain, TeacherError, track_costs
from langchain_gkt.__main__ import main
from langchain_gkt.evaluation.tasks.word_problems import sample


def openai(cloud, **kwargs) -> ChatOpenAI:
    return ChatOpenAI(
        base_url=cloud.base_url, api_key="local", model=cloud.name, temperature=0, **kwargs
    )


@pytest.fixture
def chain(cloud, student) -> GuidedKnowledgeTransferChain:
    return GuidedKnowledgeTransferChain(
        teacher=openai(cloud, stream_usage=True), student=student, guidance_tokens=18
    )


async def test_every_entry_point_gives_the_same_answer_and_bill(chain, problem) -> None:
    answers, bills = [], []
    for how in ENTRY_POINTS:
        with track_costs() as costs:
            answers.append((await answer(chain, how, problem.question)).text)
        data = costs.report().to_dict()
        counted = ("calls", "prompt_tokens", "completion_tokens")
        bills.append([[data[role][key] for key in counted] for role in ("teacher", "student")])
    assert answers == [problem.solution] * len(ENTRY_POINTS)
    assert bills == [bills[0]] * len(ENTRY_POINTS)
    assert bills[0][0][0] == 1
    assert bills[0][0][2] == 18


def test_guidance_is_shown_as_the_teacher_writes_it(chain, problem) -> None:
    recorder = Recorder()
    stream = chain.stream(problem.question, {"callbacks": [recorder]})
    first = next(stream)
    assert problem.plan.startswith(first.text)
    assert len(first.text) < len(problem.plan)
    assert not recorder.by_role("student")
    assert first.text + "".join(chunk.text for chunk in stream) == problem.solution
    (teacher,) = recorder.by_role("teacher")
    assert teacher["usage"]["output_tokens"] == 18


def test_a_provider_without_usage_in_streams_is_not_streamed(cloud, student, problem) -> None:
    chain = GuidedKnowledgeTransferChain(teacher=openai(cloud), student=student, guidance_tokens=18)
    recorder = Recorder()
    chunks = list(chain.stream(problem.question, {"callbacks": [recorder]}))
    assert chunks[0].text.startswith(problem.plan[: len(problem.plan) - 4])
    assert recorder.by_role("teacher")[0]["usage"]["output_tokens"] == 18


def test_a_teacher_that_is_down_is_named(student, problem) -> None:
    teacher = ChatOpenAI(
        base_url="http://127.0.0.1:9/v1", api_key="local", model="m", max_retries=0, timeout=5
    )
    chain = GuidedKnowledgeTransferChain(teacher=teacher, student=student)
    with pytest.raises(TeacherError, match=r"ConnectionError.*teacher is reachable"):
        chain.invoke(problem.question)
    with track_costs() as costs:
        chain.model_copy(update={"on_teacher_error": "student"}).invoke(problem.question)
    data = costs.report().to_dict()
    assert data["teacher"]["failed_calls"] == 1
    assert data["student"]["calls"] == 1


def test_guidance_lifts_the_student(chain) -> None:
    problems = sample(99, 30)

    def accuracy(mode: str) -> float:
        bound = chain.bind(mode=mode)
        messages = bound.batch([p.question for p in problems], {"max_concurrency": 30})
        pairs = zip(messages, problems, strict=True)
        return sum(m.text.endswith(f"is {p.answer}.") for m, p in pairs) / len(problems)

    assert accuracy("student") + 0.15 < accuracy("guided")


def test_the_command_line_demo(tmp_path, capsys) -> None:
    command = ["demo", "--rows", "1", "--out", str(tmp_path)]
    assert main(command) == 0
    printed = capsys.readouterr().out
    for words in ("teacher", "student", "guided", "of its bill"):
        assert words in printed
    assert (tmp_path / "demo.png").stat().st_size > 10_000
    with pytest.raises(SystemExit) as ended:
        main(["demo", "--rows", "0"])
    assert ended.value.code == 2
    assert "argument --rows: must be 1 or more, not 0" in capsys.readouterr().err
