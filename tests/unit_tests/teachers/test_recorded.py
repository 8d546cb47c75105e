"""Recorded answers: read from every kind of log, cut, billed, and refused by name."""

from __future__ import annotations

import csv
import json
import pickle
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import tiktoken
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.outputs import ChatGeneration
from support.models.exam import Needy, solution
from support.programs.processes import run_python

from langchain_gkt import (
    ConfigurationError,
    GuidancePolicy,
    GuidedKnowledgeTransferChain,
    Price,
    RecordedTeacher,
    track_costs,
)
from langchain_gkt.teachers import token_cuts
from langchain_gkt.teachers.token_cuts import CutReply

QUESTION = "What is one more than 11?"
ANSWER = solution(11)
TOKENS = len(ANSWER.split())
REASONED: Any = {"output_token_details": {"reasoning": 2}}
APPROXIMATE = "ignore:.*cut approximately:UserWarning"


@pytest.fixture(autouse=True)
def encoding(monkeypatch) -> Any:
    """A tiktoken encoding whose tokens are bytes, in the place of one that must be fetched."""
    token_cuts.load_tokenizer.cache_clear()
    ranks = {bytes([byte]): byte for byte in range(256)}
    made = tiktoken.Encoding(
        "o200k_base", pat_str=r"\s*\S+|\s+", mergeable_ranks=ranks, special_tokens={}
    )
    monkeypatch.setattr(tiktoken, "get_encoding", lambda name: made)
    yield made
    token_cuts.load_tokenizer.cache_clear()


def write_lines(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


def tokens_of(text: str) -> dict[str, Any]:
    parts = text.split(" ")
    words = [parts[0], *(f" {part}" for part in parts[1:])]
    return {"content": [{"token": t, "bytes": list(t.encode()), "logprob": -0.1} for t in words]}


def completion(text: str, **choice: Any) -> dict[str, Any]:
    return {
        "model": "gpt-4o-mini-2024-07-18",
        "choices": [
            {
                "message": {"role": "assistant", "content": text},
                "finish_reason": "stop",
                "logprobs": tokens_of(text),
                **choice,
            }
        ],
        "usage": {
            "prompt_tokens": 20,
            "completion_tokens": TOKENS + 1,
            "total_tokens": 21 + TOKENS,
            "prompt_tokens_details": {"cached_tokens": 4},
        },
    }


def result(name: str, text: str = ANSWER, **choice: Any) -> dict[str, Any]:
    body = completion(text, **choice)
    return {"custom_id": name, "response": {"status_code": 200, "body": body}, "error": None}


def request(name: str, question: str) -> dict[str, Any]:
    messages = [{"role": "system", "content": "Be short."}, {"role": "user", "content": question}]
    return {"custom_id": name, "method": "POST", "body": {"model": "m", "messages": messages}}


def run(question: str, text: str) -> dict[str, Any]:
    """A run as the tracer of LangChain writes it."""
    message = AIMessage(
        text,
        usage_metadata={"input_tokens": 20, "output_tokens": 16, "total_tokens": 36},
        response_metadata={
            "finish_reason": "stop",
            "model_name": "gpt-4o-mini",
            "logprobs": tokens_of(text),
        },
    )
    asked = [SystemMessage("Be short."), HumanMessage(question)]
    generation = ChatGeneration(message=message).model_dump() | {"message": message.to_json()}
    return {
        "id": "0190",
        "run_type": "llm",
        "inputs": {"messages": [[m.to_json() for m in asked]]},
        "outputs": {"generations": [[generation]], "llm_output": None},
        "extra": {"metadata": {"ls_provider": "openai", "ls_model_name": "gpt-4o-mini"}},
    }


def load_batch(path: Path, *results: Any, requests: Any = None, **fields: Any) -> RecordedTeacher:
    wanted = [request("a", QUESTION)] if requests is None else requests
    return RecordedTeacher.from_file(
        write_lines(path / "results.jsonl", *results),
        requests=write_lines(path / "requests.jsonl", *wanted),
        **fields,
    )


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


@pytest.fixture
def teacher(tmp_path) -> RecordedTeacher:
    return load_batch(tmp_path, result("a"))


def test_missing_questions_are_named_before_anything_is_spent(teacher) -> None:
    teacher.require([QUESTION, [SystemMessage("s"), HumanMessage("x", id="a")]])
    with pytest.raises(ConfigurationError, match=r"2 of 3 questions .*: 'What else.', 'x'"):
        teacher.require([QUESTION, "What else?", [HumanMessage("x")]])
    chain = GuidedKnowledgeTransferChain(teacher=teacher, student=Needy(), guidance_tokens=4)
    with track_costs() as costs, pytest.raises(ConfigurationError, match="'What else is one more"):
        chain.invoke("What else is one more than 12?")
    assert costs.report().teacher.known_cost == 0


def test_a_second_call_goes_on_or_needs_a_live_teacher(teacher) -> None:
    asked = HumanMessage(QUESTION)
    reply = teacher.invoke([asked, AIMessage("Plan: take 11")], max_tokens=3)
    assert reply.text == " and add one."
    assert reply.usage_metadata["input_tokens"] == 23  # the begun answer is read
    assert reply.usage_metadata["output_tokens"] == 3
    rest = teacher.invoke([asked, AIMessage("Plan: take 11")])
    assert (rest.text, rest.usage_metadata["output_tokens"]) == (ANSWER[13:], TOKENS - 2)
    inside = teacher.invoke([asked, AIMessage("Plan: ta")], max_tokens=2)
    assert inside.text == "ke 11"
    for other in ([asked, AIMessage("Well")], [asked, ToolMessage("5", tool_call_id="1")]):
        with pytest.raises(ConfigurationError, match="live teacher"):
            teacher.invoke(other)
    with pytest.raises(ConfigurationError, match="live teacher"):  # a verdict
        teacher.invoke([asked, AIMessage("12"), HumanMessage("Is this right?")])
    with pytest.raises(ConfigurationError, match="model='gpt-5' needs a live teacher"):
        teacher.invoke(QUESTION, model="gpt-5")


def test_a_changed_prompt_is_no_longer_the_message_of_its_id(teacher) -> None:
    """A teacher that takes no begun answer is asked by an instruction, which is not recorded."""
    chain = GuidedKnowledgeTransferChain(
        teacher=teacher, student=Needy(), guidance_tokens=4, teacher_prefill=False
    )
    messages = [HumanMessage(QUESTION, id="a"), AIMessage("Plan:")]
    with pytest.raises(ConfigurationError, match="no answer is recorded"):
        chain.invoke(messages)


def test_a_stop_string_ends_it(teacher) -> None:
    reply = teacher.invoke(QUESTION, stop=[" add"])
    assert (reply.text, reply.response_metadata["finish_reason"]) == ("Plan: take 11 and", "stop")
    assert reply.usage_metadata["output_tokens"] == 5


def test_hidden_reasoning_is_billed_first(tmp_path) -> None:
    body = result("a")
    body["response"]["body"]["usage"]["completion_tokens"] += 4
    body["response"]["body"]["usage"]["completion_tokens_details"] = {"reasoning_tokens": 4}
    reply = load_batch(tmp_path, body).invoke(QUESTION, max_tokens=6)
    assert reply.text == "Plan: take"
    assert reply.usage_metadata["output_token_details"] == {"reasoning": 4}


async def test_every_door_gives_the_same(teacher) -> None:
    teacher = teacher.model_copy(update={"max_tokens": 5})
    message = teacher.invoke(QUESTION)
    streamed = list(teacher.stream(QUESTION))
    assert [chunk.text for chunk in streamed[:3]] == ["Plan:", " take", " 11"]
    added = streamed[0]
    for chunk in streamed[1:]:
        added += chunk
    awaited = [chunk async for chunk in teacher.astream(QUESTION)]
    assert [chunk.text for chunk in awaited] == [chunk.text for chunk in streamed]
    for other in (
        added,
        await teacher.ainvoke(QUESTION),
        pickle.loads(pickle.dumps(teacher)).invoke(QUESTION),
    ):
        assert other.text == message.text
        assert other.usage_metadata == message.usage_metadata
        assert other.response_metadata["finish_reason"] == "length"


def test_two_logs_do_not_look_alike(teacher, tmp_path) -> None:
    from langchain_gkt._langchain_compat import cache_key
    from langchain_gkt.teachers.identity import identity

    (tmp_path / "other").mkdir()
    other = load_batch(tmp_path / "other", result("a", text=ANSWER.replace("Plan", "Idea")))
    again = load_batch(tmp_path, result("a"))
    assert repr(identity(teacher)) == repr(identity(again))
    assert repr(identity(teacher)) != repr(identity(other))
    assert cache_key(teacher) == cache_key(again) != cache_key(other)
    assert ANSWER not in repr(teacher)


@pytest.mark.parametrize("streaming", [True, False])
def test_a_chain_is_billed_by_tokens_and_price(teacher, streaming) -> None:
    chain = GuidedKnowledgeTransferChain(
        teacher=teacher,
        student=Needy(needs=3),
        guidance_tokens=5,
        guidance=GuidancePolicy(cut="none"),
    )
    price = Price(input_mtok="1", output_mtok="8")
    with track_costs(teacher_price=price) as costs:
        if streaming:
            text = "".join(chunk.text for chunk in chain.stream(QUESTION))
        else:
            message = chain.invoke(QUESTION)
            text = message.text
            gkt = message.response_metadata["gkt"]
            assert gkt["guidance_tokens"] == 5
            assert gkt["guidance"] == "Plan: take 11 and add"
    assert text == ANSWER
    bill = costs.report().teacher
    assert (bill.prompt_tokens, bill.completion_tokens) == (20, 5)
    assert bill.known_cost == (20 * price.input_mtok + 5 * price.output_mtok) / Decimal(10**6)


def test_genai_prices_knows_the_recorded_model(teacher) -> None:
    chain = GuidedKnowledgeTransferChain(teacher=teacher, student=Needy(), guidance_tokens=5)
    with track_costs() as costs:
        chain.invoke(QUESTION)
    bill = costs.report().teacher
    # Of 20 prompt tokens 4 were read from the cache, at half the price.
    per_token = Decimal("0.15") / 10**6
    assert bill.prompt_cost == 18 * per_token
    assert bill.completion_cost == 5 * Decimal("0.60") / 10**6


@pytest.mark.slow
def test_it_loads_no_model_library() -> None:
    code = "import sys\nfrom langchain_gkt import RecordedTeacher\n"
    code += "import warnings; warnings.simplefilter('ignore')\n"
    code += "RecordedTeacher.from_answers({'q': 'a b'}).invoke('q', max_tokens=1)\n"
    code += "print(*{'torch', 'transformers'} & sys.modules.keys())"
    done = run_python("-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
