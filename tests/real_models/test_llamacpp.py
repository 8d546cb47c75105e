"""SmolLM2 as a GGUF file: by llama.cpp in this process, behind its server, and by torch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from support.models import real_models
from support.models.fakes import WordTeacher

from langchain_gkt import GuidedKnowledgeTransferChain, HuggingFaceStudent
from langchain_gkt.students import remote_student

xllamacpp = pytest.importorskip("xllamacpp")

QUESTIONS = ["Name three colours.", "Why is the sky blue?", "What is 17 + 25?"]
BEGUN = ["The answ", "First, ", "Step 1:\n"]
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "country": {"type": "string"}},
    "required": ["name", "country"],
}
FORMAT = {"type": "json_schema", "json_schema": {"schema": SCHEMA}}


@pytest.fixture(scope="module")
def file() -> Path:
    try:
        return real_models.smollm2_gguf()
    except real_models.NotAvailable as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="module")
def llamacpp(file) -> Iterator[HuggingFaceStudent]:
    student = HuggingFaceStudent(model=file, max_tokens=24)
    yield student
    student.close()


def conversations() -> list[list]:
    begun = [[HumanMessage(q), AIMessage(b)] for q in QUESTIONS for b in BEGUN]
    return [*[[HumanMessage(q)] for q in QUESTIONS], *begun]


def test_one_file_is_enough(llamacpp) -> None:
    assert llamacpp.backend == "llamacpp"
    answer = llamacpp.invoke("Name three colours.")
    assert answer.usage_metadata["output_tokens"] > 3
    assert "<|im_" not in answer.content
    streamed = list(llamacpp.stream("Name three colours."))
    assert "".join(chunk.text for chunk in streamed) == answer.content
    assert llamacpp.probe([HumanMessage("Name three colours.")])[0] > 0.05


def test_text_is_mostly_that_of_torch(llamacpp, file) -> None:
    by_torch = HuggingFaceStudent(model=file, backend="torch", dtype="float32", max_tokens=24)
    pairs = [(by_torch.invoke(m).content, llamacpp.invoke(m).content) for m in conversations()]
    by_torch.close()
    # llama.cpp multiplies packed weights with rounded activations, so a near tie may turn.
    assert sum(theirs[:8] == ours[:8] for theirs, ours in pairs) >= 0.75 * len(pairs)


def test_text_of_float32_weights_is_that_of_torch(file, tmp_path) -> None:
    exact = real_models.write_float32(file, tmp_path / "float32.gguf")
    texts = []
    for options in ({}, {"backend": "torch", "dtype": "float32"}):
        student = HuggingFaceStudent(model=exact, max_tokens=24, **options)
        texts.append([student.invoke(messages).content for messages in conversations()])
        student.close()
    assert texts[0] == texts[1]


def test_sixteen_at_once(llamacpp) -> None:
    answers = llamacpp.batch([[HumanMessage(f"Name {n} colours.")] for n in range(16)])
    assert all(answer.content for answer in answers)


@pytest.mark.parametrize("begun", ["", '{"name": "Par'])
def test_a_begun_object_is_finished(llamacpp, begun) -> None:
    messages = [HumanMessage("Tell me of Paris."), *([AIMessage(begun)] if begun else [])]
    answer = llamacpp.invoke(messages, response_format=FORMAT, max_tokens=60)
    assert set(json.loads(begun + answer.content)) == {"name", "country"}


@pytest.fixture(scope="module")
def server(file):
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(file)
    parameters.n_ctx, parameters.n_parallel, parameters.port = 2048, 1, 0
    parameters.verbosity, parameters.fit_params = -1, False
    running = xllamacpp.Server(parameters)
    yield running.listening_address
    del running


def test_a_student_behind_llama_server_writes_the_same(llamacpp, server) -> None:
    openai = pytest.importorskip("langchain_openai")
    client = openai.ChatOpenAI(
        model="smollm2", base_url=f"{server}/v1", api_key="none", temperature=0.0, max_tokens=24
    )
    student = remote_student(client, "llama-server")
    for question in QUESTIONS:
        teacher = WordTeacher(answer="The answer to this is a long story.")
        near, far = (
            GuidedKnowledgeTransferChain(teacher=teacher, student=one, guidance_tokens=14).invoke(
                question
            )
            for one in (llamacpp, student)
        )
        assert far.content == near.content
        assert far.response_metadata["gkt"]["student_usage"]["output_tokens"] > 0
