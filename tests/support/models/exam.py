"""A pair without weights that sits exams: a teacher that knows, a student that needs a start."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult

from langchain_gkt import GuidedKnowledgeTransferChain, Price
from langchain_gkt.evaluation import Task
from langchain_gkt.students.protocol import FirstToken, Student

PRICE = Price(input_mtok="1000", output_mtok="2000")  # 0.001 and 0.002 dollars a token


def words(text: str) -> list[str]:
    """The teacher's tokens: words with the blank in front of them."""
    return re.findall(r"\s*\S+", text)


def solution(number: int) -> str:
    return (
        f"Plan: take {number} and add one. {number} + 1 = {number + 1}. The answer is {number + 1}."
    )


def rows(count: int) -> list[dict[str, Any]]:
    return [
        {"question": f"What is one more than {n}?", "answer": str(n + 1)}
        for n in range(10, 10 + count)
    ]


def judge(text: str, row: Any) -> bool | None:
    said = re.search(r"The answer is (\d+)", text)
    return None if said is None else said[1] == row["answer"]


def task(count: int, **fields: Any) -> Task:
    return Task("exam", rows(count), judge, **fields)


def number_of(messages: list[BaseMessage]) -> int:
    found = re.search(r"more than (\d+)", str([m for m in messages if m.type == "human"][-1].text))
    assert found
    return int(found[1])


class Knowing(BaseChatModel):
    """A teacher that is always right, tells its tokens if asked to, and notes what it is paid."""

    max_tokens: int | None = None
    logprobs: bool | None = None
    refuses_logprobs: bool = False
    counts_end: bool = True
    diary: Any = None
    """A file that gets a line for each call, or a list."""
    fails_on: tuple[int, ...] = ()

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        number = number_of(messages)
        if self.logprobs and self.refuses_logprobs:
            raise ValueError("logprobs are not supported with this model")
        if number in self.fails_on:
            raise ConnectionError("the line is down")
        if isinstance(self.diary, list):
            self.diary.append((number, self.max_tokens))
        elif self.diary is not None:
            with open(self.diary, "a") as file:
                file.write(f"{number} {self.max_tokens}\n")
        tokens = words(solution(number))
        most = len(tokens) + 1 if self.max_tokens is None else self.max_tokens
        whole = most > len(tokens)
        kept = tokens if whole else tokens[:most]
        used = len(kept) + (whole and self.counts_end)
        metadata: dict[str, Any] = {"finish_reason": "stop" if whole else "length"}
        if self.logprobs:
            content = [{"token": t, "bytes": list(t.encode()), "logprob": -0.1} for t in kept]
            metadata["logprobs"] = {"content": content}
        message = AIMessage(
            "".join(kept),
            usage_metadata={"input_tokens": 10, "output_tokens": used, "total_tokens": 10 + used},
            response_metadata=metadata,
        )
        return ChatResult(generations=[ChatGeneration(message=message)])

    @property
    def _llm_type(self) -> str:
        return "knowing"


class Needy(Student, BaseChatModel):
    """A student that goes on rightly behind enough of a start, and is sure of even numbers.

    Even numbers it gets right by itself too; odd ones need ``needs`` words.
    """

    needs: int = 5
    temperature: float = 0.0
    max_tokens: int = 100
    asked: Any = None
    dies_at: int | None = None

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        number = number_of(messages)
        begun = str(messages[-1].text) if messages[-1].type == "ai" else ""
        if self.asked is not None:
            self.asked.append((number, begun))
            if len(self.asked) == self.dies_at:
                import os
                import signal

                os.kill(os.getpid(), signal.SIGKILL)
        knows = number % 2 == 0 or len(begun.split()) >= self.needs
        whole = solution(number) if knows else f"{begun} no idea. The answer is 0."
        text = whole[len(begun) :]
        used = len(words(text)) + 1
        message = AIMessage(
            text,
            usage_metadata={"input_tokens": 8, "output_tokens": used, "total_tokens": 8 + used},
            response_metadata={"finish_reason": "stop"},
        )
        return ChatResult(generations=[ChatGeneration(message=message)])

    def probe(self, messages: list[BaseMessage], *, tokens: int = 1) -> list[float]:
        """Sure from the third token on."""
        sure = 0.99 if number_of(messages) % 2 == 0 else 0.2
        return [0.9, 0.9, *[sure] * 62][:tokens]

    @property
    def first_token_detail(self) -> str:
        return "probabilities"

    def first_tokens(self, messages: list[BaseMessage], *, tokens: int = 1) -> list[FirstToken]:
        return [FirstToken(p) for p in self.probe(messages, tokens=tokens)]

    @property
    def _llm_type(self) -> str:
        return "needy"


class Telling(Needy):
    """A needy student that tells entropies as well, and notes how many tokens it was asked for.

    With ``entropies=False`` it is like engines that know the probabilities alone.
    """

    probed: Any = None
    entropies: bool = True

    @property
    def first_token_detail(self) -> str:
        return "entropies"

    def first_tokens(self, messages: list[BaseMessage], *, tokens: int = 1) -> list[FirstToken]:
        if self.probed is not None:
            self.probed.append(tokens)
        told = self.probe(messages, tokens=tokens)
        if not self.entropies:
            return [FirstToken(p) for p in told]
        return [FirstToken(p, 0.1 if p > 0.5 else 2.0) for p in told]

    async def afirst_tokens(
        self, messages: list[BaseMessage], *, tokens: int = 1
    ) -> list[FirstToken]:
        return self.first_tokens(messages, tokens=tokens)


def pair(*, teacher: dict[str, Any] | None = None, student: dict[str, Any] | None = None, **fields):
    return GuidedKnowledgeTransferChain(
        teacher=Knowing(**(teacher or {})),
        student=Needy(**(student or {})),
        **{"guidance_tokens": 6, **fields},
    )


def diary_lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def lasting_lines(table: object) -> list[str]:
    """The lines of a comparison's table without those that differ from run to run."""
    times = ("wall time", "tokens per second", "seconds per answer", "time to first token")
    return [line for line in str(table).splitlines() if not line.startswith(times)]
