"""Checks that a server is there and fits the tokenizer, before a teacher is paid."""

from __future__ import annotations

import json
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from langchain_gkt.errors import ConfigurationError, StudentError
from langchain_gkt.students.backends import gguf
from langchain_gkt.students.backends.server.connection import Connection
from langchain_gkt.students.backends.server.dialects import Ask, Dialect
from langchain_gkt.students.backends.server.prefix_blocks import PrefixBlocks
from langchain_gkt.students.backends.source import ModelSource

_TEXT = 'The train to K\u00f6ln leaves at 07:45,\n\tplatform 12. {"ok": true}  \u2013 3.5 %'
"""Two tokenizers seldom split this alike."""
_SAMPLES = 3


@dataclass(frozen=True)
class ServedModel:
    """What a server reports of its model.

    Attributes:
        context: Tokens that it reads and writes. None if it does not say.
        blocks: The blocks of its prefix cache. None if it does not say.
    """

    context: int | None
    blocks: PrefixBlocks | None = None


def load_tokenizer(source: ModelSource) -> tuple[Any, set[int]]:
    """Load the tokenizer of a model that runs elsewhere, without its weights.

    Args:
        source: The student's fields. ``model`` is a folder, a hub id or a GGUF file.

    Returns:
        The tokenizer, and the ids that end an answer.

    Raises:
        FileNotFoundError: If there is none.
        StudentError: If it cannot be loaded, or is not a fast one.
    """
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

    folder = Path(source.model).expanduser()
    if folder.is_dir() and not (folder / "tokenizer.json").is_file():
        raise FileNotFoundError(
            f"model={source.model!r} holds no tokenizer.json; behind a server model is the "
            "folder or hub id of the tokenizer"
        )
    name = str(folder) if folder.is_dir() else source.model
    try:
        return AutoTokenizer.from_pretrained(name, trust_remote_code=source.trust_remote_code)
    except (OSError, ValueError) as error:
        raise StudentError(
            f"the tokenizer of model={source.model!r} could not be loaded ({error})",
            hint="behind a server model is the folder or hub id of the tokenizer; the server's "
            "own name of it is served_model_name",
        ) from error


def _saved_ends(source: ModelSource) -> list[int]:
    """Return the end ids of a model's generation settings, if it has any."""
    from transformers.utils.hub import cached_file

    if gguf.gguf_source(source.model) is not None:
        return []
    try:
        file = cached_file(
            str(Path(source.model).expanduser())
            if Path(source.model).expanduser().is_dir()
            else source.model,
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
    connection: Connection, dialect: Dialect, tokenizer: Any, source: ModelSource
) -> ServedModel:
    """Check that a server is there and has the tokenizer's model. Set the model's name.

    Args:
        connection: To the server.
        dialect: The server's dialect.
        tokenizer: The student's.
        source: The student's fields.

    Raises:
        ConfigurationError: If the key is wrong, or the server has another model.
        StudentError: If it cannot be reached, or cannot choose among given tokens.
    """
    response = await connection.get("/v1/models")
    if response.status_code != httpx.codes.OK:
        connection.refuse(response)
    card = _card(connection, source, response)
    connection.model = card["id"]
    await _compare_ids(connection, dialect, tokenizer, source)
    await _try_tokens(connection, dialect, tokenizer, source)
    blocks = None
    if dialect.caches_blocks:
        metrics = await connection.get("/metrics")
        blocks = PrefixBlocks.of_metrics(metrics.text) if metrics.is_success else None
    return ServedModel(dialect.context(card), blocks)


def _card(connection: Connection, source: ModelSource, response: httpx.Response) -> dict[str, Any]:
    try:
        cards: list[dict[str, Any]] = response.json()["data"]
        names = [card["id"] for card in cards]
    except (ValueError, KeyError, TypeError):
        raise StudentError(
            f"what answers at base_url={connection.root!r} is no server of models: it has no "
            "list of them at /v1/models",
            hint=f"give the address of a server of the kind backend={source.backend!r}",
        ) from None
    wanted = source.served_model_name
    if wanted is None and len(cards) == 1:
        return cards[0]
    if wanted in names:
        return cards[names.index(wanted)]
    what = "names no model" if wanted is None else f"served_model_name={wanted!r} is not there"
    raise ConfigurationError(
        f"{what}: the server at base_url={connection.root!r} has {', '.join(names) or 'none'}; "
        "give one of these as served_model_name"
    )


async def _compare_ids(
    connection: Connection, dialect: Dialect, tokenizer: Any, source: ModelSource
) -> None:
    """Compare the ids of a text, where the server reports them."""
    body = dialect.tokenize(_TEXT, connection.model)
    response = await connection.post(dialect.tokenize_path, body)
    if response.status_code in (401, 403):
        connection.refuse(response)
    if response.status_code != httpx.codes.OK:
        return  # routers seldom pass it on. `_try_tokens` then checks the tokens
    theirs = response.json().get("tokens")
    if theirs != list(tokenizer(_TEXT, add_special_tokens=False)["input_ids"]):
        raise _other_model(connection, source, "it splits a text into other tokens")


async def _try_tokens(
    connection: Connection, dialect: Dialect, tokenizer: Any, source: ModelSource
) -> None:
    """Have the server write unlikely tokens, and read their text."""
    ids = _rare_tokens(tokenizer)
    prompt = list(tokenizer("One two three", add_special_tokens=False)["input_ids"])
    for token in ids:
        # Of two, so that a server that only takes biases cannot be right by chance.
        ask = Ask(ids=prompt, max_tokens=1, allowed=[token])
        async with aclosing(connection.replies(ask)) as replies:
            got = [reply async for reply in replies]
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
    ask = Ask(ids=prompt, max_tokens=1, spells=word)
    async with aclosing(connection.replies(ask)) as replies:
        text = "".join([reply.text async for reply in replies])
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
