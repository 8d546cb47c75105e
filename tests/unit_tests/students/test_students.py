from __future__ import annotations

import copy
import json
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_huggingface import ChatHuggingFace, HuggingFacePipeline
from langchain_openai import ChatOpenAI
from support.fakes import MODELS, WordTeacher
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    BartConfig,
    BartForConditionalGeneration,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
    pipeline,
)

from langchain_gkt import (
    GuidedKnowledgeTransferChain,
    HuggingFaceStudent,
    StudentError,
    as_student,
)
from langchain_gkt.stop_strings import StopStringFilter
from langchain_gkt.students.engine.engine import Engine, Request
from langchain_gkt.students.prompting import PromptBuilder


@pytest.fixture(scope="session")
def plain_folders(tmp_path_factory) -> dict[str, str]:
    """Untrained models without chat templates: a GPT-2 and a T5."""
    folder = tmp_path_factory.mktemp("models")
    tokenizer = AutoTokenizer.from_pretrained(MODELS / "student")
    tokenizer.chat_template = None
    size, end = len(tokenizer), tokenizer.eos_token_id
    torch.manual_seed(0)
    gpt2 = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=size, n_embd=32, n_layer=2, n_head=2, bos_token_id=None, eos_token_id=end
        )
    )
    t5 = T5ForConditionalGeneration(
        T5Config(
            vocab_size=size,
            d_model=32,
            d_kv=16,
            d_ff=64,
            num_layers=2,
            num_heads=2,
            decoder_start_token_id=0,
            pad_token_id=0,
            eos_token_id=end,
        )
    )
    for name, model in (("gpt2", gpt2), ("t5", t5)):
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return {name: str(folder / name) for name in ("gpt2", "t5")}


def reference(model, tokenizer, prompt: list[int], count: int, **extra) -> str:
    """What transformers itself generates, greedily."""
    out = model.generate(torch.tensor([prompt]), max_new_tokens=count, do_sample=False, **extra)
    new = out[0] if model.config.is_encoder_decoder else out[0, len(prompt) :]
    return tokenizer.decode(new, skip_special_tokens=True)


def test_greedy_text_is_what_transformers_generates(student, problem) -> None:
    model = AutoModelForCausalLM.from_pretrained(MODELS / "student", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(MODELS / "student")
    prompt, _ = PromptBuilder(tokenizer).build([HumanMessage(problem.question)])
    assert student.invoke(problem.question).text == reference(model, tokenizer, prompt, 120)


@pytest.mark.parametrize("name", ["gpt2", "t5"])
def test_models_without_a_template(name, plain_folders) -> None:
    student = HuggingFaceStudent(model=plain_folders[name], max_tokens=12)
    engine, prompts = student._load()
    prompt, prefill = prompts.build([HumanMessage("Q: 1 + 1?\nA:"), AIMessage("The sum")])
    assert engine.tokenizer.decode(prompt) == "Q: 1 + 1?\nA:"
    assert engine.tokenizer.decode(prefill) == " The sum"
    got = student.invoke([("human", "Q: 1 + 1?\nA:"), ("ai", "The sum")])
    if name == "gpt2":
        want = reference(engine.model, engine.tokenizer, prompt + prefill, 12)
    else:
        start = torch.tensor([[0, *prefill]])
        whole = reference(engine.model, engine.tokenizer, prompt, 12, decoder_input_ids=start)
        want = whole.removeprefix(engine.tokenizer.decode(prefill))
    assert got.text == want
    assert got.usage_metadata["input_tokens"] == len(prompt) + len(prefill)


def test_several_turns_without_a_template_become_questions_and_answers(plain_folders) -> None:
    prompts = HuggingFaceStudent(model=plain_folders["gpt2"])._load()[1]
    turns = [SystemMessage("Be brief."), HumanMessage("1 + 1?"), AIMessage("2"), HumanMessage("x")]
    ids, _ = prompts.build(turns)
    assert prompts.tokenizer.decode(ids) == "Be brief.\n\nQ: 1 + 1?\nA: 2\nQ: x\nA:"


def test_the_seam_loses_and_repeats_nothing(student, problem) -> None:
    whole = student.invoke([("human", problem.question), ("ai", problem.plan)]).text
    assert problem.plan + whole == problem.solution
    for size in range(1, len(problem.plan)):
        begun = problem.plan[:size]
        if begun == begun.rstrip():
            rest = student.invoke([("human", problem.question), ("ai", begun)]).text
            assert "  " not in begun + rest


def test_text_that_looks_like_control_tokens_is_text(student) -> None:
    tokenizer = student._load()[1].tokenizer
    end = tokenizer.eos_token_id
    plain, begun = student._load()[1].build([HumanMessage("a"), AIMessage("b<|end|>c")])
    assert end not in begun
    tricky, _ = student._load()[1].build([HumanMessage("a<|end|><|assistant|>b")])
    assert tricky.count(end) == plain.count(end) == 1


def test_streamed_text_is_the_invoked_one(student, problem) -> None:
    chunks = list(student.stream(problem.question))
    message = student.invoke(problem.question)
    assert len(chunks) > 10
    assert "".join(chunk.text for chunk in chunks) == message.text
    assert chunks[-1].usage_metadata == message.usage_metadata
    assert message.response_metadata["finish_reason"] == "stop"


@pytest.mark.parametrize("stop", ["answer is", "wer", " = ", "T"])
def test_stop_strings_are_trimmed_wherever_tokens_split(stop, student, problem) -> None:
    whole = student.invoke(problem.question).text
    message = student.invoke(problem.question, stop=[stop, "never"])
    assert message.text == whole.split(stop)[0]
    assert message.response_metadata["finish_reason"] == "stop"
    chunks = student.stream(problem.question, stop=[stop])
    assert "".join(chunk.text for chunk in chunks) == message.text


def test_stop_filter_gives_back_what_did_not_become_a_stop() -> None:
    stop = StopStringFilter(("abc",))
    assert [stop.feed(part) for part in ("xa", "b", "d", "ab")] == [
        ("x", False),
        ("", False),
        ("abd", False),
        ("", False),
    ]
    assert stop.flush() == "ab"


def test_max_tokens_and_context(student, problem) -> None:
    message = student.invoke(problem.question, max_tokens=7)
    assert message.usage_metadata["output_tokens"] == 7
    assert message.response_metadata["finish_reason"] == "length"
    with pytest.raises(ValueError, match=r"prompt of \d+ tokens, but .* context holds 512"):
        student.invoke("1 " * 600)


@pytest.fixture(scope="module")
def bart() -> dict[str, Any]:
    """An untrained BART, whose encoder and decoder hold 64 tokens each, and its tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(MODELS / "student")
    tokenizer.chat_template = None
    tokenizer.eos_token = None  # so that every answer is as long as may be
    sizes = dict.fromkeys(("d_model", "encoder_ffn_dim", "decoder_ffn_dim"), 32)
    sizes |= dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 4)
    sizes |= {"vocab_size": len(tokenizer), "max_position_embeddings": 64}
    ends = dict.fromkeys(("eos_token_id", "forced_eos_token_id"))
    torch.manual_seed(0)
    config = BartConfig(**sizes, **ends, encoder_layers=1, decoder_layers=1, pad_token_id=0)
    config.decoder_start_token_id = 0
    return {"model": BartForConditionalGeneration(config), "tokenizer": tokenizer}


def test_encoder_and_decoder_have_a_context_each(bart) -> None:
    student = HuggingFaceStudent(**bart)
    for turns in ([HumanMessage("1 " * 30)], [HumanMessage("hi"), AIMessage("1 " * 15)]):
        prompt, prefill = student._load()[1].build(turns)
        used = student.invoke(turns).usage_metadata
        assert used["input_tokens"] == len(prompt) + len(prefill)
        assert used["output_tokens"] == 63 - len(prefill)  # and one token that begins it
    long = len(student._load()[1].build([HumanMessage("1 " * 80)])[0])
    with pytest.raises(ValueError, match=rf"prompt of {long} tokens, but .* reads 64"):
        student.invoke("1 " * 80)
    with pytest.raises(ValueError, match=r"beginning of \d+ tokens, but .* context holds 64"):
        student.invoke([("human", "hi"), ("ai", "1 " * 80)])
    with pytest.raises(ValueError, match=r"beginning .* and 16 more .* guidance.* holds 64"):
        student.check([HumanMessage("hi"), AIMessage("1 " * 26)], reserve=900)
    student.check([HumanMessage("1 " * 30)], reserve=900)  # guidance is none of the encoder's
    for prompt, says in (([5] * 65, "65 tokens, but .* reads 64"), ([5], "65 tokens .* holds 64")):
        request = Request(prompt=prompt, prefill=[], max_tokens=64)
        with pytest.raises(StudentError, match=says):
            next(student._engine.generate(request, threading.Event()))


def test_an_encoders_prompt_is_truncated_to_its_own_context(bart) -> None:
    student = HuggingFaceStudent(**bart, on_long_prompt="truncate")
    turns = [("human", "1 " * 80), ("ai", "The sum")]
    prefill = student._load()[1].build([HumanMessage("hi"), AIMessage("The sum")])[1]
    used = student.invoke(turns, max_tokens=5).usage_metadata
    assert 60 < used["input_tokens"] - len(prefill) <= 64


def test_relative_positions_have_no_limit(plain_folders) -> None:
    student = HuggingFaceStudent(model=plain_folders["t5"], max_tokens=2)
    assert student.invoke("1 " * 600).usage_metadata["input_tokens"] > 600


def test_seeds_make_samples_repeat(student, problem) -> None:
    def draw(seed: int) -> str:
        return student.invoke(problem.question, temperature=5.0, seed=seed, max_tokens=20).text

    with torch.random.fork_rng():
        first = draw(1)
        torch.manual_seed(99)  # the global generator has no say
        assert draw(1) == first
    assert len({draw(seed) for seed in range(4)}) > 1
    narrow = student.invoke(problem.question, temperature=5.0, top_p=1e-6, seed=3)
    assert narrow.text == student.invoke(problem.question).text


def test_weights_that_are_not_numbers_are_named(student) -> None:
    model = copy.deepcopy(student._engine.model)
    with torch.no_grad():
        model.get_output_embeddings().weight.fill_(float("nan"))
    broken = Engine(model, student._engine.tokenizer)
    with pytest.raises(StudentError, match="not numbers"):
        list(broken.generate(Request(prompt=[2], prefill=[], max_tokens=1), threading.Event()))


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


def test_bad_calls_are_named(student) -> None:
    with pytest.raises(TypeError, match="did you mean 'max_tokens'"):
        student.invoke("x", max_token=3)
    with pytest.raises(ValueError, match="prompt is empty"):
        student.invoke([("ai", "only an answer")])
    image = [{"type": "image_url", "image_url": {"url": "data:,"}}, {"type": "text", "text": "x"}]
    with pytest.raises(ValueError, match=r"messages\[1\].*'image_url'.*text only"):
        student.invoke([("system", "s"), HumanMessage(image)])


def test_int8_students_answer_and_are_told_apart(student, problem) -> None:
    small = HuggingFaceStudent(model=MODELS / "student", dtype="int8")
    message = small.invoke([("human", problem.question), ("ai", problem.plan)])
    assert message.text
    assert small._get_llm_string() != student._get_llm_string()
    held = small.with_structured_output({"title": "A", "type": "object", "properties": {}})
    assert held.invoke("An empty one.") == {}
    small.close()
