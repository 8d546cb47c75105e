"""The ways to run a real model that ``make bench-real`` compares: ours, and the bare engines."""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Protocol

import httpx
import psutil
import torch
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

from benchmarks.instant import InstantModel
from langchain_gkt import GuidedKnowledgeTransferChain, HuggingFaceStudent
from langchain_gkt.students.engine.config import EngineConfig

GUIDANCE = "Let us work it out step by step. First, we"
# The chain drops the last word, which may be half of one: all read the same guidance.
_TAUGHT = f"{GUIDANCE} find"


class Way(Protocol):
    """One model, loaded.

    Attributes:
        server: The process of the server that runs the model. None if ours does.
    """

    server: int | None

    def answer(self, prompts: list[str], tokens: int) -> int:
        """Answer prompts at the same time; return how many tokens were written.

        Args:
            prompts: What the users ask.
            tokens: Most tokens of an answer.
        """
        ...

    def first_token(self, prompt: str) -> tuple[float, float]:
        """Return seconds from the guidance to the first new token, of the processor and the clock.

        Args:
            prompt: What a user asks.
        """
        ...


class Stopwatch:
    """Seconds of the processor and the clock since it was made."""

    def __init__(self, server: int | None = None) -> None:
        """Start it.

        Args:
            server: A process whose processor seconds count, too, with those of its children.
        """
        self._server = server
        self._start = self._cpu(), time.perf_counter()

    def _cpu(self) -> float:
        times = [process.cpu_times() for process in processes(self._server)]
        return time.process_time() + sum(one.user + one.system for one in times)

    def read(self) -> tuple[float, float]:
        """Return the seconds of the processor and of the clock."""
        return self._cpu() - self._start[0], time.perf_counter() - self._start[1]


def processes(server: int | None) -> list[psutil.Process]:
    """Return the processes of a server. None for no server.

    Args:
        server: Its first process.
    """
    if server is None:
        return []
    first = psutil.Process(server)
    return [first, *first.children(recursive=True)]


class ThroughTheChain:
    """A student of this package behind the chain, whose teacher costs no time."""

    def __init__(self, model: str, threads: int, server: int | None = None, **options: Any) -> None:
        """Load the student.

        Args:
            model: Folder, hub id or GGUF file.
            threads: Threads that compute.
            server: The process of the server that runs the model, if there is one.
            **options: Other fields of the student.
        """
        self.server = server
        self.student = HuggingFaceStudent(model=model, threads=threads, **options)
        self._chain = GuidedKnowledgeTransferChain(
            teacher=InstantModel(text=_TAUGHT), student=self.student, teacher_limit_param=None
        )

    def answer(self, prompts: list[str], tokens: int) -> int:
        """See `Way.answer`."""
        self.student.max_tokens = tokens  # a call's max_tokens would count the guidance too
        return asyncio.run(self._answer(list(prompts)))

    async def _answer(self, prompts: list[str]) -> int:
        # Only the number leaves the loop: asyncio.run() writes down a result's whole repr.
        answers = await self._chain.abatch(prompts)
        usages = [answer.response_metadata["gkt"]["student_usage"] for answer in answers]
        return sum(usage["output_tokens"] for usage in usages)

    def first_token(self, prompt: str) -> tuple[float, float]:
        """See `Way.first_token`; the prompt was read while the teacher wrote."""
        asked: list[BaseMessage] = [HumanMessage(prompt)]
        with self.student.prefill(asked) as ahead:
            while not ahead.done:
                time.sleep(0.005)
            watch = Stopwatch(self.server)
            # The chain keeps the blank behind the last word. Else that would be written again.
            stream = self.student.stream([*asked, AIMessage(f"{GUIDANCE} ")], max_tokens=8)
            next(chunk for chunk in stream if chunk.text)
            found = watch.read()
            stream.close()
        return found


class Generate:
    """`generate` of transformers: a padded batch that reads every prompt again."""

    server = None

    def __init__(self, model: str, threads: int) -> None:
        """Load the model in the type in which it was saved."""
        from transformers import AutoModelForCausalLM, AutoTokenizer

        torch.set_num_threads(threads)
        self._tokenizer = AutoTokenizer.from_pretrained(model, padding_side="left")
        self._model: Any = AutoModelForCausalLM.from_pretrained(model, dtype="auto").eval()

    def _generate(self, prompts: list[str], tokens: int) -> Any:
        texts = [rendered(self._tokenizer, prompt) for prompt in prompts]
        inputs = self._tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        pad = self._tokenizer.pad_token_id
        pad = self._tokenizer.eos_token_id if pad is None else pad
        out = self._model.generate(
            **inputs, max_new_tokens=tokens, do_sample=False, pad_token_id=pad
        )
        return out[:, inputs["input_ids"].shape[1] :]

    def answer(self, prompts: list[str], tokens: int) -> int:
        """See `Way.answer`."""
        end, written = self._tokenizer.eos_token_id, 0
        for row in self._generate(prompts, tokens).tolist():
            written += row.index(end) + 1 if end in row else len(row)
        return written

    def first_token(self, prompt: str) -> tuple[float, float]:
        """See `Way.first_token`."""
        watch = Stopwatch()
        self._generate([prompt], 1)
        return watch.read()


class BareLlamaCpp:
    """xllamacpp's server, set up as ours is, and asked by itself."""

    server = None

    def __init__(self, file: str, threads: int) -> None:
        """Load the file."""
        import xllamacpp

        from langchain_gkt.students.backends.gguf import (
            gguf_source,
            load_tokenizer,
            local_file,
            read_header,
        )
        from langchain_gkt.students.backends.llamacpp.server import capacity, server_parameters

        source = gguf_source(file)
        assert source is not None
        header = read_header(local_file(source))
        rows, room, unified = capacity(header, EngineConfig())
        self._server = xllamacpp.Server(
            server_parameters(header, rows, room, unified, "cpu", threads)
        )
        self._tokenizer = load_tokenizer(header.path)

    def _body(self, prompt: str, tokens: int) -> dict[str, Any]:
        text = rendered(self._tokenizer, prompt)
        ids = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return {
            "prompt": list(ids),
            "n_predict": tokens,
            "temperature": 0.0,
            "top_k": 1,
            "samplers": ["top_k"],
            "cache_prompt": True,
        }

    def answer(self, prompts: list[str], tokens: int) -> int:
        """See `Way.answer`; a thread for each, as its calls block."""
        counts: list[int] = []

        def one(prompt: str) -> None:
            reply = self._server.handle_completions(self._body(prompt, tokens))
            counts.append(reply["usage"]["completion_tokens"])

        threads = [threading.Thread(target=one, args=[prompt]) for prompt in prompts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(counts) == len(prompts), "llama.cpp refused a prompt"
        return sum(counts)

    def first_token(self, prompt: str) -> tuple[float, float]:
        """See `Way.first_token`."""
        watch = Stopwatch()
        self.answer([prompt], 1)
        return watch.read()


class BareOpenVINO:
    """OpenVINO's pipeline, set up as ours is, and driven in a plain loop."""

    server = None

    def __init__(self, folder: str, threads: int, *, as_it_comes: bool = False) -> None:
        """Load the folder.

        Args:
            folder: The folder.
            threads: Threads that compute.
            as_it_comes: Whether OpenVINO is told nothing but that.
        """
        import openvino_genai
        from transformers import AutoTokenizer

        from langchain_gkt.students.backends.openvino.backend import precision_of, properties_for

        settings = openvino_genai.SchedulerConfig()
        settings.enable_prefix_caching = True
        settings.cache_size = 2  # GiB, our default
        properties: dict[str, object] = {"INFERENCE_NUM_THREADS": threads}
        if not as_it_comes:
            properties = properties_for("CPU", precision_of("auto", "CPU"), threads)
        self._pipeline = openvino_genai.ContinuousBatchingPipeline(
            folder, settings, "CPU", properties
        )
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._requests = 0

    def answer(self, prompts: list[str], tokens: int) -> int:
        """See `Way.answer`."""
        import numpy as np
        import openvino
        import openvino_genai

        handles = []
        for prompt in prompts:
            text = rendered(self._tokenizer, prompt)
            ids = self._tokenizer(text, add_special_tokens=False)["input_ids"]
            config = openvino_genai.GenerationConfig()
            config.max_new_tokens, config.do_sample = tokens, False
            config.eos_token_id = self._tokenizer.eos_token_id
            config.stop_token_ids = {self._tokenizer.eos_token_id}
            self._requests += 1
            tensor = openvino.Tensor(np.array([ids], dtype=np.int64))
            handles.append(self._pipeline.add_request(self._requests, tensor, config))
        while self._pipeline.has_non_finished_requests():
            self._pipeline.step()
        return sum(len(one.generated_ids) for handle in handles for one in handle.read_all())

    def first_token(self, prompt: str) -> tuple[float, float]:
        """See `Way.first_token`."""
        watch = Stopwatch()
        self.answer([prompt], 1)
        return watch.read()


class BareServer:
    """vLLM's server, asked by a client of its own, with neither chain nor stream."""

    def __init__(self, place: str, threads: int) -> None:
        """Load the tokenizer.

        Args:
            place: What `server_place` has written.
            threads: Not used: the server is running.
        """
        from transformers import AutoTokenizer

        folder, self._url, self.server = json.loads(place)
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self._tls = httpx.create_ssl_context()  # once, as ours does
        with httpx.Client(verify=self._tls) as client:
            self._model = client.get(f"{self._url}/v1/models").json()["data"][0]["id"]

    def answer(self, prompts: list[str], tokens: int) -> int:
        """See `Way.answer`."""
        return asyncio.run(self._answer(prompts, tokens))

    async def _answer(self, prompts: list[str], tokens: int) -> int:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(timeout=None, limits=limits, verify=self._tls) as client:

            async def one(prompt: str) -> int:
                text = rendered(self._tokenizer, prompt)
                ids = self._tokenizer(text, add_special_tokens=False)["input_ids"]
                body = {"model": self._model, "prompt": ids, "max_tokens": tokens, "temperature": 0}
                # Else the way that comes second would find the prompt in the server's cache.
                body["cache_salt"] = "bare"
                reply = await client.post(f"{self._url}/v1/completions", json=body)
                return int(reply.raise_for_status().json()["usage"]["completion_tokens"])

            return sum(await asyncio.gather(*map(one, prompts)))

    def first_token(self, prompt: str) -> tuple[float, float]:
        """See `Way.first_token`."""
        watch = Stopwatch(self.server)
        self.answer([prompt], 1)
        return watch.read()


def server_place(folder: str, url: str, pid: int) -> str:
    """Return where a server is, as an entry's ``load`` reads it.

    Args:
        folder: The tokenizer's folder.
        url: The server's address, without ``/v1``.
        pid: Its first process.
    """
    return json.dumps([folder, url, pid])


def engine_steps(place: str) -> int:
    """Return how many steps vLLM's engine has run. Unlike seconds, they do not depend on load.

    Args:
        place: What `server_place` has written.
    """
    metrics = httpx.get(f"{json.loads(place)[1]}/metrics").text
    found = re.search(r"^vllm:iteration_tokens_total_count\S* (\S+)", metrics, re.MULTILINE)
    return int(float(found[1])) if found else 0


def _through_server(place: str, threads: int) -> ThroughTheChain:
    folder, url, pid = json.loads(place)
    return ThroughTheChain(folder, threads, pid, backend="vllm", base_url=url)


def rendered(tokenizer: Any, prompt: str) -> str:
    """Return the text that a model reads: a prompt with its template, and the guidance.

    Args:
        tokenizer: The model's tokenizer.
        prompt: What a user asks.
    """
    if tokenizer.chat_template is None:
        return f"{prompt} {GUIDANCE}"
    asked = [{"role": "user", "content": prompt}]
    text: str = tokenizer.apply_chat_template(asked, add_generation_prompt=True, tokenize=False)
    return text + GUIDANCE


@dataclass(frozen=True)
class Entry:
    """One line of the comparison.

    Attributes:
        runs: What it needs: ``folder``, ``gguf``, ``openvino`` or ``server``.
        load: Loads a model, given its place and the number of threads.
        bare: The bare engines that it is compared with. None for a bare one.
        package: The package it needs, if it may be missing.
        as_saved: Whether it runs the weights as they are in the file.
        set_up_as_ours: Whether a bare engine is given the settings that ours has.
    """

    runs: str
    load: Callable[[str, int], Way]
    bare: tuple[str, ...] = ()
    package: str | None = None
    as_saved: bool = True
    set_up_as_ours: bool = False

    @property
    def installed(self) -> bool:
        """Whether its package is there."""
        return self.package is None or find_spec(self.package) is not None


ENTRIES: dict[str, Entry] = {
    "generate": Entry("folder", Generate),
    "torch": Entry("folder", ThroughTheChain, bare=("generate",)),
    "torch int8": Entry(
        "folder",
        lambda model, n: ThroughTheChain(model, n, dtype="int8"),
        bare=("generate",),
        as_saved=False,
    ),
    "bare llama.cpp": Entry("gguf", BareLlamaCpp, package="xllamacpp", set_up_as_ours=True),
    "llamacpp": Entry("gguf", ThroughTheChain, bare=("bare llama.cpp",), package="xllamacpp"),
    "bare OpenVINO": Entry("openvino", BareOpenVINO, package="openvino_genai", set_up_as_ours=True),
    "stock OpenVINO": Entry(
        "openvino",
        lambda folder, n: BareOpenVINO(folder, n, as_it_comes=True),
        package="openvino_genai",
    ),
    "openvino": Entry(
        "openvino",
        # The bare pipeline decodes all that come together.
        lambda folder, n: ThroughTheChain(folder, n, max_batch_size=64),
        bare=("bare OpenVINO", "stock OpenVINO"),
        package="openvino_genai",
    ),
    "bare vLLM": Entry("server", BareServer, set_up_as_ours=True),
    "vllm": Entry("server", _through_server, bare=("bare vLLM",)),
}
"""What is compared; another engine is one more entry."""
