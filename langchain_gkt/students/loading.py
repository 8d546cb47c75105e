"""Loads a student's model and tokenizer, once."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from langchain_gkt.errors import StudentError
from langchain_gkt.students.backends.choosing import choose_for
from langchain_gkt.students.backends.source import ModelSource
from langchain_gkt.students.prompting import PromptBuilder
from langchain_gkt.students.request_builder import RequestBuilder

LOADING = threading.RLock()
"""Held while a model is loaded: transformers leaves weights empty if two loads overlap."""


def name_of(model: Any) -> str:
    """Return a short name of a model: its folder, file, hub id or class.

    Args:
        model: A folder, a hub id, a file or a loaded model.
    """
    if isinstance(model, str):
        return Path(model).name
    return str(getattr(model, "name_or_path", "") or type(model).__name__)


class StudentLoader:
    """Loads what a student needs when it is first needed, and keeps it.

    Copies of a student share it. It is pickled without the weights if they can be loaded
    again from a path.
    """

    def __init__(self, source: ModelSource, loaded: RequestBuilder | None = None) -> None:
        """Choose the engine, without loading.

        Args:
            source: What to load.
            loaded: What was made of it already, if anything.

        Raises:
            ValueError: If there is no such engine, or it cannot run such a model.
            ImportError: If the engine that the user chose is not installed.
        """
        self.source, self._loaded = source, loaded
        self.choice = choose_for(source)
        self.others: dict[str, Any] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle what was given; a model that was given loaded goes with its engine."""
        loaded = None if isinstance(self.source.model, str) else self._loaded
        return type(self), (self.source, loaded)

    def __deepcopy__(self, memo: dict[int, Any]) -> StudentLoader:
        """Share it: copies of a student differ in settings alone."""
        return self

    def load(self) -> RequestBuilder:
        """Return what builds the student's requests; the first call loads the model.

        Raises:
            FileNotFoundError: If a folder does not exist or holds no model or no tokenizer.
            StudentError: If the model cannot be loaded.
        """
        if self._loaded is not None:
            return self._loaded
        with LOADING:
            if self._loaded is None:
                engine = self.choice.engine.load(self.source)
                prompts = PromptBuilder(engine.tokenizer, self.source.allowed_added_tokens)
                self._loaded = RequestBuilder(engine, prompts)
            return self._loaded

    def other(self, name: str, student: Any) -> Any:
        """Return the student that calls name, made once.

        Args:
            name: Its folder or hub id.
            student: The student that is called. The other has its settings.

        Raises:
            StudentError: If this student is closed, also if that happens meanwhile.
        """
        if name not in self.others:
            with LOADING:
                if name not in self.others and not self._is_closed():
                    fields = {field: getattr(student, field) for field in student.model_fields_set}
                    fields |= {"model": name, "tokenizer": None, "backend": self.source.backend}
                    fields["trust_remote_code"] = False  # that was said of the first model
                    self.others[name] = type(student)(**fields)
        if self._is_closed():  # perhaps while the other was loaded, so close() missed it
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
