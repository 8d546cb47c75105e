"""Checks that a server is there and fits the tokenizer, before a teacher is paid."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx

from langchain_gkt.errors import ConfigurationError, StudentError
from langchain_gkt.students.backends import gguf
from langchain_gkt.students.backends.server.answer import all_replies
from langchain_gkt.students.backends.server.connection import Connection
from langchain_gkt.students.backends.server.dialects import Ask, Reply
from langchain_gkt.students.backends.server.prefix_blocks import PrefixBlocks
from langchain_gkt.students.backends.source import ModelSource

_TEXT = 'The train to K\u00f6ln leaves at 07:45,\n\tplatform 12. {"ok": true}  \u2013 3.5 %'
"""Two tokenizers seldom split this alike."""
_SAMPLES = 3


def load_tokenizer(source: ModelSource) -> tuple[Any, set[int]]:
    """Load the tokenizer of a model that runs elsewhere, and the ids that end an answer."""
    tokenizer = source.tokenizer
    if tokenizer is None and (gguf_file := gguf.gguf_source(source.model)) is not None:
        tokenizer = gguf.load_tokenizer(gguf.local_file(gguf_file))
    elif tokenizer is None:
        tokenizer = _from_folder(source)
    if not hasattr(tokenizer, "backend_tokenizer"):
        raise StudentError(
            f"the student's tokenizer ({type(tokenizer).__name__}) is not a fast one; give a "
            "folder with a tokenizer.json"
        )
    ends = {tokenizer.eos_token_id, *_saved_ends(source)}
    return tokenizer, {end for end in ends if end is not None}


def _from_folder(source: ModelSource) -> Any:
    from transformers import AutoTokenizer

    place = _place(source)
    if Path(place).is_dir() and not (Path(place) / "tokenizer.json").is_file():
        raise FileNotFoundError(
            f"model={source.model!r} holds no tokenizer.json; behind a server model is the "
            "folder or hub id of the tokenizer"
        )
    try:
        return AutoTokenizer.from_pretrained(place, trust_remote_code=source.trust_remote_code)
    except (OSError, ValueError) as error:
        raise StudentError(
            f"the tokenizer of model={source.model!r} could not be loaded ({error})",
            hint="behind a server model is the folder or hub id of the tokenizer; the server's "
            "own name of it is served_model_name",
        ) from error


def _place(source: ModelSource) -> str:
    """Return the folder of a model, or its hub id."""
    folder = Path(source.model).expanduser()
    return str(folder) if folder.is_dir() else source.model


def _saved_ends(source: ModelSource) -> list[int]:
    """Return the end ids of a model's generation settings, if it has any."""
    from transformers.utils.hub import cached_file

    if gguf.gguf_source(source.model) is not None:
        return []
    try:
        file = cached_file(
            _place(source),
            "generation_config.json",
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
        named = json.loads(Path(file).read_text()).get("eos_token_id") if file else None
    except (OSError, ValueError):  # a tokenizer alone has none
        return []
    if named is None:
        return []
    return named if isinstance(named, list) else [named]


async def checked_model(
    connection: Connection, tokenizer: Any, source: ModelSource
) -> tuple[int | None, PrefixBlocks | None]:
    """Check that a server is there and has the tokenizer's model. Set the model's name.

    Returns:
        The context in tokens, and the blocks of the prefix cache. None for what it does not say.
    """
    card = _card(await served_models(connection, source), connection, source)
    connection.model = card["id"]
    await _compare_ids(connection, tokenizer, source)
    await _try_tokens(connection, tokenizer, source)
    blocks = None
    if connection.dialect.caches_blocks:
        metrics = await connection.request("GET", "/metrics")
        blocks = PrefixBlocks.of_metrics(metrics.text) if metrics.is_success else None
    return connection.dialect.context(card), blocks


async def served_models(connection: Connection, source: ModelSource) -> dict[str, dict[str, Any]]:
    """Return what a server reports of each of its models, by their names."""
    response = await connection.request("GET", "/v1/models")
    if response.status_code != httpx.codes.OK:
        connection.refuse(response)
    try:
        return {card["id"]: card for card in response.json()["data"]}
    except (ValueError, KeyError, TypeError):
        raise StudentError(
            f"what answers at base_url={connection.root!r} is no server of models: it has no "
            "list of them at /v1/models",
            hint=f"give the address of a server of the kind backend={source.backend!r}",
        ) from None


def _card(
    cards: dict[str, dict[str, Any]], connection: Connection, source: ModelSource
) -> dict[str, Any]:
    wanted = source.served_model_name
    if wanted is None and len(cards) == 1:
        return next(iter(cards.values()))
    if wanted in cards:
        return cards[wanted]
    what = "names no model" if wanted is None else f"served_model_name={wanted!r} is not there"
    raise ConfigurationError(
        f"{what}: the server at base_url={connection.root!r} has {', '.join(cards) or 'none'}; "
        "give one of these as served_model_name"
    )


async def _compare_ids(connection: Connection, tokenizer: Any, source: ModelSource) -> None:
    """Compare the ids of a text, where the server reports them."""
    body = connection.dialect.tokenize(_TEXT, connection.model)
    response = await connection.request("POST", "/tokenize", json=body)
    if response.status_code in (401, 403):
        connection.refuse(response)
    if response.status_code != httpx.codes.OK:
        return  # routers seldom pass it on. `_try_tokens` then checks the tokens
    theirs = response.json().get("tokens")
    if theirs != list(tokenizer(_TEXT, add_special_tokens=False)["input_ids"]):
        raise _other_model(connection, source, "it splits a text into other tokens")


async def _try_tokens(connection: Connection, tokenizer: Any, source: ModelSource) -> None:
    """Have the server write unlikely tokens, and read their text."""
    prompt = list(tokenizer("One two three", add_special_tokens=False)["input_ids"])

    async def replies_to(**choice: Any) -> list[Reply]:
        return await all_replies(connection.replies, Ask(ids=prompt, max_tokens=1, **choice))

    ids = _rare_tokens(tokenizer)
    for token in ids:
        got = await replies_to(allowed=[token])
        written = [token_id for reply in got for token_id in reply.ids]
        if written != [token]:
            raise StudentError(
                f"the server at base_url={connection.root!r} does not choose among the tokens it "
                f"is given (it wrote {written}, allowed was {token}), so a seam or a schema could "
                "not be held",
                hint=f"use a newer server of the kind backend={source.backend!r}, without "
                "speculative decoding; or remote_student without tokenizer=",
            )
        text, ours = "".join(reply.text for reply in got), tokenizer.decode([token])
        if text.strip() != ours.strip():
            raise _other_model(connection, source, f"token {token} is {text!r}, here {ours!r}")
    word = tokenizer.decode(ids[:1])
    text = "".join(reply.text for reply in await replies_to(spells=word))
    if not text or not (text.startswith(word) or word.startswith(text)):
        raise StudentError(
            f"the server at base_url={connection.root!r} wrote {text!r} where it was told to begin "
            f"with {word!r}: it does not know structured_outputs (regex, or a grammar)",
            hint=f"use a newer server of the kind backend={source.backend!r}; or remote_student "
            "without tokenizer=",
        )


def _rare_tokens(tokenizer: Any) -> list[int]:
    """Return a few tokens of plain words from all over a vocabulary."""
    words = sorted(
        token
        for word, token in tokenizer.get_vocab().items()
        if len(word) > 3 and word.isascii() and word.isalpha()
    )
    step = max(1, len(words) // _SAMPLES)
    return words[step - 1 :: step][:_SAMPLES]


def _other_model(connection: Connection, source: ModelSource, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"model={source.model!r} is not the tokenizer of the model {connection.model!r} behind "
        f"base_url={connection.root!r}: {why}; give the folder or hub id that the server was "
        "started with"
    )
