"""Chat models inside bindings, retries and fallbacks."""

from __future__ import annotations

import pytest
from langchain_core.runnables import RunnableLambda

from langchain_gkt.teachers.wrappers import models_of


def test_what_is_no_chat_model_is_refused() -> None:
    with pytest.raises(TypeError, match="not RunnableLambda"):
        list(models_of(RunnableLambda(str)))
