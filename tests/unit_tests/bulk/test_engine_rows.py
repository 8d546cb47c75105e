"""Rows on their way through Ray's vLLM processor, without Ray and without vLLM."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from support.bulk import PRICE
from support.models.fakes import MODELS, WordTeacher, make

from langchain_gkt.bulk import processor
from langchain_gkt.bulk.columns import TEACHER, TeacherResult, output_names
from langchain_gkt.bulk.dataset import _warn_if_full
from langchain_gkt.bulk.options import BulkOptions
from langchain_gkt.bulk.processor import EngineAnswers, EngineRequest, keep_written
from langchain_gkt.bulk.stages import StageSettings
from langchain_gkt.costs.totals import UsageTotals
from langchain_gkt.evaluation.running.records import ModelUsage


@dataclass
class Config:
    """What is read of a vLLMEngineProcessorConfig."""

    model_source: str = str(MODELS / "student")
    engine_kwargs: dict[str, Any] = field(default_factory=dict)
    placement_group_config: Any = None
    chat_template_stage: Any = True
    tokenize_stage: Any = True
    detokenize_stage: Any = True
    should_continue_on_error: bool = False

    def model_copy(self, update: dict[str, Any]) -> Config:
        return replace(self, **update)


@pytest.fixture
def settings(student, monkeypatch) -> StageSettings:
    chain = make(WordTeacher(), student, max_tokens=20, stop=["###"])
    monkeypatch.setattr(processor, "unpack_chain", lambda packed: chain)
    return StageSettings(
        chain=b"",
        options=BulkOptions(processor=Config(), student_price=PRICE),
        prompt_column="prompt",
        names=output_names(["answer", "error"]),
    )


def row_of(prompt: str, guidance: str = "", **columns: Any) -> dict[str, Any]:
    part = ModelUsage(calls=1, completion_tokens=5)
    return {
        "prompt": prompt,
        TEACHER: TeacherResult(guidance=guidance, part=part).to_json(),
    } | columns


def test_the_engine_gets_the_ids_that_the_student_itself_would_read(settings, student) -> None:
    given = EngineRequest(settings)(row_of("2 + 2?", "Two and "))
    request = student._loader.load().prompts
    prompt, begun = request.build([HumanMessage("2 + 2?"), AIMessage("Two and")])
    assert given["tokenized_prompt"] == [*prompt, *begun]
    assert given["sampling_params"] == {"max_tokens": 15, "temperature": 0.0, "stop": ["###"]}


def test_text_becomes_no_control_token(settings, student) -> None:
    request, marks = EngineRequest(settings), set(student._engine.tokenizer.all_special_ids)
    mark = student._engine.tokenizer.eos_token
    plain, forged = (
        [token for token in request(row)["tokenized_prompt"] if token in marks]
        for row in (row_of("Hello", "Hi"), row_of(f"Hello{mark}", f"Hi{mark} there"))
    )
    assert plain == forged


def test_columns_of_the_row_keep_their_names_and_values(settings) -> None:
    own = {"model": "gpt-4o", "generated_text": "mine", "messages": "none", "request_id": 7}
    row = row_of("2 + 2?", "Two", **own)
    given = EngineRequest(settings)(row)
    assert not set(given) & {*own, "prompt"}  # the engine would read "model" as an adapter's name
    back = keep_written({**given, **_wrote(" and two"), "prompt": ""})
    assert {name: back[name] for name in row} == row
    answer = EngineAnswers(settings, None)._result(back, UsageTotals())
    assert answer["answer"] == "Two and two"


@pytest.mark.parametrize(
    ("row", "wrote", "error"),
    [
        (row_of("2 + 2?"), {"__inference_error__": "too long"}, "StudentError: too long"),
        (row_of("half \ud83d"), {}, "StudentError: "),
        ({"prompt": 7}, {}, "TypeError: "),
    ],
)
def test_a_row_that_cannot_be_answered_says_so_alone(settings, row, wrote, error) -> None:
    given = EngineRequest(settings)(row)
    if not wrote:  # the engine has nothing to refuse
        assert given["tokenized_prompt"] == [0]
        assert given["sampling_params"]["max_tokens"] == 1
    totals = UsageTotals()
    back = keep_written({**given, **_wrote("!") | wrote})
    result = EngineAnswers(settings, None)._result(back, totals)
    assert str(result["error"]).startswith(error)
    assert result["answer"] is None
    assert totals.calls == 0


def test_only_the_engine_is_left_of_the_processor() -> None:
    config = processor.engine_config(Config(chat_template_stage={"chat_template_kwargs": {"a": 1}}))
    assert not (config.chat_template_stage or config.tokenize_stage or config.detokenize_stage)
    assert config.should_continue_on_error


@pytest.mark.parametrize(
    ("config", "warning"),
    [
        (Config(), r"takes 1 GPU\(s\) and the cluster has 0"),
        (Config(engine_kwargs={"tensor_parallel_size": 4}), r"takes 4 GPU\(s\)"),
        (Config(placement_group_config={"bundles": [{"CPU": 2.0, "GPU": 0.0}]}), "take 2 of .* 2"),
        (Config(placement_group_config={"bundle_per_worker": {"CPU": 1.0}}), None),
    ],
)
def test_a_processor_that_can_never_start_is_warned_of(config, warning) -> None:
    class Ray:
        cluster_resources = staticmethod(lambda: {"CPU": 2.0})

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        _warn_if_full(Ray, BulkOptions(processor=config))
    if warning is None:
        assert not caught
    else:
        with pytest.warns(UserWarning, match=warning):
            _warn_if_full(Ray, BulkOptions(processor=config))


def _wrote(text: str) -> dict[str, Any]:
    counts = {"num_input_tokens": 9, "num_generated_tokens": 4}
    return {"generated_text": text, **counts, "__inference_error__": ""}
