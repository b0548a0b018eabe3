"""Rows of the benchmark of speed as a table to read."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from record import VERDICTS

PEERS = ("fused", "foreach", "loop", "torch")
HEAD = f"{'ours':>10}" + "".join(f"{peer:>10}" for peer in PEERS)
HEAD += f"{'value':>10}{'spread':>10}{'fastest':>10}{'limit':>7}"


def number(value: float | None, width: int) -> str:
    """Four digits, or nothing."""
    return " " * width if value is None else f"{value:{width}.4g}"


def line(name: str, entry: dict[str, Any]) -> str:
    """A row: ours, torch's, the value that is limited, and the ratio of the fastest rounds."""
    theirs = entry.get("torch", {})
    cells = [entry["ours"], *map(theirs.get, PEERS), entry["value"], entry["spread"]]
    text = "".join(number(cell, 10) for cell in [*cells, entry.get("of_fastest_rounds")])
    return f"  {name:<26}{text}{number(entry['limit'], 7)}  {VERDICTS[entry['holds']]}"


def table(rows: Sequence[dict[str, Any]]) -> str:
    """All rows, those with the same words before the colon together, and what does not hold."""

    def title(entry: dict[str, Any]) -> str:
        return entry["bar"].partition(": ")[0]

    lines = []
    for words, entries in groupby(sorted(rows, key=title), title):
        group = list(entries)
        lines += ["", f"{words} ({group[0]['unit']})", " " * 28 + HEAD]
        lines += [line(entry["bar"].partition(": ")[2], entry) for entry in group]
    limited = [entry for entry in rows if entry["holds"] is not None]
    unmet = [entry["bar"] for entry in limited if not entry["holds"]]
    lines += ["", f"{len(limited) - len(unmet)} of {len(limited)} bars hold; unmet:", *unmet]
    return "\n".join(lines)
