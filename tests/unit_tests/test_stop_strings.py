"""Stop strings in text that comes in pieces."""

from __future__ import annotations

from langchain_gkt.texts.stop_strings import StopStringFilter


def test_stop_filter_gives_back_what_did_not_become_a_stop() -> None:
    stop = StopStringFilter(("abc",))
    assert [stop.feed(part) for part in ("xa", "b", "d", "ab")] == [
        ("x", False),
        ("", False),
        ("abd", False),
        ("", False),
    ]
    assert stop.flush() == "ab"
