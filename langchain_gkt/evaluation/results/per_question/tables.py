"""A per-question choice as tables."""

from __future__ import annotations

from langchain_gkt.evaluation.results import cells
from langchain_gkt.evaluation.results.choice import Goal
from langchain_gkt.evaluation.results.outcomes import OperatingPoint, OutcomeMatrix, written
from langchain_gkt.evaluation.results.per_question.choice import (
    PREDICTOR,
    RANDOM,
    PerQuestionChoice,
    Tested,
)
from langchain_gkt.evaluation.results.statistics import mcnemar
from langchain_gkt.gates.learned import Predictor
from langchain_gkt.reporting.table import Table


def tables(choice: PerQuestionChoice) -> list[Table]:
    """Return a predictor's results on unseen rows and on all rows, and its inputs."""
    predictor = choice.policy.predictor
    assert predictor is not None
    unseen = _comparison(
        f"Per question: {choice.unseen_rows} unseen rows",
        choice.tested,
        choice.outcomes,
        [
            f"learned from {choice.train_rows} rows, its length and its price per point "
            f"({predictor.price_per_point:.4g} {predictor.unit}) chosen by {choice.choose_rows} "
            f"others, tested on these; the rivals were chosen by the first "
            f"{choice.seen_rows} rows and tested on these",
            _goal_note(choice.goal),
        ],
    )
    every = _comparison(
        f"Per question: all {len(choice.outcomes.rows)} rows, cross-fitted",
        choice.cross_fitted,
        choice.outcomes,
        [
            "each row is answered by a predictor, and by rivals, that were made from other rows; "
            "the intervals leave out that these predictors differ"
        ],
    )
    return [unseen, every, _weights(predictor)]


def _goal_note(goal: Goal) -> str:
    wanted = f"the cheapest within {100 * goal.max_loss:g} points of the best fixed way"
    if goal.price_per_point is not None:
        wanted = f"what is worth most if a point of accuracy is worth {goal.price_per_point:g}"
    elif goal.share is not None:
        wanted = f"the cheapest within {100 * goal.max_loss:g} points of the best of its kind"
    asked = "" if goal.share is None else f", asking in {goal.share:.0%} of the questions"
    return f"every way was chosen alike: {wanted}{asked}"


def _comparison(title: str, tested: Tested, outcomes: OutcomeMatrix, notes: list[str]) -> Table:
    alone, predictor, mix = tested.rivals["teacher alone"], tested.predictor, tested.mix

    def line(kind: str, way: OperatingPoint, ahead: str) -> dict[str, str]:
        return {
            "way": kind,
            "guidance": way.way,
            "accuracy (95%)": cells.accuracy(way),
            "asked": cells.percent(way.asked),
            outcomes.price_name: way.price,
            "of teacher": cells.ratio(way.cost, alone.cost),
            "predictor leads by (McNemar)": ahead,
        }

    def lead(kind: str, rival: OperatingPoint) -> str:
        test = mcnemar(predictor.rights, rival.rights, (PREDICTOR, kind))
        return f"{100 * test.difference:+.1f} (p {test.p_value:.2g})"

    equal = {
        **line(f"{RANDOM} of equal accuracy", predictor, "+0.0"),
        "guidance": "drawn by lot",
        "accuracy (95%)": cells.percent(predictor.accuracy),
        "asked": "-",
        outcomes.price_name: "-" if mix.cost is None else written(mix.cost, outcomes.priced),
        "of teacher": "-" if mix.cost is None else cells.ratio(mix.cost, alone.cost),
    }
    against = "no random mix is as accurate as the predictor"
    if mix.cost is not None:
        low, high = mix.bill_interval
        against = f"the predictor's bill is {mix.bill:.0%} ({low:.0%} to {high:.0%}) of it"
    low, high = mix.gain_interval
    claim = "more than chance explains" if mix.is_beaten else "which chance may explain"
    if mix.gain <= 0:
        claim = "so it is not better than drawing lots"
    kept = predictor.accuracy / alone.accuracy if alone.accuracy else 0.0
    rivals = [line(kind, rival, lead(kind, rival)) for kind, rival in tested.rivals.items()]
    return Table.of(
        [line(PREDICTOR, predictor, "-"), equal, *rivals],
        title=title,
        notes=[
            f"{RANDOM}: a router that draws lots between the fixed ways that no mix of others "
            f"beats; {against}; of a mix that costs what the predictor costs it is "
            f"{100 * mix.gain:+.1f} points ahead (95%: {100 * low:+.1f} to {100 * high:+.1f}), "
            f"{claim}",
            f"the predictor keeps {cells.percent(kept)} of the teacher's accuracy",
            *notes,
        ],
    )


def _weights(predictor: Predictor) -> Table:
    """Return the weights that the predictor uses."""
    amounts = {"none": predictor.none, "some": predictor.some, "all": predictor.all}
    every = amounts.values()
    rows = [
        [name, *(f"{amount.weights[place]:+.3g}" for amount in every)]
        for place, name in enumerate(predictor.features)
    ]
    return Table(
        title="Per question: what the predictor is based on",
        head=["feature", *amounts],
        rows=[
            *rows,
            ["bias", *(f"{amount.bias:+.3g}" for amount in every)],
            ["cost", *(f"{amount.cost:.4g}" for amount in every)],
        ],
        notes=[
            "log odds of a right answer, by what the teacher writes: nothing, the tokens, or the "
            f"whole answer; costs: {predictor.unit}",
            f"the student's own first {predictor.probe_tokens} token(s) are looked at"
            if predictor.probe_tokens
            else "the student does not report how sure it is, so only the text is looked at",
        ],
    )
