from __future__ import annotations

import json
from typing import Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.tools import tool
from support.fakes import MODELS, Recorder, WordTeacher
from support.scripted import TOOL_TEMPLATE, ToolTeacher, save_scripted
from transformers import AutoTokenizer

from langchain_gkt import (
    GuidedKnowledgeTransferChain,
    HuggingFaceStudent,
    TeacherError,
    track_costs,
)
from langchain_gkt.students.prompting import PromptBuilder
from langchain_gkt.students.tool_parsing import HermesToolParser, ResponseTemplateParser


@tool
def note(words: str) -> str:
    """Write words down."""
    return f"noted {words}"


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


LONG = "Please note 'a rather long line of words that no small limit could ever hold, ä and 你'"


@pytest.fixture(scope="module")
def caller(tmp_path_factory) -> HuggingFaceStudent:
    """A student that calls tools."""
    return HuggingFaceStudent(model=save_scripted(tmp_path_factory.mktemp("scripted")))


def make(teacher: Any, student: Any, **kwargs: Any) -> GuidedKnowledgeTransferChain:
    return GuidedKnowledgeTransferChain(teacher=teacher, student=student, **kwargs)


def whole(chunks: Any) -> AIMessageChunk:
    total = None
    for chunk in chunks:
        total = chunk if total is None else total + chunk
    return total


async def answer(runnable: Any, how: str, asked: Any, config: Any = None) -> AIMessage:
    if how == "invoke":
        return runnable.invoke(asked, config)
    if how == "ainvoke":
        return await runnable.ainvoke(asked, config)
    if how == "stream":
        return whole(runnable.stream(asked, config))
    return whole([chunk async for chunk in runnable.astream(asked, config)])


HOWS = ["invoke", "ainvoke", "stream", "astream"]


@pytest.mark.parametrize("how", HOWS)
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
@pytest.mark.parametrize("how", HOWS)
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


@pytest.mark.parametrize("how", HOWS)
async def test_a_tool_that_must_be_called_has_no_limit(how, student) -> None:
    teacher = ToolTeacher(log=[])
    chain = make(teacher, student, guidance_tokens=4).bind_tools([add, note], tool_choice="note")
    message = await answer(chain, how, LONG)
    assert message.tool_calls[0]["name"] == "note"
    assert [(a["limit"], a["tool_choice"]) for a in teacher.log] == [(None, "note")]


@pytest.mark.parametrize("how", HOWS)
async def test_text_is_guided_with_tools_bound(how, student) -> None:
    teacher = ToolTeacher(log=[])
    chain = make(teacher, student, guidance_tokens=5, max_tokens=20).bind_tools([add])
    message = await answer(chain, how, "Hello")
    gkt = message.response_metadata["gkt"]
    assert (gkt["finished_by"], gkt["teacher_calls"]) == ("student", 1)
    assert gkt["guidance"] == "Hello there, and"
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
    streamed = whole(chain.stream("add"))
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


def test_a_student_without_place_for_tools_says_so(student) -> None:
    assert not student.knows_tools
    with pytest.raises(NotImplementedError, match="no place for tools"):
        student.bind_tools([add])
    alone = make(ToolTeacher(), student, mode="student").bind_tools([add])
    with pytest.raises(NotImplementedError, match="chat template knows tools"):
        alone.invoke("add 2 and 3")


async def test_the_students_call_streams_as_it_is_invoked(caller) -> None:
    bound = caller.bind_tools([note])
    results = [await answer(bound, how, LONG) for how in HOWS]
    assert {json.dumps(r.tool_calls[0]["args"]) for r in results} == {
        json.dumps({"words": LONG.split("'")[1]})
    }
    assert {r.text for r in results} == {""}
    assert all(call["id"].startswith("call_") for r in results for call in r.tool_calls)


def test_tool_choice_holds_the_student_to_the_tool(caller) -> None:
    forced = caller.bind_tools([add, note], tool_choice="note").invoke("Hello")
    assert forced.tool_calls[0]["name"] == "note"
    assert not caller.bind_tools([add], tool_choice="none").invoke("add 2 and 3").tool_calls
    with pytest.raises(ValueError, match=r"'nte' is none of the bound tools \(add, note\)"):
        caller.bind_tools([add, note], tool_choice="nte").invoke("Hello")


def parsed(parser: Any, text: str, size: int) -> tuple[str, list[tuple[str, Any]]]:
    shown = "".join(parser.feed(text[at : at + size]) for at in range(0, len(text), size))
    rest, calls = parser.finish()
    return shown + rest, [(call["name"], call["args"]) for call in calls]


CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n</tool_call>'


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
def test_hermes_calls_are_read_however_they_are_split(size) -> None:
    want = ("add", '{"a": 1, "b": 2}')
    assert parsed(HermesToolParser(), f"I see.\n{CALL}\n{CALL}", size) == ("I see.\n", [want, want])
    assert parsed(HermesToolParser(), "1 <too 2 <tool", size) == ("1 <too 2 <tool", [])


@pytest.mark.parametrize(
    "body",
    ['{"name": "add", "arguments": {"a": 1', '{"name": 3, "arguments": {}}', "[]", '{"name": "f"'],
)
def test_malformed_calls_are_invalid_and_whole(body) -> None:
    _, ((name, raw),) = parsed(HermesToolParser(), f"<tool_call>{body}", 4)
    assert name == ""
    chunk = AIMessageChunk(
        "", tool_call_chunks=[{"name": name, "args": raw, "id": "x", "index": None}]
    )
    assert not chunk.tool_calls
    assert "".join(body.split()) in "".join(chunk.invalid_tool_calls[0]["args"].split())


TEMPLATE = {
    "defaults": {"role": "assistant"},
    "start_anchor": "<|assistant|>",
    "fields": {
        "thinking": {"open": "<think>", "close": "</think>"},
        "content": {},
        "tool_calls": {
            "open": "[CALL]",
            "close": "[/CALL]",
            "content": "json",
            "repeats": True,
            "transform": {"type": "function", "function": "{content}"},
        },
    },
}


@pytest.mark.parametrize("size", [1, 5, 1000])
def test_a_tokenizers_own_template_is_used(size) -> None:
    tokenizer = AutoTokenizer.from_pretrained(MODELS / "student")
    tokenizer.chat_template, tokenizer.response_template = TOOL_TEMPLATE, TEMPLATE
    prompt, _ = PromptBuilder(tokenizer).build([HumanMessage("x")])

    def parser() -> ResponseTemplateParser:
        return ResponseTemplateParser(tokenizer, prompt, [])

    text = '<think>hm</think>I see.[CALL]{"name": "add", "arguments": {"a": 1}}[/CALL]'
    assert parsed(parser(), text, size) == ("I see.", [("add", '{"a": 1}')])
    shown, ((name, raw),) = parsed(parser(), 'No.[CALL]{"name": [/CALL]', size)
    assert (shown, name) == ("No.", "")
    assert '{"name": [/CALL]' in raw


@pytest.mark.parametrize("streams", [False, True])
def test_a_call_cut_by_the_users_own_limit_stays_invalid(streams, student) -> None:
    teacher = ToolTeacher(stream_usage=streams, max_tokens=9)
    chain = make(teacher, student, max_tokens=3).bind_tools([add])
    for message in (chain.invoke("add 2 and 13"), whole(chain.stream("add 2 and 13"))):
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
    message = whole(chain.stream("Hello"))
    gkt = message.response_metadata["gkt"]
    assert gkt["guidance"] == "Hello there, and"
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
    with pytest.raises(TypeError, match=r"it takes: (?!.*quiet)"):
        chain.invoke("x", something_else=1)


def test_stop_strings_end_text_and_never_a_call(caller) -> None:
    bound = caller.bind_tools([add])
    for stop in (["\n"], ["arguments"], ["}"]):
        message = bound.invoke("add 2 and 3", stop=stop)
        assert message.tool_calls[0]["args"] == {"a": 2, "b": 3}
    stopped = bound.invoke("Hello", stop=["well met"])
    assert stopped.text == "Hello there, and "
    assert stopped.response_metadata["finish_reason"] == "stop"
    chunks = list(bound.stream("Hello", stop=["well met"]))
    assert "".join(chunk.text for chunk in chunks) == stopped.text
    schema = {"title": "A", "type": "object", "properties": {"age": {"type": "integer"}}}
    held = caller.with_structured_output(schema | {"required": ["age"]})
    assert set(held.invoke("x", stop=["age"])) == {"age"}


def test_a_call_that_is_cut_says_so(caller) -> None:
    message = caller.bind_tools([add]).invoke("add 2 and 3", max_tokens=10)
    assert message.response_metadata["finish_reason"] == "length"
    assert not message.tool_calls
