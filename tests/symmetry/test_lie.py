"""Lie derivatives: maps of one degree, the bound, and potentials by graphs and by stores."""

import json

import numpy as np
import pytest
import torch
from analytic import anisotropic, anisotropic_parts, cloud, harmonic, per_atom
from molecules import random_molecules

from equiscale.data.store import Store
from equiscale.errors import InputError
from equiscale.measure.model import Predicted, through_structures
from equiscale.models import EGNNConfig, EScAIPConfig, GemNetOCConfig, MPNNConfig
from equiscale.models.base import graph_for
from equiscale.predict import predict
from equiscale.symmetry.designs import Coset, Quadrature, Random
from equiscale.symmetry.elements import identity
from equiscale.symmetry.groups import O3, SO3
from equiscale.symmetry.lie import ANGLE, Derivatives, derivatives, of_graph, roughness
from equiscale.symmetry.losses import ForceNorm, SquaredForce

SQUARED = SquaredForce()


def drawn(sampler, structures: int, group=None):
    draws = sampler.draw(group or SO3(), np.random.default_rng(0), structures)
    return draws.elements.transposed, draws.kind, draws.weights


def store(count: int = 6) -> Store:
    return Store.from_structures(random_molecules(count, 3, 7, seed=1, labelled=True))


def of(config, data: Store, dtype=torch.float64, seed: int = 0):
    torch.manual_seed(seed)
    potential = config.build().to(dtype).eval()
    if isinstance(config, EScAIPConfig):
        torch.nn.init.normal_(potential.direction.out.weight)
    return of_graph(lambda x: predict(potential, x), graph_for(config, data, dtype=dtype)), potential


ESCAIP = EScAIPConfig(width=12, depth=1, num_radial=8, cutoff=4.0, head_dim=4)
MPNN = MPNNConfig(width=12, depth=2, num_radial=8, cutoff=4.0)


@pytest.mark.parametrize("l", [1, 2, 3])
def test_a_map_of_degree_l_has_roughness_l_l_plus_1(l):
    """Catches a missing axis, a factor of the difference, and a constant that counts."""
    x, offsets = cloud([4, 1, 3])
    f = lambda g: {"forces": 5 * x + harmonic(l, per_atom(g.matrix, offsets), x)}  # noqa: E731
    g, kind, weights = drawn(Quadrature("lebedev:7"), 3)
    got = derivatives(f, g, offsets, SQUARED, kind, weights)
    np.testing.assert_allclose(got.square, l * (l + 1) * got.equiv, rtol=1e-5)
    assert roughness(got).roughness.value == pytest.approx(l * (l + 1), rel=1e-5)
    if l == 1:  # tight, and the bound is not passed by the differences either
        coarse = derivatives(f, g, offsets, SQUARED, kind, weights, angle=0.3)
        np.testing.assert_allclose(coarse.square / 2, got.equiv, rtol=1e-6)


def test_the_sum_over_degrees_in_closed_form():
    """2 P_1 + 6 P_2 for an anisotropic force field, from its antisymmetric and its symmetric part."""
    x, offsets = cloud([4, 1])
    a = np.random.default_rng(0).normal(size=(3, 3))
    g, kind, weights = drawn(Coset("I"), 2)
    f = lambda g: {"forces": anisotropic(a, per_atom(g.matrix, offsets), x)}  # noqa: E731
    got = derivatives(f, g, offsets, SQUARED, kind, weights)
    odd, even = (anisotropic_parts(part, x, x, offsets)[2] for part in ((a - a.T) / 2, (a + a.T) / 2))
    np.testing.assert_allclose(got.square, 2 * odd + 6 * even, rtol=1e-5)


def test_escaip_has_roughness_six():
    """Its head is of degree 2 alone; 60 rotations are exact for the square of its derivative."""
    data = store()
    f, _ = of(ESCAIP, data)
    got = derivatives(f, *_arguments(drawn(Coset("I"), len(data)), data))
    np.testing.assert_allclose(got.square, 6 * got.equiv, rtol=1e-5)
    assert roughness(got).roughness.value == pytest.approx(6, rel=1e-5)
    few = roughness(derivatives(f, *_arguments(drawn(Random(8), len(data)), data)))
    assert few.roughness.value == pytest.approx(6, abs=4 * few.roughness.error)


def _arguments(drawn_, data):
    g, kind, weights = drawn_
    return g, data.offsets, SQUARED, kind, weights


@pytest.mark.parametrize("forces", ["direct", "conservative"])
def test_half_of_it_bounds_the_error_of_an_mpnn(forces):
    """For every structure, over 60 rotations; its ratio is between degrees one and a few."""
    envelope = "polynomial" if forces == "conservative" else "none"
    data = store(4)
    f, _ = of(MPNNConfig(width=12, depth=2, num_radial=8, cutoff=4.0, forces=forces, envelope=envelope), data)
    got = derivatives(f, *_arguments(drawn(Coset("I"), len(data)), data))
    assert got.equiv.min() > 0
    assert (got.square / 2 > got.equiv).all()
    assert 2 < roughness(got).roughness.value < 30


def test_float32_agrees_at_its_own_angle():
    """Catches an angle that float32's round-off or the curvature makes useless."""
    data = store()
    g = drawn(Random(2), len(data))
    exact, _ = of(MPNN, data)
    single, _ = of(MPNN, data, torch.float32)
    a = derivatives(exact, *_arguments(g, data))
    b = derivatives(single, *_arguments(g, data), angle=ANGLE["float32"])
    np.testing.assert_allclose(b.square, a.square, rtol=0.02)


@pytest.mark.parametrize(("dtype", "floor"), [("float64", 1e-20), ("float32", 1e-7)])
@pytest.mark.parametrize("cls", [EGNNConfig, GemNetOCConfig])
def test_zero_for_equivariant_potentials(cls, dtype, floor):
    """Catches differences whose noise passes for broken symmetry: the floors that the module states."""
    config = cls(width=12, depth=2)
    data = store(4)
    f, _ = of(config, data, getattr(torch, dtype))
    got = derivatives(f, *_arguments(drawn(Random(2), len(data)), data), angle=ANGLE[dtype])
    assert roughness(got).relative.value < floor


def test_through_stores_as_through_graphs():
    """Any function of structures has it: what an ASE calculator goes through gives what graphs give."""
    data = store(3)
    f, potential = of(MPNN, data)

    def model(structures: Store) -> Predicted:
        out = predict(potential, graph_for(MPNN, structures, dtype=torch.float64))
        return Predicted(out.energy.detach().numpy(), out.forces.detach().numpy())

    g = drawn(Random(2), len(data))
    a = derivatives(f, *_arguments(g, data))
    b = derivatives(lambda e: through_structures(model, data, e).outputs, *_arguments(g, data))
    np.testing.assert_allclose(a.square, b.square, rtol=1e-6)
    np.testing.assert_allclose(a.equiv, b.equiv, rtol=1e-6)


def test_structures_as_they_lie():
    """One rotation, none: a bound and no estimate of the error; over uniform orientations the mean is the same."""
    x, _ = cloud([3])
    count = 2000
    turned = SO3().sample(np.random.default_rng(1), count)
    positions = np.einsum("sij,aj->sai", turned.matrix, x).reshape(-1, 3)
    offsets = 3 * np.arange(count + 1)
    a = np.random.default_rng(0).normal(size=(3, 3))
    f = lambda g: {"forces": anisotropic(a, per_atom(g.matrix, offsets), positions)}  # noqa: E731
    got = roughness(derivatives(f, identity(1, count), offsets, SQUARED))
    odd, even = (anisotropic_parts(p, x, x, offsets[:2])[2][0] for p in ((a - a.T) / 2, (a + a.T) / 2))
    assert got.equiv is got.roughness is None
    assert got.bound.value == pytest.approx(odd + 3 * even, abs=4 * got.bound.error)
    assert json.loads(json.dumps(got.to_dict()))["roughness"] is None


def test_joined_and_refused():
    """Batches are put together; reflections, losses that are no squares and angles of no use are refused."""
    x, offsets = cloud([2, 3])
    f = lambda g: {"forces": harmonic(1, per_atom(g.matrix, offsets), x)}  # noqa: E731
    g, *_ = drawn(Random(2), 2)
    one = derivatives(f, g, offsets, SQUARED)
    joined = Derivatives.joined([one, derivatives(f, g[:1], offsets, SQUARED)])
    assert len(joined) == 4
    assert joined.equiv is None
    assert Derivatives.joined([one, one]).equiv.shape == (4,)
    with pytest.raises(InputError, match="squared error"):
        derivatives(f, g, offsets, ForceNorm())
    with pytest.raises(InputError, match="reflections"):
        derivatives(f, drawn(Random(9), 2, O3())[0], offsets, SQUARED)
    with pytest.raises(InputError, match="angle"):
        derivatives(f, g, offsets, SQUARED, angle=0.0)
