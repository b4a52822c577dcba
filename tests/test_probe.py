"""A study probed before it is trained: figures that are its own, failures that are answers, advice that holds."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from runs import ENVIRONMENT, refused, tiny_spec, tiny_store, write_study

from equiscale.cli import main
from equiscale.dry_run import probe
from equiscale.errors import InputError
from equiscale.ladder import load_study
from equiscale.launch.packing import how_many_fit
from equiscale.probe import figures
from equiscale.probe.budget import largest_that, memory_at, need
from equiscale.probe.figures import Found, Kept, Point, Size
from equiscale.probe.forecast import forecast
from equiscale.probe.process import alone
from equiscale.probe.study import Prober, Rung, between, fitting
from equiscale.results import Results
from equiscale.run import evaluation_steps

GIB = 2**30
MIB = 2**20


# --- how many fit --------------------------------------------------------------------------------------------------


def test_as_many_run_together_as_fit_whichever_meet():
    """Would catch a count by the mean memory (the two largest may meet), or one that fills the device to the brim."""
    small, large = (1.0, 60.0), (6.0, 60.0)
    assert how_many_fit([small] * 20, 10.0) == 9
    assert how_many_fit([small] * 20 + [large], 10.0) == 4  # 6 + 1 + 1 + 1
    assert how_many_fit([small] * 20 + [large] * 2, 10.0) == 1
    assert how_many_fit([(9.5, 60.0)], 10.0) == 0
    assert how_many_fit([(9.5, 60.0)], 10.0, margin=1.0) == 1
    assert how_many_fit([], 10.0) == 0


def test_no_more_run_together_than_shorten_the_whole():
    """Would catch workers that wait for the longest run while they hold memory."""
    assert how_many_fit([(1.0, 100.0), (1.0, 50.0), (1.0, 50.0)], 100.0) == 2
    assert how_many_fit([(1.0, 10.0)] * 8, 100.0) == 8
    assert how_many_fit([(1.0, 10.0)] * 8, 100.0, most=3) == 3
    assert how_many_fit([(1.0, 0.0)] * 8, 100.0) == 8


@pytest.mark.parametrize("item", [(-1.0, 1.0), (float("nan"), 1.0), (1.0, float("inf")), (1.0, -1.0)])
def test_what_cannot_be_packed(item):
    """Would catch a rung of unknown memory counted as nothing."""
    with pytest.raises(InputError, match="must be numbers"):
        how_many_fit([item], 10.0)
    with pytest.raises(InputError, match="at least one"):
        how_many_fit([(1.0, 1.0)], 10.0, most=0)


# --- memory by the batch -------------------------------------------------------------------------------------------

POINTS = (Point(32, 1.0, 100), Point(64, 2.0, 180), Point(256, 8.0, 660))


def test_memory_between_and_beyond_the_points():
    """Would catch an extrapolation that forgets what weights take, or memory that falls as a batch grows."""
    assert memory_at(POINTS, 4.0) == pytest.approx(180 + 80 * 2)
    assert memory_at(POINTS, 16.0) == pytest.approx(660 + 80 * 8)
    assert memory_at(POINTS[:1], 2.0) == pytest.approx(200)
    noisy = (Point(1, 1.0, 120), Point(2, 2.0, 100), Point(4, 4.0, 140))
    values = [memory_at(noisy, w) for w in np.linspace(0.5, 8, 40)]
    assert (np.diff(values) >= 0).all()


def test_the_end_of_a_run_keeps_the_graphs_of_all_validation_structures():
    """Would catch a rung that trains well and runs out of memory when it is evaluated at its end."""
    found = Found(base=1000, budgets=((32, 1.0), (256, 8.0)), points=POINTS, look_memory=200, kept=50, kept_final=60)
    assert need(found) == 1000 + 660 + 50
    assert need(found, 1.0) == 1000 + 210
    assert need(replace(found, kept_final=9_050)) == 1000 + 200 + 9_000
    assert need(Found(base=1000)) is None


def test_bisection_finds_the_largest_budget():
    """Would catch an off-by-one at either end of the grid."""
    budgets = [32, 48, 64, 96, 128]
    for most in (31, *budgets, 1000):
        expected = max((b for b in budgets if b <= most), default=None)
        assert largest_that(lambda b, most=most: b <= most, budgets) == expected
    assert largest_that(lambda b: True, []) is None


# --- advice and hours ----------------------------------------------------------------------------------------------


def rung(width: int, seeds: int = 1) -> Rung:
    return Rung(0, tuple(tiny_spec(width=width, seed=s) for s in range(seeds)))


def found(step: float, memory: int = 100 * MIB, **fields) -> Found:
    points = (Point(8, 1.0, memory // 4), Point(4096, 4.0, memory))
    plain = Found(
        base=GIB, step_seconds=step, start_seconds=1.0, first_look_seconds=0.5, look_seconds=0.2, final_seconds=0.7,
        budgets=((8, 1.0), (16, 2.0), (4096, 4.0)), points=points, look_memory=0,
    )  # fmt: skip
    return replace(plain, **fields)


def prober(kept: Kept, folder: Path) -> Prober:
    made = Prober([], Results(folder), "cpu", lambda text: None, lambda text: None)
    made.kept = kept
    return made


def ladder_of(widths: tuple[int, ...], ends: tuple[Found, Found], seeds: int = 1) -> tuple[list[Rung], Kept]:
    rungs = [rung(w, seeds) for w in widths]
    sizes = {r.spec.key: Size(10 * w, float(w)) for r, w in zip(rungs, widths)}
    return rungs, Kept("cpu", "torch", {rungs[0].spec.key: ends[0], rungs[-1].spec.key: ends[1]}, sizes)


def test_a_run_is_its_steps_and_its_looks(tmp_path):
    """Would catch hours that leave out evaluation, the end, or the start; and seeds counted once."""
    rungs, kept = ladder_of((4, 8), (found(0.01), found(0.05)), seeds=3)
    spec = rungs[0].spec
    looks = len(evaluation_steps(spec.steps, spec.evaluation))
    made = forecast([rungs], prober(kept, tmp_path), workers=2, limit=8 * GIB, tries=False)
    one = 1.0 + spec.steps * 0.01 + 0.5 + (looks - 1) * 0.2 + 0.7
    assert made.lines[0].seconds == pytest.approx(one)
    two = one + spec.steps * 0.04
    assert made.device_seconds() == pytest.approx(3 * (one + two))
    assert made.wall_seconds() == pytest.approx(2 * two + one)  # two workers, longest first
    assert "measured" in made.text()
    assert json.loads(json.dumps(made.to_dict()))["runs"] == 6


def test_rungs_between_follow_flops_and_say_so(tmp_path):
    """Would catch a rung whose figures pass for measured, or that is put between its neighbours by its place."""
    rungs, kept = ladder_of((4, 5, 8), (found(0.01), found(0.05, 500 * MIB)))
    made = forecast([rungs], prober(kept, tmp_path), workers=1, limit=8 * GIB, tries=False)
    middle = made.lines[1]
    assert [x.how for x in made.lines] == ["measured", "between", "measured"]
    assert middle.step_seconds == pytest.approx(0.02)
    assert middle.need == pytest.approx(GIB + 200 * MIB)
    assert between(found(0.01), Found(), 0.5).step_seconds is None


def test_a_rung_of_unknown_time_is_not_free(tmp_path):
    """Would catch a rung that was killed before its first step and then counts nothing in the hours, unsaid."""
    rungs, kept = ladder_of((4, 5, 8), (found(0.01), Found(ended="killed", memory_ran_out=True)))
    made = forecast([rungs], prober(kept, tmp_path), workers=1, limit=8 * GIB, tries=False)
    assert [x.how for x in made.lines] == ["measured", "unknown", "unknown"]
    assert "at least" in made.text()
    assert "2 runs have no time" in made.text()


def test_the_batch_that_fits_is_measured_before_it_is_named(tmp_path):
    """Would catch advice by the model alone: here the line through the points is wrong and the next budget holds."""
    whole = found(0.05, 9 * GIB)
    seen = []

    def tried(other: Rung) -> Found:
        seen.append(other.spec.optim.atom_budget)
        return found(0.05, 9 * GIB if seen[-1] > 8 else GIB)

    fit = fitting(rung(8), whole, 7 * GIB, tried)
    assert seen == [16, 8]
    assert (fit.fits, fit.budget) == (False, 8)
    assert fit.need == 10 * GIB
    modelled = fitting(rung(8), whole, 7 * GIB, None)
    assert (modelled.budget, modelled.found) == (16, None)
    assert fitting(rung(8), whole, 20 * GIB, None).fits
    assert fitting(rung(8), whole, 1 * GIB, None).budget is None


def test_what_does_not_fit_is_one_sentence_with_the_line(tmp_path):
    """Would catch advice without the line to put into the study, or a batch advised where looks are what is large."""
    rungs, kept = ladder_of((4, 8), (found(0.01), found(0.05, 9 * GIB)))
    made = forecast([rungs], prober(kept, tmp_path), workers=1, limit=7 * GIB, tries=False)
    assert "`OptimSpec(..., atom_budget=16)` (5.5 GiB, modelled), which changes rounding only" in made.lines[1].advice
    assert "does not fit" in made.text()
    rungs, kept = ladder_of((4,), (found(0.01, look_memory=9 * GIB),) * 2)
    made = forecast([rungs], prober(kept, tmp_path), workers=1, limit=7 * GIB, tries=False)
    assert "its looks alone take 10 GiB" in made.lines[0].advice
    rungs, kept = ladder_of((4, 8), (found(0.01), found(0.05, 90 * GIB)))
    made = forecast([rungs], prober(kept, tmp_path), workers=1, limit=7 * GIB, tries=False)
    assert "no atom budget makes it fit" in made.lines[1].advice
