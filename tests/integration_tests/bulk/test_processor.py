"""Ray's vLLM processor as the student: its own schema and chat template, without vLLM."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pyarrow
import pytest
from support.bulk import PRICE
from support.models.fakes import MODELS, WordTeacher, make

from langchain_gkt.bulk.chains import pack_chain
from langchain_gkt.bulk.columns import ROW, TEACHER, TeacherResult, output_names
from langchain_gkt.bulk.options import BulkOptions
from langchain_gkt.bulk.processor import EngineAnswers, EngineRequest, keep_written
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
        prompt_column="q",
        names=output_names(["answer", "finished_by", "student_cost", "error"]),
    )
    request = EngineRequest(settings)
    processor = llm.build_processor(config, preprocess=request, postprocess=keep_written)

    begun = TeacherResult(guidance="Two and ", part=ModelUsage(calls=1, completion_tokens=5))
    ended = TeacherResult(guidance="Four.", finished=True)
    rows = [
        {"q": "2 + 2?", ROW: 0, TEACHER: begun.to_json()},
        {"q": "3 + 1?", ROW: 1, TEACHER: ended.to_json()},
    ]
    data = [processor.preprocess(row)["__data"] for row in rows]
    given = set(data[0])
    for stage in processor.stages.values():  # each finds the keys that it requires
        assert set(stage.get_required_input_keys()) <= given | {"prompt", "generated_tokens"}
    assert data[0]["sampling_params"] == {"max_tokens": 15, "temperature": 0.0, "stop": ["###"]}
    assert data[0]["messages"][-1] == {"role": "assistant", "content": "Two and"}
    assert data[1]["sampling_params"]["max_tokens"] == 1

    template = processor.get_stage_by_name("ChatTemplateStage")
    udf = template.fn("__data", ["messages"], **template.fn_constructor_kwargs)

    async def prompts() -> list[str]:
        batch = [{**one, "__idx_in_batch": i} for i, one in enumerate(data)]
        return [one["prompt"] async for one in udf.udf(batch)]

    first = asyncio.run(prompts())[0]
    assert first.endswith("Two and")  # the answer is continued, and none is begun

    written = {"generated_text": " two is four.", "num_input_tokens": 9, "num_generated_tokens": 4}
    out = [processor.postprocess({"__data": {**one, **written, "prompt": ""}}) for one in data]
    table = EngineAnswers(settings, _Told)(pyarrow.Table.from_pylist(out))
    assert table.column_names == ["q", "answer", "finished_by", "student_cost", "error"]
    said = table.to_pylist()
    assert [one["answer"] for one in said] == ["Two and two is four.", "Four."]
    assert [one["finished_by"] for one in said] == ["student", "teacher"]
    price = (9 * PRICE.input_mtok + 4 * PRICE.output_mtok) / 1_000_000
    assert [one["student_cost"] for one in said] == [price, 0]
    assert _Told.spend_student.totals.known_cost == price

    failed = {**data[0], "__inference_error__": "out of memory"}
    table = EngineAnswers(settings, _Told)(pyarrow.Table.from_pylist([failed]))
    assert table.to_pylist()[0]["error"] == "StudentError: out of memory"
    assert json.loads(data[0]["__gkt_kept"]) == ["q", ROW, TEACHER]
