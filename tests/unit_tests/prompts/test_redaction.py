"""The teacher sees placeholders; the student and the user see the originals."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, SystemMessage
from support.models.fakes import WordTeacher, make

from langchain_gkt.errors import GKTError
from langchain_gkt.prompts import PreparedPrompt, PromptContext, Redact

MAIL = re.compile(r"\w+@[\w.]+\w")
ANN, BOB = "ann@example.org", "bob@example.com"


def mails(text: str):
    return [(match.start(), match.end(), "EMAIL") for match in MAIL.finditer(text)]


def prepared(*messages) -> PreparedPrompt:
    return Redact(mails).prepare(list(messages), PromptContext())


@pytest.mark.parametrize("mode", ["guided", "teacher"])
@pytest.mark.parametrize("how", ["invoke", "stream"])
def test_the_original_never_reaches_the_teacher(mode, how, student) -> None:
    said = "I will write to <EMAIL_2> and to <EMAIL_1> today, as you asked."
    asked: list = []
    chain = make(
        WordTeacher(answer=said, asked=asked),
        student,
        redact=Redact(mails),
        mode=mode,
        guidance_tokens=42,
        max_tokens=60,
    )
    messages = [
        SystemMessage(f"You serve {ANN}."),
        HumanMessage([{"type": "text", "text": f"Write to {BOB}, not {ANN}."}]),
    ]
    keep = {"teacher_prompt": lambda shown: [*shown, HumanMessage(f"Mind {BOB}!")]}
    if how == "invoke":
        text = chain.invoke(messages, **keep).text
    else:
        text = "".join(chunk.text for chunk in chain.stream(messages, **keep))
    sent = str(asked)
    assert ANN not in sent and BOB not in sent and "Mind <EMAIL_2>" in sent
    assert text.startswith(f"I will write to {BOB} and to")
    assert "<EMAIL" not in text


@given(st.lists(st.sampled_from(["<EMAIL_1>", "<EMAIL_12>", "<EMAIL_", "<", ">", "a "])))
def test_what_was_shown_is_never_taken_back(parts) -> None:
    prompt = prepared(HumanMessage(" ".join(f"u{n}@x.org" for n in range(13))))
    text, shown = "".join(parts), ""
    for end in range(len(text) + 1):
        longer = prompt.restore(text[:end])
        assert longer.startswith(shown)
        shown = longer
    assert not re.search(r"<EMAIL_(1|12)>", shown)


def test_a_placeholder_that_is_cut_is_left_out() -> None:
    prompt = prepared(HumanMessage(f"Write to {ANN}"))
    assert prompt.restore("Dear <EMAIL_1>, <EMA") == f"Dear {ANN}, "
    assert prompt.restore("3 < 4 <b>") == "3 < 4 <b>"


def test_what_a_user_typed_is_not_anothers_original() -> None:
    prompt = prepared(HumanMessage(f"What does <EMAIL_1> mean, {ANN}?"))
    assert prompt.messages[0].text == "What does <EMAIL_1> mean, <EMAIL_2>?"
    assert prompt.restore("<EMAIL_1> is") == "<EMAIL_1> is"


def test_tool_calls_are_redacted_and_restored() -> None:
    call = {"name": "send", "args": {"to": [ANN], "text": 'a "b"'}, "id": "1"}
    prompt = prepared(HumanMessage("x"), AIMessage("", tool_calls=[call], name="a"))
    assert prompt.messages[1].tool_calls[0]["args"] == {"to": ["<EMAIL_1>"], "text": 'a "b"'}
    args = '{"to": ["<EMAIL_1>"]}'
    chunk = {"name": "send", "args": args, "id": "1", "index": 0, "type": "tool_call_chunk"}
    reply = prompt.restored(AIMessageChunk("", tool_call_chunks=[chunk]))
    assert reply.tool_calls[0]["args"] == {"to": [ANN]}
    assert reply.tool_call_chunks[0]["args"] == f'{{"to": ["{ANN}"]}}'


def test_a_failing_redaction_asks_nobody(student) -> None:
    def broken(text: str):
        raise RuntimeError("no analyzer")

    asked: list = []
    chain = make(
        WordTeacher(answer="x", asked=asked),
        student,
        redact=Redact(broken),
        on_teacher_error="student",
    )
    with pytest.raises(GKTError, match="no analyzer"):
        chain.invoke("Hello")
    assert asked == []
    with pytest.raises(TypeError, match="redact must be"):
        make(WordTeacher(answer="x"), student, redact=3)


def test_redactions_are_told_apart_in_the_cache(student, teacher) -> None:
    plain, redacted = make(teacher, student), make(teacher, student, redact=Redact(mails))
    assert plain._get_llm_string() != redacted._get_llm_string()
