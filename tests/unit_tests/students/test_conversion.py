"""as_student: everything that becomes a student."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from langchain_huggingface import ChatHuggingFace, HuggingFacePipeline
from langchain_openai import ChatOpenAI
from support.models.fakes import MODELS, WordTeacher
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    pipeline,
)

from langchain_gkt import (
    GuidedKnowledgeTransferChain,
    HuggingFaceStudent,
    StudentError,
    as_student,
)


@pytest.fixture(scope="session")
def llama_folder(tmp_path_factory) -> str:
    """An untrained Llama with a chat template."""
    folder = tmp_path_factory.mktemp("llama")
    tokenizer = AutoTokenizer.from_pretrained(MODELS / "student")
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


FORMS = ["folder", "path", "pair", "pipeline", "HuggingFacePipeline", "ChatHuggingFace", "student"]


# transformers 5 has no pipeline for encoder-decoder models.
COMBINATIONS = [(kind, form) for kind in ("llama", "gpt2") for form in FORMS]
COMBINATIONS += [("t5", form) for form in ("folder", "path", "pair", "student")]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "form"), COMBINATIONS)
def test_everything_that_holds_a_model_becomes_a_student(
    kind, form, llama_folder, plain_folders
) -> None:
    folder = llama_folder if kind == "llama" else plain_folders[kind]
    loader = AutoModelForSeq2SeqLM if kind == "t5" else AutoModelForCausalLM
    pair = loader.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    given: Any = {"folder": folder, "path": Path(folder), "pair": pair}.get(form)
    if given is None and form == "student":
        given = HuggingFaceStudent(model=folder)
    if given is None:
        given = pipeline("text-generation", model=pair[0], tokenizer=pair[1])
        if form != "pipeline":
            given = HuggingFacePipeline(pipeline=given)
        if form == "ChatHuggingFace":
            given = ChatHuggingFace(llm=given, model_id=folder)
    made = as_student(given)
    assert isinstance(made, HuggingFaceStudent)
    assert (made is given) == (form == "student")
    asked = [("human", "Q: 1 + 1?\nA:"), ("ai", "The sum")]
    want = HuggingFaceStudent(model=folder).invoke(asked, max_tokens=6)
    got = made.invoke(asked, max_tokens=6)
    assert (got.text, got.usage_metadata) == (want.text, want.usage_metadata)
    assert got.usage_metadata["output_tokens"] > 0


def test_a_pipelines_settings_are_carried_over(llama_folder) -> None:
    def student(chat: dict[str, Any] | None = None, **settings: Any) -> HuggingFaceStudent:
        pipe = HuggingFacePipeline.from_model_id(
            llama_folder, task="text-generation", pipeline_kwargs=settings
        )
        return as_student(pipe if chat is None else ChatHuggingFace(llm=pipe, **chat))

    made = student(max_new_tokens=5, temperature=0.3, top_p=0.8, do_sample=True)
    assert (made.max_tokens, made.temperature, made.top_p) == (5, 0.3, 0.8)
    assert student(do_sample=True).temperature == 1.0
    assert student(do_sample=False, temperature=0.3).temperature == 0.0
    made = student({"temperature": 0.9, "seed": 3, "stop_sequences": ["x"]}, max_new_tokens=7)
    assert (made.max_tokens, made.temperature, made.seed, made.stop) == (7, 0.9, 3, ["x"])
    plain = pipeline(
        "text-generation", model=llama_folder, max_new_tokens=4, return_full_text=False
    )
    assert as_student(plain).max_tokens == 4
    assert as_student(plain, max_tokens=9).max_tokens == 9
    with pytest.warns(UserWarning, match="does not carry over the pipeline's repetition_penalty"):
        student(repetition_penalty=1.2)


def test_a_remote_model_that_continues_is_taken_as_it_is(problem) -> None:
    seen: list[dict[str, Any]] = []

    def serve(request: httpx.Request) -> httpx.Response:
        seen.append(json.loads(request.content))
        rest = problem.solution.removeprefix(seen[-1]["messages"][-1]["content"])
        choice = {"index": 0, "message": {"role": "assistant", "content": rest}}
        usage = {"prompt_tokens": 5, "completion_tokens": 6, "total_tokens": 11}
        body = {"id": "1", "object": "chat.completion", "created": 1, "model": "m"}
        return httpx.Response(
            200, json={**body, "choices": [{**choice, "finish_reason": "stop"}], "usage": usage}
        )

    remote = ChatOpenAI(
        model="m",
        api_key="k",
        base_url="http://127.0.0.1:9/v1",
        http_client=httpx.Client(transport=httpx.MockTransport(serve)),
        extra_body={"continue_final_message": True, "add_generation_prompt": False},
    )
    assert as_student(remote) is remote
    with pytest.raises(TypeError, match=r"student_kwargs .*'device'.* do not apply"):
        as_student(remote, device="cpu")
    teacher = WordTeacher(answer=problem.solution, asked=[])
    chain = GuidedKnowledgeTransferChain(
        teacher=teacher, student=remote, guidance_tokens=len(problem.plan) + 3, max_tokens=60
    )
    message = chain.invoke(problem.question)
    assert message.text == problem.solution
    (request,) = seen
    assert [m["role"] for m in request["messages"]] == ["user", "assistant"]
    assert request["messages"][-1]["content"] == problem.plan
    assert request["continue_final_message"] is True
    assert request["max_completion_tokens"] == 60 - len(problem.plan) - 3
    assert message.response_metadata["gkt"]["student_usage"]["output_tokens"] == 6


@pytest.mark.slow
def test_a_ready_chat_model_needs_no_torch(light) -> None:
    code = """
import sys
from langchain_core.language_models import FakeListChatModel
from langchain_gkt import as_student
from langchain_gkt.structured_output import grammar, partial_json, schema
model = FakeListChatModel(responses=["x"])
assert as_student(model) is model
print("torch" in sys.modules)
"""
    assert light.run(code)[:2] == (0, "False\n")


@pytest.mark.parametrize(
    ("make", "kind", "says"),
    [
        (lambda tmp: as_student("/no/such/folder"), FileNotFoundError, "not a folder"),
        (lambda tmp: as_student(tmp), FileNotFoundError, "no config.json"),
        (
            lambda tmp: as_student(4),
            TypeError,
            "a folder or hub id, a .* pair, .*pipeline, HuggingFacePipeline, ChatHuggingFace, "
            "HuggingFaceStudent, or another .* not int",
        ),
        (lambda tmp: as_student(MODELS / "student", max_tokns=3), TypeError, "'max_tokens'"),
        (lambda tmp: as_student("no-such-model"), StudentError, "could not be loaded"),
    ],
)
def test_bad_students_are_named(make, kind, says, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(kind, match=says):
        make(tmp_path)


def test_a_folder_without_tokenizer_is_named(tmp_path) -> None:
    AutoModelForCausalLM.from_pretrained(MODELS / "student").save_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match="holds no tokenizer"):
        as_student(tmp_path)
