"""What ``make bench-real`` has measured, as tables of Markdown."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

_MARK = "<!-- bench-real {name}{end} -->"


def render(results: dict[str, Any]) -> str:
    """Return the tables.

    Args:
        results: What the JSON of a run holds.
    """
    ways, settings = results["ways"], results["settings"]
    users = list(max((way["users"] for way in ways.values()), key=len))
    head = [*(f"{n} at once" for n in users), "first token", "memory", "load"]
    lines = [
        f"{settings['model']}, {results['date'][:10]}, {results['machine']}, "
        f"{settings['threads']} thread(s), at most {settings['tokens']} new tokens, about "
        f"{settings['few_shot']} tokens of worked examples in front of each question, medians of "
        f"{_repeats(ways)} interleaved repeats: tokens per processor second (per second on "
        "the clock), and seconds of the processor (on the clock) to the first token after the "
        "guidance, and to load.",
        "",
        *table(["way", *head], [[name, *_cells(way, users)] for name, way in ways.items()]),
        "",
        *table(["our backend / the bare engine", *head[: len(users)]], _factors(ways, users)),
        "",
        *_floors(results, users[0]),
    ]
    return "\n".join(lines).rstrip()


def _repeats(ways: dict[str, Any]) -> str:
    """Return how often each way was asked. Few users ask more often."""
    counts = [len(slices) for way in ways.values() for slices in way["users"].values()]
    least, most = min(counts), max(counts)
    return f"{least}" if least == most else f"{least} to {most}"


def write(page: Path, name: str, text: str) -> None:
    """Put the tables of a model between its marks in a page.

    Args:
        page: The page. Marks are added at its end if it has none.
        name: The model, or another name of the run.
        text: The tables.
    """
    begin, end = (_MARK.format(name=name, end=which) for which in ("", " end"))
    old = page.read_text(encoding="utf-8")
    if begin not in old:
        old = f"{old.rstrip()}\n\n{begin}\n{end}\n"
    before, _, rest = old.partition(begin)
    after = rest.partition(end)[2]
    page.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")


def ratios(ours: list[dict[str, float]], bare: list[dict[str, float]]) -> list[float]:
    """Return, slice by slice, our tokens per processor second over the bare engine's."""
    return [_speed(a) / _speed(b) for a, b in zip(ours, bare, strict=True)]


def _speed(one: dict[str, float], clock: str = "cpu_s") -> float:
    return one["tokens"] / one[clock]


def _cells(way: dict[str, Any], users: list[str]) -> list[str]:
    cells = []
    for n in users:
        if (slices := way["users"].get(n)) is None:
            cells.append("-")
            continue
        cpu, wall = (median(_speed(one, clock) for one in slices) for clock in ("cpu_s", "wall_s"))
        cells.append(f"{cpu:.1f} ({wall:.1f})")
    first = [median(one[clock] for one in way["first"]) for clock in ("cpu_s", "wall_s")]
    memory = max(one["mib"] for slices in way["users"].values() for one in slices)
    load = way["loaded"]
    return [
        *cells,
        f"{first[0]:.2f} ({first[1]:.2f}) s",
        f"{memory:.0f} MiB",
        f"{load['load_cpu_s']:.1f} ({load['load_wall_s']:.1f}) s",
    ]


def _factors(ways: dict[str, Any], users: list[str]) -> list[list[str]]:
    from benchmarks.real_ways import ENTRIES

    rows = []
    for name, way in ways.items():
        for bare in filter(ways.__contains__, ENTRIES[name].bare):
            pairs = [(way["users"].get(n), ways[bare]["users"].get(n)) for n in users]
            compared = [_range(ratios(a, b)) if a and b else "-" for a, b in pairs]
            rows.append([f"{name} / {bare}", *compared])
            if way["users"] and "steps" in next(iter(way["users"].values()))[0]:
                steps = [" / ".join(_steps(one) for one in pair) for pair in pairs]
                rows.append([f"steps of the server: {name} / {bare}", *steps])
    ours = [name for name in ways if ENTRIES[name].bare]
    others = [name for name in ways if not ENTRIES[name].bare]
    unchanged = [name for name in others if not ENTRIES[name].set_up_as_ours]
    for title, group in [("the best bare engine", others), ("the best stock engine", unchanged)]:
        if not (ours and group):
            continue
        best = []
        for n in users:
            pair = [_fastest(ways, names, n) for names in (ours, group)]
            if None in pair:
                best.append("-")
                continue
            found = ratios(*(ways[name]["users"][n] for name in pair))
            best.append(f"{' / '.join(pair)}: {_range(found)}")
        rows.append([f"our best backend / {title}", *best])
    return rows


def _steps(slices: list[dict[str, float]] | None) -> str:
    return f"{median(one['steps'] for one in slices):.0f}" if slices else "-"


def _fastest(ways: dict[str, Any], names: list[str], users: str) -> str | None:
    measured = [name for name in names if users in ways[name]["users"]]
    return max(
        measured, key=lambda name: median(map(_speed, ways[name]["users"][users])), default=None
    )


def _range(found: list[float]) -> str:
    return f"{median(found):.2f}x ({min(found):.2f}-{max(found):.2f})"


def _floors(results: dict[str, Any], users: str) -> list[str]:
    """Say what reading all weights once a token allows, and how much of that was reached."""
    from benchmarks.real_ways import ENTRIES

    rate = results["bandwidth_gb_s"]
    lines = [
        f"One thread reads {rate:.1f} GB/s from memory. Reading the weights' files once a token "
        "gives:"
    ]
    for kind, size in results["weight_bytes"].items():
        floor = rate * 1e9 / (size or 1)
        reached = [
            f"{name} {median(map(_speed, way['users'][users])) / floor:.0%}"
            for name, way in results["ways"].items()
            if ENTRIES[name].runs == kind and ENTRIES[name].as_saved
        ]
        if not (size and reached):
            continue
        lines.append(
            f"- {kind}, {size / 1e6:.0f} MB: {floor:.0f} tokens/s; reached with {users} user(s): "
            + ", ".join(reached)
        )
    return [lines[0], "", *lines[1:]] if lines[1:] else []


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    """Return the lines of a table of Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(line)} |" for line in lines]
