"""Objects of a schema that somebody began: their end is spelled again, and they stay whole.

The vocabulary is made: byte-level, with tokens that span the marks of JSON, as real ones have.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jsonschema
import pytest
import torch
from langchain_core.messages import AIMessage, HumanMessage
from support.models.tiny import LLAMA
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from langchain_gkt import HuggingFaceStudent
from langchain_gkt.structured_output.constraint import GrammarConstraint, GrammarTokenizer
from langchain_gkt.structured_output.grammar import json_grammar
from langchain_gkt.structured_output.schema import json_edge
from langchain_gkt.students.engine.token_healing import Healing, TokenSpelling
from langchain_gkt.students.settings import GenerationSettings

CHARACTER = bytes_to_unicode()
PIECES = [
    "name",
    '{"',
    '":',
    '": "',
    '", "',
    ": ",
    "{\n",
    ":\n",
    ",\n",
    "   ",
    ' "',
    '"}',
    "12",
    "2}",
]
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 40},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 9}, "maxItems": 3},
        "age": {"type": "integer", "minimum": 0, "maximum": 9999},
    },
    "required": ["name", "tags", "age"],
}
OBJECT = {"name": "Tom is 21 名前🎉", "tags": ["a b", ""], "age": 12}
TEXTS = [json.dumps(OBJECT, ensure_ascii=False, indent=indent) for indent in (None, 4)]
FORMAT = {"type": "json_schema", "json_schema": {"schema": SCHEMA}}


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    words = ["<end>", *CHARACTER.values()]
    words += ["".join(CHARACTER[byte] for byte in piece.encode()) for piece in PIECES]
    backend = Tokenizer(models.Unigram([(word, -1.0) for word in words], unk_id=0))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>")


@pytest.fixture(scope="module")
def writer(tokenizer):
    torch.manual_seed(3)
    sizes = {**LLAMA, "vocab_size": len(tokenizer), "max_position_embeddings": 512}
    config = LlamaConfig(**sizes, eos_token_id=0, bos_token_id=None)
    student = HuggingFaceStudent(model=LlamaForCausalLM(config).eval(), tokenizer=tokenizer)
    yield student
    student.close()


def go_on(writer: HuggingFaceStudent, begun: str, **settings: Any) -> tuple[str, int]:
    messages = [HumanMessage("Who?"), AIMessage(begun)]
    message = writer.invoke(messages, response_format=FORMAT, **settings)
    return str(message.text), message.usage_metadata["output_tokens"]


@pytest.mark.slow
@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("limit", [1, 40])
def test_cut_anywhere_it_goes_on_as_a_valid_object(text, limit, writer) -> None:
    def check(end: int) -> None:
        begun = text[:end]
        more, used = go_on(writer, begun, temperature=9.0, seed=end, max_tokens=limit)
        jsonschema.validate(json.loads(begun + more), SCHEMA)
        # A begun object gets the tokens that its shortest end takes, 30 at most here.
        assert used <= max(limit, 30)

    with ThreadPoolExecutor(8) as pool:  # they are decoded together
        list(pool.map(check, range(1 + limit % 3, len(text), 3)))


@pytest.mark.slow
@pytest.mark.parametrize("text", TEXTS)
def test_a_model_that_wants_the_whole_text_writes_it(text, tokenizer) -> None:
    spelling = TokenSpelling(tokenizer, len(tokenizer))
    known, grammar = GrammarTokenizer(tokenizer, {0}, len(tokenizer)), json_grammar(SCHEMA)
    data, spanning = text.encode(), 0
    words = [spelling.of(token) for token in range(len(tokenizer))]
    for end in range(1, len(text)):
        begun = text[:end]
        seam = spelling.seam(tokenizer(begun)["input_ids"])
        assert seam is not None
        left = len(tokenizer(text[end:])["input_ids"]) + 2
        held = GrammarConstraint(
            known, grammar, begun=begun, max_tokens=left,
            spelled=seam.spelled, spelled_tokens=seam.opened,
        )  # fmt: skip
        healing, done = Healing(spelling, seam), len(begun.encode())
        at = done - len(seam.spelled)
        # Far behind the seam one text is as another: every eighth is written to its end.
        while at < (len(data) if end % 8 == 0 else min(done + 12, len(data))):
            wanted = torch.tensor(
                [
                    float(len(word)) if word and data.startswith(word, at) else -9.0
                    for word in words
                ]
            )  # fmt: skip
            token = held.choose(healing.hold(wanted), lambda scores: int(scores.argmax()))
            assert data.startswith(words[token], at), (begun, words[token])
            assert words[token]
            healing.take(token)
            spanning += at < done < at + len(words[token])
            at += len(words[token])
    assert spanning > 5


def test_a_token_across_the_seam_is_one_token(writer, tokenizer) -> None:
    requests = writer._loader.load()
    settings = GenerationSettings.of_call(writer, None, response_format=FORMAT)
    request = requests.build([HumanMessage("Who?"), AIMessage('{"name":')], settings)
    assert request.seam is not None
    assert request.seam.spelled == b'":'
    kept = requests.build([HumanMessage("Who?"), AIMessage('{"name":')], settings, heal=False)
    assert kept.seam is None
    assert kept.kept == request.answer_prefix


def test_blanks_before_the_object_are_no_part_of_it(writer) -> None:
    more, _ = go_on(writer, " \n", max_tokens=60)
    jsonschema.validate(json.loads(more), SCHEMA)
    more, _ = go_on(writer, ' {"name', max_tokens=60)
    jsonschema.validate(json.loads(' {"name' + more), SCHEMA)


@pytest.mark.parametrize("text", TEXTS)
def test_words_without_blanks_are_kept_in_objects(text) -> None:
    for size in range(len(text)):
        assert json_edge(text).startswith(json_edge(text[:size]))
    assert json_edge('{"name": "เขียนเกี่ยวกับอา') == '{"name": "เขียนเกี่ยวกับ'
    assert json_edge('{"name": "机器学习') == '{"name": "机器学'
    assert json_edge('{"name": "It is 21 ') == '{"name": "It is 21 '
    assert json_edge('{"age": 12') == '{"age": '
