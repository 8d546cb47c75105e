"""How many inputs of a batch are sent to a student at the same time.

LangChain's own default depends on the machine's cores, and would leave most of the engine's
batch empty.
"""

from __future__ import annotations

from langchain_core.runnables.config import RunnableConfig, merge_configs


def with_max_concurrency(
    config: RunnableConfig | list[RunnableConfig] | None, count: int, limit: int
) -> list[RunnableConfig]:
    """Set ``max_concurrency`` in the configs of a batch that do not set it themselves.

    Args:
        config: The caller's config, or one per input.
        count: Number of inputs.
        limit: Most inputs that run at the same time.

    Returns:
        One config per input.
    """
    default = RunnableConfig(max_concurrency=max(1, min(count, limit)))
    configs = config if isinstance(config, list) else [config or RunnableConfig()] * count
    return [
        merge_configs(default, one) if one.get("max_concurrency") is None else one
        for one in configs
    ]
