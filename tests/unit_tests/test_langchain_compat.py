"""Contracts of the private names in `_langchain_compat`: each failure says what breaks."""

from __future__ import annotations

import inspect
import uuid
from typing import Any

import pytest
from langchain.chat_models import init_chat_model
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import CallbackManager
from langchain_core.globals import set_llm_cache
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.runnables import ConfigurableField, RunnableLambda
from langchain_core.tracers.event_stream import _AstreamEventsCallbackHandler
from langchain_openai import ChatOpenAI
from support.models.fakes import MODELS, Recorder, WordTeacher
from transformers import pipeline

from langchain_gkt import GuidedKnowledgeTransferChain
from langchain_gkt import _langchain_compat as compat


def parameters(function: Any) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(function).parameters)


@pytest.fixture
def model() -> WordTeacher:
    return WordTeacher(answer="Yes.", asked=[])


@pytest.mark.parametrize("name", compat.OVERRIDDEN_BY_CHAIN)
def test_what_the_chain_overrides_is_there_to_be_overridden(name) -> None:
    assert hasattr(BaseChatModel, name), (
        f"langchain-core has no BaseChatModel.{name} any more; the chain's own is never called"
    )
    ours, theirs = getattr(GuidedKnowledgeTransferChain, name), getattr(BaseChatModel, name)
    assert ours is not theirs
    assert inspect.iscoroutinefunction(ours) == inspect.iscoroutinefunction(theirs), (
        f"langchain-core made BaseChatModel.{name} of another kind; the chain's must follow"
    )


@pytest.mark.parametrize("name", ["_generate_with_cache", "_agenerate_with_cache"])
def test_generating_takes_the_run_by_name(name) -> None:
    found = parameters(getattr(BaseChatModel, name))
    assert list(found)[:4] == ["self", "messages", "stop", "run_manager"], (
        f"BaseChatModel.{name} has other parameters; the chain hands its run over by it"
    )


class Noticing(WordTeacher):
    """Notes how core calls its private methods."""

    noticed: Any = None

    def _stream(self, messages, stop=None, run_manager=None, **kwargs):
        yield ChatGenerationChunk(message=AIMessageChunk(self.answer, chunk_position="last"))

    def _generate_with_cache(self, *args: Any, **kwargs: Any) -> Any:
        self.noticed.append(("_generate_with_cache", len(args), sorted(kwargs)))
        return super()._generate_with_cache(*args, **kwargs)

    async def _agenerate_with_cache(self, *args: Any, **kwargs: Any) -> Any:
        self.noticed.append(("_agenerate_with_cache", len(args), sorted(kwargs)))
        return await super()._agenerate_with_cache(*args, **kwargs)

    def _chat_model_stream_v3(self, *args: Any, **kwargs: Any) -> Any:
        self.noticed.append(("_chat_model_stream_v3", len(args), []))
        return super()._chat_model_stream_v3(*args, **kwargs)

    async def _achat_model_stream_v3(self, *args: Any, **kwargs: Any) -> Any:
        self.noticed.append(("_achat_model_stream_v3", len(args), []))
        return await super()._achat_model_stream_v3(*args, **kwargs)

    def _get_llm_string(self, *args: Any, **kwargs: Any) -> str:
        self.noticed.append(("_get_llm_string", len(args), sorted(kwargs)))
        return super()._get_llm_string(*args, **kwargs)

    def _get_ls_params(self, *args: Any, **kwargs: Any) -> Any:
        self.noticed.append(("_get_ls_params", len(args), []))
        return super()._get_ls_params(*args, **kwargs)


@pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")
async def test_core_calls_what_the_chain_overrides() -> None:
    model = Noticing(answer="Yes.", asked=[], noticed=[], cache=InMemoryCache())
    model.invoke("a")
    await model.ainvoke("b")
    str(model.stream_events("c", version="v3").text)
    await (await model.astream_events("d", version="v3"))
    called = {name for name, *_ in model.noticed}
    assert called == set(compat.OVERRIDDEN_BY_CHAIN), (
        f"langchain-core no longer calls {set(compat.OVERRIDDEN_BY_CHAIN) - called}; the chain's "
        "children lose their parent, its cache key or its name in traces"
    )
    for name, positional, named in model.noticed:
        if name.endswith("generate_with_cache"):
            assert (positional, "run_manager" in named) == (1, True), (
                f"core hands {name} its run in another way; the chain reads kwargs['run_manager']"
            )


def test_stream_gives_the_model_no_run() -> None:
    seen = []

    class Streams(WordTeacher):
        def _stream(self, messages, stop=None, run_manager=None, **kwargs):
            seen.append(run_manager)
            yield from ()

    with pytest.raises(ValueError, match="No generation"):
        list(Streams(answer="x").stream("a"))
    assert seen == [None], (
        "BaseChatModel.stream now hands _stream its run: prepare_run (chain/callbacks) may go"
    )


def test_streams_start_the_run_that_the_config_names() -> None:
    """`prepare_run` chooses the id and the manager of a run that core then starts."""
    recorder, run_id = Recorder(), uuid.uuid4()
    manager = CallbackManager.configure([recorder], inheritable_tags=["t"])
    list(WordTeacher(answer="x", asked=[]).stream("a", {"callbacks": manager, "run_id": run_id}))
    assert list(recorder.runs) == [run_id], (
        "BaseChatModel.stream ignores config['run_id'] or a ready manager; the chain's children "
        "would have a parent that never started"
    )
    assert recorder.runs[run_id]["tags"] == ["t"]


def test_event_streams_are_known_by_their_handlers() -> None:
    assert issubclass(_AstreamEventsCallbackHandler, compat.StreamingCallbackHandler), (
        "the handler behind astream_events is no StreamingCallbackHandler any more; during "
        "structured answers it would not hear the children"
    )
    assert not isinstance(Recorder(), compat.StreamingCallbackHandler)


def test_cache_keys_are_texts_that_depend_on_the_call(model) -> None:
    key = compat.cache_key(model)
    assert key == compat.cache_key(model.model_copy())
    assert isinstance(key, str)
    assert model._get_llm_string(stop=["x"]) != key
    one, other = (ChatOpenAI(model="m", api_key="k", temperature=t) for t in (0.1, 0.2))
    assert compat.cache_key(one) != compat.cache_key(other)


def test_tracing_params_name_model_and_provider() -> None:
    found = compat.tracing_params(ChatOpenAI(model="m", api_key="k", temperature=0.5))
    assert (found["ls_model_name"], found["ls_provider"]) == ("m", "openai"), (
        "traces name models by other keys; prices and budgets are looked up by these"
    )
    assert found["ls_temperature"] == 0.5


def test_identifying_params_are_a_dict_with_the_models_name() -> None:
    found = compat.identifying_params(ChatOpenAI(model="m", api_key="k"))
    assert found["model_name"] == "m"


def test_a_copy_keeps_its_serialised_form_unless_a_cache_goes_by_it() -> None:
    model = ChatOpenAI(model="m", api_key="k", max_tokens=1)
    copy = compat.copy_model(model, {"max_tokens": 2})
    assert copy.max_tokens == 2
    assert "_serialized" in copy.__dict__, (
        "BaseChatModel._serialized is kept elsewhere; every call would serialise its models anew"
    )
    set_llm_cache(InMemoryCache())
    try:
        copy = compat.copy_model(model, {"max_tokens": 2})
    finally:
        set_llm_cache(None)
    assert copy._get_llm_string() != model._get_llm_string()
    cached = ChatOpenAI(model="m", api_key="k", max_tokens=1, cache=True)
    copy = compat.copy_model(cached, {"max_tokens": 2})
    assert copy._get_llm_string() != cached._get_llm_string()


def test_every_input_becomes_messages(model) -> None:
    wanted = [HumanMessage("a")]
    for given in ("a", wanted, [("human", "a")]):
        assert compat.to_messages(model, given) == wanted


def test_bindings_retries_and_configurables_are_recognised(model) -> None:
    assert isinstance(model.bind(stop=["x"]), compat.RunnableBindingBase)
    assert isinstance(model.with_config(tags=["x"]), compat.RunnableBindingBase)
    retrying = model.with_retry()
    assert isinstance(retrying, compat.RunnableRetry)
    assert isinstance(retrying, compat.RunnableBindingBase), "models_of looks into .bound"
    assert retrying.bound is model
    fields = model.configurable_fields(temperature=ConfigurableField(id="t"))
    either = model.configurable_alternatives(ConfigurableField(id="w"), other=model)
    for configurable in (fields, either):
        assert isinstance(configurable, compat.DynamicRunnable)
        prepared, _ = configurable.prepare({"configurable": {"t": 0.5}})
        assert isinstance(prepared, BaseChatModel), "a configurable model prepares no chat model"
    assert not isinstance(RunnableLambda(str), compat.RunnableBindingBase)


def test_models_of_init_chat_model_are_recognised(model) -> None:
    configurable = init_chat_model("openai:m", api_key="k", configurable_fields=("model",))
    assert compat.is_from_init_chat_model(configurable), (
        "init_chat_model's class has another name; a configurable teacher would be refused"
    )
    assert not compat.is_from_init_chat_model(model)
    chosen = compat.configured_model(configurable, {"configurable": {"model": "openai:n"}})
    assert isinstance(chosen, BaseChatModel)
    assert chosen.model_name == "n", "_model() takes the config in another way"


def test_a_pipeline_tells_its_generation_settings() -> None:
    made = pipeline("text-generation", str(MODELS / "student"), max_new_tokens=7, do_sample=False)
    found = compat.pipeline_generation_settings(made)
    assert found.get("max_new_tokens") == 7, (
        "transformers keeps a pipeline's settings elsewhere; as_student would drop them"
    )
    assert compat.pipeline_generation_settings(object()) == {}


def test_the_base_class_tools_method_marks_a_model_without_tools(model) -> None:
    assert type(model).bind_tools is BaseChatModel.bind_tools
    with pytest.raises(NotImplementedError):
        model.bind_tools([])
    assert isinstance(model.invoke("a"), AIMessage)


def test_the_profile_is_made_at_construction(student) -> None:
    teacher = WordTeacher(profile={"max_input_tokens": 300, "tool_calling": True})
    made = GuidedKnowledgeTransferChain(teacher=teacher, student=student, max_tokens=90)
    assert hasattr(BaseChatModel, compat.PROFILE_METHOD)
    assert student.profile["max_input_tokens"] == 512, (
        "langchain-core no longer calls _resolve_model_profile; agents know no context"
    )
    assert made.profile["max_input_tokens"] == 300
    assert made.profile["max_output_tokens"] == 90
    assert made.profile["tool_calling"] is True
    alone = GuidedKnowledgeTransferChain(teacher=teacher, student=student, mode="student")
    assert alone.profile["max_input_tokens"] == 512


def test_what_a_model_of_langchain_openai_would_send_can_be_asked() -> None:
    model = ChatOpenAI(model="gpt-4o-mini", api_key="none", max_completion_tokens=7)  # type: ignore[arg-type]
    body = compat.request_body(model, [HumanMessage("Hi")], {"stop": ["Q:"], "logprobs": True})
    sent = {"model": "gpt-4o-mini", "max_completion_tokens": 7, "stop": ["Q:"], "logprobs": True}
    assert body["messages"] == [{"role": "user", "content": "Hi"}]
    assert sent.items() <= body.items()
