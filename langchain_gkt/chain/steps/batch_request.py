"""The teacher request of a chain call, for a file of the batch endpoint."""

from __future__ import annotations

from typing import Any

from langchain_core.messages import BaseMessage

from langchain_gkt._langchain_compat import RunnableBindingBase, request_body
from langchain_gkt.chain.settings import CallSettings
from langchain_gkt.chain.steps.teacher_step import TeacherStep
from langchain_gkt.errors import NotSupportedError
from langchain_gkt.prompts.base import prepare


def teacher_request(
    settings: CallSettings, messages: list[BaseMessage], **further: Any
) -> dict[str, Any]:
    """Return the body of a call's request to its teacher, in the form of OpenAI's chat completions.

    Raises:
        NotSupportedError: If the teacher is not a single model of langchain-openai, or uses another
            endpoint.
    """
    step = TeacherStep(settings)
    prompt = prepare(settings.teacher_prompt, messages, step.prompt_context(messages))
    call = step.model_call(list(prompt.messages), settings.limit, {}, streaming=False)
    model: Any = call.model
    arguments = {**call.arguments, **further}
    while isinstance(model, RunnableBindingBase):  # bind, with_retry
        model, arguments = model.bound, {**model.kwargs, **arguments}
    try:
        body = request_body(model, list(call.messages), arguments)
    except AttributeError:
        raise NotSupportedError(
            f"a batch file needs a teacher of langchain-openai, not {type(model).__name__}",
            hint="give the chain teacher=ChatOpenAI(...)",
        ) from None
    if "messages" not in body:
        raise NotSupportedError(
            "the teacher speaks to the Responses API, and a batch file holds chat completions",
            hint="give it use_responses_api=False",
        )
    return {k: v for k, v in body.items() if k not in ("stream", "stream_options")}
