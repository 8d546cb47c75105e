"""Models, prompts and answers for the benchmarks, made on the spot."""

from __future__ import annotations

import asyncio
import itertools
import pydoc_data.topics
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from langchain_core.messages import AIMessage, HumanMessage
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from langchain_gkt.evaluation.tasks.word_problems import sample
from langchain_gkt.students.engine.engine import Engine, EngineConfig, Request
from langchain_gkt.students.prompting import PromptBuilder

STUDENT = {"layers": 12, "width": 512, "inner": 1408}
TEACHER = {"layers": 22, "width": 1280, "inner": 3456}
"""Sizes for `make_model`: 47M and 457M weights."""
GUIDANCE_TOKENS = 40
"""The paper's limit for GSM8K, as is the next."""
STUDENT_TOKENS = 300
PADDED = 1024
SHARED_TOKENS = 600


def make_tokenizer() -> Any:
    """Train a byte-level BPE tokenizer of 8,192 entries on Python's own manual."""
    manual = "\n".join(pydoc_data.topics.topics.values())
    problems = [f"{p.question}\n{p.solution}" for p in sample(1, 300)]
    # ASCII only: text that is drawn at random must still be text.
    corpus = [line.encode("ascii", "ignore").decode() for line in [*manual.splitlines(), *problems]]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=8192, show_progress=False)
    tokenizer.train_from_iterator(corpus, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def make_model(vocabulary: int, *, layers: int, width: int, inner: int) -> Any:
    """Make a Llama with random weights that never ends an answer by itself."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        max_position_embeddings=2048,
        # Wide enough that greedy text does not run in circles.
        initializer_range=0.08,
        bos_token_id=None,
        eos_token_id=None,
    )
    return LlamaForCausalLM(config).eval()


def size_of(model: Any) -> int:
    """Count a model's weights."""
    return sum(p.numel() for p in model.parameters())


@dataclass(frozen=True, kw_only=True)
class Question:
    """One question to a student, and where its answer ends.

    Attributes:
        text: The prompt.
        guidance: The beginning of the answer.
        request: Both as ids, with the stop string.
        length: Tokens the student writes up to the stop.
        answer: The student's text up to the stop.
    """

    text: str
    guidance: str
    request: Request
    length: int = 0
    answer: str = ""


def make_questions(tokenizer: Any, count: int, *, shared: bool) -> list[Question]:
    """Write questions of about 75 tokens and guidance of 40.

    Args:
        tokenizer: Makes the ids.
        count: How many.
        shared: Whether all begin with the same worked examples, about 600 tokens.

    Returns:
        Questions without answers.
    """
    problems = sample(7, count + 40)
    examples, texts = "", [p.question for p in problems[40:]]
    if shared:
        for problem in itertools.cycle(problems[:40]):
            if len(tokenizer(examples)["input_ids"]) >= SHARED_TOKENS:
                break
            examples += f"Q: {problem.question}\nA: {problem.solution}\n\n"
    lead = "Read the question twice, work through it step by step, and then name the answer."
    builder, questions = PromptBuilder(tokenizer), []
    for problem, text in zip(problems[40:], texts, strict=True):
        prompt = f"{examples}Q: {text}\n{lead}\nA:"
        words = itertools.cycle(problem.solution.split())
        guidance = next(words)
        while len(tokenizer(" " + guidance)["input_ids"]) < GUIDANCE_TOKENS:
            guidance += " " + next(words)
        ids, prefill = builder.build([HumanMessage(prompt), AIMessage(guidance)])
        if tokenizer(f"{prompt} {guidance}")["input_ids"] != [*ids, *prefill]:
            raise AssertionError("the seam of prompt and guidance splits a token")
        request = Request(prompt=ids, answer_prefix=prefill, max_tokens=STUDENT_TOKENS)
        questions.append(Question(text=prompt, guidance=guidance, request=request))
    return questions


def with_endings(
    engine: Engine, tokenizer: Any, questions: list[Question], shortest: int, longest: int
) -> list[Question]:
    """Give every question a stop string that its own greedy answer reaches.

    Args:
        engine: Writes the answers.
        tokenizer: Its tokenizer.
        questions: The questions.
        shortest: Fewest tokens of an answer.
        longest: Most tokens of an answer.

    Returns:
        The questions, each with its stop string, length and answer.
    """
    recorders = [_TokenRecorder() for _ in questions]
    requests = [
        replace(question.request, max_tokens=longest, constraint=recorder)
        for question, recorder in zip(questions, recorders, strict=True)
    ]
    asyncio.run(answer_all(engine, requests))
    ended, chance = [], random.Random(3)
    for question, recorder in zip(questions, recorders, strict=True):
        stop, length = _ending(tokenizer, recorder.tokens, chance.randint(shortest, longest))
        answer = tokenizer.decode(recorder.tokens).split(stop)[0]
        request = replace(question.request, stop=(stop,))
        ended.append(replace(question, request=request, length=length, answer=answer))
    return ended


def _ending(tokenizer: Any, tokens: list[int], length: int) -> tuple[str, int]:
    """Return text that first occurs at the end of about so many tokens."""
    for size in range(length, 0, -1):
        text = tokenizer.decode(tokens[:size])
        for width in range(3, 40):
            if text.find(text[-width:]) == len(text) - width:
                before = tokenizer.decode(tokens[: size - 1])
                if text[-width:] not in before:
                    return text[-width:], size
    raise AssertionError("the answer runs in circles from its first token on")


class _TokenRecorder:
    def __init__(self) -> None:
        self.tokens: list[int] = []

    done = False

    def choose(self, logits: torch.Tensor, pick: Callable[[torch.Tensor], int]) -> int:
        self.tokens.append(pick(logits))
        return self.tokens[-1]


async def answer_all(engine: Engine, requests: list[Request]) -> list[str]:
    """Ask an engine everything at once."""

    async def one(request: Request) -> str:
        return "".join([chunk.text async for chunk in engine.agenerate(request, stream=False)])

    return await asyncio.gather(*map(one, requests))


def make_engine(model: Any, tokenizer: Any, users: int = 16) -> Engine:
    """Make an engine that decodes so many rows at once."""
    return Engine(model, tokenizer, EngineConfig(max_batch_size=users))
