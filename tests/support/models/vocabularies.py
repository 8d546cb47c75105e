"""Tokenizers of every kind, made here, and chat templates in the manner of known models."""

from __future__ import annotations

import string

from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)
from transformers import PreTrainedTokenizerFast

from support.models.scripted import TOOL_TEMPLATE

SPECIAL = ["<|im_start|>", "<|im_end|>", "<|end|>", "<|user|>", "<|assistant|>", "</s>", "[INST]"]
UNMARKED = ["<tool_call>", "</tool_call>", "<think>", "</think>", "<|fim_prefix|>", "<|tool|>"]
LETTERS = [chr(c) for c in range(0x20, 0x7F)]
WORDS = ["the", "th", "he", "in", "end", "user", "tool", "think", "im", "s>"]
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + (m['content'] or '') | trim }}"
    "{% for c in m.tool_calls or [] %}{{ '\n<tool_call>\n' ~ (c.function | tojson) ~ "
    "'\n</tool_call>' }}{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    "{% if tools %}{% endif %}"
)
INST = (
    "{% for m in messages %}{% if m.role == 'assistant' %}{{ ' ' + m.content + '</s>' }}"
    "{% else %}{{ '[INST] ' + m.content + ' [/INST]' }}{% endif %}{% endfor %}"
)
# As Qwen3 and others do: reasoning in the history is left out.
NO_REASONING = (
    "{% for m in messages %}{% set text = m.content %}{% if '</think>' in text %}"
    "{% set text = text.split('</think>')[-1] %}{% endif %}"
    "{{ '<|im_start|>' ~ m.role ~ '\n' ~ text ~ '<|im_end|>' }}{% endfor %}"
    "{{ '<|im_start|>assistant\n<think>\n' }}"
)
TEMPLATES = {
    "chatml": CHATML,
    "built of parts": TOOL_TEMPLATE,
    "inst": INST,
    "reasoning": NO_REASONING,
    "none": None,
}


def _bytes() -> Tokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("t", "h"), ("e", "n"), ("en", "d"), ("<", "|"), ("|", ">")]
    vocab = {token: i for i, token in enumerate([*alphabet, *("".join(m) for m in merges)])}
    made = Tokenizer(models.BPE(vocab, merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return made


def _folding() -> Tokenizer:
    made = _bytes()
    made.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    return made


def _unigram() -> Tokenizer:
    pieces = ["<unk>", "</s>", "<think>", *LETTERS, "\u2581", *WORDS]
    scores = [0.0] * 3 + [-5.0] * (len(pieces) - 3)
    made = Tokenizer(models.Unigram(list(zip(pieces, scores, strict=True)), unk_id=0))
    made.normalizer = normalizers.NFKC()
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    return made


def _words() -> Tokenizer:
    tokens = ["[UNK]", *SPECIAL, *UNMARKED, *WORDS, *LETTERS]
    made = Tokenizer(models.WordLevel({t: i for i, t in enumerate(tokens)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return made


def _merged() -> Tokenizer:
    """A vocabulary whose merges make a control token of plain text."""
    made = ["".join("</s>"[:size]) for size in range(2, 5)]
    merges = [(word[:-1], word[-1]) for word in made]
    vocab = {t: i for i, t in enumerate(["<unk>", *LETTERS, "\u2581", *made])}
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        "</s> $A", special_tokens=[("</s>", vocab["</s>"])]
    )
    return tokenizer


BACKENDS = {
    "bytes": _bytes,
    "folding": _folding,
    "unigram": _unigram,
    "words": _words,
    "merged": _merged,
}


def tokenizer(kind: str, template: str, *, marked: bool = True) -> PreTrainedTokenizerFast:
    """Make a tokenizer.

    Args:
        kind: Key of `BACKENDS`.
        template: Key of `TEMPLATES`.
        marked: Whether any added token is marked as special; a vocabulary like Phi-4-mini's
            marks none and lets tokens swallow the blanks behind them.
    """
    backend = BACKENDS[kind]()
    folds = kind == "folding"
    backend.add_tokens(
        [AddedToken(t, special=marked, normalized=folds, rstrip=not marked) for t in SPECIAL]
    )
    backend.add_tokens([AddedToken(t, special=False, normalized=folds) for t in UNMARKED])
    backend.add_tokens([AddedToken("  ", normalized=False), AddedToken("\n\n", normalized=False)])
    unknown = {"words": "[UNK]", "bytes": None, "folding": None}.get(kind, "<unk>")
    made = PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token=unknown, clean_up_tokenization_spaces=False
    )
    made.chat_template = TEMPLATES[template]
    return made


def look_alikes(text: str) -> list[str]:
    """Return texts that a normalising tokenizer may take for another."""
    wide = "".join(chr(ord(c) + 0xFEE0) if c in string.printable[:94] else c for c in text)
    return [text.upper(), wide, wide.upper(), f"{text[0]}{wide[1:]}"]
