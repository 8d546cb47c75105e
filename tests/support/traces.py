"""What LangSmith would be told: a client that keeps what a tracer hands it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from langchain_core.messages.ai import add_usage
from langchain_core.tracers import LangChainTracer

_COSTS = ("input_cost", "output_cost", "total_cost")


class FakeClient:
    """Takes what a tracer posts, as LangSmith's client would."""

    def __init__(self) -> None:
        self.runs: dict[Any, dict[str, Any]] = {}
        self.created: list[str] = []
        self.tracing_queue = SimpleNamespace()

    def create_run(self, **run: Any) -> None:
        self.created.append(run["name"])
        self.update_run(run["id"], **run)

    def update_run(self, run_id: Any, **run: Any) -> None:
        self.runs.setdefault(run_id, {}).update({k: v for k, v in run.items() if v is not None})

    def told(self) -> list[tuple[str, dict[str, Any]]]:
        """Each run of a model that reported usage: its name in the trace, and its usage."""
        found = []
        for run in self.runs.values():
            if run["run_type"] != "llm":
                continue
            messages = _messages(run.get("outputs") or {})
            used = run["extra"]["metadata"].get("usage_metadata")
            if used is not None:  # a run that failed has it in its outputs alone
                assert [one["usage_metadata"] for one in messages] == [used]
            found += [
                (run["name"], one["usage_metadata"])
                for one in messages
                if one.get("usage_metadata") is not None
            ]
        return found

    def usage(self) -> dict[str, Any]:
        """The tokens of each name in the trace."""
        found: dict[str, Any] = {}
        for name, used in self.told():
            tokens: Any = {key: count for key, count in used.items() if key not in _COSTS}
            found[name] = add_usage(found.get(name), tokens)
        return found

    def total(self) -> tuple[int, int]:
        """Prompt and completion tokens of all runs."""
        used = self.usage().values()
        return sum(u["input_tokens"] for u in used), sum(u["output_tokens"] for u in used)

    def dollars(self) -> dict[str, float]:
        """The costs of all runs, added up as LangSmith does."""
        return {name: sum(used.get(name, 0.0) for _, used in self.told()) for name in _COSTS}


def make_tracer() -> tuple[FakeClient, LangChainTracer]:
    """Return a tracer, and the client that it hands its runs to."""
    client: Any = FakeClient()
    return client, LangChainTracer(client=client, project_name="p")


def _messages(outputs: dict[str, Any]) -> list[dict[str, Any]]:
    return [g["message"]["kwargs"] for row in outputs.get("generations", ()) for g in row]
