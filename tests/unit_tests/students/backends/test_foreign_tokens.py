"""A tokenizer with tokens that the model has no embedding for is refused on loading."""

from __future__ import annotations

import pytest
from support.models.fakes import MODELS
from transformers import AutoModelForCausalLM, AutoTokenizer

from langchain_gkt import HuggingFaceStudent, StudentError
from langchain_gkt.students.backends.gguf import GGUFHeader, read_header
from langchain_gkt.students.backends.openvino.folder import read_source
from langchain_gkt.students.engine.config import EngineConfig

FOLDER = MODELS / "student"
SAID = r"tokenizer has 601 tokens, but the model's embedding has 600 rows.*resize_token_embeddings"


@pytest.fixture
def larger():
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    tokenizer.add_tokens(["<<new>>"])
    return tokenizer


def with_special(**named):
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    tokenizer.add_special_tokens(named or {"additional_special_tokens": ["<image>"]})
    return tokenizer


def test_a_pair_and_a_folder(larger, tmp_path) -> None:
    model = AutoModelForCausalLM.from_pretrained(FOLDER, dtype="float32")
    with pytest.raises(StudentError, match=SAID):
        HuggingFaceStudent(model=model, tokenizer=larger)
    model.save_pretrained(tmp_path)
    larger.save_pretrained(tmp_path)
    with pytest.raises(StudentError, match=SAID):
        HuggingFaceStudent(model=tmp_path)
    with pytest.raises(StudentError, match=SAID):
        HuggingFaceStudent(model=FOLDER, tokenizer=larger)


def test_a_model_that_does_not_name_its_embedding(larger, monkeypatch) -> None:
    model = AutoModelForCausalLM.from_pretrained(FOLDER, dtype="float32")
    monkeypatch.setattr(model, "get_input_embeddings", _unnamed)
    with pytest.raises(StudentError, match=SAID):
        HuggingFaceStudent(model=model, tokenizer=larger)


def _unnamed():
    raise NotImplementedError


def test_encoder_decoder_models_too(larger, plain_folders) -> None:
    with pytest.raises(StudentError, match=SAID):
        HuggingFaceStudent(model=plain_folders["t5"], tokenizer=larger)


def test_openvino(larger, openvino_folder) -> None:
    with pytest.raises(StudentError, match=SAID):
        read_source(str(openvino_folder), larger)


def test_llamacpp(larger, gguf, fake_llamacpp) -> None:
    header = read_header(str(gguf))
    assert header.vocabulary is None
    known = GGUFHeader(header.path, {**header.metadata, "token_embd.weight": 600})
    with pytest.raises(StudentError, match=SAID):
        fake_llamacpp[0].LlamaCppBackend(known, larger, EngineConfig(), None)


def test_a_slow_tokenizer_is_refused_at_once(gguf, fake_llamacpp) -> None:
    with pytest.raises(StudentError, match=r"object.* is not a fast one; load it with AutoTok"):
        fake_llamacpp[0].LlamaCppBackend(read_header(str(gguf)), object(), EngineConfig(), None)


@pytest.mark.parametrize(
    "tokenizer", [with_special(pad_token="<pad2>"), with_special(eos_token="<end2>")]
)
def test_special_tokens_that_have_a_role_are_refused(tokenizer) -> None:
    with pytest.raises(StudentError, match="has the id 600"):
        HuggingFaceStudent(model=FOLDER, tokenizer=tokenizer)


def test_a_special_token_of_the_template_is_refused() -> None:
    tokenizer = with_special()
    tokenizer.chat_template = "<image>" + tokenizer.chat_template
    with pytest.raises(StudentError, match="'<image>' has the id 600"):
        HuggingFaceStudent(model=FOLDER, tokenizer=tokenizer)


def test_a_special_token_that_nothing_writes_does_no_harm(student) -> None:
    own = HuggingFaceStudent(model=FOLDER, tokenizer=with_special())
    assert own.invoke("What is 3 plus 4?").text == student.invoke("What is 3 plus 4?").text
    assert own.invoke("What is an <image>?").text
    own.close()
    allowing = HuggingFaceStudent(
        model=FOLDER, tokenizer=with_special(), allowed_added_tokens="all"
    )
    with pytest.raises(
        ValueError, match=r"'<image>' \(id 600\), which the model lacks; take it out"
    ):
        allowing.invoke("What is an <image>?")
    allowing.close()
