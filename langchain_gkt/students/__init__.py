"""Students: local models that continue an answer somebody else began."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from langchain_core.language_models import BaseChatModel

if TYPE_CHECKING:
    from langchain_gkt.students.huggingface import HuggingFaceStudent

__all__ = ["STUDENT_VARIABLE", "HuggingFaceStudent", "as_student"]

STUDENT_VARIABLE = "GKT_STUDENT"
"""Environment variable with the folder or hub id of a student that is named nowhere else."""

_ACCEPTED = (
    "a folder or hub id, a (model, tokenizer) pair, a transformers text-generation pipeline, "
    "HuggingFacePipeline, ChatHuggingFace, HuggingFaceStudent, or another LangChain chat model "
    "that continues a trailing AIMessage"
)


def __getattr__(name: str) -> Any:
    """Import the torch side only when it is asked for."""
    if name == "HuggingFaceStudent":
        from langchain_gkt.students.huggingface import HuggingFaceStudent

        return HuggingFaceStudent
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def as_student(obj: Any, **kwargs: Any) -> BaseChatModel:
    """Make a student of whatever holds a local model.

    Args:
        obj: A folder or hub id, a ``(model, tokenizer)`` pair, a transformers pipeline, a
            ``HuggingFacePipeline``, a ``ChatHuggingFace`` over one, a `HuggingFaceStudent`, or
            any other LangChain chat model that continues a trailing AIMessage.
        **kwargs: Fields of `HuggingFaceStudent`, such as ``max_tokens`` or ``device``; not for
            a chat model that is taken as it is.

    Returns:
        A chat model that continues a trailing AIMessage.

    Raises:
        TypeError: If ``obj`` is none of these, or ``kwargs`` do not apply to it.
        FileNotFoundError: If a folder holds no model or no tokenizer.
    """
    from langchain_gkt.students.huggingface import HuggingFaceStudent

    if isinstance(obj, str | Path):
        return HuggingFaceStudent(model=obj, **kwargs)
    if isinstance(obj, tuple) and len(obj) == 2:
        return HuggingFaceStudent(model=obj[0], tokenizer=obj[1], **kwargs)
    inner = getattr(obj, "llm", None)
    if type(obj).__name__ == "ChatHuggingFace" and hasattr(inner, "pipeline"):
        obj = inner
    pipeline = getattr(obj, "pipeline", obj)
    if hasattr(pipeline, "model") and hasattr(pipeline, "tokenizer") and hasattr(pipeline, "task"):
        settings = _from_pipeline_kwargs(getattr(obj, "pipeline_kwargs", None) or {})
        return HuggingFaceStudent(
            model=pipeline.model, tokenizer=pipeline.tokenizer, **{**settings, **kwargs}
        )
    if isinstance(obj, BaseChatModel):
        if kwargs:
            raise TypeError(
                f"student_kwargs {sorted(kwargs)} do not apply to a ready "
                f"{type(obj).__name__}; set them on it"
            )
        return obj
    raise TypeError(f"student must be {_ACCEPTED}; not {type(obj).__name__}")


def _from_pipeline_kwargs(given: dict[str, Any]) -> dict[str, Any]:
    """Carry over the generation settings that mean the same here."""
    names = {"max_new_tokens": "max_tokens", "top_p": "top_p", "temperature": "temperature"}
    settings = {ours: given[theirs] for theirs, ours in names.items() if theirs in given}
    if not given.get("do_sample", True):
        settings["temperature"] = 0.0
    return settings
