"""Claims: what the survey says, held against what a notebook measured."""

import functools
import html
import math
import operator
import statistics
import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from IPython import get_ipython
from IPython.display import display

from optlab.errors import check_range, nearest

MIME = "application/vnd.optlab.claim+json"

Expected = float | tuple[float, float]
Measured = float | Sequence[float]


class ClaimError(AssertionError):
    """A measurement does not bear a claim out."""


@functools.cache
def texts() -> dict[str, str]:
    """The survey's claims, text by id.

    >>> texts()["M5"]
    'Nesterov evaluates the gradient at the anticipated position.'
    """
    chapters = tomllib.loads(resources.files("optlab").joinpath("claims.toml").read_text("utf-8"))
    return {id: text for chapter in chapters.values() for id, text in chapter.items()}


def claim(
    id: str,
    *,
    measured: Measured | Mapping[str, Measured],
    expected: Expected | Mapping[str, Expected],
    tolerance: float,
    seeds: Sequence[int] | None = None,
) -> None:
    """Show a claim with its measurement, record both in the cell's output, raise if it fails.

    Args:
        id: the claim's, such as ``"M4"``.
        measured: a number; with ``seeds``, one number per seed; or a mapping from the name
            of a quantity to either.
        expected: a number, or an interval ``(low, high)`` of which an end may be infinite;
            for a mapping, one per name.
        tolerance: how far outside ``expected`` a measurement may lie, absolute.
        seeds: at least 3 distinct seeds, or ``None`` for a deterministic problem.
            Every seed must bear the claim out; the record holds median and spread.

    Raises:
        ValueError: an unknown id, too few seeds, or shapes that do not match.
        ClaimError: the measurement is not within tolerance, or is not a number.

    >>> claim("M2", measured=0.5311, expected=0.9**6, tolerance=1e-3)
    M2 holds: The velocity is an exponentially decaying history of gradients.
      measured 0.5311, expected 0.5314 within 0.001
    """
    _check_id(id)
    check_range("tolerance", tolerance, "[0, inf)")
    chosen = None if seeds is None else [operator.index(seed) for seed in seeds]
    if chosen is not None and len(set(chosen)) < max(3, len(chosen)):
        raise ValueError(f"seeds must be at least 3 different ones, got {chosen!r}")
    quantities = dict(measured) if isinstance(measured, Mapping) else {"measured": measured}
    targets = dict(expected) if isinstance(expected, Mapping) else {"measured": expected}
    if quantities.keys() != targets.keys() or not quantities:
        raise ValueError(
            f"measured and expected must have the same names, one at least, "
            f"got {[*quantities]} and {[*targets]}"
        )
    rows = [
        _row(name, value, targets[name], tolerance, chosen) for name, value in quantities.items()
    ]
    record = {
        "id": id,
        "claim": texts()[id],
        "rows": rows,
        "tolerance": float(tolerance),
        "seeds": chosen,
        "passed": all(row["passed"] for row in rows),
    }
    _show({MIME: record, "text/html": _as_html(record), "text/plain": _as_text(record)})
    if not record["passed"]:
        raise ClaimError(_as_text(record))


def unmeasured(id: str, reason: str) -> None:
    """Show and record a claim that stays open on this machine, which counts as neither verdict.

    Args:
        id: the claim's.
        reason: what a measurement needs, in a few words.

    Raises:
        ValueError: an unknown id, or no reason.

    >>> unmeasured("P5", "needs more memory than there is")  # doctest: +ELLIPSIS
    P5 is open (needs more memory than there is): Half precision halves memory ...
    """
    _check_id(id)
    if not reason.strip():
        raise ValueError("reason must say what a measurement needs, got an empty text")
    text = f"{id} is open ({reason}): {texts()[id]}"
    words = f"<strong>{id} is open: {html.escape(reason)}.</strong> {html.escape(texts()[id])}"
    record: dict[str, Any] = {
        "id": id,
        "claim": texts()[id],
        "rows": [],
        "tolerance": None,
        "seeds": None,
        "passed": None,
        "open": reason,
    }
    _show({MIME: record, "text/html": _framed(words, "#777777"), "text/plain": text})


def _check_id(id: str) -> None:
    if id not in texts():
        raise ValueError(f"no claim {id!r}: {nearest(id, texts())}")


def _row(
    name: str, measured: Any, expected: Any, tolerance: float, seeds: list[int] | None
) -> dict[str, Any]:
    try:
        runs = [float(run) for run in ([measured] if seeds is None else measured)]
    except (TypeError, ValueError):
        kind = "a number" if seeds is None else "a number for each seed"
        raise TypeError(f"{name}: measured must be {kind}, got {measured!r}") from None
    if seeds is not None and len(runs) != len(seeds):
        raise ValueError(f"{name}: {len(runs)} measurements for {len(seeds)} seeds")
    try:
        low, high = expected
    except TypeError:
        low = high = expected
    if not low <= high or (math.isinf(low) and math.isinf(high)):
        raise ValueError(f"{name}: expected must be a number or (low, high), got {expected!r}")
    finite = all(map(math.isfinite, runs))
    return {
        "name": name,
        # None where there is no such number, as JSON has neither NaN nor infinity.
        "measured": statistics.median(runs) if finite else None,
        "expected": [None if math.isinf(end) else float(end) for end in (low, high)],
        "spread": max(runs) - min(runs) if finite else None,
        "passed": finite and all(low - tolerance <= run <= high + tolerance for run in runs),
    }


def figure(number: float | None) -> str:
    """A measured number as it is shown.

    >>> figure(0.81818), figure(None)
    ('0.8182', 'not finite')
    """
    return "not finite" if number is None else f"{number:.4g}"


def expectation(row: Mapping[str, Any]) -> str:
    """What a row of a record expects, in words: a number, an interval or a bound."""
    low, high = row["expected"]
    if high is None:
        return f"at least {low:.4g}"
    if low is None:
        return f"at most {high:.4g}"
    if low == high:
        return f"{low:.4g}"
    return f"{low:.4g} to {high:.4g}"


def _as_text(record: Mapping[str, Any]) -> str:
    lines = [f"{record['id']} {'holds' if record['passed'] else 'FAILS'}: {record['claim']}"]
    for row in record["rows"]:
        line = f"  {row['name']} {figure(row['measured'])}, expected {expectation(row)}"
        line += f" within {record['tolerance']:.4g}"
        if record["seeds"]:
            line += f" (median of {len(record['seeds'])} seeds, spread {figure(row['spread'])})"
        lines.append(line)
    return "\n".join(lines)


def _as_html(record: Mapping[str, Any]) -> str:
    verdict, colour = ("holds", "#009E73") if record["passed"] else ("fails", "#D55E00")
    rows = "".join(
        f"<tr><td>{html.escape(row['name'])}</td><td>{figure(row['measured'])}</td>"
        f"<td>{expectation(row)}</td>"
        + (f"<td>{figure(row['spread'])}</td>" if record["seeds"] else "")
        + "</tr>"
        for row in record["rows"]
    )
    spread = f"<th>spread over {len(record['seeds'])} seeds</th>" if record["seeds"] else ""
    return _framed(
        f"<strong>{record['id']} {verdict}.</strong> {html.escape(record['claim'])}"
        '<table style="border-collapse: separate; border-spacing: 1em 0.1em">'
        "<thead><tr><th></th><th>measured</th>"
        f"<th>expected</th>{spread}</tr></thead><tbody>{rows}</tbody></table>"
        f"Tolerance {record['tolerance']:.4g}, "
        + ("over seeds." if record["seeds"] else "a deterministic problem."),
        colour,
    )


def _framed(text: str, colour: str) -> str:
    return (
        f'<div class="optlab-claim" style="border-left: 4px solid {colour}; '
        f'padding: 0.4em 1em; margin: 0.5em 0">{text}</div>'
    )


def _show(bundle: dict[str, Any]) -> None:
    if get_ipython() is None:  # a plain script
        print(bundle["text/plain"])
    else:
        display(bundle, raw=True)
