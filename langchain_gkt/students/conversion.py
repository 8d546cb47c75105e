"""as_student: turns anything that holds a local model into a student."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from langchain_core.language_models import BaseChatModel, BaseLanguageModel

from langchain_gkt._langchain_compat import pipeline_generation_settings
from langchain_gkt.students.settings import STUDENT_VARIABLE

__all__ = ["STUDENT_VARIABLE", "as_student"]

StudentLike = str | Path | tuple[Any, Any] | BaseLanguageModel[Any] | Callable[..., Any]
"""The inputs of `as_student`. A transformers pipeline is a callable."""

_ACCEPTED = (
    "a folder or hub id, a .gguf file, a (model, tokenizer) pair, a transformers text-generation "
    "pipeline, HuggingFacePipeline, ChatHuggingFace, HuggingFaceStudent, or another LangChain chat "
    "model that continues a trailing AIMessage"
)

# Fields of ChatHuggingFace that have the same name here.
_CHAT_FIELDS = ("temperature", "top_p", "max_tokens", "stop", "seed")
# Settings of a pipeline that are read in another way, or do not change the text.
_HANDLED_OR_HARMLESS = {
    "do_sample",
    "stop_strings",
    "stop_sequence",
    "return_full_text",
    "return_text",
    "return_tensors",
    "batch_size",
    "num_workers",
    "generation_config",
    "tokenizer",
    "assistant_model",
    "assistant_tokenizer",
    "use_cache",
    "pad_token_id",
    "clean_up_tokenization_spaces",
}


def as_student(obj: StudentLike, **kwargs: Any) -> BaseChatModel:
    """Turn anything that holds a local model into a student.

    Args:
        obj: A folder, a hub id, a ``.gguf`` file, a ``(model, tokenizer)`` pair, a transformers
            pipeline, a ``HuggingFacePipeline``, a ``ChatHuggingFace`` over one, a
            `HuggingFaceStudent`, or any other LangChain chat model that continues a trailing
            AIMessage.
        **kwargs: Fields of `HuggingFaceStudent`, such as ``max_tokens`` or ``device``. Not for a
            chat model that is used as it is.

    Returns:
        A chat model that continues a trailing AIMessage.

    Raises:
        TypeError: If ``obj`` is none of these, or ``kwargs`` do not apply to it.
        FileNotFoundError: If a folder holds no model or no tokenizer.
    """
    if isinstance(obj, str | Path):
        return _make(model=obj, **kwargs)
    if isinstance(obj, tuple) and len(obj) == 2:
        return _make(model=obj[0], tokenizer=obj[1], **kwargs)
    inner: Any = getattr(obj, "llm", None)
    chat_fields: dict[str, Any] = {}
    if type(obj).__name__ == "ChatHuggingFace" and hasattr(inner, "pipeline"):
        values = {name: getattr(obj, name, None) for name in _CHAT_FIELDS}
        chat_fields = {name: value for name, value in values.items() if value is not None}
        obj = inner
    pipeline = getattr(obj, "pipeline", obj)
    if hasattr(pipeline, "model") and hasattr(pipeline, "tokenizer") and hasattr(pipeline, "task"):
        generation = {
            # transformers 5 keeps the arguments of pipeline() here, and nowhere public.
            **pipeline_generation_settings(pipeline),
            **(getattr(obj, "pipeline_kwargs", None) or {}),
        }
        settings = {**_from_generation(generation), **chat_fields, **kwargs}
        return _make(model=pipeline.model, tokenizer=pipeline.tokenizer, **settings)
    if isinstance(obj, BaseChatModel):
        if kwargs:
            raise TypeError(
                f"student_kwargs {sorted(kwargs)} do not apply to a ready "
                f"{type(obj).__name__}; set them on it"
            )
        return obj
    raise TypeError(f"student must be {_ACCEPTED}; not {type(obj).__name__}")


def _make(**fields: Any) -> BaseChatModel:
    # A ready chat model needs no torch, so it is imported only here.
    from langchain_gkt.students.huggingface import HuggingFaceStudent

    return HuggingFaceStudent(**fields)


def _from_generation(generation: dict[str, Any]) -> dict[str, Any]:
    """Carry over the generation settings that mean the same here. Name those that do not."""
    names = {"max_new_tokens": "max_tokens", "top_p": "top_p", "temperature": "temperature"}
    settings = {ours: generation[theirs] for theirs, ours in names.items() if theirs in generation}
    if generation.get("do_sample"):
        settings.setdefault("temperature", 1.0)  # the default of generate()
    elif "do_sample" in generation:
        settings["temperature"] = 0.0
    if stop := generation.get("stop_strings") or generation.get("stop_sequence"):
        settings["stop"] = [stop] if isinstance(stop, str) else list(stop)
    left = sorted(generation.keys() - names.keys() - _HANDLED_OR_HARMLESS)
    if left:
        warnings.warn(
            f"the student does not carry over the pipeline's {', '.join(left)}; it knows "
            "max_new_tokens, temperature, top_p, do_sample and stop strings",
            UserWarning,
            stacklevel=3,
        )
    return settings
