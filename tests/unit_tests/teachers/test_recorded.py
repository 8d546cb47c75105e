"""Recorded answers: read from every kind of log, cut, billed, and refused by name."""

from __future__ import annotations

import csv
import json
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from support.recorded_logs import (
    ANSWER,
    APPROXIMATE,
    QUESTION,
    REASONED,
    TOKENS,
    completion,
    load_batch,
    request,
    result,
    run,
    tokens_of,
    write_lines,
)

from langchain_gkt import (
    ConfigurationError,
    RecordedTeacher,
)
from langchain_gkt.teachers.token_cuts import CutReply

pytestmark = pytest.mark.usefixtures("encoding")


def test_an_openai_batch(tmp_path) -> None:
    teacher = load_batch(tmp_path, result("a"), max_tokens=5)
    reply = teacher.invoke(QUESTION)
    assert reply.text == "Plan: take 11 and add"
    assert reply.usage_metadata == {
        "input_tokens": 20,
        "output_tokens": 5,
        "total_tokens": 25,
        "input_token_details": {"cache_read": 4},
    }
    said = reply.response_metadata
    assert (said["finish_reason"], said["recorded"]["cut"]) == ("length", "logprobs")
    assert (said["model_name"], teacher.provider) == ("gpt-4o-mini-2024-07-18", "openai")
    whole = teacher.invoke(QUESTION, max_tokens=100)
    assert (whole.text, whole.response_metadata["finish_reason"]) == (ANSWER, "stop")
    assert whole.usage_metadata["output_tokens"] == TOKENS + 1


@pytest.mark.parametrize("as_list", [True, False])
def test_runs_of_langsmith(tmp_path, as_list) -> None:
    chain_run = {"run_type": "chain", "inputs": {"question": QUESTION}, "outputs": {}}
    rows = [chain_run, run(QUESTION, ANSWER)]
    path = tmp_path / "runs.json"
    path.write_text(json.dumps(rows)) if as_list else write_lines(path, *rows)
    teacher = RecordedTeacher.from_file(path, max_tokens=3)
    reply = teacher.invoke(QUESTION)
    assert reply.text == "Plan: take 11"
    assert (reply.usage_metadata["input_tokens"], reply.usage_metadata["output_tokens"]) == (20, 3)
    assert teacher.invoke(QUESTION, max_tokens=99).usage_metadata["total_tokens"] == 36
    assert (teacher.provider, teacher.model_name) == ("openai", "gpt-4o-mini")
    assert teacher.invoke([HumanMessage("?", id="0190")]).text == "Plan: take 11"


def test_other_forms_of_langsmith(tmp_path) -> None:
    """What its wrapper of OpenAI's client writes, and bulk exports with texts of JSON."""
    wrapped = {
        "inputs": {"messages": [{"role": "user", "content": "one"}]},
        "outputs": completion("first"),
    }
    bulk = {
        "inputs": json.dumps({"messages": [{"type": "human", "data": {"content": "two"}}]}),
        "outputs": json.dumps(
            {
                "generations": [{"text": "second", "generation_info": {"finish_reason": "stop"}}],
                "llm_output": {"token_usage": {"prompt_tokens": 3, "completion_tokens": 2}},
            }
        ),
    }
    path = write_lines(tmp_path / "runs.jsonl", wrapped, bulk)
    with pytest.warns(UserWarning, match="1 of 2 recorded answers are cut approximately"):
        teacher = RecordedTeacher.from_file(path)
    assert [teacher.invoke(q).text for q in ("one", "two")] == ["first", "second"]
    assert teacher.invoke("two").usage_metadata["total_tokens"] == 5


def test_lines_with_a_mapping_of_columns(tmp_path) -> None:
    row = {"prompt": QUESTION, "answers": {"gpt-4.1": ANSWER}, "key": 7, "out": 17, "in": 20}
    row |= {"tokens": [t["token"] for t in tokens_of(ANSWER)["content"]], "answer": "12"}
    columns = {
        "question": "prompt",
        "answer": ("answers", "gpt-4.1"),
        "id": "key",
        "output_tokens": "out",
        "input_tokens": "in",
        "logprobs": "tokens",
    }
    path = write_lines(tmp_path / "log.jsonl", row)
    teacher = RecordedTeacher.from_file(path, columns=columns, max_tokens=2)
    assert teacher.invoke(QUESTION).text == "Plan: take"
    assert teacher.invoke([HumanMessage("other words", id="7")]).text == "Plan: take"
    assert teacher.invoke(QUESTION).usage_metadata["input_tokens"] == 20
    assert teacher.invoke(f"Q: Is 1 odd?\nA: Yes.\n\nQ: {QUESTION}\nA:").text == "Plan: take"


def test_a_table(tmp_path) -> None:
    path = tmp_path / "log.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["question", "answer", "output_tokens", "model"])
        writer.writerow(["Two\nlines, and a comma?", "a b c d", "4.0", "gpt-4o"])
        writer.writerow([QUESTION, "", "3", "gpt-4o"])
    with pytest.raises(ConfigurationError, match=r"log\.csv, line 4 has an empty answer"):
        RecordedTeacher.from_file(path)
    path.write_text(
        path.read_text().replace(f'{QUESTION},"",', "").replace(f"{QUESTION},,", "x,y,")
    )
    with pytest.warns(UserWarning, match="in proportion to their characters"):
        teacher = RecordedTeacher.from_file(path, max_tokens=2)
    reply = teacher.invoke("Two\nlines, and a comma?")
    assert (reply.text, reply.response_metadata["recorded"]["cut"]) == ("a b", "approximate")
    assert teacher.model_name == "gpt-4o"


def test_bytes_of_a_tiktoken_encoding() -> None:
    """Half a character at the cut is left out, and a text that looks like a token is text."""
    teacher = RecordedTeacher.from_answers({"q": "5 € <|endoftext|>"}, tokenizer="o200k_base")
    cuts = [teacher.invoke("q", max_tokens=n) for n in (3, 4, 5, 8)]
    assert [cut.text for cut in cuts] == ["5 ", "5 ", "5 €", "5 € <|"]
    assert cuts[0].response_metadata["recorded"]["cut"] == "tokenizer"
    assert cuts[0].usage_metadata == {"input_tokens": 1, "output_tokens": 3, "total_tokens": 4}
    assert "".join(chunk.text for chunk in teacher.stream("q")) == "5 € <|endoftext|>"


def test_a_folder_with_a_hugging_face_tokenizer(student, tmp_path) -> None:
    student._loader.load().prompts.tokenizer.save_pretrained(tmp_path)
    teacher = RecordedTeacher.from_answers({QUESTION: ANSWER}, tokenizer=str(tmp_path))
    reply = teacher.invoke(QUESTION, max_tokens=4)
    assert ANSWER.startswith(reply.text) and reply.text != ANSWER
    assert reply.response_metadata["recorded"]["cut"] == "tokenizer"


def test_no_such_tokenizer(tmp_path) -> None:
    with pytest.raises(ConfigurationError, match=r"tokenizer='.*none' cannot be loaded"):
        RecordedTeacher.from_answers({"q": "a"}, tokenizer=str(tmp_path / "none"))


def test_another_models_tokenizer_is_noticed(tmp_path) -> None:
    row = {"question": QUESTION, "answer": ANSWER, "output_tokens": TOKENS + 1}
    path = write_lines(tmp_path / "log.jsonl", row)
    with pytest.warns(UserWarning, match=r"reports 16 completion tokens where .* finds 57"):
        RecordedTeacher.from_file(path, tokenizer="o200k_base")


@pytest.mark.parametrize(
    ("pieces", "usage"),
    [
        (["Plan:", " 5", " \u20ac", " is", " it."], {}),
        (["Plan:", " 5", " \u20ac", " is", " it."], {"output_tokens": 8, **REASONED}),
        ([], {"output_tokens": 9}),
        ([], {}),
    ],
)
def test_a_cut_and_the_rest_are_the_whole(pieces, usage) -> None:
    text = "Plan: 5 \u20ac is it."
    whole = CutReply(text, usage=usage, pieces=[piece.encode() for piece in pieces])
    for limit in range(1, whole.tokens + 2):
        begun, used, complete = whole.cut(limit)
        rest = whole.behind(len(begun))
        assert begun + rest.text == text
        assert whole.tokens_in(len(begun)) <= max(used, whole.reasoning)
        assert complete is (limit >= whole.tokens)
        if pieces and begun and not complete:
            assert used + rest.tokens == whole.tokens
            assert "".join(rest.streamed(rest.text)) == rest.text
        assert "".join(whole.streamed(begun)) == begun


def test_messages_as_answers() -> None:
    usage: Any = {"input_tokens": 9, "output_tokens": 17, "total_tokens": 26}
    metadata = {"logprobs": tokens_of(ANSWER), "model_name": "gpt-4o", "model_provider": "openai"}
    told = AIMessage(ANSWER, usage_metadata=usage, response_metadata=metadata)
    teacher = RecordedTeacher.from_answers({QUESTION: told})
    assert teacher.invoke(QUESTION).usage_metadata == usage
    assert (teacher.model_name, teacher.provider) == ("gpt-4o", "openai")


BAD_LINES = {
    "no column": ([{"q": "x", "answer": "y"}], "line 1 has no 'question' for columns"),
    "no object": ([{"question": "x", "answer": "y"}, [1]], "line 2 holds a list"),
    "empty": ([{"question": "x", "answer": " "}], "line 1 has an empty answer"),
    "no question": ([{"question": " ", "answer": "y"}], "line 1 has no question"),
    "no text": ([{"question": "x", "answer": 5}], "line 1 has a int as its answer"),
    "cut": (
        [
            {"question": "x", "answer": "y", "finish_reason": "stop"},
            {"question": "z", "answer": "y", "finish_reason": "length"},
        ],
        r"line 2 has an answer without its end \(finish reason 'length'\)",
    ),
    "two answers": (
        [{"question": "x", "answer": "y"}, {"question": " x ", "answer": "z"}],
        r"line 2 gives a second answer to 'x', which .*line 1 answers otherwise",
    ),
    "one id": (
        [{"question": "x", "answer": "y", "id": 1}, {"question": "z", "answer": "z", "id": 1}],
        "line 2 repeats the id '1' of .*line 1",
    ),
    "tokens": (
        [{"question": "x", "answer": "y", "output_tokens": "many"}],
        "line 1 has output_tokens='many', which is no number",
    ),
    "logprobs": (
        [{"question": "x", "answer": "y", "logprobs": [-0.1]}],
        "line 1 has logprobs that hold no list of tokens",
    ),
    "model": (
        [{"question": "x", "answer": "y", "model": ["m"]}],
        r"line 1 has model=\['m'\], which is no text",
    ),
    "usage": (
        [
            {
                "inputs": {"messages": [{"role": "user", "content": "x"}]},
                "outputs": completion("y") | {"usage": {"completion_tokens": -1}},
            }
        ],
        r"line 1 reports usage that cannot be true \(output_tokens=-1\)",
    ),
    "nothing": ([], "holds no answer"),
    "request": ([request("a", "x")], "line 1 is a request; give the results here"),
    "batch alone": ([result("a")], "line 1 is a result of a batch, which holds no question"),
    "no run": ([{"inputs": {}, "outputs": None, "error": "429"}], "without an answer: 429"),
    "odd run": (
        [{"inputs": {"messages": [{"role": "user", "content": "x"}]}, "outputs": {"a": 1}}],
        "line 1 has no outputs.generations",
    ),
}


@pytest.mark.parametrize("name", BAD_LINES)
@pytest.mark.filterwarnings(APPROXIMATE)
def test_bad_rows_are_named(tmp_path, name) -> None:
    rows, message = BAD_LINES[name]
    path = write_lines(tmp_path / "log.jsonl", *rows)
    with pytest.raises(ConfigurationError, match=message):
        RecordedTeacher.from_file(path)


def test_many_bad_rows_are_counted(tmp_path) -> None:
    path = write_lines(tmp_path / "log.jsonl", *({"question": str(n)} for n in range(7)))
    with pytest.raises(ConfigurationError, match=r"line 5 has no 'answer'.* and 2 more; correct"):
        RecordedTeacher.from_file(path)


def test_bad_files_are_named(tmp_path) -> None:
    path = tmp_path / "log.jsonl"
    with pytest.raises(ConfigurationError, match=r"log\.jsonl"):
        RecordedTeacher.from_file(path)
    path.write_text('{"question": "x", "answer": "y"}\n{"question":')
    with pytest.raises(ConfigurationError, match=r"log\.jsonl, line 2 is not JSON"):
        RecordedTeacher.from_file(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match=r"log\.jsonl is not UTF-8"):
        RecordedTeacher.from_file(path)
    table = tmp_path / "log.csv"
    table.write_text("question,answer\nx,y,z\n")
    with pytest.raises(ConfigurationError, match=r"log\.csv, line 2 has more or fewer fields"):
        RecordedTeacher.from_file(table)
    table.write_text("question,reply\nx,y\n")
    with pytest.raises(ConfigurationError, match=r"has no 'answer' .*it has: question, reply"):
        RecordedTeacher.from_file(table)
    with pytest.raises(ConfigurationError, match="columns got an unknown argument 'anser'"):
        RecordedTeacher.from_file(table, columns={"anser": "reply"})
    with pytest.raises(ConfigurationError, match="has no 'text' for columns"):
        RecordedTeacher.from_file(table, columns={"answer": "text"})
    with pytest.raises(ConfigurationError, match="did you mean 'tokenizer'"):
        RecordedTeacher.from_answers({"x": "y"}, tokeniser="o200k_base")
    with pytest.raises(ConfigurationError, match=r"answers\['x'\] has an empty answer"):
        RecordedTeacher.from_answers({"x": ""})


def test_bad_batches_are_named(tmp_path) -> None:
    failed = result("a") | {"response": {"status_code": 429, "body": {"error": "slow down"}}}
    cut = result("b", finish_reason="length")
    called = result("c", message={"content": "", "tool_calls": [{"id": "1", "type": "function"}]})
    with pytest.raises(ConfigurationError) as caught:
        asked = [request(name, name) for name in "abc"]
        load_batch(tmp_path, failed, cut, called, result("d"), requests=asked)
    told = str(caught.value)
    assert "line 1 is a failed request" in told
    assert "line 2 has an answer without its end" in told
    assert "line 3 calls a tool" in told or "line 3 has an empty answer" in told
    assert "line 4 answers custom_id 'd', which the requests do not hold" in told
    twice = [request("a", "x"), request("a", "y")]
    with pytest.raises(ConfigurationError, match=r"requests\.jsonl, line 2 repeats custom_id"):
        load_batch(tmp_path, result("a"), requests=twice)
    with pytest.raises(ConfigurationError, match=r"line 1 holds no custom_id and body\.messages"):
        load_batch(tmp_path, result("a"), requests=[{"custom_id": "a"}])
