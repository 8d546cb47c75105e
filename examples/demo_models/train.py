"""Train the embedded teacher and student from scratch, on a CPU, resumable.

    python examples/demo_models/train.py teacher --work runs/teacher
    python examples/demo_models/train.py student --work runs/student

Each command goes on from its last checkpoint in ``--work`` and, when all steps are done,
writes a ready-to-load fp16 folder to ``--out`` (by default the folder the package ships).
The glibc settings in ``env.sh`` beside this file make training about three times faster.
"""

from __future__ import annotations

import argparse
import itertools
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from word_problems import WordProblem, generate

SHIPPED = Path(__file__).parents[2] / "langchain_gkt" / "demo" / "models"
SPECIAL_TOKENS = ["<|pad|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
CONTEXT = 512


@dataclass(frozen=True)
class Recipe:
    """What sets one model apart; everything else is shared."""

    vocabulary: int
    split_regex: str
    hidden: int
    layers: int
    feed_forward: int
    steps: int
    seed: int
    # (weight, wording, drills, whether the plan counts in the loss)
    diet: tuple[tuple[float, str, float, bool], ...]
    batch: int = 32
    heads: int = 4
    learning_rate: float = 3e-3


RECIPES = {
    # Reads every wording.
    "teacher": Recipe(
        vocabulary=1024,
        split_regex=r" ?[0-9]| ?[A-Za-z]+|[^\sA-Za-z0-9]|\s+",
        hidden=128,
        layers=6,
        feed_forward=384,
        steps=3200,
        seed=1,
        diet=((1.0, "mixed", 0.1, True),),
    ),
    # Has learned to plan from plainly worded problems only, and to work out a given plan
    # for any: the gap that guidance is to close.
    "student": Recipe(
        vocabulary=600,
        split_regex=r"[0-9]| ?[A-Za-z]+|[^\sA-Za-z0-9]|\s",
        hidden=96,
        layers=3,
        feed_forward=256,
        steps=4000,
        seed=2,
        diet=((0.6, "plain", 0.2, True), (0.4, "mixed", 0.0, False)),
    ),
}


def build_tokenizer(recipe: Recipe) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer, digits split, on the model's own diet."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(recipe.split_regex), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.vocabulary,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = (f"{p.question}\n{p.solution}" for p, _ in diet(recipe, 10_000 * recipe.seed))
    backend.train_from_iterator(itertools.islice(texts, 8000), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<|pad|>",
        eos_token="<|end|>",
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=CONTEXT,
    )


def diet(recipe: Recipe, seed: int) -> Iterator[tuple[WordProblem, bool]]:
    """Yield training problems, each with whether its plan counts in the loss."""
    streams = [
        (generate(seed, "train", wording=wording, drills=drills), plan)  # type: ignore[arg-type]
        for _, wording, drills, plan in recipe.diet
    ]
    rng = random.Random(seed)
    weights = [weight for weight, *_ in recipe.diet]
    while True:
        stream, plan = rng.choices(streams, weights)[0]
        yield next(stream), plan


def encode(
    tokenizer: PreTrainedTokenizerFast, problem: WordProblem, plan: bool
) -> tuple[list[int], int]:
    """Return a conversation's ids and how many of them carry no loss."""

    def ids(text: str) -> list[int]:
        return list(tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids)

    user, assistant, end = tokenizer.convert_tokens_to_ids(["<|user|>", "<|assistant|>", "<|end|>"])
    prompt = [user, *ids(problem.question), end, assistant]
    masked = len(prompt) + (0 if plan else len(ids(problem.plan)))
    return [*prompt, *ids(problem.solution), end], masked


def batches(
    recipe: Recipe, tokenizer: PreTrainedTokenizerFast, start: int
) -> Iterator[list[tuple[list[int], int]]]:
    """Yield batches of alike lengths, from step ``start`` on; pools are seeded one by one."""
    size = 50
    for pool in itertools.count(start // size):
        problems = itertools.islice(diet(recipe, 1000 * recipe.seed + pool), size * recipe.batch)
        rows = sorted((encode(tokenizer, *row) for row in problems), key=lambda row: len(row[0]))
        grouped = [rows[i : i + recipe.batch] for i in range(0, len(rows), recipe.batch)]
        random.Random(pool).shuffle(grouped)
        yield from grouped[start - pool * size if pool == start // size else 0 :]


class Float32Muon(torch.optim.Optimizer):
    """Muon in float32.

    ``torch.optim.Muon`` orthogonalises in bfloat16, which took half of each step's time on
    a CPU without bfloat16 units.
    """

    def __init__(self, params: list[torch.nn.Parameter], lr: float, weight_decay: float) -> None:
        """Take the matrices to train."""
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Update every matrix; the coefficients and the scale are torch's own defaults."""
        for group in self.param_groups:
            for p in group["params"]:
                momentum = self.state[p].setdefault("momentum_buffer", torch.zeros_like(p))
                momentum.lerp_(p.grad, 0.05)
                x = p.grad.lerp(momentum, 0.95)
                tall = x.size(0) > x.size(1)
                x = x.T if tall else x
                x = x / x.norm().clamp(min=1e-7)
                for _ in range(5):
                    gram = x @ x.T
                    x = 3.4445 * x + (-4.775 * gram + 2.0315 * gram @ gram) @ x
                p.mul_(1 - group["lr"] * group["weight_decay"])
                scale = 0.2 * max(p.shape) ** 0.5
                p.add_(x.T if tall else x, alpha=-group["lr"] * scale)


def learning_rate(recipe: Recipe, step: int) -> float:
    """Warm up, hold, then fall linearly over the last 40% of the steps."""
    hold = 0.6 * recipe.steps
    fall = 1.0 if step < hold else max(0.02, 1 - (step - hold) / (recipe.steps - hold))
    return recipe.learning_rate * min(1.0, (step + 1) / 50) * fall


def train(name: str, work: Path, out: Path, threads: int) -> None:
    """Train one model from its last checkpoint to its last step and export it."""
    recipe = RECIPES[name]
    torch.set_num_threads(threads)
    torch.manual_seed(recipe.seed)
    work.mkdir(parents=True, exist_ok=True)
    tokenizer = build_tokenizer(recipe)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=recipe.hidden,
            intermediate_size=recipe.feed_forward,
            num_hidden_layers=recipe.layers,
            num_attention_heads=recipe.heads,
            num_key_value_heads=recipe.heads,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=True,
            initializer_range=0.04,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    matrices, others = [], []
    for key, parameter in model.named_parameters():
        (matrices if parameter.dim() == 2 and "embed" not in key else others).append(parameter)
    optimizers = [
        Float32Muon(matrices, lr=recipe.learning_rate, weight_decay=0.02),
        torch.optim.AdamW(others, lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]
    checkpoint, start = work / "checkpoint.pt", 0
    if checkpoint.exists():
        state = torch.load(checkpoint)
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        start = state["step"]
    weights = sum(parameter.numel() for parameter in model.parameters())
    print(f"{name}: {weights:,} weights, {len(tokenizer)} tokens, from step {start}", flush=True)
    began, losses = time.monotonic(), []
    steps = zip(range(start, recipe.steps), batches(recipe, tokenizer, start))  # noqa: B905
    for step, rows in steps:
        width = max(len(ids) for ids, _ in rows)
        ids = torch.full((len(rows), width), tokenizer.pad_token_id)
        counted = torch.zeros((len(rows), width), dtype=torch.bool)
        for i, (row, masked) in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
            counted[i, masked : len(row)] = True
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(recipe, step)
        hidden = model.model(input_ids=ids[:, :-1], use_cache=False).last_hidden_state
        # The head runs on the counted positions alone: most of the others are prompt.
        logits = model.lm_head(hidden[counted[:, 1:]])
        loss = torch.nn.functional.cross_entropy(logits, ids[:, 1:][counted[:, 1:]])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        model.zero_grad()
        losses.append(loss.item())
        if (step + 1) % 50 == 0:
            mean = sum(losses) / len(losses)
            rate = (time.monotonic() - began) / (step + 1 - start)
            print(f"{step + 1} loss {mean:.4f} {rate:.2f} s/step", flush=True)
            losses = []
        if (step + 1) % 250 == 0 or step + 1 == recipe.steps:
            state = {
                "model": model.state_dict(),
                "optimizers": [optimizer.state_dict() for optimizer in optimizers],
                "step": step + 1,
            }
            torch.save(state, work / "checkpoint.new")
            (work / "checkpoint.new").replace(checkpoint)
    out.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(out)
    model.half().save_pretrained(out)
    print(f"{name}: written", flush=True)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", choices=sorted(RECIPES))
    parser.add_argument("--work", type=Path, required=True, help="folder of the checkpoints")
    parser.add_argument("--out", type=Path, help="folder of the finished model")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    train(args.model, args.work, args.out or SHIPPED / args.model, args.threads)


if __name__ == "__main__":
    main()
