"""Where a begun text is opened again, and what the first tokens may be, on made vocabularies."""

from __future__ import annotations

import pytest
import torch
from support.models.tiny import MAKERS, TOKENIZER, make_model, run
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from langchain_gkt.students.engine.engine import Engine, Request
from langchain_gkt.students.engine.token_healing import Healing, TokenSpelling

CHARACTER = bytes_to_unicode()
PIECES = ["it", " is", " 2", "1", " 21", ":", "\n", ":\n", ":\n\n", " a", "  ", " ", "né", ".", "2"]


def byte_level() -> PreTrainedTokenizerFast:
    """A tokenizer of the kind of GPT-2, Qwen and SmolLM, without merges but of whole pieces."""
    words = [*CHARACTER.values(), *("".join(CHARACTER[b] for b in p.encode()) for p in PIECES)]
    ids = {word: at for at, word in enumerate(dict.fromkeys(words))}
    backend = Tokenizer(models.BPE(vocab=ids, merges=[]))
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>")
    tokenizer.add_tokens(["<tool_call>"])
    return tokenizer


def sentence_piece() -> PreTrainedTokenizerFast:
    """A tokenizer of the kind of Llama and Gemma: blanks in front of words, bytes as a fallback."""
    words = [f"<0x{byte:02X}>" for byte in range(256)] + [p.replace(" ", "▁") for p in PIECES]
    backend = Tokenizer(models.BPE(vocab={w: at for at, w in enumerate(words)}, merges=[]))
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>")


def word_piece() -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.WordPiece(vocab={"it": 0, "##s": 1, "[UNK]": 2}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.decoder = decoders.WordPiece()
    return PreTrainedTokenizerFast(tokenizer_object=backend)


@pytest.fixture(params=[byte_level, sentence_piece])
def known(request) -> tuple[TokenSpelling, dict[str, int]]:
    tokenizer = request.param()
    ids = {}
    spelling = TokenSpelling(tokenizer, len(tokenizer))
    for at in range(len(tokenizer)):
        ids.setdefault(spelling.of(at).decode(errors="ignore"), at)
    return spelling, ids


def ids_of(ids: dict[str, int], *pieces: str) -> list[int]:
    return [ids[piece] for piece in pieces]


@pytest.mark.parametrize(
    ("pieces", "kept", "spelled"),
    [
        (["it", " is", " 21"], 2, " 21"),
        (["it", " is", " 21", " "], 3, " "),  # no token has a blank at its end
        (["it", " is", " 21", " ", " "], 3, "  "),
        (["it", " a", "\n"], 2, "\n"),
        (["it", ":", "\n", "  "], 1, ":\n  "),
        (["it"], 0, "it"),
    ],
)
def test_the_last_word_and_its_blanks_are_opened(known, pieces, kept, spelled) -> None:
    spelling, ids = known
    begun = ids_of(ids, *pieces)
    seam = spelling.seam(begun)
    assert (seam.kept, seam.spelled.decode()) == (begun[:kept], spelled)
    assert seam.shown == len(spelled)


def test_what_may_come_first(known) -> None:
    spelling, ids = known
    # " 21" may be spelled in three ways; "." is never a beginning of it.
    assert {spelling.of(t) for t in spelling.candidates(b" 21")} == {b" 21", b" 2", b" "}
    assert {spelling.of(t) for t in spelling.candidates(b":\n")} == {b":", b":\n", b":\n\n"}
    seam = spelling.seam(ids_of(ids, "it", ":"))
    healing = Healing(spelling, seam)
    held = healing.hold(torch.zeros(300))
    may = {spelling.of(int(t)) for t in torch.isfinite(held).nonzero()}
    assert may == {b":", b":\n", b":\n\n"}
    assert not healing.take(ids[":\n"])  # it goes beyond what was there: a token of the answer
    free = torch.zeros(len(ids))
    assert healing.hold(free) is free


def test_tokens_that_only_repeat_are_told_apart(known) -> None:
    spelling, ids = known
    healing = Healing(spelling, spelling.seam(ids_of(ids, "it", " 21")))
    assert healing.take(ids[" 2"]) and healing.take(ids["1"])
    assert not healing.take(ids[" a"])
    assert not healing.take(ids[" a"])


def test_characters_of_several_bytes_are_never_split(known) -> None:
    spelling, ids = known
    single = [next(t for t in spelling.candidates(bytes([b])) if len(spelling.of(t)) == 1)
              for b in "é".encode()]  # fmt: skip
    seam = spelling.seam([ids["it"], *single])
    assert (seam.kept, seam.spelled.decode()) == ([ids["it"]], "é")
    assert spelling.seam([ids["it"], single[0]]) is None  # half a character stays as it is


def test_added_tokens_stay_and_are_never_written_for_text() -> None:
    tokenizer = byte_level()
    spelling = TokenSpelling(tokenizer, len(tokenizer))
    call = tokenizer.convert_tokens_to_ids("<tool_call>")
    assert call not in spelling.candidates(b"<")
    newline = tokenizer.convert_tokens_to_ids(CHARACTER[ord("\n")])
    seam = spelling.seam([call, newline])
    assert (seam.kept, seam.spelled) == ([call], b"\n")
    assert spelling.seam([tokenizer.eos_token_id]) is None


def test_long_blanks_and_unknown_kinds_are_left_alone(known) -> None:
    spelling, ids = known
    assert spelling.seam([ids["it"], *[ids["  "]] * 500]) is None
    assert spelling.seam([]) is None
    tokenizer = word_piece()
    unknown = TokenSpelling(tokenizer, len(tokenizer))
    assert not unknown.is_known
    assert unknown.seam([0, 1]) is None


@pytest.mark.filterwarnings("ignore:.*no KV cache")
@pytest.mark.parametrize("kind", sorted(MAKERS))
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("text", ["Plan: take 14 ", "Plan: take 14"])
def test_repeated_text_is_neither_shown_nor_counted(kind, stream, text) -> None:
    model = make_model(kind)
    engine = Engine(model, TOKENIZER)
    begun = TOKENIZER(text, add_special_tokens=False)["input_ids"]
    prompt = TOKENIZER("What is 14?")["input_ids"]
    seam = engine.spelling.seam(begun)
    assert seam.spelled and len(seam.kept) < len(begun)
    request = Request(prompt=prompt, answer_prefix=begun, max_tokens=6, seam=seam)
    chunks = run(engine, request, stream=stream)
    assert chunks[-1].tokens == 6
    assert chunks[-1].finish_reason == "length"
    # The same tokens, chosen without an engine.
    healing, ids, new, repeated = Healing(engine.spelling, seam), list(seam.kept), [], 0
    while len(new) - repeated < 6:
        if model.config.is_encoder_decoder:
            decoder = torch.tensor([[0, *ids, *new]])
            logits = model(torch.tensor([prompt]), decoder_input_ids=decoder).logits[0, -1]
        else:
            logits = model(torch.tensor([[*prompt, *ids, *new]])).logits[0, -1]
        new.append(int(healing.hold(logits.float()).argmax()))
        repeated += healing.take(new[-1])
    whole = TOKENIZER.backend_tokenizer.decode([*ids, *new])
    shown = TOKENIZER.backend_tokenizer.decode(begun)
    assert whole.startswith(shown)
    assert "".join(chunk.text for chunk in chunks) == whole[len(shown) :].rstrip("\ufffd")
    engine.close()
