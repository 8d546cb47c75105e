"""A limit that cannot hold an object is refused before the teacher is paid, whosever it is."""

from __future__ import annotations

from typing import Any

import pytest
from support.entry_points import ENTRY_POINTS, answer
from support.models.saying import Adding, Saying, reply

from langchain_gkt import ConfigurationError, GuidedKnowledgeTransferChain

SCHEMA = {"title": "A", "type": "object", "properties": {"a": {"type": "integer"}}}
OBJECT = {"type": "json_schema", "json_schema": {"name": "A", "schema": SCHEMA}}


class Limited(Adding):
    """Needs 12 tokens for the shortest object."""

    max_tokens: int = 8

    def check(self, messages, *, response_format=None, **kwargs):
        return 12 if response_format else 0


def make(student: Any, **fields: Any) -> GuidedKnowledgeTransferChain:
    teacher = Saying(asked=[], says=lambda limit: reply('{"a": 1}', tokens=4, reason="stop"))
    return GuidedKnowledgeTransferChain(teacher=teacher, student=student, **fields)


@pytest.mark.parametrize("how", ENTRY_POINTS[:4])
async def test_the_students_own_limit_counts(how) -> None:
    chain = make(Limited())
    wanted = r"the student's own max_tokens=8 cannot hold .* takes 12 tokens; raise max_tokens"
    with pytest.raises(ConfigurationError, match=wanted):
        await answer(chain, how, "Make one.", response_format=OBJECT)
    assert not chain.teacher.asked


@pytest.mark.parametrize("how", ENTRY_POINTS[:4])
async def test_the_teacher_answers_where_a_student_has_no_room(how) -> None:
    chain = make(Limited(), on_student_error="teacher", guidance_tokens=3)
    message = await answer(chain, how, "Make one.", response_format=OBJECT)
    gkt = message.response_metadata["gkt"]
    assert (message.text, gkt["finished_by"]) == ('{"a": 1}', "teacher")
    assert "the student's own max_tokens=8 cannot hold" in gkt["fallback"]
    assert [asked["limit"] for asked in chain.teacher.asked] == [None]
    with pytest.raises(ConfigurationError, match=r"^max_tokens=9 cannot hold"):  # of both
        await answer(chain, how, "Make one.", response_format=OBJECT, max_tokens=9)


def test_a_limit_of_the_call_counts_instead() -> None:
    chain = make(Limited(), max_tokens=20)
    assert chain.invoke("Make one.", response_format=OBJECT).text == '{"a": 1}'
    with pytest.raises(ConfigurationError, match=r"^max_tokens=9 cannot hold"):
        chain.invoke("Make one.", response_format=OBJECT, max_tokens=9)
    assert len(chain.teacher.asked) == 1


def test_text_needs_no_room() -> None:
    assert make(Limited()).invoke("Hello").text == '{"a": 1}'
