"""What a chain may ask of any chat model, ours or not."""

from __future__ import annotations

from typing import ClassVar

import pytest
from langchain_core.language_models import BaseChatModel, FakeListChatModel
from langchain_core.messages import HumanMessage

from langchain_gkt import HuggingFaceStudent, as_student
from langchain_gkt.students.protocol import FirstToken, Student, student_of

ASKED = [HumanMessage("What is 3 plus 4?")]


class Binding(FakeListChatModel):
    def bind_tools(self, tools, **kwargs):
        return self.bind(tools=tools)


async def test_a_chat_model_of_others_refuses_nothing_and_promises_nothing() -> None:
    model = FakeListChatModel(responses=["7"])
    student = student_of(model)
    assert student.chat_model is model is as_student(model)
    assert student.check([]) == 0
    with student.prefill(ASKED):
        pass
    flags = (student.continues_whitespace, student.enforces_schema, student.names_weights)
    assert flags == (False, False, False)
    assert (student.first_token_detail, student.repeatable) == ("none", "unknown")
    with pytest.raises(NotImplementedError, match=r"FakeListChatModel.*use a HuggingFaceStudent"):
        student.first_tokens(ASKED)
    with pytest.raises(NotImplementedError, match="use a HuggingFaceStudent"):
        await student.afirst_tokens(ASKED)


@pytest.mark.parametrize(("kind", "knows"), [(FakeListChatModel, False), (Binding, True)])
def test_a_model_that_binds_tools_knows_them(kind, knows) -> None:
    assert student_of(kind(responses=[])).knows_tools is knows


async def test_a_chat_model_that_offers_more_is_its_own_student() -> None:
    class Sure(Student, FakeListChatModel):
        first_token_detail: ClassVar = "probabilities"

        def first_tokens(self, messages, *, tokens=1):
            return [FirstToken(0.5)] * tokens

    student = student_of(Sure(responses=["7"]))
    assert isinstance(student, BaseChatModel)
    assert student.chat_model is student
    assert student.invoke("?").text == "7"
    assert await student.afirst_tokens(ASKED, tokens=2) == [FirstToken(0.5)] * 2
    assert not student.knows_tools


def test_ours_keeps_every_promise(student) -> None:
    assert student_of(student) is student
    assert student.chat_model is student
    assert student.names_weights
    assert student.enforces_schema
    assert student.continues_whitespace
    assert student.first_token_detail == "entropies"
    assert student.first_tokens(ASKED)[0].entropy is not None
    unknown = {name for name in vars(Student) if not name.startswith("_")} - {"chat_model"}
    assert unknown <= set(dir(HuggingFaceStudent))


@pytest.mark.slow
def test_the_protocols_know_no_model_library(light) -> None:
    code = (
        "import sys\n"
        "from langchain_gkt.students.protocol import Student, student_of\n"
        "from langchain_gkt.students.backends.protocol import Backend, PrefillHandle\n"
        "from langchain_gkt.students.engine.context_window import ContextWindow\n"
        "from langchain_gkt.students.engine.requests.request import Request, TextConstraint\n"
        "from langchain_gkt.students.engine.token_healing import Seam, TokenSpelling\n"
        "from langchain_gkt.students.backends.choosing import choose_backend\n"
        "choose_backend('some/folder', 'auto')\n"
        "from langchain_gkt.students.loading import StudentLoader\n"
        "heavy = {'torch', 'transformers', 'xllamacpp', 'openvino', 'openvino_genai'}\n"
        "print(*heavy & sys.modules.keys())\n"
    )
    done = light.run(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
