"""Accuracy by position in a pack, from measured lines."""

from __future__ import annotations

from typing import Any

from benchmarks.packing import section, sums_of


def call(kind: str, pack: list[int], begun: list[str], tokens: int) -> list[dict[str, Any]]:
    same = {"kind": kind, "pack": pack, "prompt_tokens": 100, "tokens": tokens, "asked": 40}
    return [
        {**same, "row": row, "position": at, "begun": text}
        for at, (row, text) in enumerate(zip(pack, begun, strict=True))
    ]


def test_positions_are_summed_and_missing_beginnings_are_asked_alone() -> None:
    lines = [
        *call("one", [7], ["a"], 40),
        *call("one", [8], ["b"], 40),
        *call("one", [9], ["never answered"], 40),
        *call("held", [7, 8], ["c", ""], 60),
        *call("held", [8, 7], ["d", "e"], 60),
        *call("held", [9, 7], ["not counted", "c"], 60),
    ]
    right = {(7, ""): True, (7, "a"): False, (8, "b"): True, (7, "c"): True, (8, "d"): False}
    right[7, "e"] = True
    lines += [
        {"kind": "answer", "row": row, "begun": begun, "right": verdict}
        for (row, begun), verdict in right.items()
    ]
    lines[-len(right) - 6]["leaks"] = True  # the first of the packed beginnings
    found = sums_of(lines)
    assert (found["one"]["questions"], found["one"]["right"], found["student alone"]) == (2, 1, 1)
    first, second = found["held"]["positions"]
    assert (first["questions"], first["found"], first["right"], first["right_alone"]) == (
        2,
        2,
        1,
        1,
    )
    assert (second["found"], second["right"], second["only_packed"]) == (2, 3, 2)
    assert found["held"]["prompt_tokens"] == 5 * 50 + 100  # the missing one was asked alone
    assert found["held"]["completion_tokens"] == 5 * 30 + 40
    text = section(found)
    assert "on 2 rows" in text
    assert "| 2 | 3 | 67% | 100.0%" in text
    assert "free" not in found
    assert "0 of 2 with one question per call, 1 of 4 packed (with the JSON schema" in text
    both = section({**found, "others": {"Tiny": found}})
    assert (
        "The same, with the JSON schema enforced, finished by Tiny (alone right on 50.0%):" in both
    )
    assert both.count("| 2 | 3 | 67% | 100.0%") == 2
