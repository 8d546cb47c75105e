"""How an engine presents itself to the student: one `EngineEntry` in its own file.

Importing an entry must not import the engine: only `EngineEntry.load` does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from langchain_gkt.students.backends.protocol import Backend
from langchain_gkt.students.backends.source import ModelSource


def _claims_nothing(model: Any) -> str | None:
    return None


@dataclass(frozen=True, kw_only=True)
class EngineEntry:
    """An engine: what it can load, when it is chosen, and how it loads.

    Attributes:
        name: Its value of the field ``backend``.
        load: Loads a model. It raises FileNotFoundError, ValueError or StudentError, each with
            the field and the fix.
        refuse: Raises a ValueError, with the fix, if it cannot run such a model. The test is cheap:
            nothing is loaded or fetched.
        claim: Says why it is the engine of a model under ``backend="auto"``, to follow "because".
            None if it is not.
        module: The module it needs, which is looked for and not imported. None if it needs none.
        package: The package that brings the module.
        extra: The extra of this package that brings it too.
        is_server: Whether the model runs behind an address, the student's ``base_url``.
        instead: What is said, once, when torch runs a model because the module is missing. Empty
            for nothing.
    """

    name: str
    load: Callable[[ModelSource], Backend]
    refuse: Callable[[Any], None]
    claim: Callable[[Any], str | None] = _claims_nothing
    module: str | None = None
    package: str = ""
    extra: str = ""
    is_server: bool = False
    instead: str = ""
