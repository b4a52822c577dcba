"""Parts of a loss over many structures: ratios of sums, their errors, and what molecules with many conformers do."""

import json

import numpy as np
import pytest
from scipy.stats import bootstrap

from equiscale.errors import InputError
from equiscale.symmetry.decomposition import decomposition, ratio_of_sums
from equiscale.symmetry.estimate import Samples

TRUE = 100 * 0.3 / 1.3


def samples(count: int, rng: np.random.Generator) -> Samples:
    """Gamma-distributed parts, with E L_equiv = .3 and E L_mean = 1; correlated, as in structures of many sizes."""
    common = rng.gamma(4.0, 0.25, count)
    equiv, mean = 0.3 * common * rng.gamma(4.0, 0.25, count), common * rng.gamma(4.0, 0.25, count)
    return Samples(mean + equiv, mean, equiv, 2 * common, 0.0)


def made(s: Samples, groups=None):
    return decomposition(s, rotations=2, estimator="u-statistic", groups=groups)


def test_percent_is_a_ratio_of_sums():
    """A mean of ratios would be ruled by structures with little loss, and has no expectation where one is zero."""
    s = Samples(np.array([1.0, 9.0]), np.array([0.0, 9.0]), np.array([1.0, 0.0]), np.array([2.0, 2.0]), 0.0)
    got = made(s)
    assert got.percent.value == pytest.approx(10)
    assert got.relative.value == pytest.approx(0.25)
    assert (got.total.value, got.mean.value, got.equiv.value) == (5, 4.5, 0.5)
    assert (got.structures, got.groups, got.rotations, got.forward_passes) == (2, 2, 2, 4)


def test_a_mean_has_the_textbook_error():
    """The jackknife of a mean is s / √n."""
    s = samples(20, np.random.default_rng(0))
    assert made(s).total.error == pytest.approx(s.total.std(ddof=1) / np.sqrt(20))


def test_the_error_of_a_ratio_is_the_bootstraps():
    """Catches errors of the two sums taken as independent."""
    s = samples(200, np.random.default_rng(1))
    theirs = bootstrap(
        (s.equiv, s.total), lambda a, b, axis: 100 * a.sum(axis) / b.sum(axis), paired=True, n_resamples=2000, rng=0
    )
    assert made(s).percent.error == pytest.approx(theirs.standard_error, rel=0.08)


def test_errors_and_intervals_hold_over_replications():
    """2,000 sets of 64 structures: the error is the spread between sets, the 95 % interval holds the truth so often."""
    rng = np.random.default_rng(2)
    got = [made(samples(64, rng)) for _ in range(2000)]
    spread = np.std([d.percent.value for d in got])
    assert np.mean([d.percent.error for d in got]) == pytest.approx(spread, rel=0.06)
    held = np.mean([d.percent_low < TRUE < d.percent_high for d in got])
    assert 0.925 < held < 0.97


def test_conformers_of_one_molecule_are_one():
    """Each structure copied four times: as independent ones they would halve the error; by molecule it stays."""
    once = samples(40, np.random.default_rng(3))
    four = once.take(np.repeat(np.arange(40), 4))
    alone, grouped, wrong = made(once), made(four, np.repeat(np.arange(40), 4) + 7), made(four)
    assert grouped.percent.value == pytest.approx(alone.percent.value)
    assert grouped.percent.error == pytest.approx(alone.percent.error)
    assert grouped.percent.error == pytest.approx(2 * wrong.percent.error, rel=0.03)
    assert (grouped.groups, grouped.structures) == (40, 160)
    assert grouped.percent_high == pytest.approx(alone.percent_high)


def test_molecules_of_many_sizes_of_groups():
    """Names in any order, one molecule with most structures: sums are those of all, the order is of no matter."""
    s = samples(30, np.random.default_rng(4))
    groups = np.array([9] * 20 + [3, 1] * 5)
    order = np.random.default_rng(5).permutation(30)
    a, b = made(s, groups), made(s.take(order), groups[order])
    assert a.percent.value == pytest.approx(100 * s.equiv.sum() / s.total.sum())
    assert b.percent.error == pytest.approx(a.percent.error)
    assert a.groups == 3


def test_one_molecule_has_no_error():
    """None, not zero: one group tells nothing of the spread. So does one group with all of the loss."""
    s = samples(3, np.random.default_rng(6))
    got = made(s, np.zeros(3, int))
    assert got.percent.error is got.percent_low is got.percent_high is None
    assert "±" not in str(got.percent)
    assert ratio_of_sums(np.array([0.0, 1.0]), np.array([0.0, 2.0])).error is None
    with pytest.raises(InputError, match="no structure"):
        made(s.take([]))


def test_plain_json():
    """Catches NumPy numbers, which json refuses."""
    got = json.loads(json.dumps(made(samples(5, np.random.default_rng(7))).to_dict()))
    assert set(got["percent"]) == {"value", "error"}
    assert got["groups"] == 5
