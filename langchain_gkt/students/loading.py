"""Loads a student's model and tokenizer, once."""

from __future__ import annotations

import threading
from typing import Any

from langchain_gkt.errors import StudentError
from langchain_gkt.students.backends.choosing import choose_for
from langchain_gkt.students.backends.source import ModelSource
from langchain_gkt.students.prompting import PromptBuilder
from langchain_gkt.students.request_builder import RequestBuilder

LOADING = threading.RLock()
"""Held while a model is loaded: transformers leaves weights empty if two loads overlap."""


class StudentLoader:
    """Loads what a student needs on first use, and keeps it.

    Copies of a student share it. It is pickled without the weights if a path allows loading them
    again.
    """

    def __init__(self, source: ModelSource, loaded: RequestBuilder | None = None) -> None:
        """Choose the engine, without loading. See `choose_for` for the errors."""
        self.source, self._loaded = source, loaded
        self.choice = choose_for(source)
        self.others: dict[str, Any] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the source. A model that was passed in loaded goes with its engine."""
        loaded = None if isinstance(self.source.model, str) else self._loaded
        return type(self), (self.source, loaded)

    def __deepcopy__(self, memo: dict[int, Any]) -> StudentLoader:
        """Share it, because copies of a student differ in settings alone."""
        return self

    def load(self) -> RequestBuilder:
        """Return the builder of the student's requests. The first call loads the model."""
        if self._loaded is None:
            with LOADING:
                if self._loaded is None:
                    engine = self.choice.engine.load(self.source)
                    prompts = PromptBuilder(engine.tokenizer, self.source.allowed_added_tokens)
                    self._loaded = RequestBuilder(engine, prompts)
        return self._loaded

    def other(self, name: str, student: Any) -> Any:
        """Return the student that a call names, made once, with the settings of the called one."""
        if name not in self.others:
            with LOADING:
                if name not in self.others and not self._is_closed():
                    fields = {field: getattr(student, field) for field in student.model_fields_set}
                    fields |= {"model": name, "tokenizer": None, "backend": self.source.backend}
                    fields["trust_remote_code"] = False  # the user trusted only the first model
                    self.others[name] = type(student)(**fields)
        if self._is_closed():  # perhaps while the other was loading, so close() missed it
            self.close()
            raise StudentError("the student is closed; make a new one")
        return self.others[name]

    def _is_closed(self) -> bool:
        return self._loaded is not None and self._loaded.engine.closed

    def close(self) -> None:
        """Close the engine if it was loaded, and the students that calls named."""
        if self._loaded is not None:
            self._loaded.engine.close()
        for other in list(self.others.values()):
            other.close()
