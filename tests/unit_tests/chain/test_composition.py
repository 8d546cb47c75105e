from __future__ import annotations

import copy
import pickle
import time
import warnings
from typing import Any

import pytest
from langchain_core._api import LangChainBetaWarning
from langchain_core._api.deprecation import LangChainPendingDeprecationWarning
from langchain_core.caches import InMemoryCache
from langchain_core.globals import set_llm_cache
from langchain_core.language_models import FakeMessagesListChatModel
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.rate_limiters import InMemoryRateLimiter
from langchain_core.runnables import ConfigurableField, RunnableLambda, RunnableParallel
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, SecretStr
from support.fakes import MODELS, Recorder, WordTeacher
from support.scripted import ToolTeacher

from langchain_gkt import GuidancePolicy, GuidedKnowledgeTransferChain, HuggingFaceStudent


def make(teacher: Any, student: Any, **kwargs: Any) -> GuidedKnowledgeTransferChain:
    return GuidedKnowledgeTransferChain(teacher=teacher, student=student, **kwargs)


def openai(**kwargs: Any) -> ChatOpenAI:
    return ChatOpenAI(**{"model": "m", "api_key": SecretStr("sk-secret"), **kwargs})


@pytest.mark.parametrize("policy", [None, GuidancePolicy(tokens=9)])
def test_fields_can_be_configured_for_a_call(policy, teacher, student, problem) -> None:
    given = {"guidance": policy} if policy else {"guidance_tokens": 9}
    chain = make(teacher, student, **given).configurable_fields(
        guidance_tokens=ConfigurableField(id="tokens"),
        mode=ConfigurableField(id="mode"),
        temperature=ConfigurableField(id="heat"),
    )
    chain.invoke(problem.question)
    limit = len(problem.plan) + 3
    configured = {"configurable": {"tokens": limit, "heat": 0.0}}
    assert chain.invoke(problem.question, configured).text == problem.solution
    assert len(list(chain.stream(problem.question, configured))) > 5
    assert [asked["limit"] for asked in teacher.asked] == [9, limit, limit]
    alone = chain.with_config(configurable={"mode": "student"}).invoke(problem.question)
    assert alone.response_metadata["gkt"]["mode"] == "student"


def test_arguments_can_be_bound(teacher, student, problem) -> None:
    chain = make(teacher, student)
    chain.bind(guidance_tokens=7).invoke(problem.question)
    chain.bind(guidance=GuidancePolicy(tokens=5)).invoke(problem.question)
    assert [asked["limit"] for asked in teacher.asked] == [7, 5]


def test_the_three_modes_side_by_side(teacher, student, problem) -> None:
    chain = make(teacher, student, guidance_tokens=len(problem.plan) + 3)
    modes = ("guided", "teacher", "student")
    answers = RunnableParallel({mode: chain.bind(mode=mode) for mode in modes}).invoke(
        problem.question
    )
    assert answers["guided"].text == answers["teacher"].text == problem.solution
    assert answers["student"].text != problem.solution
    gkt = {mode: answers[mode].response_metadata["gkt"]["mode"] for mode in modes}
    assert gkt == {mode: mode for mode in modes}


def test_map_and_concurrency(teacher, student, problem) -> None:
    chain = make(teacher, student, guidance_tokens=len(problem.plan) + 3)
    mapped = chain.map().invoke([problem.question] * 3)
    assert [message.text for message in mapped] == [problem.solution] * 3
    one_by_one = chain.with_config(max_concurrency=1).batch([problem.question, "3 + 4?"])
    assert one_by_one[0].text == problem.solution


class Flaky(WordTeacher):
    """Fails a number of times first."""

    failures: Any = None

    def _generate(self, *args, **kwargs):
        if self.failures:
            raise self.failures.pop()
        return super()._generate(*args, **kwargs)


def test_retries_and_fallbacks_of_the_chain(student, problem, teacher) -> None:
    limit = len(problem.plan) + 3
    flaky = Flaky(answer=problem.solution, asked=[], failures=[ConnectionError("a")])
    again = make(flaky, student, guidance_tokens=limit).with_retry(
        stop_after_attempt=2, wait_exponential_jitter=False
    )
    assert again.invoke(problem.question).text == problem.solution
    down = WordTeacher(asked=[], fails_with=ConnectionError("down"))
    spare = make(teacher, student, guidance_tokens=limit)
    assert make(down, student).with_fallbacks([spare]).invoke(problem.question).text == (
        problem.solution
    )


def test_retries_and_fallbacks_of_the_teacher(student, problem, teacher) -> None:
    limit, recorder = len(problem.plan) + 3, Recorder()
    flaky = Flaky(answer=problem.solution, asked=[], failures=[ConnectionError("a")])
    again = flaky.with_retry(stop_after_attempt=2, wait_exponential_jitter=False)
    chain = make(again, student, guidance_tokens=limit)
    assert chain.invoke(problem.question, {"callbacks": [recorder]}).text == problem.solution
    assert [run["end"] for run in recorder.by_role("teacher")] == ["ConnectionError", "ok"]
    down = WordTeacher(asked=[], fails_with=ConnectionError("down"))
    chain = make(down.with_fallbacks([teacher]), student, guidance_tokens=limit)
    assert "".join(c.text for c in chain.stream(problem.question)) == problem.solution


def test_a_rate_limiter_on_the_teacher_waits(student, problem) -> None:
    limiter = InMemoryRateLimiter(
        requests_per_second=5, check_every_n_seconds=0.01, max_bucket_size=1
    )
    teacher = WordTeacher(answer=problem.solution, asked=[], rate_limiter=limiter)
    chain = make(teacher, student, guidance_tokens=500)
    waits: list[bool] = []
    acquire = limiter.acquire
    object.__setattr__(limiter, "acquire", lambda **kw: waits.append(True) or acquire(**kw))
    started = time.monotonic()
    chain.batch([problem.question] * 3)
    # Three calls of one teacher take two pauses; the student has no such limit.
    assert len(waits) == 3
    assert time.monotonic() - started >= 0.3


def different_chains(student: Any) -> dict[str, GuidedKnowledgeTransferChain]:
    one, other = WordTeacher(answer="One. " * 9, asked=[]), WordTeacher(answer="Other. " * 9)
    teacher = {"guidance_tokens": 12}
    shorter = HuggingFaceStudent(model=student.model, max_tokens=3)
    bigger = HuggingFaceStudent(model=MODELS / "teacher")
    return {
        "base": make(one, student, **teacher),
        "teacher": make(other, student, **teacher),
        "bound teacher": make(one.bind(extra=1), student, **teacher),
        "fallback": make(one.with_fallbacks([other]), student, **teacher),
        "tokens": make(one, student, guidance_tokens=9),
        "cut": make(one, student, guidance=GuidancePolicy(tokens=12, cut="none")),
        "student's settings": make(one, shorter, **teacher),
        "student": make(one, bigger, **teacher),
        "mode": make(one, student, mode="student", **teacher),
        "server a": make(openai(base_url="http://127.0.0.1:1/v1"), student, **teacher),
        "server b": make(openai(base_url="http://127.0.0.1:2/v1"), student, **teacher),
    }


def test_no_two_chains_share_a_cache_key(student) -> None:
    keys = {name: c._get_llm_string(stop=None) for name, c in different_chains(student).items()}
    assert len(set(keys.values())) == len(keys), keys
    again = {name: c._get_llm_string(stop=None) for name, c in different_chains(student).items()}
    assert again == keys
    base = different_chains(student)["base"]
    assert base._get_llm_string(stop=None, guidance_tokens=3) != keys["base"]
    assert base._get_llm_string(stop=["a"]) != keys["base"]


def test_weights_not_names_tell_students_apart(tmp_path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(MODELS / "student")
    tokenizer = AutoTokenizer.from_pretrained(MODELS / "student")

    def key() -> str:
        model.save_pretrained(tmp_path / "s")
        tokenizer.save_pretrained(tmp_path / "s")
        loaded = HuggingFaceStudent(model=tmp_path / "s")
        pair = HuggingFaceStudent(model=model, tokenizer=tokenizer)
        assert pair._load()[0].fingerprint
        return loaded._get_llm_string()

    first = key()
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight.add_(0.1)
    assert key() != first


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_caches(kind, teacher, student, problem, tmp_path) -> None:
    if kind == "memory":
        cache: Any = InMemoryCache()
    else:
        with warnings.catch_warnings(action="ignore"):  # its package is in maintenance only
            from langchain_community.cache import SQLiteCache
        cache = SQLiteCache(database_path=str(tmp_path / "cache.db"))
    set_llm_cache(cache)
    # A loader's notice, taken for an error, would have the cache give up on its entry.
    warnings.filterwarnings("ignore", category=LangChainBetaWarning)
    warnings.filterwarnings("ignore", category=LangChainPendingDeprecationWarning)
    try:
        chain = make(teacher, student, guidance_tokens=len(problem.plan) + 3)
        first = chain.invoke(problem.question)
        recorder = Recorder()
        hit = chain.invoke(problem.question, {"callbacks": [recorder]})
        ahit = await chain.ainvoke(problem.question)
        assert hit.text == ahit.text == first.text == problem.solution
        assert hit.usage_metadata["total_cost"] == 0
        assert len(recorder.runs) == 1  # a hit has no children
        assert len(teacher.asked) == 1
        other = make(
            WordTeacher(answer="Another.", asked=[]), student, guidance_tokens=chain.guidance_tokens
        )
        assert other.invoke(problem.question).text != first.text
    finally:
        set_llm_cache(None)


def test_copies_and_pickles(problem) -> None:
    limiter = InMemoryRateLimiter(requests_per_second=1)
    teachers = [
        openai(temperature=0.3, max_retries=7).with_retry(),
        openai().bind(user="me").with_fallbacks([openai(model="n")]),
        WordTeacher(answer=problem.solution),
    ]
    for teacher in teachers:
        chain = make(teacher, str(MODELS / "student"), guidance_tokens=len(problem.plan) + 3)
        for again in (copy.deepcopy(chain), pickle.loads(pickle.dumps(chain)), copy.copy(chain)):
            assert again._get_llm_string() == chain._get_llm_string()
            assert again.guidance_tokens == chain.guidance_tokens
    assert again.invoke(problem.question).text == problem.solution
    assert len(pickle.dumps(chain)) < 20_000
    first = pickle.loads(pickle.dumps(make(teachers[0], str(MODELS / "student"))))
    assert first.teacher.bound.openai_api_key.get_secret_value() == "sk-secret"
    with pytest.raises(TypeError, match=r"teacher cannot be pickled.*rate limiters"):
        pickle.dumps(make(openai(rate_limiter=limiter), str(MODELS / "student")))
    copy.deepcopy(make(openai(rate_limiter=limiter), str(MODELS / "student")))


def test_repr_is_short_and_tells_no_secret(student) -> None:
    for text in (repr(make(openai(), student)), str(make(openai(), student).to_json())):
        assert len(text) < 900
        assert "sk-secret" not in text
        assert "tensor" not in text.lower()


def test_configurable_teachers(student, problem, teacher) -> None:
    shorter = WordTeacher(answer="Short.", asked=[])
    either = teacher.configurable_alternatives(ConfigurableField(id="who"), short=shorter)
    chain = make(either, student, guidance_tokens=len(problem.plan) + 3)
    assert chain.invoke(problem.question).text == problem.solution
    config = {"configurable": {"who": "short"}}
    assert chain.invoke(problem.question, config).text == "Short."
    assert "".join(c.text for c in chain.stream(problem.question, config)) == "Short."
    assert chain.batch([problem.question] * 2, config)[1].text == "Short."
    assert chain.guide(problem.question, config).text == "Short."


async def test_models_of_init_chat_model(student) -> None:
    from langchain.chat_models import init_chat_model

    fixed = init_chat_model("openai:gpt-4o-mini", api_key="k")
    assert make(fixed, student).teacher is fixed
    open_ = init_chat_model(
        "openai:gpt-4o-mini", api_key="k", configurable_fields=("model", "base_url")
    )
    chain = make(open_.with_retry(), student)
    one = chain._for_config({"configurable": {"model": "gpt-4o"}})
    assert one.teacher.bound.model_name == "gpt-4o"
    assert one._get_llm_string() != chain._for_config(None)._get_llm_string()


async def test_the_tool_returns_text(teacher, student, problem) -> None:
    chain = make(teacher, student, guidance_tokens=len(problem.plan) + 3)
    tool = chain.as_tool(name="solve", description="Solves word problems.")
    recorder = Recorder()
    assert tool.invoke({"question": problem.question}, {"callbacks": [recorder]}) == (
        problem.solution
    )
    assert await tool.ainvoke({"question": problem.question}) == problem.solution
    (own,) = recorder.by_role(None)
    assert own["parent"] is not None
    assert {r["parent"] for r in recorder.by_role("teacher")} == {own["id"]}
    called = tool.invoke(
        {"name": "solve", "args": {"question": problem.question}, "id": "1", "type": "tool_call"}
    )
    assert (called.content, called.name) == (problem.solution, "solve")
    assert set(tool.args) == {"question"}

    class Two(BaseModel):
        topic: str
        length: int

    for two in (chain.as_tool(Two), chain.as_tool(arg_types={"topic": str, "length": int})):
        two.invoke({"topic": "cats", "length": 3})
        assert teacher.asked[-1]["messages"][0].text == "topic: cats\nlength: 3"
    with pytest.raises(ValueError, match="not both"):
        chain.as_tool(Two, arg_types={"a": str})


def test_the_teachers_model_can_be_named_for_a_call(student) -> None:
    teacher = ToolTeacher(log=[])
    message = make(teacher, student).invoke("Hello", model="another")
    assert teacher.log[0]["model"] == "another"
    assert message.response_metadata["model_name"] == "langchain-gkt/another"
    assert make(teacher, student).invoke("Hello").response_metadata["model_name"] == "langchain-gkt"


def test_a_conversation_that_ends_in_an_answer_is_continued(teacher, student, problem) -> None:
    begun, rest = problem.solution[:9], problem.solution[9:]
    teacher.answer = rest
    chain = make(teacher, student, guidance_tokens=len(problem.plan) - 6)
    messages = [HumanMessage(problem.question), AIMessage(begun)]
    message = chain.invoke(messages)
    assert teacher.asked[0]["messages"] == messages
    assert begun + message.text == problem.solution
    student_alone = chain.invoke(messages, mode="student")
    assert not student_alone.text.startswith(begun)


def test_histories_reach_both(teacher, student, problem) -> None:
    history = [
        SystemMessage("You solve problems."),
        HumanMessage("1 + 1?"),
        AIMessage("2"),
        HumanMessage(problem.question),
    ]
    message = make(teacher, student, guidance_tokens=len(problem.plan) + 3).invoke(history)
    assert teacher.asked[0]["messages"] == history
    used = message.response_metadata["gkt"]["student_usage"]["input_tokens"]
    short = make(teacher, student, guidance_tokens=len(problem.plan) + 3).invoke(problem.question)
    assert used > short.response_metadata["gkt"]["student_usage"]["input_tokens"] + 8


def test_images_are_refused_by_place(teacher, student) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:,"}}
    messages = [HumanMessage("a"), AIMessage("b"), HumanMessage([image])]
    with pytest.raises(ValueError, match=r"messages\[2\] \(human\).*'image_url'.*text only"):
        make(teacher, student).invoke(messages)
    assert not teacher.asked


def test_a_long_conversation_is_shortened_where_that_is_wanted(teacher, student) -> None:
    turns: list[Any] = [SystemMessage("Keep this.")]
    for number in range(60):
        turns += [HumanMessage(f"What is {number} plus {number}?"), AIMessage(f"{number + number}")]
    turns.append(HumanMessage("What is 3 plus 4?"))
    with pytest.raises(ValueError, match=r"prompt of \d+ tokens.*holds 512.*on_long_prompt"):
        student.invoke(turns)
    forgetful = HuggingFaceStudent(model=MODELS / "student", on_long_prompt="truncate")
    prompt, prefill = forgetful._fitting([*turns, AIMessage("The sum")], None, 64)
    text = forgetful._engine.tokenizer.decode(prompt)
    assert len(prompt) + len(prefill) <= 512 - 64
    assert len(prompt) + len(prefill) > 512 - 64 - 40  # no more is forgotten than must be
    assert text.startswith("<|system|>Keep this.<|end|><|user|>What is")
    assert text.endswith("<|user|>What is 3 plus 4?<|end|><|assistant|>")
    huge = HumanMessage("old words " * 400 + "the end of it?")
    prompt, _ = forgetful._fitting([huge], None, 64)
    assert len(prompt) <= 512 - 64
    assert "the end of it?" in forgetful._engine.tokenizer.decode(prompt)
    chain = make(teacher, str(MODELS / "student"), student_kwargs={"on_long_prompt": "truncate"})
    assert chain.invoke(turns).text


def test_runnable_lambdas_nest(teacher, student, problem) -> None:
    chain = make(teacher, student, guidance_tokens=len(problem.plan) + 3)
    pipeline = RunnableLambda(str.upper) | (lambda _: problem.question) | chain
    assert pipeline.invoke("x").text == problem.solution


def test_streams_equal_answers_where_limits_are_ignored_or_stops_reached(student) -> None:
    wordy = "One two three four five six seven eight nine ten eleven twelve."
    disobedient = ToolTeacher(log=[])
    object.__setattr__(disobedient, "_reply", lambda *_: AIMessage(wordy, usage_metadata=USAGE))
    chain = make(disobedient, student, guidance_tokens=5, max_tokens=12)
    with pytest.warns(UserWarning, match="although it was asked"):
        streamed = "".join(c.text for c in chain.stream("Hello"))
    assert streamed == chain.invoke("Hello").text
    stopped = make(ToolTeacher(), student, guidance_tokens=40)
    want = stopped.invoke("Hello", stop=["well"]).text
    assert want == "Hello there, and "
    assert "".join(c.text for c in stopped.stream("Hello", stop=["well"])) == want


USAGE = {"input_tokens": 1, "output_tokens": 13, "total_tokens": 14}


def test_tokens_are_counted_by_the_students_tokenizer(teacher, student) -> None:
    ids = student._engine.tokenizer("What is 3 plus 4?", add_special_tokens=False)["input_ids"]
    assert student.get_token_ids("What is 3 plus 4?") == ids
    assert make(teacher, student).get_num_tokens("What is 3 plus 4?") == len(ids)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"max_tokens": 0}, "max_tokens must be a whole number, 1 or more, not 0"),
        ({"max_tokens": -3}, "max_tokens must be"),
        ({"temperature": -1}, "temperature must be a number, 0 or more"),
        ({"guidance_tokens": "5"}, "a whole number, not '5'"),
    ],
)
def test_call_time_values_are_checked(arguments, says, teacher, student) -> None:
    with pytest.raises(ValueError, match=says):
        make(teacher, student).invoke("x", **arguments)
    with pytest.raises(ValueError, match="method must be"):
        make(teacher, student).with_structured_output({"title": "A"}, method="foo")


def test_blocks_that_are_no_text_are_refused(teacher, student) -> None:
    for block in ({"type": "document", "source": {}}, {"type": "media", "data": "aa"}):
        with pytest.raises(ValueError, match=rf"messages\[0\].*'{block['type']}'"):
            make(teacher, student).invoke([HumanMessage([{"type": "text", "text": "x"}, block])])
    assert not teacher.asked


def test_teachers_that_hold_messages_do_not_share_entries(student) -> None:
    cat, dog = (
        make(FakeMessagesListChatModel(responses=[AIMessage(word)]), student)
        for word in ("cat", "dog")
    )
    assert cat._get_llm_string() != dog._get_llm_string()


@pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")
async def test_events_of_version_three_nest_and_are_configured(teacher, student, problem) -> None:
    shorter = WordTeacher(answer="Short.", asked=[])
    either = teacher.configurable_alternatives(ConfigurableField(id="who"), short=shorter)
    chain, recorder = make(either, student, guidance_tokens=len(problem.plan) + 3), Recorder()
    config = {"configurable": {"who": "short"}, "callbacks": [recorder]}
    assert "".join(chain.stream_events(problem.question, config, version="v3").text) == "Short."
    (own,), (taught,) = recorder.by_role(None), recorder.by_role("teacher")
    assert taught["parent"] == own["id"]
    stream = await chain.astream_events(problem.question, version="v3")
    assert "".join([text async for text in stream.text]) == problem.solution
