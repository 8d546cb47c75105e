"""Whether a model's embedding has a row for every token that its tokenizer may write."""

from __future__ import annotations

from typing import Any

from langchain_gkt.errors import StudentError

_NAMED = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")


def input_embedding(model: Any) -> Any:
    """Return a model's token embedding. None if the model does not say which it is."""
    try:
        return model.get_input_embeddings()
    except (AttributeError, NotImplementedError):  # custom models need not have the method
        return None


def end_ids(tokenizer: Any, saved: Any = None) -> set[int]:
    """Return the ids that end an answer: the tokenizer's, and what was saved with the model."""
    saved = saved if isinstance(saved, list) else [saved]
    return {end for end in [*saved, tokenizer.eos_token_id] if end is not None}


def refuse_unknown_tokens(tokenizer: Any, size: int) -> None:
    """Refuse a tokenizer that may give a model ids beyond its embedding, which has ``size`` rows.

    A special token beyond the embedding does no harm if nothing writes it. Text in messages never
    becomes one, so only the chat template could. Text-only models of multimodal families are saved
    with such tokens (Gemma 3).

    Raises:
        StudentError: If there is such a token. It names both numbers.
    """
    outside = {word: token for word, token in tokenizer.get_vocab().items() if token >= size}
    if not outside:
        return
    added = tokenizer.added_tokens_decoder
    template = str(getattr(tokenizer, "chat_template", None) or "")
    named = {getattr(tokenizer, f"{name}_token_id", None) for name in _NAMED}
    for word, token in sorted(outside.items(), key=lambda item: item[1]):
        special = token in added and added[token].special
        if not special or token in named or word in template:
            raise StudentError(
                f"the student's tokenizer has {len(tokenizer)} tokens, but the model's embedding "
                f"has {size} rows: {word!r} has the id {token}",
                hint="use the tokenizer that was saved with the model, or give the model rows for "
                "the new tokens (model.resize_token_embeddings) and train and save it with them",
            )
