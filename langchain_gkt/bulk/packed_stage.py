"""The teacher's stage that asks several questions in one call."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from langchain_core.messages import BaseMessage
from langchain_core.runnables import RunnableConfig

from langchain_gkt.bulk.columns import TeacherResult
from langchain_gkt.bulk.controller import Admission
from langchain_gkt.bulk.packing import check_packable, packed_messages, read_beginnings, shared_out
from langchain_gkt.bulk.teacher_stage import Row, RowEnded, TeacherStage, add_parts
from langchain_gkt.costs.budget import Reservation
from langchain_gkt.costs.totals import CallRecord, UsageTotals
from langchain_gkt.errors import GKTError
from langchain_gkt.evaluation.running.records import ModelUsage, TeacherReply, part_of
from langchain_gkt.evaluation.running.reply_recorder import ReplyRecorder
from langchain_gkt.guidance import GuidancePolicy
from langchain_gkt.teachers.wrappers import models_of


class PackedTeacherStage(TeacherStage):
    """Asks for the beginnings of several answers in one call.

    If the reply lacks a question's beginning, or the call failed, the question is asked once more,
    alone.
    """

    async def results_of(
        self, names: Sequence[str], prompts: Sequence[Any]
    ) -> Sequence[TeacherResult]:
        """Ask for some rows, as many in a call as the options allow."""
        check_packable(self.chain)
        size = self.options.questions_per_call
        results: dict[int, TeacherResult] = {}
        in_vain: dict[int, ModelUsage] = {}
        waiting = dict[str, Row]()
        later = []
        for at, (name, prompt) in enumerate(zip(names, prompts, strict=True)):
            try:
                row = self._read(name, prompt, at)
            except (TypeError, ValueError):
                later.append(at)
                continue
            # The same prompt again finds the reply of the other.
            if waiting.setdefault(row.key, row) is not row:
                later.append(at)
        packs = list(waiting.values())
        await asyncio.gather(
            *(self._pack(packs[i : i + size], results, in_vain) for i in range(0, len(packs), size))
        )
        missing = [row.at for row in packs if row.at not in results] + later
        alone = (self._result_of(names[at], prompts[at]) for at in missing)
        results |= dict(zip(missing, await asyncio.gather(*alone), strict=True))
        for at, part in in_vain.items():  # the rows' costs are the bill, so no call is left out
            results[at] = replace(results[at], part=add_parts(part, results[at].part))
        return [results[at] for at in range(len(names))]

    async def _pack(
        self, pack: Sequence[Row], results: dict[int, TeacherResult], in_vain: dict[int, ModelUsage]
    ) -> None:
        """Ask for a pack. A row without a beginning is left to a call of its own."""
        if len(pack) < 2:
            return
        tokens = self.call_settings.limit or 1
        limit = len(pack) * (tokens * 3 // 2 + 8)  # room for long beginnings and the reply's form
        messages = packed_messages([row.prompt for row in pack], tokens)
        models = list(models_of(self.call_settings.teacher))
        most = self.aggregator.reservation(models, messages, limit)
        async with self._slots:
            admitted = await self._admitted(pack, most)
            if len(admitted) < len(pack):  # recorded already, or refused, so asked one by one
                await self._release(admitted, UsageTotals(), {})
                return
            pack_results, part = await self._ask_packed(pack, messages, limit)
        if not pack_results and part.calls:
            in_vain[pack[0].at] = part
        results |= pack_results

    async def _admitted(self, pack: Sequence[Row], most: Reservation) -> Sequence[Row]:
        """Take the pack's turn. Its first row reserves for all."""
        wait = 0.0
        for place, row in enumerate(pack):
            admission: Admission = await self.controller.admit.remote(
                row.key, row.name, most, joins=place > 0
            )
            if admission.reply is not None or admission.busy or admission.refused is not None:
                return pack[:place]
            wait = max(wait, admission.wait)
        await asyncio.sleep(wait)
        return pack

    async def _ask_packed(
        self, pack: Sequence[Row], messages: list[BaseMessage], limit: int
    ) -> tuple[dict[int, TeacherResult], ModelUsage]:
        """Return the beginning of each row, and the call's usage."""
        recorder = ReplyRecorder(lambda reply: None, **self.prices)
        config: RunnableConfig = {"callbacks": [recorder, self.listener]}
        chain = self.chain.model_copy(
            update={
                "teacher": _held_to_schema(self.chain.teacher, len(pack)),
                "guidance": GuidancePolicy(cut="none"),
                "guidance_tokens": limit,
                "max_tokens": None,
                "stop": None,
            }
        )
        replies = dict[int, TeacherReply]()
        try:
            await chain.aguide(messages, config)
        except GKTError:
            pass  # its rows are asked alone, and report an error that persists
        finally:
            if recorder.reply is not None:
                replies = _replies(recorder.reply, recorder.calls, len(pack))
            await self._release(pack, recorder.report().teacher, replies)
        results: dict[int, TeacherResult] = {}
        for place, reply in replies.items():
            row = pack[place]
            admission = Admission(reply=json.dumps(asdict(reply)), carries=True)
            try:
                results[row.at] = await self._recorded(row, admission)
            except RowEnded as end:
                results[row.at] = end.result
        return results, part_of(recorder.calls, "teacher")

    async def _release(
        self, pack: Sequence[Row], totals: UsageTotals, replies: dict[int, TeacherReply]
    ) -> None:
        """End the rows' turn. The first of them books the whole call."""
        for place, row in enumerate(pack):
            await self._settle(row, UsageTotals() if place else totals, replies.get(place))


def _replies(
    whole: TeacherReply, calls: Sequence[CallRecord], count: int
) -> dict[int, TeacherReply]:
    """Make a reply of each beginning. Together they carry the bill of the call."""
    beginnings = read_beginnings(whole.text, count)
    # The last word of a beginning is whole, unless the call's limit cut it.
    open_end = max(beginnings, default=0) if whole.finish_reason == "length" else None
    shares = shared_out(part_of(calls, "teacher"), list(beginnings.values())) if beginnings else []
    return {
        place: TeacherReply(
            text=beginning if place == open_end else f"{beginning} ",
            usage={
                "input_tokens": share.prompt_tokens,
                "output_tokens": share.completion_tokens,
                "total_tokens": share.prompt_tokens + share.completion_tokens,
            },
            finish_reason="length",
            part=share,
        )
        for (place, beginning), share in zip(beginnings.items(), shares, strict=True)
    }


def _held_to_schema(teacher: Any, count: int) -> Any:
    """Bind the reply's schema to a teacher that supports structured output."""
    for model in models_of(teacher):
        profile = getattr(model, "profile", None) or {}
        is_openai = "openai_api_base" in type(model).model_fields
        if not (is_openai and profile.get("structured_output")):
            return teacher
    names = [str(number) for number in range(1, count + 1)]
    schema = {
        "title": "beginnings",
        "type": "object",
        "properties": {name: {"type": "string"} for name in names},
        "required": names,
        "additionalProperties": False,
    }
    strict = {"name": "beginnings", "strict": True, "schema": schema}
    return teacher.bind(response_format={"type": "json_schema", "json_schema": strict})
