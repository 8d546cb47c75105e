"""Cache keys: whatever changes an answer changes the key."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from langchain_core._api import LangChainBetaWarning
from langchain_core._api.deprecation import LangChainPendingDeprecationWarning
from langchain_core.caches import InMemoryCache
from langchain_core.globals import set_llm_cache
from langchain_core.language_models import FakeMessagesListChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_openai import ChatOpenAI
from pydantic import SecretStr
from support.models.fakes import MODELS, Recorder, WordTeacher, make
from support.sqlite_cache import SQLiteCache

from langchain_gkt import GuidancePolicy, GuidedKnowledgeTransferChain, HuggingFaceStudent
from langchain_gkt.chain.identity import without_bookkeeping


def openai(**kwargs: Any) -> ChatOpenAI:
    return ChatOpenAI(**{"model": "m", "api_key": SecretStr("sk-secret"), **kwargs})


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


@pytest.mark.slow
def test_no_two_chains_share_a_cache_key(student) -> None:
    keys = {name: c._get_llm_string(stop=None) for name, c in different_chains(student).items()}
    assert len(set(keys.values())) == len(keys), keys
    again = {name: c._get_llm_string(stop=None) for name, c in different_chains(student).items()}
    assert again == keys
    base = different_chains(student)["base"]
    assert base._get_llm_string(stop=None, guidance_tokens=3) != keys["base"]
    assert base._get_llm_string(stop=["a"]) != keys["base"]


def test_weights_not_names_tell_students_apart(tmp_path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(MODELS / "student")
    tokenizer = AutoTokenizer.from_pretrained(MODELS / "student")

    def key() -> str:
        model.save_pretrained(tmp_path / "s")
        tokenizer.save_pretrained(tmp_path / "s")
        loaded = HuggingFaceStudent(model=tmp_path / "s")
        pair = HuggingFaceStudent(model=model, tokenizer=tokenizer)
        assert pair._engine.fingerprint
        return loaded._get_llm_string()

    first = key()
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight.add_(0.1)
    assert key() != first


def test_teachers_that_hold_messages_do_not_share_entries(student) -> None:
    cat, dog = (
        make(FakeMessagesListChatModel(responses=[AIMessage(word)]), student)
        for word in ("cat", "dog")
    )
    assert cat._get_llm_string() != dog._get_llm_string()


def test_the_cache_tells_chains_apart(teacher, student, problem) -> None:
    cache = InMemoryCache()
    chain = make(teacher, student, cache=cache)
    other = make(WordTeacher(answer="Other.", asked=[]), student, guidance_tokens=500, cache=cache)
    same_policy = make(teacher, student, guidance_tokens=9, cache=cache)
    first = chain.invoke(problem.question)
    asked = len(teacher.asked)
    assert chain.invoke(problem.question).text == first.text
    assert len(teacher.asked) == asked
    assert other.invoke(problem.question).text == "Other."
    same_policy.invoke(problem.question)
    assert len(teacher.asked) == asked + 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_caches(kind, teacher, whole_student, problem, tmp_path) -> None:
    cache: Any = InMemoryCache() if kind == "memory" else SQLiteCache(tmp_path / "cache.db")
    set_llm_cache(cache)
    # A loader's notice, taken for an error, would have the cache give up on its entry.
    warnings.filterwarnings("ignore", category=LangChainBetaWarning)
    warnings.filterwarnings("ignore", category=LangChainPendingDeprecationWarning)
    try:
        chain = make(teacher, whole_student, guidance_tokens=len(problem.plan) + 3)
        first = chain.invoke(problem.question)
        recorder = Recorder()
        hit = chain.invoke(problem.question, {"callbacks": [recorder]})
        ahit = await chain.ainvoke(problem.question)
        assert hit.text == ahit.text == first.text == problem.solution
        assert hit.usage_metadata["total_cost"] == 0
        assert len(recorder.runs) == 1  # a hit has no children
        assert len(teacher.asked) == 1
        other = make(
            WordTeacher(answer="Another.", asked=[]),
            whole_student,
            guidance_tokens=chain.guidance_tokens,
        )
        assert other.invoke(problem.question).text != first.text
    finally:
        set_llm_cache(None)
        if kind == "sqlite":
            cache.close()


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_a_conversation_is_found_again_in_the_cache(kind, tmp_path) -> None:
    cache: Any = InMemoryCache() if kind == "memory" else SQLiteCache(tmp_path / "cache.db")
    teacher, student = WordTeacher(answer="One. " * 9, asked=[]), WordTeacher(answer="Two.")
    chain = make(teacher, student, guidance_tokens=12, cache=cache)
    asked = []
    for _ in range(3):
        first = chain.invoke([HumanMessage("A")])
        chain.invoke([HumanMessage("A"), first, HumanMessage("B")])
        asked.append(len(teacher.asked))
    assert asked == [2, 2, 2]
    plain = AIMessage(
        first.text, response_metadata={"model_name": first.response_metadata["model_name"]}
    )
    told = without_bookkeeping([plain, first])
    assert told[0] is plain
    assert told[1].usage_metadata is None and "gkt" not in told[1].response_metadata
    assert first.usage_metadata and "gkt" in first.response_metadata  # the caller's own is kept
    other = AIMessage("Something else.")
    chain.invoke([HumanMessage("A"), other, HumanMessage("B")])
    assert len(teacher.asked) == 3
