"""The models that a server offers, and the chain call for a request."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage
from pydantic import ValidationError

from langchain_gkt.chain.base import GuidedKnowledgeTransferChain
from langchain_gkt.chain.strategy import strategy_names
from langchain_gkt.errors import explain
from langchain_gkt.guidance import as_policy
from langchain_gkt.metadata import Mode
from langchain_gkt.prompts.plain_data import from_data
from langchain_gkt.serving.api.fields import FieldError
from langchain_gkt.serving.api.json_schemas import refuse_endless
from langchain_gkt.serving.errors import APIError
from langchain_gkt.structured_output.schema import schema_in
from langchain_gkt.students.remote import remote_student
from langchain_gkt.teachers.wrappers import with_fields

_READERS: dict[str, Callable[[Any], Any]] = {"guidance": as_policy, "teacher_prompt": from_data}


@dataclass(frozen=True, kw_only=True)
class ServedCall:
    """One call of a chain, which has the request's sampling set on its models."""

    chain: GuidedKnowledgeTransferChain
    messages: list[BaseMessage]
    arguments: Mapping[str, Any]
    forced_tool: str | None = None  # empty for any, None if no call is required


class Catalog:
    """Names the pair, and each other mode of the chain, as a separate model."""

    def __init__(self, chain: GuidedKnowledgeTransferChain, name: str) -> None:
        """Offer a chain. Every other mode than the pair's adds its name, as in ``-teacher``."""
        self.chain, self._created = chain, int(time.time())
        default, *others = strategy_names()
        self.modes: dict[str, Mode] = {name: default}
        self.modes |= {f"{name}-{mode}": mode for mode in others}

    def describe(self, model: str) -> dict[str, Any]:
        """Return a model as ``/v1/models`` shows it. Raises an `APIError` if there is none."""
        mode = self.mode(model)
        return {
            "id": model,
            "object": "model",
            "created": self._created,
            "owned_by": "langchain-gkt",
            "gkt": {"mode": mode},
        }

    def mode(self, model: str) -> Mode:
        """Return the mode for a model's name. Raises an `APIError` if there is none."""
        if model not in self.modes:
            known = ", ".join(self.modes)
            raise APIError(
                404,
                f"the model {model[:100]!r} does not exist; this server has {known}",
                code="model_not_found",
                param="model",
            )
        return self.modes[model]

    def call(self, body: Any) -> ServedCall:
        """Return the chain call for a request.

        Raises an `APIError` if there is no such model, and a `ValueError` if the messages or the
        options make no sense.
        """
        arguments: dict[str, Any] = {
            "temperature": body.temperature,
            "stop": body.stop,
            "tools": body.tools,
            "max_tokens": body.limit,
            "guidance_tokens": body.gkt.guidance_tokens,
        }
        for at, tool in enumerate(body.tools or ()):
            parameters = tool["function"].get("parameters", {})
            refuse_endless(parameters, f"tools[{at}]{body.in_function}.parameters")
        if body.tools:
            arguments["tool_choice"] = body.tool_choice
            arguments["parallel_tool_calls"] = body.parallel_tool_calls
        form = body.response_format
        if form and form.get("type") != "text":
            refuse_endless(schema_in(form), "response_format")
            arguments["response_format"] = form
        for name, read in _READERS.items():
            if (value := getattr(body.gkt, name)) is not None:
                arguments[name] = _read(value, read, f"gkt.{name}")
        chain = _sampling(self.chain, seed=body.seed, top_p=body.top_p)
        if body.continue_final_message:
            chain = chain.model_copy(update={"teacher": _continuing(chain.teacher)})
        return ServedCall(
            chain=chain,
            messages=body.conversation,
            arguments={
                "mode": self.mode(body.model),
                **{name: value for name, value in arguments.items() if value is not None},
            },
            forced_tool=body.forced_tool,
        )


def _read(value: Any, read: Callable[[Any], Any], field: str) -> Any:
    try:
        return read(value)
    except (ValueError, TypeError) as error:
        why = explain(error) if isinstance(error, ValidationError) else error
        raise FieldError(field, f": {why}") from None


def _continuing(teacher: Any) -> Any:
    """Have a teacher on a server of its own continue a begun answer, as a student would.

    OpenAI's own service does not know this field and refuses it.
    """
    address = getattr(teacher, "openai_api_base", None)
    hosted = not address or (urlsplit(str(address)).hostname or "").endswith("openai.com")
    if hosted or not isinstance(teacher, BaseChatModel):
        return teacher
    return remote_student(teacher, "vllm")


def _sampling(chain: GuidedKnowledgeTransferChain, **fields: Any) -> GuidedKnowledgeTransferChain:
    """Set fields on both models that have them, for one call."""
    values = {name: value for name, value in fields.items() if value is not None}
    if not values:
        return chain
    models = {name: with_fields(getattr(chain, name), values) for name in ("teacher", "student")}
    return chain.model_copy(update=models)
