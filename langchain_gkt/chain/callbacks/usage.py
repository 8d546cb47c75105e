"""Keeps sums of usage true. The models' runs carry all usage, the chain's own run none.

Tracers and usage callbacks add up the usage of all runs of chat models. The chain's run and those
of its two models are such runs, so its own usage would count twice. The caller's answer still has
``usage_metadata``. Only the copies for listeners at the end of a run change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.messages.ai import UsageMetadata, add_usage
from langchain_core.messages.utils import count_tokens_approximately
from langchain_core.outputs import ChatGeneration, LLMResult
from langchain_core.tracers import LangChainTracer

from langchain_gkt.costs.observer import CallObserver, observers_in
from langchain_gkt.guidance import Guidance
from langchain_gkt.metadata import from_cache
from langchain_gkt.prompts.base import PreparedPrompt

_COUNTS = tuple(UsageMetadata.__annotations__)
NO_TOKENS = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
CACHED = {**NO_TOKENS, "total_cost": 0}
"""The usage of an answer from LangChain's cache. See `langchain_gkt.metadata.from_cache`."""


def usage_of_answer(
    guidance: Guidance | None,
    tool_reply: AIMessage | None,
    reply: AIMessage | None,
    *,
    prompt_share: float | None = None,
    prompt_tokens: int = 0,
) -> UsageMetadata | None:
    """Return the usage of an answer as a single model would have reported it.

    The prompt is the larger one of both models, because middleware that shortens long conversations
    relies on it.

    Args:
        guidance: The beginning of the answer, or None.
        tool_reply: The teacher's tool call, or None.
        reply: The student's reply, or None if the teacher finished the answer.
        prompt_share: The result of `prompt_share`. Where the student read nothing, it serves to
            estimate the whole prompt.
        prompt_tokens: The largest prompt that a model read for something that is not part of the
            answer, such as a verdict, or samples that a gate compares.

    Returns:
        The usage. None if the model that ended the answer reported nothing.
    """
    if reply is None:
        taught = tool_reply.usage_metadata if tool_reply else guidance and guidance.usage
        if not taught:
            return None
        counts = _counts(taught)
        whole = round(counts["input_tokens"] / (prompt_share or 1))
        return _with_prompt(counts, max(whole, prompt_tokens))
    usage = reply.usage_metadata
    if not usage or not guidance:
        return _with_prompt(_counts(usage), prompt_tokens) if usage else None
    # The student read the guidance as part of its prompt, but it is part of the answer.
    total = usage["input_tokens"] + usage["output_tokens"]
    output = min(total, usage["output_tokens"] + guidance.kept_tokens)
    own = UsageMetadata(input_tokens=total - output, output_tokens=output, total_tokens=total)
    taught_prompt = guidance.usage["input_tokens"] if guidance.usage else 0
    return _with_prompt(own, max(taught_prompt, prompt_tokens))


def _with_prompt(usage: UsageMetadata, tokens: int) -> UsageMetadata:
    more = max(0, tokens - usage["input_tokens"])
    counts: Any = {name: usage[name] + more for name in ("input_tokens", "total_tokens")}
    return {**usage, **counts}


def prompt_share(messages: Sequence[BaseMessage], prompt: PreparedPrompt) -> float | None:
    """Estimate the length of the teacher's prompt as a share of the whole conversation.

    Tokens count as about four characters. None if the teacher sees the whole.
    """
    if list(prompt.messages) == list(messages):
        return None
    whole, own = (count_tokens_approximately(turns) for turns in (messages, prompt.messages))
    return own / max(1, whole)


def _counts(usage: Mapping[str, Any]) -> UsageMetadata:
    """Leave out costs, because langchain-core marks answers from its cache by them."""
    return cast(UsageMetadata, {key: usage[key] for key in _COUNTS if key in usage})


class _ChangesUsage(BaseCallbackHandler):
    """Changes the usage in the result of a run for the handlers that come after it."""

    run_inline = True  # otherwise an event loop runs handlers all at once

    def on_llm_end(self, response: LLMResult, **kwargs: Any) -> None:
        """Change the result of a run that ended well."""
        change_usage(response, self._usage)

    def on_llm_error(self, error: BaseException, **kwargs: Any) -> None:
        """Change the text written before an error."""
        if isinstance(response := kwargs.get("response"), LLMResult):
            self.on_llm_end(response)

    def _usage(self, message: AIMessage) -> Mapping[str, Any]:
        raise NotImplementedError


def change_usage(response: LLMResult, usage_of: Callable[[AIMessage], Mapping[str, Any]]) -> None:
    """Replace the messages of a result, which others hold, by copies with other usage."""
    for generations in response.generations:  # the run's own lists, not those of the answer
        for index, generation in enumerate(generations):
            if isinstance(generation, ChatGeneration) and (
                isinstance(message := generation.message, AIMessage) and message.usage_metadata
            ):
                changed = message.model_copy(update={"usage_metadata": {**usage_of(message)}})
                generations[index] = generation.model_copy(update={"message": changed})


class HideUsage(_ChangesUsage):
    """Reports that the chain itself used no tokens. Its models' runs report theirs.

    Zeros are reported, because LangSmith estimates the tokens of runs that report none.
    """

    def _usage(self, message: AIMessage) -> Mapping[str, Any]:
        return CACHED if from_cache(message.usage_metadata) else NO_TOKENS


class SumUsage(_ChangesUsage):
    """Reports the usage of both models, to handlers that do not get their runs' events."""

    def _usage(self, message: AIMessage) -> Mapping[str, Any]:
        hidden: Mapping[str, Any] = message.usage_metadata or NO_TOKENS
        if from_cache(hidden):
            return hidden
        gkt: dict[str, Any] = message.response_metadata.get("gkt") or {}
        paid: UsageMetadata | None = None
        for usage in filter(None, (gkt.get("teacher_usage"), gkt.get("student_usage"))):
            paid = add_usage(paid, _counts(usage))
        return paid or hidden


class PricedTracer(LangChainTracer):
    """Stands in for a tracer in the models' runs, and adds their costs to their usage.

    Only the tracer may see costs there. langchain-core's own sums of usage take whole numbers only
    and would fail on them. An answer from a cache used no tokens.
    """

    _observers: Sequence[CallObserver] = ()

    @classmethod
    def of(cls, tracer: LangChainTracer, observers: Sequence[CallObserver]) -> PricedTracer:
        """Return a twin of a tracer. The first observer that knows a run's cost counts."""
        twin = cls.__new__(cls)
        twin.__dict__.update(tracer.__dict__)
        twin._observers = observers
        return twin

    def copy_with_metadata_defaults(self, **defaults: Any) -> PricedTracer:
        """Return a copy with other defaults, as langchain-core makes for each run."""
        return self.of(super().copy_with_metadata_defaults(**defaults), self._observers)

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> Any:
        """Trace the end of a run, with its costs."""
        return super().on_llm_end(self._priced(response, run_id, None), run_id=run_id, **kwargs)

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> Any:
        """Trace an error, with the costs reported before it."""
        response = self._priced(kwargs.pop("response", None), run_id, error)
        return super().on_llm_error(error, run_id=run_id, response=response, **kwargs)

    def _priced(self, response: Any, run_id: UUID, error: BaseException | None) -> Any:
        all_costs = [observer.end_run(run_id, response, error) for observer in self._observers]
        costs: Mapping[str, float] = next(filter(None, all_costs), {})
        if not isinstance(response, LLMResult):
            return response

        def usage_of(message: AIMessage) -> Mapping[str, Any]:
            usage: Mapping[str, Any] = message.usage_metadata or {}
            return CACHED if from_cache(usage) else {**usage, **costs}

        generations = [[*row] for row in response.generations]
        priced = response.model_copy(update={"generations": generations})
        change_usage(priced, usage_of)
        return priced


def priced(handlers: Sequence[BaseCallbackHandler]) -> list[BaseCallbackHandler]:
    """Make LangSmith's tracers get the costs of a model's run, if the handlers have a cost tracker.

    A subclass of the tracer, which may do other things, stays as it is.
    """
    observers = observers_in(handlers)
    return [
        PricedTracer.of(handler, observers) if type(handler) is LangChainTracer else handler
        for handler in handlers
    ]
