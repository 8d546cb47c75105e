"""Makes the teacher's and the student's runs children of the chain's run.

``BaseChatModel`` gives ``_stream`` no run manager when it is called through ``stream``, ``astream``
or a streaming callback handler. So the chain prepares those runs itself. It configures the callback
manager once, chooses the run id, and keeps both on a copy of itself that serves this one call.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from functools import cache
from inspect import signature
from typing import Any

from langchain_core.callbacks import (
    AsyncCallbackHandler,
    AsyncCallbackManager,
    BaseCallbackHandler,
    BaseCallbackManager,
    CallbackManager,
    Callbacks,
    ParentRunManager,
)
from langchain_core.callbacks.manager import BaseRunManager
from langchain_core.runnables.config import RunnableConfig, ensure_config
from langchain_core.tracers.base import AsyncBaseTracer, BaseTracer

from langchain_gkt._langchain_compat import StreamingCallbackHandler
from langchain_gkt.chain.callbacks.usage import HideUsage, SumUsage, priced
from langchain_gkt.costs.budget import Budget
from langchain_gkt.costs.tracker import CostTracker
from langchain_gkt.metadata import Role

_TOKENS = ("on_llm_new_token", "on_stream_event")
_STARTS = ("on_chat_model_start", "on_llm_start", "on_chain_start")


def prepare_run(
    config: RunnableConfig | None,
    own_callbacks: Callbacks,
    arguments: Mapping[str, Any],
    *,
    asynchronous: bool,
) -> tuple[RunnableConfig, BaseRunManager]:
    """Prepare a run that ``BaseChatModel.stream`` will start, and the parent it will be.

    Returns:
        The config to pass on, and a run manager that stands for the future run.
    """
    config = ensure_config(config)
    manager_class = AsyncCallbackManager if asynchronous else CallbackManager
    manager = manager_class.configure(
        config.get("callbacks"),
        inheritable_tags=config.get("tags"),
        inheritable_metadata=config.get("metadata"),
    )
    run_id = config.get("run_id") or uuid.uuid4()
    # Configured here, so that the handlers of the environment are in their places, too.
    heard = CallbackManager.configure(manager, own_callbacks)
    heard.handlers = _without_usage(heard.handlers, arguments)
    config["callbacks"] = heard
    config["run_id"] = run_id
    return config, ParentRunManager(
        run_id=run_id,
        handlers=manager.handlers,
        inheritable_handlers=manager.inheritable_handlers,
        inheritable_tags=manager.inheritable_tags,
        inheritable_metadata=manager.inheritable_metadata,
    )


def hides_child_runs(arguments: Mapping[str, Any]) -> bool:
    """Whether a call hides its child runs. See `child_config`."""
    return bool(arguments.get("hide_child_runs") or arguments.get("response_format"))


def hide_usage(run: BaseRunManager | None, arguments: Mapping[str, Any]) -> BaseRunManager | None:
    """Make listeners of the chain's run count no tokens that its models' runs report."""
    if run and run.handlers:
        run.handlers = _without_usage(run.handlers, arguments)
    return run


def _without_usage(
    handlers: list[BaseCallbackHandler], arguments: Mapping[str, Any]
) -> list[BaseCallbackHandler]:
    if not handlers or isinstance(handlers[0], HideUsage):  # nobody listens, or done already
        return handlers
    hidden = hides_child_runs(arguments)
    rest = [handler for handler in handlers if not _hears_children(handler, hidden)]
    if rest:
        everywhere = CallbackManager.configure().handlers  # the models' runs get these, too
        rest = [handler for handler in rest if handler not in everywhere]
    follow = [handler for handler in handlers if handler not in rest]
    # The handlers are called one after the other with the same result. On an event loop those that
    # are not inline come last.
    return [HideUsage(), *follow, *([SumUsage()] if rest else []), *rest]


def child_config(
    parent: BaseRunManager | None,
    role: Role,
    *,
    own_callbacks: Callbacks,
    metadata: dict[str, Any],
    hide_child_runs: bool = False,
) -> RunnableConfig:
    """Build the config of a child run.

    Args:
        parent: The chain's run, or None if nobody listens.
        role: Which of the two models the run belongs to. Becomes its name.
        own_callbacks: Handlers from the chain's constructor. They get the children's events, too.
        metadata: Inheritable metadata of the child, added to ``gkt_role``.
        hide_child_runs: Whether only handlers that follow runs get the child's events: tracers,
            event streams, and those with a true attribute ``gkt_children``. LangChain's standard
            tests want any other handler to see one chat model start per structured answer. Handlers
            that show tokens never get them, because the chain's run reports each token to them
            once.
    """
    # The chain's ls_* labels describe the chain. A child has its own.
    inherited = {
        key: value
        for key, value in (parent.inheritable_metadata if parent else {}).items()
        if not key.startswith("ls_")
    }
    manager = CallbackManager(handlers=[], parent_run_id=parent.run_id if parent else None)
    if parent:
        manager.set_handlers(parent.inheritable_handlers)
        manager.add_tags(parent.inheritable_tags)
    own: Any = getattr(own_callbacks, "handlers", own_callbacks)
    for handler in own or []:
        manager.add_handler(handler)
    heard = [handler for handler in manager.handlers if _hears_children(handler, hide_child_runs)]
    manager.set_handlers(priced(heard))
    return {
        "callbacks": manager,
        "run_name": role,
        # LangGraph's message stream shows one message per question, not three.
        "tags": [f"gkt:{role}", "nostream"],
        "metadata": {**inherited, **metadata, "gkt_role": role},
    }


def with_costs(callbacks: Callbacks) -> CallbackManager:
    """Report the cost of a model's run outside any chain run to its tracers."""
    manager = CallbackManager.configure(callbacks)
    manager.set_handlers(priced(manager.handlers))
    return manager


def _hears_children(handler: BaseCallbackHandler, hide_child_runs: bool) -> bool:
    # The quick check comes first: that of StreamingCallbackHandler, a protocol, is slow.
    if getattr(handler, "gkt_children", False) or isinstance(
        handler, BaseTracer | AsyncBaseTracer | StreamingCallbackHandler
    ):
        return True
    kind: Any = type(handler)
    return not (hide_child_runs or _shows_tokens(kind))


@cache
def _shows_tokens(kind: Any) -> bool:
    """Whether a handler takes tokens but ignores parents, so that it would show each one twice."""
    if not any(_overrides(kind, name) for name in _TOKENS):
        return False
    # A handler that takes the parent of a starting run sorts runs into a tree.
    return not any(
        "parent_run_id" in signature(getattr(kind, name)).parameters
        for name in _STARTS
        if _overrides(kind, name)
    )


def _overrides(kind: type, name: str) -> bool:
    plain = (getattr(BaseCallbackHandler, name, None), getattr(AsyncCallbackHandler, name, None))
    return getattr(kind, name, None) not in plain


def with_budget(callbacks: Callbacks, budget: Budget) -> Callbacks:
    """Add the tracker of a chain's budget to a copy of the chain's own handlers."""
    tracker = CostTracker(budget=budget)
    if isinstance(callbacks, BaseCallbackManager):
        manager = callbacks.copy()
        manager.add_handler(tracker)
        return manager
    return [*(callbacks or []), tracker]
