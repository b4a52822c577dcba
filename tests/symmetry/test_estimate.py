"""The estimators of a loss's parts against maps that are averaged in closed form."""

import numpy as np
import pytest
from analytic import anisotropic, anisotropic_parts, cloud, harmonic, per_atom
from scipy.spatial.transform import Rotation

from equiscale.errors import InputError
from equiscale.symmetry.designs import Coset, FullGroup, Quadrature, Random
from equiscale.symmetry.estimate import Samples, averages, estimate, estimator
from equiscale.symmetry.groups import O3, SO3, Octahedral
from equiscale.symmetry.losses import ForceNorm, SquaredEnergy, SquaredForce, Study, named

SQUARED = SquaredForce()
A = np.random.default_rng(5).normal(size=(3, 3)) + 0.7 * np.eye(3)
DRAWS = 4000


def repeated(n: int, count: int, seed: int = 0):
    """One structure and its labels ``count`` times: each copy is a draw of its own."""
    x, _ = cloud([n], seed)
    y = np.random.default_rng(seed + 1).normal(size=(n, 3))
    return np.tile(x, (count, 1)), np.tile(y, (count, 1)), n * np.arange(count + 1)


def twisted(sampler, x, offsets, rng, group=None, a=A):
    draws = sampler.draw(group or SO3(), rng, len(offsets) - 1)
    r = np.swapaxes(draws.elements.matrix, 0, 1)
    return {"forces": anisotropic(a, per_atom(r, offsets), x)}, draws.kind, draws.weights


def within(values: np.ndarray, truth: float, errors: float = 4.0) -> bool:
    return abs(values.mean() - truth) < errors * values.std(ddof=1) / np.sqrt(len(values))


@pytest.mark.parametrize("loss", [SQUARED, SquaredEnergy()], ids=lambda loss: loss.name)
@pytest.mark.parametrize("sampler", [Random(2), Random(7), Coset("O"), Coset("D2", pair=True), Quadrature("lebedev:5")])
def test_total_is_mean_plus_equiv_for_every_structure(loss, sampler):
    """Catches parts that add up on average only, a weight per atom, and structures of one atom or odd sizes."""
    x, offsets = cloud([1, 5, 2, 1, 9])
    rng = np.random.default_rng(0)
    z, kind, weights = twisted(sampler, x, offsets, rng)
    z["energy"] = rng.normal(size=(len(weights), 5))
    y = {"forces": rng.normal(size=x.shape), "energy": rng.normal(size=5)}
    got = estimate(z, y, offsets, loss, kind, weights)
    assert got.residual < 1e-12
    np.testing.assert_allclose(got.total, got.mean + got.equiv, rtol=1e-12)


@pytest.mark.parametrize("m", [2, 4, 10])
def test_independent_rotations_are_unbiased(m):
    """Catches a factor M/(M-1) left out or put in twice; the plug-in pair fails the same test."""
    x, y, offsets = repeated(3, DRAWS)
    truth = [v[0] for v in anisotropic_parts(A, x, y, offsets)]
    z, kind, _ = twisted(Random(m), x, offsets, np.random.default_rng(m))
    got = estimate(z, {"forces": y}, offsets, SQUARED, kind)
    for values, true in zip((got.total, got.mean, got.equiv), truth):
        assert within(values, true)
    plug_in = estimate(z, {"forces": y}, offsets, SQUARED, "coset")
    assert not within(plug_in.equiv, truth[2])
    assert not within(plug_in.mean, truth[1])
    assert within(plug_in.equiv, (1 - 1 / m) * truth[2])
    assert within(plug_in.mean, truth[1] + truth[2] / m)


@pytest.mark.parametrize("m", [2, 4, 10])
def test_variances_are_the_formulas(m):
    """Var L_equiv = Var|δ|²/M + 2 tr C²/(M(M-1)), Var L_mean = 4 b'Cb/M + 2 tr C²/(M(M-1)): catches an estimator that
    is unbiased and wastes rotations. Moments of fourth degree are exact over the 60 icosahedral rotations."""
    x, y, offsets = repeated(3, 20_000)
    z, kind, _ = twisted(Random(m), x, offsets, np.random.default_rng(m))
    got = estimate(z, {"forces": y}, offsets, SQUARED, kind)
    r = Rotation.create_group("I").as_matrix()
    exact = anisotropic(A, per_atom(r[:, None], offsets[:2]), x[:3]).reshape(60, -1)
    delta, b = exact - exact.mean(0), exact.mean(0) - y[:3].ravel()
    c = delta.T @ delta / 60
    pairs = 2 * np.trace(c @ c) / (m * (m - 1))
    d = len(b)
    assert got.equiv.var() == pytest.approx((np.square(delta).sum(1).var() / m + pairs) / d**2, rel=0.08)
    assert got.mean.var() == pytest.approx((4 * b @ c @ b / m + pairs) / d**2, rel=0.08)


@pytest.mark.parametrize("loss", [ForceNorm(), Study()], ids=lambda loss: loss.name)
def test_jackknife_takes_out_the_bias_of_convex_losses(loss):
    """Catches a jackknife with a wrong factor: at M = 4 a tenth of the bias of l(z̄) is left at most. The truth is a
    design's value, which is that of the averaged function."""
    x, y, offsets = repeated(3, 20_000)
    y = y + 4.0  # away from the kink, where no expansion in 1/M holds
    rng = np.random.default_rng(0)
    outputs = {"forces": y, "energy": np.zeros(len(offsets) - 1)}

    def parts(sampler, x, offsets, y):
        z, kind, weights = twisted(sampler, x, offsets, rng)
        z["energy"] = 9 + z["forces"][:, offsets[:-1], 0]  # an energy that turns
        return z, estimate(z, y, offsets, loss, kind, weights)

    one = {"forces": y[:3], "energy": np.zeros(1)}
    _, true = parts(Coset("I"), x[:3], offsets[:2], one)
    np.testing.assert_allclose(
        loss({"forces": np.trace(A) / 3 * x[:3], "energy": 9 + np.trace(A) / 3 * x[:1, 0]}, one, offsets[:2]),
        true.mean,
        rtol=1e-12,
    )
    z, got = parts(Random(4), x, offsets, outputs)
    plain = loss({n: v.mean(0) for n, v in z.items()}, outputs, offsets)
    bias, error = plain.mean() - true.mean[0], plain.std() / np.sqrt(len(plain))
    assert bias > 8 * error
    assert abs(got.mean.mean() - true.mean[0]) < 0.1 * bias + 3 * error
    assert within(got.total, true.total[0])
    assert got.residual < 1e-12


def test_two_cosets_are_an_unbiased_pair():
    """Catches halves that overlap: D2 does not average degree 2, so one coset is biased and two are not."""
    x, y, offsets = repeated(3, DRAWS)
    truth = [v[0] for v in anisotropic_parts(A, x, y, offsets)]
    rng = np.random.default_rng(3)
    z, kind, weights = twisted(Coset("D2", pair=True), x, offsets, rng)
    got = estimate(z, {"forces": y}, offsets, SQUARED, kind, weights)
    for values, true in zip((got.total, got.mean, got.equiv), truth):
        assert within(values, true)
    z, kind, weights = twisted(Coset("D2"), x, offsets, rng)
    single = estimate(z, {"forces": y}, offsets, SQUARED, kind, weights)
    assert not within(single.equiv, truth[2])


@pytest.mark.parametrize(("name", "degree"), [("D2", 1), ("T", 2), ("O", 3), ("I", 5)])
def test_cosets_are_exact_up_to_their_degree(name, degree):
    """Catches M/(M-1) put on a coset, and a design that is worse than it says: the next degree is not averaged."""
    x, offsets = cloud([4, 1, 6])
    y = np.random.default_rng(1).normal(size=x.shape)
    draws = Coset(name).draw(SO3(), np.random.default_rng(2), 3)
    r = per_atom(np.swapaxes(draws.elements.matrix, 0, 1), offsets)

    def parts(degrees):
        z = {"forces": x + sum(harmonic(l, r, x) for l in degrees)}
        return estimate(z, {"forces": y}, offsets, SQUARED, draws.kind, draws.weights)

    low = parts(range(1, degree + 1))
    np.testing.assert_allclose(low.mean, SQUARED({"forces": x}, {"forces": y}, offsets), rtol=1e-10)
    beyond = degree + 1 if name != "D2" else 2
    high = parts([beyond if name != "I" else 6])
    assert np.abs(high.mean / SQUARED({"forces": x}, {"forces": y}, offsets) - 1).max() > 1e-3


@pytest.mark.parametrize(("group", "sampler"), [(SO3(), Coset("T")), (O3(), Coset("T")), (O3(), Coset("T", pair=True))])
def test_designs_give_the_parts_without_noise(group, sampler):
    """A map of degrees 0 ... 2: 12 rotations give each structure's L, L_mean and L_equiv to round-off."""
    x, offsets = cloud([1, 4, 7])
    y = np.random.default_rng(4).normal(size=x.shape)
    z, kind, weights = twisted(sampler, x, offsets, np.random.default_rng(5), group)
    got = estimate(z, {"forces": y}, offsets, SQUARED, kind, weights)
    for values, true in zip((got.total, got.mean, got.equiv), anisotropic_parts(A, x, y, offsets)):
        np.testing.assert_allclose(values, true, rtol=1e-10)


def test_a_full_group_is_its_own_average():
    """Catches a correction for the number of elements where these are all: an octahedral force field has no error."""
    x, offsets = cloud([3, 1])
    cubic = lambda r: np.einsum("...ji,...j->...i", r, np.einsum("...ij,...j->...i", r, x) ** 3)  # noqa: E731
    draws = FullGroup().draw(Octahedral(), np.random.default_rng(0), 2)
    z = cubic(per_atom(np.swapaxes(draws.elements.matrix, 0, 1), offsets))
    got = estimate({"forces": z}, {"forces": np.zeros_like(x)}, offsets, SQUARED, draws.kind, draws.weights)
    assert got.equiv.max() < 1e-28
    np.testing.assert_allclose(got.mean, got.size, rtol=1e-12)


def test_single_structures_may_be_negative():
    """Clipping at zero would bias the sum: with labels equal to the average, half of L_mean is below zero."""
    x, _, offsets = repeated(2, DRAWS)
    z, kind, _ = twisted(Random(2), x, offsets, np.random.default_rng(0))
    got = estimate(z, {"forces": np.trace(A) / 3 * x}, offsets, SQUARED, kind)
    assert got.mean.min() < 0
    assert within(got.mean, 0.0)


def test_an_equivariant_map_has_no_error():
    """Catches differences of large numbers: 1e-20 of the size for every way of drawing."""
    x, offsets = cloud([5, 2])
    for sampler in (Random(3), Coset("T"), Coset("T", pair=True), Quadrature("lebedev:3")):
        z, kind, weights = twisted(sampler, x, offsets, np.random.default_rng(0), a=2.0 * np.eye(3))
        got = estimate(z, {"forces": x}, offsets, SQUARED, kind, weights)
        assert (np.abs(got.equiv) / got.size).max() < 1e-20


def test_labels_are_nothing_to_the_error():
    """Without any (zeros in their place) L_equiv and the predictions' size are the same, however elements are drawn."""
    x, offsets = cloud([5, 2, 1])
    y = np.random.default_rng(1).normal(size=x.shape)
    for sampler in (Random(3), Coset("D2"), Coset("D2", pair=True), Quadrature("lebedev:3")):
        z, kind, weights = twisted(sampler, x, offsets, np.random.default_rng(0))
        got = estimate(z, {"forces": y}, offsets, SQUARED, kind, weights)
        bare = estimate(z, {"forces": np.zeros_like(x)}, offsets, SQUARED, kind, weights)
        np.testing.assert_allclose(bare.equiv, got.equiv, rtol=1e-10)
        np.testing.assert_allclose(bare.size, got.size, rtol=1e-12)


def test_averages_over_m_rotations_cost_equiv_over_m():
    """Test-time averaging: loss(M) = L_mean + L_equiv / M; catches groups that share rotations."""
    x, y, offsets = repeated(3, DRAWS)
    _, mean, equiv = (v[0] for v in anisotropic_parts(A, x, y, offsets))
    z, _, _ = twisted(Random(8), x, offsets, np.random.default_rng(0))
    for m, values in averages(z, {"forces": y}, offsets, SQUARED, (1, 2, 3, 8)):
        assert within(values, mean + equiv / m)
    with pytest.raises(InputError, match="needs as many"):
        next(averages(z, {"forces": y}, offsets, SQUARED, [9]))


def test_which_estimator():
    """Squares have unbiased ones, other losses the jackknife; designs know their average."""
    assert estimator("random", SQUARED) == "u-statistic"
    assert estimator("random", Study()) == "jackknife"
    assert estimator("pair", SQUARED) == "pair"
    assert {estimator(kind, loss) for kind in ("coset", "full", "quadrature") for loss in (SQUARED, Study())} == {
        "plain"
    }


def test_losses_by_hand():
    """Two structures, of one atom and of two: catches means over all atoms, and a scale on the wrong side."""
    offsets = np.array([0, 1, 3])
    z = {"energy": np.array([3.0, 8.0]), "forces": np.array([[3.0, 4, 0], [0, 0, 2], [0, 0, 0]])}
    y = {"energy": np.array([1.0, 4.0]), "forces": np.zeros((3, 3))}
    np.testing.assert_allclose(named("squared")(z, y, offsets), [25 / 3, 4 / 6])
    np.testing.assert_allclose(named("energy")(z, y, offsets), [4, 4])
    np.testing.assert_allclose(named("force", 2.0)(z, y, offsets), [2.5, 0.5])
    np.testing.assert_allclose(named("study", 2.0)(z, y, offsets), [3.5, 1.5])
    with pytest.raises(InputError, match="squared, energy, force, study"):
        named("mae")


def test_refusals():
    """One rotation, a pair for what is no square, an odd pair, and weights of random rotations."""
    x, offsets = cloud([2])
    z, y = {"forces": np.zeros((3, 2, 3))}, {"forces": x}
    with pytest.raises(InputError, match="one rotation"):
        estimate({"forces": np.zeros((1, 2, 3))}, y, offsets, SQUARED)
    with pytest.raises(InputError, match="squared errors"):
        estimate(z, y, offsets, ForceNorm(), "pair")
    with pytest.raises(InputError, match="even number"):
        estimate(z, y, offsets, SQUARED, "pair")
    with pytest.raises(InputError, match="weights of their own"):
        estimate(z, y, offsets, SQUARED, "random", np.array([0.5, 0.25, 0.25]))


def test_samples_are_joined_and_taken():
    """Batch after batch gives what one batch gives."""
    x, offsets = cloud([2, 3, 1])
    y = np.ones_like(x)
    z, kind, _ = twisted(Random(3), x, offsets, np.random.default_rng(0))
    whole = estimate(z, {"forces": y}, offsets, SQUARED, kind)
    first = estimate({"forces": z["forces"][:, :2]}, {"forces": y[:2]}, offsets[:2], SQUARED, kind)
    rest = estimate({"forces": z["forces"][:, 2:]}, {"forces": y[2:]}, offsets[1:] - 2, SQUARED, kind)
    joined = Samples.joined([first, rest])
    assert len(joined) == 3
    for name in ("total", "mean", "equiv", "size"):
        np.testing.assert_allclose(getattr(joined, name), getattr(whole, name), rtol=1e-13)
        np.testing.assert_allclose(getattr(whole.take([2, 0]), name), getattr(whole, name)[[2, 0]])
