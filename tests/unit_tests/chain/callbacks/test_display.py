"""Handlers that show tokens hear the answer once; those that follow runs hear all three."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.callbacks import (
    AsyncCallbackHandler,
    BaseCallbackHandler,
    StreamingStdOutCallbackHandler,
    UsageMetadataCallbackHandler,
)
from support.entry_points import answer
from support.models.saying import Adding, Saying, reply

from langchain_gkt import CostTracker, GuidedKnowledgeTransferChain

HOWS = ("invoke", "ainvoke", "stream", "astream")


class Showing(BaseCallbackHandler):
    """Shows tokens, and notes when it believes the answer to be over."""

    def __init__(self) -> None:
        self.shown: list[str] = []
        self.ends: list[Any] = []

    def on_llm_new_token(self, token: str, **kwargs: Any) -> None:
        self.shown.append(token)

    def on_llm_end(self, response: Any, **kwargs: Any) -> None:
        self.shown.append("|")
        self.ends.append(response.generations[0][0].message.usage_metadata)


class AsyncShowing(AsyncCallbackHandler):
    """Does so on the event loop."""

    def __init__(self) -> None:
        self.shown: list[str] = []

    async def on_llm_start(self, serialized: Any, prompts: Any, **kwargs: Any) -> None:
        self.shown.append("[")

    async def on_llm_new_token(self, token: str, **kwargs: Any) -> None:
        self.shown.append(token)


class Following(Showing):
    """Sorts runs into a tree, as tracing services' own handlers do."""

    def __init__(self) -> None:
        super().__init__()
        self.parents: dict[Any, Any] = {}

    def on_chat_model_start(self, serialized, messages, *, run_id, parent_run_id=None, **kwargs):
        self.parents[run_id] = parent_run_id


class Counting(BaseCallbackHandler):
    """Hears of ends alone."""

    def __init__(self) -> None:
        self.ends = 0

    def on_llm_end(self, response: Any, **kwargs: Any) -> None:
        self.ends += 1


def make(**fields: Any) -> GuidedKnowledgeTransferChain:
    said = reply("We add two and three", tokens=6, reason="length")
    teacher = Saying(asked=[], says=lambda limit: said)
    return GuidedKnowledgeTransferChain(
        teacher=teacher, student=Adding(), guidance_tokens=6, streaming=True, **fields
    )


@pytest.mark.parametrize("how", HOWS)
async def test_stdout_gets_each_token_once(how, capsys) -> None:
    handler = StreamingStdOutCallbackHandler()
    message = await answer(make(), how, "2 + 3?", {"callbacks": [handler]})
    assert capsys.readouterr().out == message.text


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("how", HOWS)
async def test_handlers_that_show_tokens_hear_the_answer_once(how, own) -> None:
    showing = Showing()
    chain = make(callbacks=[showing]) if own else make()
    config: Any = {} if own else {"callbacks": [showing]}
    message = await answer(chain, how, "2 + 3?", config)
    assert "".join(showing.shown) == f"{message.text}|"
    # It does not hear the models' runs, so it is told what both have used.
    assert [usage["output_tokens"] for usage in showing.ends] == [6 + 2]


@pytest.mark.parametrize("how", ["ainvoke", "astream"])
async def test_asynchronous_ones_too(how) -> None:
    showing = AsyncShowing()
    message = await answer(make(), how, "2 + 3?", {"callbacks": [showing]})
    assert "".join(showing.shown).replace("[", "") == message.text


@pytest.mark.parametrize("how", HOWS)
async def test_those_that_follow_runs_hear_all_three(how) -> None:
    following, counting, usage = Following(), Counting(), UsageMetadataCallbackHandler()
    costs = CostTracker()
    config = {"callbacks": [following, counting, usage, costs]}
    await answer(make(), how, "2 + 3?", config)
    assert len(following.parents) == 3
    assert sorted(parent is None for parent in following.parents.values()) == [False, False, True]
    assert counting.ends == 3
    assert costs.report().to_dict()["teacher"]["completion_tokens"] == 6


def test_an_attribute_has_any_handler_hear_the_models() -> None:
    showing = Showing()
    showing.gkt_children = True  # type: ignore[attr-defined]
    make().invoke("2 + 3?", {"callbacks": [showing]})
    assert showing.shown.count("|") == 3
