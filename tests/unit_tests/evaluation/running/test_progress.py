from __future__ import annotations

from decimal import Decimal

from langchain_gkt.evaluation.running.progress import ProgressBar


def test_a_phase_without_steps_has_no_bar(capsys) -> None:
    with ProgressBar(True) as bar:
        bar.begin("teacher", 1)
        bar.step(Decimal(0))
        bar.begin("guided", 0)  # all of it is known from an earlier session
    said = capsys.readouterr().err
    assert "teacher" in said
    assert "guided" not in said and "0/0" not in said
