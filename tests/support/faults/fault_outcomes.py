"""What must follow each fault of `support.faults.fault_table`, and the table of it in the docs."""

from __future__ import annotations

from support.faults.fault_table import FAULTS

WORDS = {"A": "an answer", "T": "TeacherError", "G": "GuidanceError"}
BILLS = {"R": "reported", "U": "unreported", "N": "nothing"}

# In the order of the table: for a whole answer, and for a stream, what comes and what is billed.
OUTCOMES = {
    "connection": (
        "TUTU TUTU TUTU TUTU TUTU TUTU TUTU TUTU TUTU TUTU TUTU TUTU TUTU TUTU TUTU "
        "TUTU TUTU TUTU TNTN TUTU"
    ),
    "status": (
        "TNTN TNTN TNTN TNTN TNTN TNTN TNTN TNTN TNTN TNTN TNTN TNTN TNTN TNTN TNTN "
        "TNTN TNTN TNTN TNTN TNTN TNTN TNTN TNTN TNTN TNTN TNTN TNTN TNTN TNTN TNTN "
        "TNTN TNTN TNTN TNTN TNTN TNTN TNTN"
    ),
    "body": (
        "TUTU TUTU TUTU TUTU TUTU TUTU ARTU ARTU TUTU TUTU ARTU ARTU TUTU TUTU TUTU "
        "TUTU TUTU TUTU TUTU TUTU TUTU TUTU"
    ),
    "field": (
        "TUAR TRAR TUTU TUAR TRAR TUTU TUTU TUAR TUAR TUTU TUTU TUAR TUTU GRAR TUTU "
        "GRAR GRAR ARAR TUTU ARAR ARAR GRTU GRGR GRGR TUTU TUAR TRAR TRAU TUAR ARAR "
        "ARAR ARAR ARAR ARAR ARAR ARAR ARTU ARAR ARAR TUTU TUTU TUTU TUTU ARAR ARAR "
        "ARAR ARTU ARTU ARTU ARTU ARTU ARTU"
    ),
    "usage": (
        "AUAU AUAU AUAU TUAU TUTU TUTU TUTU AUAU AUAU AUAU AUAU AUAU ARAR AUTU AUTU "
        "AUTU ARAR AUTU ARAR AUAU AUTU AUTU AUAU AUAU ARAR AUAU AUAU ARAR ARTU ARAR "
        "TUTU ARAR ARAR ARAR ARAR ARAR ARTU ARAR"
    ),
    "stream": (
        "ARAR ARTU ARTU ARTU ARAR ARAU ARTU ARTU ARTU ARTU ARTU ARTU ARTU ARAR ARTU "
        "ARTU ARTU ARTU ARAU ARTU ARAR ARAR ARAR ARAR ARAR ARAR ARAR ARAR ARAU ARAR "
        "ARAR ARAR ARAR ARAU ARTU ARTU"
    ),
}


def expected(group: str, index: int, *, streams: bool) -> tuple[str, str]:
    """What comes of a fault, and what the bill says."""
    code = OUTCOMES[group].split()[index][2 * streams :][:2]
    return WORDS[code[0]], BILLS[code[1]]


def table() -> str:
    """The table of documented outcomes, in Markdown."""
    rows = [
        "| fault | whole answer | its bill | stream | its bill |",
        "| --- | --- | --- | --- | --- |",
    ]
    for group, faults in FAULTS.items():
        for index, fault in enumerate(faults):
            name = f"{group}: {fault.name}".replace("|", "/")
            cells = [*expected(group, index, streams=False), *expected(group, index, streams=True)]
            rows.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(rows)
