"""Models for bulk jobs: they work in other processes, and write down what they did in a file."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult

from langchain_gkt import Price

PRICE = Price(input_mtok="0.15", output_mtok="0.60")
PROMPT_TOKENS, GUIDANCE_TOKENS = 100, 4


def write_line(file: str, **values: Any) -> None:
    """Add a line that is whole even if other processes write at the same time."""
    data = json.dumps({"pid": os.getpid(), "at": time.monotonic(), **values}).encode() + b"\n"
    handle = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(handle, data)
    finally:
        os.close(handle)


def read_lines(file: str | Path) -> list[dict[str, Any]]:
    """Read what `write_line` wrote; nothing if there is no file yet."""
    path = Path(file)
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


class BilledTeacher(BaseChatModel):
    """Bills each call in a file when it begins, and answers after a while.

    A prompt with "finish" in it is finished inside the limit; one with "refuse" always fails, and
    one with "stumble" fails when it is asked for the first time. Each packed question gets its own.
    With ``held_by``, calls after the first eight wait until that folder holds an answer.
    """

    ledger: str
    held_by: str = ""
    seconds: float = 0.05
    max_tokens: int | None = None
    model_name: str = "billed"

    @property
    def _llm_type(self) -> str:
        return "billed"

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        raise AssertionError("a bulk job asks asynchronously")

    async def _agenerate(
        self, messages: list[BaseMessage], *args: Any, **kwargs: Any
    ) -> ChatResult:
        prompt = str(messages[-1].text)
        while self._is_held():
            await asyncio.sleep(0.2)
        asked_before = any(one["prompt"] == prompt for one in read_lines(self.ledger))
        write_line(self.ledger, prompt=prompt)
        await asyncio.sleep(self.seconds)
        if "refuse" in prompt or ("stumble" in prompt and not asked_before):
            raise ConnectionError("scripted")
        text = "It is done." if "finish" in prompt else "one two three four"
        if packed := prompt.count("Question "):
            text = json.dumps({str(n): "one two three" for n in range(1, packed + 1)})
        usage = {
            "input_tokens": PROMPT_TOKENS,
            "output_tokens": GUIDANCE_TOKENS,
            "total_tokens": PROMPT_TOKENS + GUIDANCE_TOKENS,
        }
        reason = "stop" if packed or "finish" in prompt else "length"
        message = AIMessage(text, usage_metadata=usage, response_metadata={"finish_reason": reason})
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _is_held(self) -> bool:
        if not self.held_by or len(read_lines(self.ledger)) < 8:
            return False
        return not any(Path(self.held_by).glob("*.parquet"))


class LoggedStudent(BaseChatModel):
    """Continues with the prompt's own words, and writes down which prompts it saw.

    A prompt with "choke" in it fails.
    """

    log: str
    seconds: float = 0.0

    @property
    def _llm_type(self) -> str:
        return "logged"

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        prompt = str(messages[0].text)
        write_line(self.log, prompt=prompt)
        time.sleep(self.seconds)
        if "choke" in prompt:
            raise RuntimeError("scripted")
        usage = {"input_tokens": 10, "output_tokens": 2, "total_tokens": 12}
        message = AIMessage(f" ({prompt})", usage_metadata=usage)
        return ChatResult(generations=[ChatGeneration(message=message)])
