"""Powers per degree: maps of one degree, sums, and a potential whose degree is known."""

import json

import numpy as np
import pytest
import torch
from analytic import anisotropic, anisotropic_parts, cloud, harmonic, per_atom

from equiscale.data.builtin import builtin
from equiscale.errors import InputError
from equiscale.models import EScAIPConfig
from equiscale.models.base import graph_for
from equiscale.predict import predict
from equiscale.symmetry.degrees import Powers, characters, degrees, powers
from equiscale.symmetry.designs import Coset, Quadrature, Random
from equiscale.symmetry.graphs import twisted_predictions
from equiscale.symmetry.groups import O3, SO3
from equiscale.symmetry.losses import ForceNorm, SquaredEnergy, SquaredForce

SQUARED = SquaredForce()


def drawn(sampler, structures: int, seed: int = 0, group=None):
    draws = sampler.draw(group or SO3(), np.random.default_rng(seed), structures)
    return draws.elements.transposed, draws.kind, draws.weights


def test_characters_by_their_definition():
    """Catches the recurrence, and 0/0 where nothing or half a turn is turned: 2l + 1 and (-1)^l there."""
    angle = np.linspace(0.1, 3.1, 50)
    for l, chi in enumerate(characters(np.cos(angle), 6)):
        np.testing.assert_allclose(chi, np.sin((2 * l + 1) * angle / 2) / np.sin(angle / 2), atol=1e-12)
    for angle, expected in ((0.0, [1, 3, 5, 7]), (1e-9, [1, 3, 5, 7]), (np.pi, [1, -1, 1, -1])):
        np.testing.assert_allclose([float(c) for c in characters(np.cos(angle), 3)], expected, atol=1e-12)
    assert len(characters(np.ones(2), 0)) == 1


@pytest.mark.parametrize("l", [1, 2, 3])
def test_a_map_of_one_degree_has_all_its_power_there(l):
    """Exact over Lebedev's rule, whatever the constant; catches a factor 2l + 1, and degrees off by one."""
    x, offsets = cloud([4, 1, 3])
    g, kind, weights = drawn(Quadrature("lebedev:7"), 3)
    z = {"forces": 5 * x + harmonic(l, per_atom(g.matrix, offsets), x)}
    got = powers(z, g, offsets, SQUARED, kind, weights, lmax=3)
    expected = np.zeros((3, 3))
    expected[:, l - 1] = got.equiv
    np.testing.assert_allclose(got.degree, expected, atol=1e-10 * got.equiv.max())


@pytest.mark.parametrize("l", [1, 2, 3])
@pytest.mark.parametrize("sampler", [Random(6), Coset("O", pair=True)], ids=["random", "pair"])
def test_random_rotations_find_it_on_average(l, sampler):
    """Catches an i = j left in: unbiased over 1,500 draws, for every degree, with a constant ten times as large."""
    count = 1500 if isinstance(sampler, Random) else 150
    x, _ = cloud([3])
    offsets = 3 * np.arange(count + 1)
    x = np.tile(x, (count, 1))
    g, kind, weights = drawn(sampler, count)
    r = per_atom(g.matrix, offsets)
    z = {"forces": 10 * x + harmonic(l, r, x)}
    got = powers(z, g, offsets, SQUARED, kind, weights, lmax=3)
    truth = np.zeros(3)
    truth[l - 1] = got.equiv.mean()
    error = np.hypot(got.degree.std(0), got.equiv.std()) / np.sqrt(count)
    assert (np.abs(got.degree.mean(0) - truth) < 4 * error + 1e-12).all()
    found = degrees(got)
    assert found.share[l - 1].value == pytest.approx(1.0, abs=0.1)


def test_the_constant_adds_no_noise():
    """Deviations from the others' mean: 10⁶ times the signal leaves the powers of random rotations as they are."""
    x, offsets = cloud([3, 2])
    g, kind, _ = drawn(Random(5), 2)
    signal = harmonic(2, per_atom(g.matrix, offsets), x)
    a = powers({"forces": signal}, g, offsets, SQUARED, kind)
    b = powers({"forces": signal + 1e6 * x}, g, offsets, SQUARED, kind)
    np.testing.assert_allclose(a.degree, b.degree, rtol=1e-6, atol=1e-8)


def test_powers_add_up_to_the_error():
    """An anisotropic force field has degrees 1 and 2: the antisymmetric and symmetric part of its matrix."""
    x, offsets = cloud([4, 1])
    a = np.random.default_rng(0).normal(size=(3, 3))
    g, kind, weights = drawn(Quadrature("lebedev:9"), 2)
    z = {"forces": anisotropic(a, per_atom(g.matrix, offsets), x)}
    got = powers(z, g, offsets, SQUARED, kind, weights)
    odd, even = (a - a.T) / 2, (a + a.T) / 2
    for l, part in ((1, odd), (2, even)):
        _, _, equiv = anisotropic_parts(part, x, x, offsets)
        np.testing.assert_allclose(got.degree[:, l - 1], equiv, rtol=1e-10)
    np.testing.assert_allclose(got.degree.sum(1), got.equiv, rtol=1e-10)
    _, _, equiv = anisotropic_parts(a, x, x, offsets)
    np.testing.assert_allclose(got.equiv, equiv, rtol=1e-10)


def test_energies_have_degrees_too():
    """By any squared loss: an energy that is the harmonic of one atom's direction."""
    x, offsets = cloud([1, 1])
    g, kind, weights = drawn(Quadrature("lebedev:9"), 2)
    z = {"energy": harmonic(3, per_atom(g.matrix, offsets), x)[:, :, 0]}
    found = degrees(powers(z, g, offsets, SquaredEnergy(), kind, weights))
    assert found.share[2].value == pytest.approx(1.0, abs=1e-10)
    assert found.beyond.value == pytest.approx(0.0, abs=1e-10)
    assert found.roughness.value == pytest.approx(12.0)
    assert json.loads(json.dumps(found.to_dict()))["share"]["3"]["value"] == pytest.approx(1.0)


@pytest.fixture(scope="module")
def escaip():
    torch.manual_seed(0)
    config = EScAIPConfig(width=16, depth=1, num_radial=16, cutoff=5.0, head_dim=8)
    potential = config.build().double().eval()
    torch.nn.init.normal_(potential.direction.out.weight)
    small = np.argsort(builtin().sizes, kind="stable")

    def powers_by(sampler, structures, lmax):
        store = builtin().take(small[:: len(small) // 10 // structures][:structures])
        g, kind, weights = drawn(sampler, len(store))
        with torch.no_grad():
            graph = graph_for(config, store, dtype=torch.float64)
            z = twisted_predictions(lambda x: predict(potential, x), graph, g).forces.numpy()
        return powers({"forces": z}, g, store.offsets, SQUARED, kind, weights, lmax)

    return powers_by


def test_escaip_is_of_degree_two(escaip):
    """Its head multiplies axes by numbers: l = 2 alone. With random rotations, within errors."""
    found = degrees(escaip(Random(40), 12, 4))
    assert found.share[1].value == pytest.approx(1.0, abs=4 * found.share[1].error)
    assert found.share[1].error < 0.06
    for l in (1, 3, 4):
        assert abs(found.share[l - 1].value) < 4 * found.share[l - 1].error


def test_escaip_is_exactly_of_degree_two(escaip):
    """Over the 60 rotations of a coset of I, exact for l + 2 <= 5: to round-off."""
    got = escaip(Coset("I"), 4, 2)
    np.testing.assert_allclose(got.degree, got.equiv[:, None] * [0, 1], atol=1e-10 * got.equiv.max())


@pytest.mark.parametrize(
    ("sampler", "highest"),
    [
        (Coset("T"), 0),
        (Coset("O"), 1),
        (Coset("I"), 2),
        (Quadrature("lebedev:9"), 4),
        (Quadrature("superfibonacci:60"), 0),
        (Coset("D2", pair=True), 1),
        (Coset("T", pair=True), 2),
        (Coset("O", pair=True), 3),
    ],
)
def test_designs_that_mistake_degrees_are_refused(sampler, highest):
    """Catches shares of several hundred per cent that a single coset of few rotations would report in high degrees."""
    x, offsets = cloud([2, 1])
    g, kind, weights = drawn(sampler, 2)
    z = {"forces": harmonic(1, per_atom(g.matrix, offsets), x)}
    with pytest.raises(InputError, match=f"up to degree {highest + 1} need.*take random rotations or lebedev"):
        powers(z, g, offsets, SQUARED, kind, weights, lmax=highest + 1)
    if highest:
        powers(z, g, offsets, SQUARED, kind, weights, lmax=highest)


def test_joined_and_refused():
    """Batches are put together; two rotations, reflections and losses that are no squares are refused."""
    x, offsets = cloud([2, 3])
    g, kind, _ = drawn(Random(4), 2)
    z = {"forces": harmonic(1, per_atom(g.matrix, offsets), x)}
    whole = powers(z, g, offsets, SQUARED, kind)
    parts = [
        powers({"forces": z["forces"][:, a:b]}, g[:, s : s + 1], np.array([0, b - a]), SQUARED, kind)
        for s, (a, b) in enumerate([(0, 2), (2, 5)])
    ]
    np.testing.assert_allclose(Powers.joined(parts).degree, whole.degree, rtol=1e-10)
    with pytest.raises(InputError, match="three random rotations"):
        powers({"forces": z["forces"][:2]}, g[:2], offsets, SQUARED, kind)
    with pytest.raises(InputError, match="4 rotations of 2 structures"):
        powers(z, g.transposed[:, :3], offsets, SQUARED, "coset")
    with pytest.raises(InputError, match="squared error"):
        powers(z, g, offsets, ForceNorm(), kind)
    with pytest.raises(InputError, match="reflections"):
        powers(z, drawn(Random(4), 2, 1, O3())[0], offsets, SQUARED, kind)
