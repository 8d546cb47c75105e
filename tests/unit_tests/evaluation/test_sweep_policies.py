"""sweep_policies(): several teacher prompts and cuts, each teacher prompt paid for once."""

from __future__ import annotations

import json
import shutil

import pytest
from langchain_core.messages import SystemMessage
from support.models.exam import PRICE, pair, task

from langchain_gkt import GuidancePolicy, InstructTeacher, LastTurns, WithoutExemplars
from langchain_gkt.evaluation import (
    Example,
    PolicySweep,
    Sweep,
    Task,
    load_run,
    sweep,
    sweep_policies,
)

EXAMPLES = [Example("What is one more than 1?", "Plan: 1 + 1 = 2. The answer is 2.")] * 8
SHORT = WithoutExemplars() | InstructTeacher()
POLICIES = {
    "whole": None,
    "step": GuidancePolicy(cut="step"),
    "short": GuidancePolicy(teacher_prompt=SHORT),
    "short dropped": {"teacher_prompt": SHORT, "min_tokens": 5},
}


class Paid:
    """Counts prompts that a teacher was shown."""

    def __init__(self) -> None:
        self.prompts: list = []

    def chain(self, **fields):
        paid = self

        class Reading(type(pair().teacher)):
            def _generate(self, messages, stop=None, run_manager=None, **kwargs):
                paid.prompts.append(messages)
                result = super()._generate(messages, stop, run_manager, **kwargs)
                tokens = sum(len(str(m.text).split()) for m in messages)
                usage = result.generations[0].message.usage_metadata
                usage["total_tokens"] += tokens - usage["input_tokens"]
                usage["input_tokens"] = tokens
                return result

        return pair(**fields).model_copy(update={"teacher": Reading()})


@pytest.fixture
def exam():
    return task(8, examples=EXAMPLES)


@pytest.mark.slow
def test_each_teacher_prompt_is_paid_for_once(exam, tmp_path) -> None:
    paid, asked = Paid(), []
    chain = paid.chain(student={"asked": asked})
    found = sweep_policies(
        chain, exam, POLICIES, lengths=[4, 6], teacher_price=PRICE, out=tmp_path / "run"
    )
    assert len(paid.prompts) == 2 * 8  # two different teacher prompts
    alone = [number for number, begun in asked if not begun]
    # The student alone once for each row, and once more where guidance was dropped.
    assert len(alone) == 8 + 8
    assert [len(prompt) for prompt in paid.prompts[:8]] == [17] * 8
    short = paid.prompts[8]
    assert [type(m) for m in short] == [SystemMessage, type(short[-1])]
    assert "first 6 tokens" in short[0].text  # the chain's guidance_tokens
    assert list(found.sweeps) == list(POLICIES)
    assert found.sweeps["short"].teacher.cost != found.sweeps["whole"].teacher.cost
    assert found.sweeps["step"].teacher.cost == found.sweeps["whole"].teacher.cost
    dropped = found.sweeps["short dropped"]
    at_four = [a for a in dropped.answers if a.length == 4]
    assert {a.guidance for a in at_four} == {""}
    assert all("min_tokens=5" in a.fallback for a in at_four)
    assert all(a.teacher.completion_tokens == 4 for a in at_four)  # paid for all the same
    assert dropped.by_length[4].accuracy == found.sweeps["whole"].student.accuracy

    paid.prompts.clear()
    again = load_run(str(tmp_path / "run"))
    assert isinstance(again, PolicySweep)
    assert str(again) == str(found)
    more = {**POLICIES, "last": {"teacher_prompt": LastTurns()}}
    grown = sweep_policies(
        chain, exam, more, lengths=[4, 6], teacher_price=PRICE, out=tmp_path / "run"
    )
    assert len(paid.prompts) == 8
    assert list(grown.sweeps) == list(more)
    one = load_run(str(tmp_path / "run" / "short"))
    assert isinstance(one, Sweep)
    assert one.teacher_prompt == WithoutExemplars() | InstructTeacher(tokens=6)
    assert "prompt of its own (without_exemplars, instruct_teacher)" in str(one)


@pytest.mark.slow
def test_the_choice_names_a_policy_with_its_prompt(exam, tmp_path) -> None:
    found = sweep_policies(
        Paid().chain(), exam, POLICIES, lengths=[4, 6], teacher_price=PRICE, out=tmp_path / "run"
    )
    choice = found.choose(max_loss=0.0)
    assert choice.name == "short"  # as good as the whole, and cheaper
    assert choice.policy.teacher_prompt == WithoutExemplars() | InstructTeacher(tokens=6)
    choice.policy.save(tmp_path / "policy.json")
    assert GuidancePolicy.load(tmp_path / "policy.json") == choice.policy
    assert "short: 6 tokens of guidance" in str(choice)
    text = str(found)
    assert "of what the teacher alone costs on the whole conversation ('whole')" in text
    row = next(
        line for line in text.splitlines() if line.startswith("teacher alone") and "$" in text
    )
    assert "teacher alone" in row
    assert set(found.to_frame()["policy"]) == set(POLICIES)
    assert {"report.txt", "report.html", "frontier.svg"} <= {p.name for p in found.save()}


def test_a_run_without_the_whole_prompt_says_so(exam) -> None:
    found = sweep_policies(Paid().chain(), exam, {"short": {"teacher_prompt": SHORT}}, lengths=[4])
    assert "not measured: no policy shows it" in str(found)


def test_a_sweep_of_a_chain_with_a_prompt_of_its_own(exam, tmp_path) -> None:
    paid = Paid()
    chain = paid.chain(teacher_prompt=SHORT, guidance=GuidancePolicy(min_tokens=2, cut="step"))
    found = sweep(chain, exam, lengths=[6], check_lengths=(6,), check_rows=2, out=tmp_path)
    assert all(len(prompt) == 2 for prompt in paid.prompts)
    assert all(check["same"] for check in found.checks)
    policy = found.choose(max_loss=0.1).policy
    assert policy.min_tokens == 2
    assert policy.cut == "step"
    assert policy.teacher_prompt == WithoutExemplars() | InstructTeacher(tokens=6)
    with pytest.raises(ValueError, match="teacher_prompt"):
        other = paid.chain(teacher_prompt=LastTurns(), guidance=chain.guidance)
        sweep(other, exam, lengths=[6], out=tmp_path)


def test_a_prompt_that_is_a_function_is_named_in_the_folder(exam, tmp_path) -> None:
    def only_question(messages):
        return messages[-1:]

    found = sweep(Paid().chain(teacher_prompt=only_question), exam, lengths=[6], out=tmp_path)
    assert found.choose(max_loss=0.1).policy.teacher_prompt is only_question
    again = load_run(str(tmp_path))
    assert again.choose(max_loss=0.1).policy.teacher_prompt is None
    assert "a file cannot hold that prompt" in str(again)
    assert "only_question" in str(again)


def test_folders_of_older_releases_are_continued(exam, tmp_path) -> None:
    paid = Paid()
    first = sweep(paid.chain(guidance=GuidancePolicy()), exam, lengths=[6], out=tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    settings = manifest["settings"]["chain"]
    # What older releases wrote, word for word.
    assert settings["guidance"] == {
        "tokens": None,
        "cut": "word",
        "ask": "always",
        "probe_tokens": 1,
    }
    del settings["teacher_prompt"]
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    paid.prompts.clear()
    assert str(load_run(str(tmp_path))) == str(first)
    sweep(paid.chain(guidance=GuidancePolicy()), exam, lengths=[6], out=tmp_path)
    assert not paid.prompts


@pytest.mark.parametrize(
    ("policies", "error", "said"),
    [
        ({}, ValueError, "policies must map a name"),
        ({"a/b": None}, ValueError, "'a/b' cannot name a folder"),
        ({"x": 3}, TypeError, r"policies\['x'\]: guidance must be a GuidancePolicy"),
        ({"x": {"cut": "letter"}}, ValueError, "GuidancePolicy.cut must be"),
        ({"x": {"teacher_prompt": [{"prompt": "redactt"}]}}, ValueError, "'redactt' is not known"),
    ],
)
def test_bad_policies_are_refused_before_anything_is_paid(exam, policies, error, said) -> None:
    paid = Paid()
    with pytest.raises(error, match=said):
        sweep_policies(paid.chain(), exam, policies, lengths=[4])
    with pytest.raises(TypeError, match="did you mean 'lengths'"):
        sweep_policies(paid.chain(), exam, {"x": None}, length=[4])
    assert not paid.prompts


def test_an_interrupted_run_reads_what_is_there(exam, tmp_path) -> None:
    chain = Paid().chain()
    sweep_policies(
        chain, exam, {"whole": None, "short": {"teacher_prompt": SHORT}}, lengths=[4], out=tmp_path
    )
    shutil.rmtree(tmp_path / "short")
    assert list(load_run(str(tmp_path)).sweeps) == ["whole"]


@pytest.mark.slow
def test_the_most_accurate_within_a_share_of_the_bill(exam) -> None:
    found = sweep_policies(Paid().chain(), exam, POLICIES, lengths=[4, 6], teacher_price=PRICE)
    choice = found.choose(max_bill=0.6)
    assert choice.teacher is not None
    assert choice.bill == choice.choice.unseen.cost / choice.teacher.cost <= 0.6
    assert choice.kept == choice.choice.unseen.accuracy / choice.teacher.accuracy
    assert "of its accuracy" in str(choice)
    assert found.choose(max_bill=1e-6).choice.chosen.length == 0  # the student is free
    dear = found.choose(max_bill=2.0)
    assert dear.choice.chosen.accuracy >= choice.choice.chosen.accuracy
    with pytest.raises(ValueError, match="max_bill must be a share above 0"):
        found.choose(max_bill=0)
    short = sweep_policies(Paid().chain(), exam, {"short": {"teacher_prompt": SHORT}}, lengths=[4])
    assert short.choose().teacher is None
    with pytest.raises(ValueError, match="max_bill is a share of what the teacher alone costs"):
        short.choose(max_bill=0.5)


@pytest.mark.slow
def test_another_student_takes_over_what_the_teacher_was_paid_for(exam, tmp_path) -> None:
    paid, first = Paid(), tmp_path / "first"
    shared = {"lengths": [4], "teacher_price": PRICE}
    policies = {name: POLICIES[name] for name in ("whole", "short")}
    chain = paid.chain()
    known = sweep_policies(chain, exam, policies, out=first, **shared)
    paid.prompts.clear()
    other = chain.model_copy(update={"student": pair(student={"needs": 3}).student})
    found = sweep_policies(
        other, exam, policies, out=tmp_path / "second", teacher_from=first, **shared
    )
    assert not paid.prompts
    for name, one in found.sweeps.items():
        assert one.teacher.cost == known.sweeps[name].teacher.cost
        assert [a.row for a in one.answers if a.mode == "teacher"] == [
            a.row for a in known.sweeps[name].answers if a.mode == "teacher"
        ]
    assert found.sweeps["whole"].by_length[4].accuracy == 1.0
    assert known.sweeps["whole"].by_length[4].accuracy < 1.0

    more = sweep(other, task(10, examples=EXAMPLES), teacher_from=first, **shared)
    assert len(paid.prompts) == 2  # rows that the first run lacks
    assert more.teacher.rows == 10
    with pytest.raises(ValueError, match=r"teacher_from=.* was made with prices.teacher=.*leave"):
        sweep(other, exam, lengths=[4], teacher_from=first)
    with pytest.raises(ValueError, match=r"teacher_from=.* none of these rows"):
        turned = Task("exam", exam.rows[::-1], exam.metric, examples=EXAMPLES)
        sweep(other, turned, teacher_from=first, **shared)
    with pytest.raises(ValueError, match=r"teacher_from=.* another teacher_prompt"):
        shown = other.model_copy(update={"teacher_prompt": LastTurns()})
        sweep(shown, exam, teacher_from=first / "whole", **shared)
    with pytest.raises(FileNotFoundError, match="not the folder of a run"):
        sweep(other, exam, teacher_from=tmp_path / "none", **shared)
    assert len(paid.prompts) == 2
