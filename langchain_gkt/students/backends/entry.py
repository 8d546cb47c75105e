"""How an engine presents itself to the student: one `EngineEntry` in its own file.

Importing an entry must not import the engine. Only `EngineEntry.load` does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from langchain_gkt.students.backends.protocol import Backend
from langchain_gkt.students.backends.source import ModelSource


@dataclass(frozen=True, kw_only=True)
class EngineEntry:
    """An engine: what it can load, when it is chosen, and how it loads.

    Attributes:
        name: Its value of the field ``backend``.
        load: Loads a model. It raises FileNotFoundError, ValueError or StudentError, each with
            the field and the fix.
        refuse: Raises a ValueError, with the fix, if it cannot run such a model. The test is cheap:
            it loads and fetches nothing.
        claim: Returns why ``backend="auto"`` picks it for a model, to follow "because". None if it
            does not.
        module: The module it needs. Looked up without an import. None if it needs none.
        package: The package that provides the module.
        extra: The extra of this package that provides it too.
        is_server: Whether the model runs behind an address, the student's ``base_url``.
        instead: The warning, given once, when torch runs a model because the module is missing.
            Empty for none.
    """

    name: str
    load: Callable[[ModelSource], Backend]
    refuse: Callable[[Any], None]
    claim: Callable[[Any], str | None] = lambda model: None
    module: str | None = None
    package: str = ""
    extra: str = ""
    is_server: bool = False
    instead: str = ""
