from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from pytest_socket import disable_socket

if TYPE_CHECKING:
    from support.programs.forks import Forks

    from langchain_gkt import HuggingFaceStudent


@pytest.fixture(autouse=True)
def no_network() -> None:
    """Unit tests reach no network; event loops need their socket pair."""
    disable_socket(allow_unix_socket=True)


@pytest.fixture(scope="session")
def student(whole_student: HuggingFaceStudent) -> HuggingFaceStudent:
    """It writes a few words: most tests are of who writes, and not of what."""
    return whole_student.model_copy(update={"max_tokens": 6})


@pytest.fixture(scope="session")
def light() -> Iterator[Forks]:
    """Processes of their own that have imported what all of langchain-core's chat models do."""
    from support.programs.forks import Forks

    with Forks("import langchain_core.language_models.fake_chat_models") as running:
        yield running


@pytest.fixture(scope="module")
def models():
    """Tiny models by kind, made once for a file."""
    from support.models.tiny import make_model

    made = {}

    def get(kind: str):
        if kind not in made:
            made[kind] = make_model(kind)
        return made[kind]

    return get


@pytest.fixture
def engine(models):
    """An engine of its own for each test."""
    from support.models.tiny import TOKENIZER

    from langchain_gkt.students.engine.engine import Engine

    engine = Engine(models("grouped"), TOKENIZER)
    yield engine
    engine.close()
