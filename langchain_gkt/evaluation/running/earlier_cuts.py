"""Guided answers of earlier sittings whose guidance would be cut elsewhere today."""

from __future__ import annotations

import warnings

from langchain_gkt.errors import TeacherError
from langchain_gkt.evaluation.running.records import Answer, AnswerKey
from langchain_gkt.evaluation.running.replay import RecordedTeacher, ReplayedReply, TokenSplitter
from langchain_gkt.evaluation.running.runner import EvaluationRunner
from langchain_gkt.guidance import GuidancePolicy


async def forget_other_cuts(
    runner: EvaluationRunner, splitter: TokenSplitter | None = None
) -> set[AnswerKey]:
    """Forget guided answers that were begun otherwise than this version would begin them.

    Beside them, new rows and lengths of the same run would be compared with answers of another
    kind. The student makes them again; the teacher's replies are written down.

    Args:
        runner: The run's runner, loaded.
        splitter: Finds the tokens of replies that do not hold them.

    Returns:
        The keys of the forgotten answers.
    """
    numbers = {row: index for index, row in enumerate(runner.keys)}
    replayed: dict[str, ReplayedReply] = {}
    found: set[AnswerKey] = set()
    for key, answer in runner.answers.items():
        row, mode, _ = key
        # A comparison records the guidance itself, a sweep the teacher's whole answer.
        recorded = runner.replies.get((row, "guided")) or runner.replies.get((row, "teacher"))
        if mode != "guided" or answer.fallback is not None or row not in numbers or not recorded:
            continue
        reply = replayed.setdefault(row, ReplayedReply(recorded, splitter))
        if await _is_cut_otherwise(runner, numbers[row], answer, reply):
            found.add(key)
    for key in found:
        del runner.answers[key]
    if found:
        warnings.warn(
            f"out={str(runner.folder.path)!r} holds {len(found)} guided answers whose guidance "
            "an earlier version cut elsewhere; the student makes them again from the recorded "
            "replies, so that all answers of the run are of one kind. The teacher is not asked "
            "again for them.",
            stacklevel=2,
        )
    return found


async def _is_cut_otherwise(
    runner: EvaluationRunner, index: int, answer: Answer, reply: ReplayedReply
) -> bool:
    length = answer.length or 0
    policy = runner.chain.guidance or GuidancePolicy()
    text, _, complete = reply.cut(length)
    if answer.guidance == (text if complete else policy.trim(text)):
        return False  # nearly always, and quickly found
    chain = runner.chain.model_copy(
        update={"teacher": RecordedTeacher(reply=reply), "guidance_tokens": length}
    )
    try:
        return (await chain.aguide(runner.prompts[index])).text != answer.guidance
    except TeacherError:
        return False
