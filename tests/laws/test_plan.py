"""Plans: what they answer and what they refuse."""

from __future__ import annotations

import functools
import json

import numpy as np
import pytest
from synthetic import law, parameters, table

from equiscale.laws import Analysis, analyse, plan
from equiscale.laws.allocation import compute_law


@functools.cache
def study() -> Analysis:
    return analyse(*table(noise=0.005), resamples=100)


def test_the_plan_is_the_laws() -> None:
    found = plan(study(), flops=1e12)
    assert found.best == "egnn"
    choice = found.choices[0]
    true = compute_law(law("egnn"), 7.5)
    assert choice.loss.value == pytest.approx(float(true["F_c"]) * 1e-3 ** -float(true["gamma"]), rel=0.03)
    assert choice.N.value == pytest.approx(float(true["G"]) * (1e12 / 22.5) ** float(true["a"]), rel=0.2)
    assert parameters(choice.width) == pytest.approx(choice.N.value, rel=0.05)
    assert choice.structures.value * 18 == pytest.approx(choice.D.value)
    assert choice.flops == pytest.approx(1e12, rel=1e-6)
    assert choice.decades == pytest.approx(np.log10(1e12 / study().architectures["egnn"].C_range[1]))
    assert choice.probability_best > 0.99
    assert choice.loss.interval.low < choice.loss.value < choice.loss.interval.high


def test_hours_are_of_the_records_machine() -> None:
    found = plan(study(), hours=0.05)
    assert found.hardware == "a machine that is not there"
    assert found.choices[0].hours == pytest.approx(0.05, rel=1e-6)
    with pytest.raises(ValueError, match="H200"):
        plan(study(), hours=0.05, hardware="H200")
    assert plan(study(), hours=0.05, hardware="a machine").best == found.best


def test_far_beyond_the_records_is_said() -> None:
    found = plan(study(), flops=1e15)
    assert found.choices[0].decades > 3
    assert any("ten times the records" in w for w in found.warnings)
    assert "decades beyond the records" in found.text()
    assert any("larger than every rung" in w for w in found.choices[0].warnings)


def test_crossings_before_the_budget() -> None:
    found = plan(study(), flops=1e12)
    assert found.crossings["mpnn × egnn"] > 0.9
    assert plan(study(), flops=1e9).crossings["mpnn × egnn"] == 0.0  # below both ladders' common range


def test_text_and_json() -> None:
    found = plan(study(), flops=1e12)
    json.dumps(found.to_dict(), allow_nan=False)
    assert found.text().startswith("Budget 1e+12 FLOP.")
    assert "egnn, width" in found.text()


@pytest.mark.parametrize("budget", [0.0, -1.0, float("nan"), float("inf")])
def test_budgets_that_are_none(budget: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        plan(study(), flops=budget)
    with pytest.raises(ValueError, match="positive"):
        plan(study(), hours=budget)


def test_one_budget() -> None:
    with pytest.raises(ValueError, match="either"):
        plan(study())
    with pytest.raises(ValueError, match="either"):
        plan(study(), flops=1.0, hours=1.0)
