"""Predictor: its features, its decision, its file, and its share of questions."""

from __future__ import annotations

import dataclasses
import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from support.models.exam import Needy, Telling, pair
from support.models.fakes import WordTeacher
from support.models.predictors import by_confidence, made_predictor

from langchain_gkt import GuidancePolicy
from langchain_gkt.errors import share_number
from langchain_gkt.gates.calibration import threshold_for
from langchain_gkt.gates.learned import (
    FirstToken,
    feature_names,
    feature_values,
    question_of,
    question_signals,
)

QUESTIONS = [f"What is one more than {n}?" for n in range(10, 30)]


def test_features_are_what_their_names_say() -> None:
    names = feature_names(probabilities=True, entropies=True)
    first = [FirstToken(0.5, 1.5), FirstToken(0.125, 0.5)]
    values = dict(
        zip(
            names,
            feature_values(names, question_signals("He had 1,200 apples. Ate 3.5?", first)),
            strict=True,
        )
    )
    assert values["numbers"] == 2
    assert values["sentences"] == 2
    assert values["log_characters"] == pytest.approx(3.401, abs=1e-3)  # ln 30
    assert values["log_largest_number"] == pytest.approx(7.091, abs=1e-3)  # ln 1201
    assert values["log_confidence"] == pytest.approx(-1.386, abs=1e-3)  # ln 1/4
    assert values["least_probability"] == 0.125
    assert (values["first_entropy"], values["mean_entropy"], values["most_entropy"]) == (
        1.5,
        1,
        1.5,
    )


def test_features_go_by_what_a_student_tells() -> None:
    text = feature_names(probabilities=False, entropies=False)
    sure = feature_names(probabilities=True, entropies=False)
    assert set(text) < set(sure) < set(feature_names(probabilities=True, entropies=True))
    assert feature_names(probabilities=False, entropies=True) == text
    # An answer that ends at once leaves no tokens to look at.
    assert all(value == value for value in feature_values(sure, question_signals("", [])))


def test_the_question_is_the_last_message_that_is_no_begun_answer() -> None:
    messages = [
        SystemMessage("Be short."),
        HumanMessage("1?"),
        AIMessage("1"),
        HumanMessage("2?"),
    ]
    assert question_of(messages) == "2?"
    assert question_of([*messages, AIMessage("The ans")]) == "2?"
    assert question_of([AIMessage("alone")]) == "alone"


@pytest.mark.parametrize(
    ("odds", "price", "amount"),
    [
        ((2, 2, 2), 1.0, "none"),
        ((-2, 2, 2), 1.0, "some"),
        ((-2, -2, 2), 1.0, "all"),
        ((-2, 2, 2.5), 1.0, "all"),
        ((-2, 2, 2.5), 0.1, "some"),  # 4 points for 1 more are too dear
        ((-2, 2, 2.5), 0.01, "none"),
    ],
)
def test_the_amount_is_what_is_worth_most(odds, price, amount) -> None:
    found = made_predictor(odds, price_per_point=price).predict("Which?", [])
    assert found.amount == amount
    assert (found.score > 0) == (amount != "none")
    assert found.accuracy["none"] == pytest.approx(0.881 if odds[0] == 2 else 0.119, abs=1e-3)


def test_only_so_many_first_tokens_are_looked_at() -> None:
    predictor = by_confidence(tokens=2)
    assert predictor.predict("?", [0.99, 0.99, 0.01]).amount == "none"
    assert predictor.predict("?", [FirstToken(0.99), FirstToken(0.1)]).amount == "some"


def test_a_predictor_travels_in_its_policys_file(tmp_path) -> None:
    file = tmp_path / "policy.json"
    policy = GuidancePolicy(tokens=6, predictor=by_confidence())
    policy.save(file)
    loaded = GuidancePolicy.load(file)
    assert loaded == policy
    assert hash(loaded) == hash(policy)
    assert pickle.loads(pickle.dumps(policy)) == policy
    assert pair(guidance=file).guidance.predictor == policy.predictor
    assert json.loads(file.read_text())["predictor"]["features"] == ["log_confidence"]
    old = {"tokens": 6, "cut": "word", "ask": "always", "probe_tokens": 1}
    file.write_text(json.dumps(old))
    assert GuidancePolicy.load(file).predictor is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"version": 0}, "version is 0, and this release reads 1; make the policy again with"),
        ({"version": None}, "version is None"),
        ({"version": 2, "layers": []}, "version is 2"),
        ({"features": ["shoe_size"]}, "features names 'shoe_size'.*make the policy again"),
        ({"probe_token": 3}, "unknown argument 'probe_token'; did you mean 'probe_tokens'"),
        ({"probe_tokens": 0}, "probe_tokens must be 1 or more for features"),
        ({"probe_tokens": "8"}, "predictor.probe_tokens must be a whole number"),
        ({"price_per_point": 0}, "price_per_point must be a number above 0"),
        ({"price_per_point": "dear"}, "price_per_point must be a number above 0"),
        ({"all": {"weights": [], "bias": 0.0, "cost": 1.0}}, "all.weights must be one for each"),
        ({"some": {"weights": [1.0], "bias": "x", "cost": 1.0}}, "predictor.some.bias"),
        ({"none": None}, "predictor.none"),
    ],
)
def test_a_damaged_or_older_file_is_explained(tmp_path, changes, said) -> None:
    file = tmp_path / "policy.json"
    GuidancePolicy(tokens=6, predictor=by_confidence()).save(file)
    saved = json.loads(file.read_text())
    saved["predictor"] |= changes
    file.write_text(json.dumps(saved))
    with pytest.raises(ValueError, match=said) as caught:
        GuidancePolicy.load(file)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{file} does not hold a GuidancePolicy: ")


def test_one_judge_is_enough() -> None:
    for ask in (0.5, "never"):
        with pytest.raises(ValueError, match="both say when the teacher is asked; leave ask at"):
            GuidancePolicy(ask=ask, predictor=made_predictor())


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=50, unique=True), st.floats(0, 1))
def test_a_threshold_keeps_its_share(scores, share) -> None:
    if min(scores) == max(scores) and 0 < round(share * len(scores)) < len(scores):
        return
    threshold = threshold_for(scores, share)
    # The middle of two neighbouring floats is one of them.
    assert abs(sum(s > threshold for s in scores) - round(share * len(scores))) <= 1


@pytest.mark.parametrize("share", [-0.1, 1.1, 30, "0.3", None, True, float("nan")])
def test_what_is_no_share_is_refused(share) -> None:
    with pytest.raises(ValueError, match=r"share must be a number from 0 to 1, such as 0\.3"):
        share_number("share", share)


def test_scores_that_are_all_alike_make_no_share() -> None:
    with pytest.raises(ValueError, match="scores all 3 questions alike"):
        threshold_for([1.0, 1.0, 1.0], 0.3)
    with pytest.raises(ValueError, match="questions are missing"):
        threshold_for([], 0.3)


@pytest.mark.parametrize("share", [0, 0.25, 0.5, 1])
def test_calibrating_asks_for_a_share_of_ones_own_questions(share) -> None:
    # A little of the number in the score tells questions apart that are equally sure.
    predictor = made_predictor(
        features=("log_confidence", "log_largest_number"),
        probe_tokens=8,
        **{
            name: {"weights": weights, "bias": 0.0, "cost": cost}
            for name, weights, cost in (
                ("none", (2.0, 0.1), 0.0),
                ("some", (0.0, 0.0), 1.0),
                ("all", (0.0, 0.0), 2.0),
            )
        },
    )
    policy = GuidancePolicy(tokens=6, predictor=predictor)
    asked: list = []
    chain = pair(teacher={"diary": asked})
    mine = policy.calibrate(chain.student, QUESTIONS, share=share)
    assert asked == []
    for question in QUESTIONS:
        chain.invoke(question, guidance=mine)
    assert len(asked) == share * len(QUESTIONS)
    assert dataclasses.replace(mine.predictor, threshold=0.0) == predictor


def test_calibrating_says_what_is_missing() -> None:
    with pytest.raises(ValueError, match=r"there is none; make one with choose\(predictor=True\)"):
        GuidancePolicy().calibrate(Needy(), QUESTIONS, share=0.3)
    policy = GuidancePolicy(predictor=by_confidence())
    with pytest.raises(ValueError, match="share must be"):
        policy.calibrate(Needy(), QUESTIONS, share=30)
    with pytest.raises(ValueError, match="WordTeacher does not report"):
        policy.calibrate(WordTeacher(), QUESTIONS, share=0.3)
    entropies = GuidancePolicy(predictor=by_confidence(feature="mean_entropy", sign=-1))
    with pytest.raises(ValueError, match="entropies of the student's first 8 tokens, which a Need"):
        entropies.calibrate(Needy(), QUESTIONS, share=0.3)
    assert entropies.calibrate(Telling(), QUESTIONS[:2], share=0.5).predictor
