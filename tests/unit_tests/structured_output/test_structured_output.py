"""Objects of a schema, begun by a teacher and finished by a student."""

from __future__ import annotations

import json
from typing import Any

import pytest
from langchain_core.messages import (
    HumanMessage,
    SystemMessage,
)
from support.entry_points import joined
from support.models.fakes import WordTeacher
from support.models.scripted import ToolTeacher, save_scripted
from support.work import TEXT, Work, WorkDict

from langchain_gkt import (
    GuidedKnowledgeTransferChain,
    HuggingFaceStudent,
)
from langchain_gkt.structured_output.schema import binding, with_instruction
from langchain_gkt.students.settings import GenerationSettings


def make(teacher: Any, student: Any, **kwargs: Any) -> GuidedKnowledgeTransferChain:
    return GuidedKnowledgeTransferChain(teacher=teacher, student=student, **kwargs)


@pytest.fixture(scope="module")
def writer(tmp_path_factory) -> HuggingFaceStudent:
    """A student with room for a schema."""
    folder = save_scripted(tmp_path_factory.mktemp("scripted"))
    return HuggingFaceStudent(model=folder, max_tokens=160)


@pytest.mark.parametrize("begun", range(0, len(TEXT) + 1, 7))
def test_the_student_finishes_what_the_teacher_began(begun, writer) -> None:
    chain = make(WordTeacher(answer=TEXT, asked=[]), writer, guidance_tokens=max(1, begun))
    result = chain.with_structured_output(Work, include_raw=True).invoke("Tom?")
    gkt = result["raw"].response_metadata["gkt"]
    assert isinstance(result["parsed"], Work)
    assert result["parsing_error"] is None
    assert result["raw"].text.startswith(gkt["guidance"])
    assert TEXT.startswith(gkt["guidance"])
    assert gkt["guidance_tokens"] == max(1, begun)
    if begun > 20:
        assert result["parsed"].name == "Tom"
    assert gkt["finished_by"] == ("teacher" if begun >= len(TEXT) else "student")


@pytest.mark.parametrize("schema", [Work, WorkDict, Work.model_json_schema()])
@pytest.mark.parametrize("raw", [False, True])
async def test_every_kind_of_schema(schema, raw, writer) -> None:
    chain = make(WordTeacher(answer=TEXT, asked=[]), writer, guidance_tokens=20)
    bound = chain.with_structured_output(schema, include_raw=raw)
    results = [bound.invoke("Tom?"), await bound.ainvoke("Tom?"), *bound.batch(["Tom?"])]
    parsed = [r["parsed"] for r in results] if raw else results
    assert all(isinstance(p, Work if schema is Work else dict) for p in parsed)
    assert parsed == [parsed[0]] * 3


def test_a_dict_streams_as_it_grows(writer) -> None:
    chain = make(WordTeacher(answer=TEXT, asked=[]), writer, guidance_tokens=20)
    states = list(chain.with_structured_output(WorkDict).stream("Tom?"))
    assert len(states) > 1
    assert states[0] != states[-1]
    assert set(states[-1]) == {"name", "answer"}


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("Here you are:\n```json\n" + TEXT[:30], '{"name": "Tom", "steps": [{"'),
        ("I cannot do that.", ""),
        ('{"name": "Tom", "age": 4', '{"name": "Tom", "'),
        ('{"nome": "Tom"', '{"'),
    ],
)
def test_what_is_no_json_of_the_schema_is_left_out(said, kept, writer) -> None:
    teacher = WordTeacher(answer=said + "#", asked=[])
    chain = make(teacher, writer, guidance_tokens=len(said))
    result = chain.with_structured_output(Work, include_raw=True).invoke("Tom?")
    gkt = result["raw"].response_metadata["gkt"]
    assert gkt["guidance"] == kept
    assert bool(gkt["fallback"]) == (not kept)
    assert isinstance(result["parsed"], Work)


def test_both_are_told_the_schema(writer) -> None:
    teacher = WordTeacher(answer=TEXT, asked=[])
    make(teacher, writer).with_structured_output(WorkDict).invoke(
        [("system", "Be kind."), ("human", "Tom?")]
    )
    told = teacher.asked[0]["messages"]
    assert [m.type for m in told] == ["system", "human"]
    assert told[0].text.startswith("Be kind.")
    assert '"answer":{' in told[0].text.replace(" ", "")
    settings = GenerationSettings.of_call(writer, response_format={"type": "json_object"})
    request = writer._loader.load().build([HumanMessage("x")], settings)
    assert "one JSON object" in writer._engine.tokenizer.decode(request.prompt)
    assert len(with_instruction([HumanMessage("a")], {"type": "object"})) == 2
    assert isinstance(with_instruction([], {"type": "object"})[0], SystemMessage)


def test_the_student_alone_and_the_teacher_alone(writer) -> None:
    assert isinstance(writer.with_structured_output(Work).invoke("Tom?"), Work)
    fenced = WordTeacher(answer=f"```json\n{TEXT}\n```", asked=[])
    alone = make(fenced, writer, mode="teacher").with_structured_output(Work)
    assert alone.invoke("Tom?").answer == 30


@pytest.mark.parametrize(
    "said",
    [
        json.dumps(json.loads(TEXT), indent=4),
        json.dumps(json.loads(TEXT), indent="\t"),
        '{"answer": 30.0, "steps": [{"amount": 12, "kind": "plus"}], "name": "Tom"}',
        f"Sure {{name}}, here:\n```json\n{TEXT}\n```",
    ],
)
@pytest.mark.parametrize("how", ["invoke", "stream"])
def test_a_whole_answer_of_the_teacher_is_kept(said, how, writer) -> None:
    teacher = WordTeacher(answer=said, asked=[])
    bound = make(teacher, writer, guidance_tokens=400).bind(**binding(Work, "json_schema"))
    got = bound.invoke("Tom?") if how == "invoke" else joined(bound.stream("Tom?"))
    assert json.loads(got.text) == json.loads(TEXT)
    assert got.response_metadata["gkt"]["finished_by"] == "teacher"


@pytest.mark.parametrize("most", [60, 70, 90])
def test_guidance_leaves_room_for_the_end(most, writer) -> None:
    long = TEXT.replace("Tom", "Tom " * 30)
    teacher = WordTeacher(answer=long, asked=[])
    chain = make(teacher, writer, guidance_tokens=most, max_tokens=most)
    assert isinstance(chain.with_structured_output(Work).invoke("Tom?"), Work)
    with pytest.raises(ValueError, match=r"max_tokens=5 cannot hold.*shortest takes \d+"):
        make(teacher, writer, max_tokens=5).with_structured_output(Work).invoke("Tom?")
    assert len(teacher.asked) == 1


def test_a_schema_that_does_not_fit_costs_nothing(student) -> None:
    teacher = WordTeacher(answer=TEXT, asked=[])
    wide = {"title": "A", "type": "object", "description": "word " * 600, "properties": {}}
    with pytest.raises(ValueError, match=r"prompt of \d+ tokens.*holds 512"):
        make(teacher, student).with_structured_output(wide).invoke("Tom?")
    assert not teacher.asked


def test_function_calling_is_the_teachers(writer) -> None:
    chain = make(ToolTeacher(log=[]), writer)
    bound = chain.with_structured_output(WorkDict, method="function_calling", include_raw=True)
    result = bound.invoke("Tom and 4")
    assert result["parsed"]["answer"] == 4
    assert result["raw"].response_metadata["gkt"]["finished_by"] == "teacher"


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ({"title": "A", "type": "object", "properties": {"a": {"type": "strin"}}}, "Invalid type"),
        (
            {
                "title": "A",
                "type": "object",
                "properties": {"a": {"type": "array", "uniqueItems": True}},
            },
            "uniqueItems",
        ),
    ],
)
def test_a_schema_that_cannot_be_held_is_named_at_once(schema, says, writer) -> None:
    for model in (writer, make(WordTeacher(asked=[]), writer)):
        with pytest.raises(ValueError, match=f"schema cannot be enforced.*{says}.*function_call"):
            model.with_structured_output(schema, method="json_schema")
    # Left to choose, the chain has the teacher write what the student cannot be held to.
    chosen = make(ToolTeacher(), writer).with_structured_output(schema)
    assert chosen.first.kwargs["tools"][0]["function"]["name"] == "A"


def test_bad_calls_are_named(writer) -> None:
    chain = make(WordTeacher(answer=TEXT, asked=[]), writer)
    with pytest.raises(ValueError, match="response_format must be"):
        chain.invoke("x", response_format={"type": "json"})
    with pytest.raises(ValueError, match=r"max_tokens leaves 3 tokens.*raise max_tokens"):
        writer.with_structured_output(Work).invoke("x", max_tokens=3)
    broken = [("human", "x"), ("ai", "No: {")]
    with pytest.raises(ValueError, match="beginning breaks the schema"):
        writer.bind(response_format={"type": "json_object"}).invoke(broken)
    remote = make(WordTeacher(asked=[]), WordTeacher(asked=[]))
    with pytest.raises(TypeError, match="needs a HuggingFaceStudent"):
        remote.with_structured_output(Work, method="json_schema")
