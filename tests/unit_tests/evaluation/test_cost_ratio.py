from __future__ import annotations

import pytest
from langchain_core.caches import InMemoryCache
from support.models.fakes import WordTeacher

from langchain_gkt import GuidedKnowledgeTransferChain, Price
from langchain_gkt.evaluation.cost_ratio import measure_costs
from langchain_gkt.evaluation.results.statistics import bootstrap_ratio

PRICE = Price("2", "10")


@pytest.fixture
def chain(teacher) -> GuidedKnowledgeTransferChain:
    student = WordTeacher(answer="and so on.", asked=[])
    return GuidedKnowledgeTransferChain(teacher=teacher, student=student, guidance_tokens=20)


def test_the_same_questions_are_billed_in_each_mode(chain, problem) -> None:
    found = measure_costs(chain, [problem.question, "And you?"], teacher_price=PRICE, sample=1)
    assert (found.questions, set(found.counts)) == (1, {"guided", "teacher", "student"})
    whole = 7 * 2 + 10 * len(problem.solution)
    assert found.ratio == pytest.approx((7 * 2 + 10 * 20) / whole)
    assert found.interval is None
    assert "student" not in measure_costs(chain, ["a"], teacher_price=PRICE, student=False).counts


def test_comparisons_that_mean_nothing_are_refused(chain, problem) -> None:
    with pytest.raises(ValueError, match="inputs hold no question"):
        measure_costs(chain, [], teacher_price=PRICE)
    with pytest.raises(ValueError, match="sample must be 1 or more"):
        measure_costs(chain, ["a"], teacher_price=PRICE, sample=0)
    with pytest.raises(ValueError, match=r"needs every price.*teacher_price="):
        measure_costs(chain, ["a"])
    with pytest.raises(ValueError, match="confidence must be between"):
        measure_costs(chain, ["a"], teacher_price=PRICE, confidence=95)
    cached = chain.model_copy(update={"cache": InMemoryCache()})
    cached.invoke(problem.question, mode="teacher")
    with pytest.raises(ValueError, match="cache"):
        measure_costs(cached, [problem.question], teacher_price=PRICE, sample=1)


def test_a_ratio_of_sums_has_an_interval_that_repeats() -> None:
    pairs = [(1.0, 2.0), (3.0, 4.0), (10.0, 10.0)]
    ratio = bootstrap_ratio(pairs, seed=3)
    assert ratio.value == pytest.approx(14 / 16)  # not the mean of the ratios
    low, high = ratio.interval
    assert 0.5 <= low < ratio.value < high <= 1.0
    assert bootstrap_ratio(pairs, seed=3) == ratio
    assert bootstrap_ratio(pairs[:1]).interval is None
