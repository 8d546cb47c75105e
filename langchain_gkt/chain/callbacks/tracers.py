"""LangSmith's tracers, with the costs of the models' runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage
from langchain_core.outputs import LLMResult
from langchain_core.tracers import LangChainTracer

from langchain_gkt.chain.callbacks.usage import CACHED, change_usage
from langchain_gkt.costs.observer import CallObserver, observers_in
from langchain_gkt.metadata import from_cache


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
