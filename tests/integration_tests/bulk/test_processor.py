"""Ray's vLLM processor as the student: the columns of its stages, without vLLM."""

from __future__ import annotations

from typing import Any

import pyarrow
import pytest
from support.bulk import PRICE
from support.models.fakes import MODELS, WordTeacher, make

from langchain_gkt.bulk.chains import pack_chain
from langchain_gkt.bulk.columns import ROW, TEACHER, TeacherResult, output_names
from langchain_gkt.bulk.options import BulkOptions
from langchain_gkt.bulk.processor import (
    _ENGINE_ERROR,
    EngineAnswers,
    EngineRequest,
    engine_config,
    keep_written,
)
from langchain_gkt.bulk.stages import StageSettings
from langchain_gkt.evaluation.running.records import ModelUsage


class _Told:
    """Stands for the controller's handle where nothing is asked of Ray."""

    class spend_student:
        totals: Any = None

        @classmethod
        def remote(cls, source: str, totals: Any) -> Any:
            import ray

            cls.totals = totals
            return ray.put(None)


def test_the_processor_gets_what_its_stages_ask_for(cluster, student) -> None:
    llm = pytest.importorskip("ray.data.llm")
    config = llm.vLLMEngineProcessorConfig(model_source=str(MODELS / "student"), batch_size=4)
    options = BulkOptions(processor=config, student_price=PRICE)
    chain = make(WordTeacher(answer="Two and"), student, max_tokens=20, stop=["###"])
    settings = StageSettings(
        chain=pack_chain(chain),
        options=options,
        prompt_column="prompt",
        names=output_names(["answer", "finished_by", "student_cost", "error"]),
    )
    request = EngineRequest(settings)
    build = llm.build_processor(engine_config(config))
    assert build.list_stage_names() == ["vLLMEngineStage"]

    begun = TeacherResult(guidance="Two and ", part=ModelUsage(calls=1, completion_tokens=5))
    ended = TeacherResult(guidance="Four.", finished=True)
    results = [begun, ended, begun]
    rows = [{"prompt": "2 + 2?", ROW: i, TEACHER: one.to_json()} for i, one in enumerate(results)]
    data = [build.preprocess(request(row))["__data"] for row in rows]
    for stage in build.stages.values():  # each finds the keys that it requires
        assert set(stage.get_required_input_keys()) <= set(data[0])
    assert [one["sampling_params"]["max_tokens"] for one in data] == [15, 1, 15]

    written = {"generated_text": " two is four.", "num_input_tokens": 9, "num_generated_tokens": 4}
    errors = ["", "", "out of memory"]
    done = [
        build.postprocess({"__data": {**one, **written, "prompt": "", _ENGINE_ERROR: error}})
        for one, error in zip(data, errors, strict=True)
    ]
    kept = pyarrow.Table.from_pylist([keep_written(one) for one in done])
    table = EngineAnswers(settings, _Told)(kept)
    assert table.column_names == ["prompt", "answer", "finished_by", "student_cost", "error"]
    said = table.to_pylist()
    assert [one["answer"] for one in said] == ["Two and two is four.", "Four.", None]
    assert [one["finished_by"] for one in said] == ["student", "teacher", None]
    assert [one["error"] for one in said] == [None, None, "StudentError: out of memory"]
    price = (9 * PRICE.input_mtok + 4 * PRICE.output_mtok) / 1_000_000
    assert [one["student_cost"] for one in said] == [price, 0, 0]
    assert _Told.spend_student.totals.known_cost == price
