"""Measure what cascade attention brings: ``python -m benchmarks.shared_prefix [MODEL]``.

Requests that begin with the same tokens are decoded with the shared keys and values held and
read once, and without: interleaved in one process, in processor seconds on one thread.
"""

from __future__ import annotations

import argparse
import random
import time
from statistics import median
from typing import Any

import torch
from rich.console import Console
from transformers import AutoModelForCausalLM

from benchmarks.workloads import SHARED_TOKENS, STUDENT, make_model
from langchain_gkt.students.engine.kv.kv_cache import BatchKVCache, KVCache
from langchain_gkt.students.engine.kv.shared_prefix import SharedPrefix
from langchain_gkt.students.engine.model_runner import ModelRunner

OWN_TOKENS, STEPS, VOCABULARY = 100, 64, 8192


def make_batch(runner: ModelRunner, users: int, *, share: bool) -> tuple[BatchKVCache, list[int]]:
    """Prefill the prompts of some users.

    Args:
        runner: Runs the model.
        users: How many prompts.
        share: Whether the shared tokens are held once.

    Returns:
        Their batch, and the first token of each answer.
    """
    chance = random.Random(1)
    cache = KVCache(runner.layers, SHARED_TOKENS + 2 * OWN_TOKENS)
    runner.prefill(cache, chance.choices(range(VOCABULARY), k=SHARED_TOKENS))
    segment = [(k.clone(), v.clone()) for k, v in cache.segment(0, SHARED_TOKENS)]
    prefix = SharedPrefix(SHARED_TOKENS, segment) if share else None
    batch, tokens = BatchKVCache(runner.layers, runner.device), []
    for _ in range(users):
        cache.window.end = SHARED_TOKENS
        length = OWN_TOKENS + chance.randint(-20, 20)
        logits = runner.prefill(cache, chance.choices(range(VOCABULARY), k=length))
        tokens.append(int(logits.argmax()))
        batch.add(cache, prefix, expected=users)
    return batch, tokens


def decode_seconds(runner: ModelRunner, users: int, *, share: bool) -> float:
    """Return the processor seconds of the decoding steps."""
    batch, tokens = make_batch(runner, users, share=share)
    start = time.process_time()
    for _ in range(STEPS):
        tokens = runner.decode(batch, tokens).argmax(-1).tolist()
    return time.process_time() - start


def main() -> None:
    """Read the command line, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", help="folder or hub id; else a random 47M Llama")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--users", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    console = Console()
    dtype = getattr(torch, args.dtype)
    model: Any = make_model(VOCABULARY, **STUDENT).to(dtype)
    if args.model:
        model = AutoModelForCausalLM.from_pretrained(args.model, dtype=dtype).eval()
    runner = ModelRunner(model, is_encoder_decoder=False)
    with torch.inference_mode():
        runner.detect_capabilities()
        if not runner.can_share_prefixes:
            parser.error("this model cannot share prefixes")
        for users in args.users:
            seconds: dict[bool, list[float]] = {True: [], False: []}
            for repeat in range(args.repeats):
                for share in (True, False) if repeat % 2 else (False, True):
                    seconds[share].append(decode_seconds(runner, users, share=share))
            ratios = [a / b for a, b in zip(seconds[False], seconds[True], strict=True)]
            without, shared = (users * STEPS / median(seconds[share]) for share in (False, True))
            console.print(
                f"{users} users: {without:.0f} tokens/s without, {shared:.0f} with; "
                f"{median(ratios):.2f}x ({min(ratios):.2f}-{max(ratios):.2f})"
            )


if __name__ == "__main__":
    main()
