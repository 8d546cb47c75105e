"""Tools bound to a chain: the calls are the teacher's, or a student's that knows tools."""

from __future__ import annotations

import json
from typing import Any

import pytest
from langchain_core.language_models.chat_models import generate_from_stream
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    HumanMessage,
    ToolMessage,
)
from langchain_core.outputs import ChatGenerationChunk
from support.entry_points import ENTRY_POINTS, answer, joined
from support.models.fakes import Recorder, WordTeacher
from support.models.scripted import ToolTeacher, add, note, save_scripted

from langchain_gkt import (
    GuidedKnowledgeTransferChain,
    HuggingFaceStudent,
    TeacherError,
    track_costs,
)
from langchain_gkt.students.prompting import PromptBuilder

LONG = "Please note 'a rather long line of words that no small limit could ever hold, ä and 你'"


@pytest.fixture(scope="module")
def caller(tmp_path_factory) -> HuggingFaceStudent:
    """A student that calls tools."""
    return HuggingFaceStudent(model=save_scripted(tmp_path_factory.mktemp("scripted")))


def make(teacher: Any, student: Any, **kwargs: Any) -> GuidedKnowledgeTransferChain:
    return GuidedKnowledgeTransferChain(teacher=teacher, student=student, **kwargs)


@pytest.mark.parametrize("how", ENTRY_POINTS[:4])
async def test_a_tool_call_inside_the_limit_is_the_teachers_own(how, student) -> None:
    teacher, recorder = ToolTeacher(log=[]), Recorder()
    chain = make(teacher, student, guidance_tokens=40).bind_tools([add])
    message = await answer(chain, how, "add 2 and 3", {"callbacks": [recorder]})
    assert [(c["name"], c["args"], c["id"]) for c in message.tool_calls] == [
        ("add", {"a": 2, "b": 3}, "call_1")
    ]
    assert message.response_metadata["finish_reason"] == "tool_calls"
    assert message.response_metadata["gkt"]["finished_by"] == "teacher"
    assert len(recorder.by_role("teacher")) == 1
    assert not recorder.by_role("student")


@pytest.mark.parametrize("preamble", ["", "Let me write that down for you first of all. "])
@pytest.mark.parametrize("how", ENTRY_POINTS[:4])
async def test_a_truncated_tool_call_is_asked_for_once_more(how, preamble, student) -> None:
    teacher, recorder = ToolTeacher(log=[], preamble=preamble), Recorder()
    chain = make(teacher, student, guidance_tokens=14).bind_tools([note])
    with track_costs() as costs:
        message = await answer(chain, how, LONG, {"callbacks": [recorder]})
    assert [call["args"] for call in message.tool_calls] == [{"words": LONG.split("'")[1]}]
    assert not message.invalid_tool_calls
    assert message.text == preamble
    assert [asked["limit"] for asked in teacher.log] == [14, None]
    first, second = recorder.by_role("teacher")
    assert first["usage"]["output_tokens"] == 14
    gkt = message.response_metadata["gkt"]
    assert gkt["teacher_calls"] == 2
    spent = 14 + second["usage"]["output_tokens"]
    assert gkt["teacher_usage"]["output_tokens"] == gkt["guidance_tokens"] == spent
    billed = costs.report().to_dict()["teacher"]
    assert (billed["calls"], billed["completion_tokens"]) == (2, spent)


@pytest.mark.parametrize("how", ENTRY_POINTS[:4])
async def test_a_tool_that_must_be_called_has_no_limit(how, student) -> None:
    teacher = ToolTeacher(log=[])
    chain = make(teacher, student, guidance_tokens=4).bind_tools([add, note], tool_choice="note")
    message = await answer(chain, how, LONG)
    assert message.tool_calls[0]["name"] == "note"
    assert [(a["limit"], a["tool_choice"]) for a in teacher.log] == [(None, "note")]


@pytest.mark.parametrize("how", ENTRY_POINTS[:4])
async def test_text_is_guided_with_tools_bound(how, student) -> None:
    teacher = ToolTeacher(log=[])
    chain = make(teacher, student, guidance_tokens=5, max_tokens=20).bind_tools([add])
    message = await answer(chain, how, "Hello")
    gkt = message.response_metadata["gkt"]
    assert (gkt["finished_by"], gkt["teacher_calls"]) == ("student", 1)
    assert gkt["guidance"] == "Hello there, and "
    assert message.text.startswith(gkt["guidance"])
    assert teacher.log[0]["tools"][0]["function"]["name"] == "add"


class OddTeacher(ToolTeacher):
    """Gives arguments in a spelling of its own, beside blocks that are no text."""

    raw: str = '{ "a" : 1.50e0,\n"b": "\\u00e4" }'

    def _reply(self, messages, stop, kwargs):
        blocks = [
            {"type": "thinking", "thinking": "hm", "signature": "s"},
            {"type": "text", "text": "So: "},
        ]
        return AIMessage(
            blocks,
            tool_calls=[{"name": "add", "args": json.loads(self.raw), "id": "x"}],
            response_metadata={"finish_reason": "tool_use"},
        )

    def _stream(self, messages, stop=None, run_manager=None, **kwargs):
        for part in (self.raw[:9], self.raw[9:]):
            chunk = {
                "name": "add" if part[0] == "{" else None,
                "args": part,
                "id": "x",
                "index": 0,
            }
            yield ChatGenerationChunk(message=AIMessageChunk("", tool_call_chunks=[chunk]))


def test_a_tool_call_keeps_its_spelling_and_its_company(student) -> None:
    chain = make(OddTeacher(), student).bind_tools([add])
    message = chain.invoke("add")
    assert message.tool_calls[0]["args"] == {"a": 1.5, "b": "ä"}
    assert message.content == OddTeacher()._reply(None, None, None).content
    streamed = joined(chain.stream("add"))
    assert streamed.tool_call_chunks[0]["args"] == OddTeacher().raw
    assert streamed.tool_calls == message.tool_calls


def test_an_agents_history_reaches_both(student) -> None:
    teacher = ToolTeacher(log=[])
    history = [
        HumanMessage("add 2 and 3"),
        AIMessage("", tool_calls=[{"name": "add", "args": {"a": 2, "b": 3}, "id": "c"}]),
        ToolMessage("5", tool_call_id="c"),
    ]
    message = make(teacher, student, guidance_tokens=6).bind_tools([add]).invoke(history)
    assert message.text.startswith("The tool was called")
    assert teacher.log[0]["messages"] == history
    spelled, _ = PromptBuilder(student._engine.tokenizer).build(history)
    text = student._engine.tokenizer.decode(spelled)
    assert 'Call add({"a": 2, "b": 3})' in text
    assert "Result of add: 5" in text


def test_a_student_that_knows_tools_gets_them_and_calls_them(caller) -> None:
    assert caller.knows_tools
    # The teacher's words lead nowhere; the student's template says what to do.
    teacher = WordTeacher(answer="", asked=[], fails_with=ConnectionError("down"))
    chain = make(ToolTeacher(log=[]), caller, mode="student").bind_tools([add])
    message = chain.invoke("add 2 and 3")
    assert message.tool_calls[0]["args"] == {"a": 2, "b": 3}
    assert message.response_metadata["gkt"]["finished_by"] == "student"
    with pytest.raises(NotImplementedError, match="WordTeacher has no bind_tools"):
        make(teacher, caller).bind_tools([add])


def test_without_a_teacher_tools_need_a_student_that_knows_them(student) -> None:
    alone = make(ToolTeacher(), student, mode="student").bind_tools([add])
    with pytest.raises(NotImplementedError, match="chat template knows tools"):
        alone.invoke("add 2 and 3")


@pytest.mark.parametrize("streams", [False, True])
def test_a_call_cut_by_the_users_own_limit_stays_invalid(streams, student) -> None:
    teacher = ToolTeacher(stream_usage=streams, max_tokens=9)
    chain = make(teacher, student, max_tokens=3).bind_tools([add])
    for message in (chain.invoke("add 2 and 13"), joined(chain.stream("add 2 and 13"))):
        assert not message.tool_calls
        assert message.invalid_tool_calls[0]["name"] == "add"


class Breaking(ToolTeacher):
    """Breaks off in the middle of a stream."""

    def _stream(self, *args, **kwargs):
        for place, chunk in enumerate(super()._stream(*args, **kwargs)):
            if place == 4:
                raise ConnectionError("gone")
            yield chunk


def test_the_student_goes_on_from_what_was_shown(student) -> None:
    chain = make(Breaking(), student, on_teacher_error="student", max_tokens=30)
    message = joined(chain.stream("Hello"))
    gkt = message.response_metadata["gkt"]
    assert gkt["guidance"] == "Hello there, and "
    assert message.text.startswith(gkt["guidance"])
    assert gkt["fallback"] == "ConnectionError: gone"
    assert gkt["teacher_calls"] == 1


def test_tools_are_never_ignored_in_silence(student) -> None:
    alone = make(ToolTeacher(), student, guidance_tokens=0).bind_tools([add], tool_choice="any")
    with pytest.raises(NotImplementedError, match="guidance_tokens=0"):
        alone.invoke("add 2 and 3")
    down = Down()
    chain = make(down, student, on_teacher_error="student").bind_tools([add], tool_choice="any")
    with pytest.raises(TeacherError, match="ConnectionError"):
        chain.invoke("add 2 and 3")


class Down(ToolTeacher):
    """Cannot be reached."""

    def _generate(self, *args, **kwargs):
        raise ConnectionError("down")


def test_tools_can_be_bound_by_hand(student) -> None:
    teacher = ToolTeacher(log=[])
    chain = make(teacher, student)
    message = chain.bind(tools=[add], tool_choice="any").invoke("Hello 2 and 3")
    assert message.tool_calls[0]["args"] == {"a": 2, "b": 3}
    assert teacher.log[0]["limit"] is None
    with pytest.raises(TypeError, match=r"it takes: (?!.*hide_child_runs)"):
        chain.invoke("x", something_else=1)


@pytest.mark.parametrize("refused", ["format", "name", "no end"])
@pytest.mark.parametrize("alone", [False, True])
def test_a_choice_that_the_student_cannot_make_is_refused_first(
    refused, alone, caller, monkeypatch
) -> None:
    teacher = ToolTeacher(log=[])
    fields: dict[str, Any] = {"guidance_tokens": 0} if alone else {"on_teacher_error": "student"}
    tools: list[Any] = [add]
    if refused == "format":
        monkeypatch.setattr(caller._engine.tokenizer, "response_template", {"x": 1}, raising=False)
        wanted = r"tool_choice='add' needs a student.*Leave tool_choice out"
    elif refused == "name":
        wanted = r"tool_choice='nte' is none of the bound tools \(add\).*name one of them"
    else:
        endless = {"type": "object", "properties": {"n": {"$ref": "#"}}, "required": ["n"]}
        tools = [{"type": "function", "function": {"name": "add", "parameters": endless}}]
        wanted = "a tool's parameters cannot be enforced"
    choice = "nte" if refused == "name" else "add"
    chain = make(teacher, caller, **fields).bind_tools(tools, tool_choice=choice)
    with pytest.raises(ValueError, match=wanted):
        chain.invoke("add 2 and 3")
    assert not teacher.log


def test_a_choice_that_only_the_teacher_has_to_make_is_its_own(caller, monkeypatch) -> None:
    teacher = ToolTeacher(log=[])
    monkeypatch.setattr(caller._engine.tokenizer, "response_template", {"x": 1}, raising=False)
    message = make(teacher, caller).bind_tools([add], tool_choice="add").invoke("add 2 and 3")
    assert message.tool_calls[0]["args"] == {"a": 2, "b": 3}


class Spelled(ToolTeacher):
    """Writes a text of its own, in parts."""

    text: str = ""

    def _stream(self, messages, stop=None, run_manager=None, **kwargs):
        self.log.append(kwargs)
        shown = self.text if self.max_tokens is None else self.text[: 4 * self.max_tokens]
        for at in range(0, len(shown), 3):
            yield ChatGenerationChunk(message=AIMessageChunk(shown[at : at + 3]))
        usage: Any = {"input_tokens": 9, "output_tokens": len(shown) // 4, "total_tokens": 9}
        reason = "stop" if shown == self.text else "length"
        yield ChatGenerationChunk(
            message=AIMessageChunk(
                "", usage_metadata=usage, response_metadata={"finish_reason": reason}
            )
        )

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        return generate_from_stream(self._stream(messages, stop, run_manager, **kwargs))


@pytest.mark.parametrize("fence", ["", "```json\n"])
def test_a_begun_call_of_a_streaming_teacher_is_not_shown_as_text(fence, student) -> None:
    call = '{"name": "add", "arguments": {"a": 2, "b": 3}}'
    teacher = Spelled(log=[], text=fence + call)
    chain = make(teacher, student, guidance_tokens=7).bind_tools([add])
    chunks, asked_at_first_text = [], None
    for chunk in chain.stream("add 2 and 3"):
        chunks.append(chunk)
        if chunk.text and asked_at_first_text is None:
            asked_at_first_text = len(teacher.log)
    # What is begun is shown only when the teacher was asked for all of it.
    assert asked_at_first_text in (None, 2)
    assert len(teacher.log) == 2


def test_reasoning_that_only_ends_is_no_guidance(student) -> None:
    text = "They want the sum of both.\n</think>\n\nThe sum is five, and that is all of it."
    teacher = Spelled(log=[], text=text)
    chain = make(teacher, student, guidance_tokens=14, max_tokens=30)
    message = chain.invoke("Hello")
    assert message.response_metadata["gkt"]["guidance"].startswith("The sum is")
    assert "want" not in message.text
    with pytest.warns(UserWarning, match=r"reasoning was shown as text.*Turn its reasoning off"):
        streamed = joined(chain.stream("Hello"))
    assert streamed.text.startswith("They want")  # it cannot be taken back
    again = [chunk.text for chunk in chain.stream("Hello")]
    assert "".join(again) == message.text
