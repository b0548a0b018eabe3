"""Claims hold or raise; a record says what was measured."""

import json
import math

import pytest

from optlab import claims
from optlab.claims import ClaimError, claim, texts


def records(capsys):
    return capsys.readouterr().out


def test_there_are_seventy_claims_with_ids_of_their_chapters():
    assert len(texts()) == 70
    assert list(texts())[:4] == ["I1", "I2", "I3", "I4"]
    assert {id[0] for id in texts()} == set("ISMANRPC")


def test_a_claim_that_holds_is_shown(capsys):
    claim("M4", measured=0.8186, expected=9 / 11, tolerance=1e-3)
    assert "M4 holds: Momentum traverses narrow valleys" in records(capsys)


@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        (0.5, 0.6),
        (0.5, (0.6, math.inf)),
        (0.7, (0.0, 0.6)),
        (math.nan, 0.6),
        (math.inf, 0.6),
        (math.inf, (0.6, math.inf)),
    ],
)
def test_a_claim_that_does_not_hold_is_shown_and_raises(measured, expected, capsys):
    with pytest.raises(ClaimError, match="M1 FAILS"):
        claim("M1", measured=measured, expected=expected, tolerance=0.01)
    assert "M1 FAILS" in records(capsys)


def test_every_seed_must_bear_it_out():
    seeds = (0, 1, 2)
    claim("M1", measured=[1.0, 1.1, 0.9], expected=1.0, tolerance=0.2, seeds=seeds)
    with pytest.raises(ClaimError):
        claim("M1", measured=[1.0, 1.0, 1.3], expected=1.0, tolerance=0.2, seeds=seeds)


def test_every_quantity_must_bear_it_out():
    with pytest.raises(ClaimError, match="b 3"):
        claim("M1", measured={"a": 1, "b": 3}, expected={"a": 1, "b": 2}, tolerance=0.5)


def test_a_record_is_json_with_median_and_spread(monkeypatch):
    shown = []
    monkeypatch.setattr(claims, "_show", shown.append)
    claim("M3", measured=[0.9, 0.95, 0.9], expected=(0.9, math.inf), tolerance=0.0, seeds=(1, 2, 3))
    record = json.loads(json.dumps(shown[0][claims.MIME], allow_nan=False))
    assert record["id"] == "M3" and record["passed"] and record["seeds"] == [1, 2, 3]
    (row,) = record["rows"]
    assert row["measured"] == 0.9 and row["spread"] == pytest.approx(0.05)
    assert row["expected"] == [0.9, None]
    assert claims.expectation(row) == "at least 0.9"
    assert "spread over 3 seeds" in shown[0]["text/html"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id": "M44"}, r"no claim 'M44': did you mean 'M4'"),
        ({"tolerance": -1}, r"tolerance must be in \[0, inf\), got -1"),
        ({"seeds": (0, 1), "measured": [1, 1]}, "at least 3 different ones"),
        ({"seeds": (0, 0, 0), "measured": [1, 1, 1]}, "at least 3 different ones"),
        ({"seeds": (0, 1, 2), "measured": [1, 1]}, "2 measurements for 3 seeds"),
        ({"seeds": (0, 1, 1, 2), "measured": [1] * 4}, "at least 3 different ones"),
        ({"measured": {"a": 1}, "expected": {"b": 1}}, "must have the same names"),
        ({"measured": {}, "expected": {}}, "one at least"),
        ({"expected": (2.0, 0.0)}, r"must be a number or \(low, high\), got \(2.0, 0.0\)"),
        ({"expected": (-math.inf, math.inf)}, "must be a number or"),
    ],
)
def test_bad_input_is_named(changes, message):
    arguments = {"id": "M1", "measured": 1.0, "expected": 1.0, "tolerance": 0.1, **changes}
    with pytest.raises(ValueError, match=message):
        claim(arguments.pop("id"), **arguments)


@pytest.mark.parametrize(
    "changes", [{"measured": "fast"}, {"measured": [1.0]}, {"seeds": (0, 1, 2)}, {"tolerance": "1"}]
)
def test_the_wrong_kind_is_named(changes):
    arguments = {"measured": 1.0, "expected": 1.0, "tolerance": 0.1, **changes}
    with pytest.raises(TypeError, match="must be a number"):
        claim("M1", **arguments)


def test_an_open_claim_is_recorded_with_its_reason(monkeypatch):
    shown = []
    monkeypatch.setattr(claims, "_show", shown.append)
    claims.unmeasured("P7", "needs a GPU")
    record = json.loads(json.dumps(shown[0][claims.MIME], allow_nan=False))
    assert record["id"] == "P7" and record["open"] == "needs a GPU"
    assert record["passed"] is None and record["rows"] == []
    assert "P7 is open: needs a GPU" in shown[0]["text/html"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("P77", "needs a GPU"), "no claim 'P77': did you mean"), (("P7", " "), "reason must say")],
)
def test_an_open_claim_needs_an_id_and_a_reason(arguments, message):
    with pytest.raises(ValueError, match=message):
        claims.unmeasured(*arguments)
