"""How symmetric any model is: zero where it must be, the known amount where it is broken by one, for every kind."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.calculators.lj import LennardJones
from broken import Field, field, pairs, well
from molecules import crystal, random_molecules
from runs import structures, tiny_store

from equiscale.data.references import References
from equiscale.data.store import Store
from equiscale.data.structure import Structure
from equiscale.errors import InputError
from equiscale.measure.decompose import Options, measure
from equiscale.measure.model import Checkpoint, as_model
from equiscale.measure.moves import Moves
from equiscale.measure.structures import choose
from equiscale.measure.text import describe
from equiscale.models import EGNNConfig, ESENConfig, GemNetOCConfig, MPNNConfig
from equiscale.predict import TrainedPotential

ALL = Moves(reflections=True, translations=2.0, permutations=True)


def trained(config, dtype=torch.float64) -> TrainedPotential:
    """Untrained, of unit scale."""
    torch.manual_seed(3)
    potential = config.build().to(dtype).eval()
    references = References({z: -10.0 * z for z in (1, 6, 7, 8)}, 0.0, 1.0)
    return TrainedPotential(potential, config, references)


def found(model, data=None, **options):
    data = tiny_store() if data is None else data
    return measure(as_model(model), choose(data), Options(**options))


def within(figure, truth: float, errors: float = 4.0) -> bool:
    return abs(figure.value - truth) < errors * figure.error


@pytest.mark.parametrize("moves", [Moves(), ALL], ids=str)
def test_a_physical_calculator_is_equivariant(moves):
    """Would catch a twist that is not undone: of forces, cells, shifts or orders; no label is needed."""
    calculator = LennardJones(sigma=1.2, rc=20.0)
    for data in (tiny_store().take(np.arange(20)), random_molecules(8, 1, 6, seed=4), [crystal(6, 1), crystal(6, 2)]):
        f = found(calculator, data, moves=moves)
        assert f.whole.relative.value < 1e-20
        assert f.labelled == isinstance(data, Store)
    assert f.torque is None  # none of a crystal


CONFIGS = [
    (MPNNConfig(width=8, depth=2, num_radial=8, edges="distances"), 1e-20),
    (EGNNConfig(width=8, depth=2, num_radial=8), 1e-20),
    (GemNetOCConfig(width=16, depth=2), 1e-20),
    (ESENConfig(width=8, depth=2, lmax=2, mmax=1, grid=(20, 21)), 1e-9),  # a grid: equivariant to 5e-6
]


@pytest.mark.parametrize(("config", "most"), CONFIGS, ids=[c.kind for c, _ in CONFIGS])
def test_equivariant_potentials_are(config, most):
    """As checkpoints, through their graphs; through structures where atoms change places, too."""
    data = tiny_store().take(np.arange(8))
    for moves in (Moves(), Moves(permutations=True)):
        assert found(trained(config), data, moves=moves).whole.relative.value < most


def test_two_ways_to_twist_agree():
    """A checkpoint's graph turned, and its structures turned: one answer, and a broken one at that."""
    model = Checkpoint(trained(MPNNConfig(width=8, depth=2, num_radial=8)))
    chosen = choose(tiny_store().take(np.arange(10)))
    by_graph = measure(model, chosen)
    by_structures = measure(as_model(lambda store: model(store)), chosen)
    assert by_graph.whole.relative.value > 1e-3
    assert by_structures.whole.equiv.value == pytest.approx(by_graph.whole.equiv.value, rel=1e-9)
    assert by_structures.energy_spread_meV.mean == pytest.approx(by_graph.energy_spread_meV.mean, rel=1e-6)


@pytest.mark.parametrize("moves", [Moves(), ALL], ids=str)
@pytest.mark.parametrize("sampler", ["random:10", "random:2", "T", "T*2", "lebedev:3"])
def test_a_known_amount_is_found(sampler, moves):
    """A field c along z: L_equiv = c²/3, the rest of L is the labels' noise, the net force c n. Would catch a factor
    M / (M - 1), a sum taken for a mean, a twist about another axis.
    """
    if moves is ALL and sampler[0] in "Tl":
        return  # designs are of rotations
    made = [replace(s, forces=bonds(s) + noise) for s, noise in zip(structures(48), _noise(48))]
    f = found(field, Store.from_structures(made), sampler=sampler, moves=moves)
    if sampler.startswith("random"):
        assert within(f.whole.equiv, 0.03)
        assert within(f.whole.percent, 100 * 0.03 / 0.07)
        assert f.whole.percent_low < 100 * 0.03 / 0.07 < f.whole.percent_high
    else:
        assert f.whole.equiv.value == pytest.approx(0.03, rel=1e-9 if "*" not in sampler else 0.3)
    assert within(f.whole.mean, 0.04)
    assert f.net_force.max == pytest.approx(0.3 * 7)
    assert f.energy_spread_meV.max < 1e-6
    assert set(f.by_element) == {"H", "C", "N", "O"}
    for part in (*f.by_element.values(), *f.by_size.values()):
        assert part.equiv.value == pytest.approx(0.03, rel=0.3)


def bonds(s: Structure) -> np.ndarray:
    """The forces that a field is added to."""
    return pairs([s])[1]


def _noise(count: int) -> list[np.ndarray]:
    """Of mean square 0.04 per component."""
    rng = np.random.default_rng(5)
    return [0.2 * rng.normal(size=(len(s), 3)) for s in structures(count)]


def test_a_known_amount_of_a_calculator():
    """An ASE calculator with a field, on structures without labels."""
    made = [replace(s, energy=None, forces=None) for s in structures(16)]
    f = found(Field(0.3), made)
    assert within(f.whole.equiv, 0.03)
    assert f.whole.percent is None


def test_a_loss_that_is_no_square():
    """E |f - y + c Rᵀe_z| - |f - y| in closed form: for |f - y| = a > c it is c² / 3a, by the mean distance of points
    on two spheres; the jackknife finds it.
    """
    a, c = 0.5, 0.3
    rng = np.random.default_rng(6)
    made = []
    for s in structures(48):
        away = rng.normal(size=(len(s), 3))
        made.append(replace(s, forces=bonds(s) - a * away / np.linalg.norm(away, axis=1, keepdims=True)))
    f = found(field, Store.from_structures(made), loss="force", sampler="random:20")
    assert f.estimator == "jackknife"
    assert within(f.whole.equiv, c * c / (3 * a))
    assert within(f.whole.mean, a)
    assert f.by_element["H"].equiv.value == pytest.approx(c * c / (3 * a), rel=0.4)


def test_energies_that_turn():
    """½ k Σ (u·z)² of a rigid rod: E over directions of its mean and standard deviation; forces that are its gradient.

    A rod of two atoms, d apart: e = ¼ k d² cos²θ, whose standard deviation is ¼ k d² √(4/45).
    """
    d = 1.5
    rod = Structure(np.array([1, 8]), np.array([[0, 0, 0], [0, 0, d]]), 0.0, np.zeros((2, 3)))
    rods = [replace(rod, group=str(k)) for k in range(15)]
    f = found(well, rods, sampler="random:40")
    assert f.energy_spread_meV.mean == pytest.approx(1e3 * 0.25 * 0.4 * d * d * np.sqrt(4 / 45), rel=0.1)
    assert f.energy_spread_meV_per_atom.mean == pytest.approx(f.energy_spread_meV.mean / 2)
    assert f.torque.mean > 0.05
    assert f.net_force.max < 1e-12
    energies = found(well, rods, loss="energy", sampler="random:40")
    assert within(energies.whole.equiv, (0.25 * 0.4 * d * d) ** 2 * 4 / 45 / 4, 5)


def test_averages_follow_the_law():
    """Measured with other rotations than the law's two numbers: c² / 3M above the floor, within errors."""
    made = Store.from_structures([replace(s, forces=bonds(s) + n) for s, n in zip(structures(40), _noise(40))])
    f = found(field, made, averages=(1, 2, 4, 8))
    assert [a.rotations for a in f.averages] == [1, 2, 4, 8]
    for a in f.averages:
        assert a.exact
        assert within(a.measured, 0.04 + 0.03 / a.rotations)
        assert within(a.deviation, 0.0)
    assert f.forward_passes == 40 * (10 + 8) + 2 * 40


def test_degrees_and_the_bound():
    """A constant field is of degree 1: all of it is there, and the Lie bound is tight."""
    f = found(field, degrees=2, lie=True)
    assert within(_figure(f.degrees["share"]["1"]), 1.0)
    assert f.lie["bound"]["value"] == pytest.approx(0.03, rel=1e-5)
    with pytest.raises(InputError, match="need a design of degree 5"):
        found(Field(0.3), degrees=2, sampler="O")


def test_degrees_that_a_design_cannot_tell_are_refused_first():
    """Before anything is computed, with a design that is there: no Lebedev rule has degree 33."""
    with pytest.raises(InputError, match=r"lebedev:35"):
        found(lambda store: pytest.fail("asked"), degrees=16, sampler="I")
    with pytest.raises(InputError, match="three random rotations"):
        found(lambda store: pytest.fail("asked"), degrees=1, sampler="random:2")


SMALLEST = {
    "one atom": Structure(np.array([8]), np.zeros((1, 3))),
    "two atoms": Structure(np.array([6, 8]), np.array([[0, 0, 0], [0, 0, 1.1]])),
    "collinear": Structure(np.array([6, 8, 8]), np.array([[0, 0, 0], [1.16, 0, 0], [-1.16, 0, 0]])),
}


@pytest.mark.parametrize("what", SMALLEST)
def test_the_smallest_structures(what):
    """A field's c² / 3 and finite figures, of a function and of a checkpoint; one atom has no torque."""
    s = SMALLEST[what]
    f = found(field, [s], sampler="T", degrees=0)
    assert f.whole.equiv.value == pytest.approx(0.03, rel=1e-9)
    assert f.whole.equiv.error is None
    assert (f.torque is None) == (what == "one atom")
    for config in (MPNNConfig(width=8, depth=2, num_radial=8), EGNNConfig(width=8, depth=2, num_radial=8)):
        f = found(trained(config), [s], loss="squared", lie=True)
        assert np.isfinite([f.whole.equiv.value, f.net_force.max, f.lie["bound"]["value"]]).all()
        assert f.by_size["1-10"].count == 1


def test_undecided_frames_are_counted():
    """Of a potential in frames: linear molecules and atoms have none; a crooked one has."""
    crooked = random_molecules(1, 6, 6, seed=3)
    framed = replace(trained(MPNNConfig(width=8, depth=2, num_radial=8)), frames="canonical")
    f = found(framed, [*SMALLEST.values(), *crooked])
    assert f.about["frames"] == "canonical"
    assert f.about["undecided_frames"] == 3
    assert "undecided frames" in describe(f)
    assert "undecided frames" not in describe(found(framed, crooked))
    assert "frames" not in found(replace(framed, frames="none"), crooked).about


def test_total_energies_hide_no_error():
    """Beside 10 eV for each proton an energy that turns by meV is small, and yet no round-off."""
    f = found(lambda store: (well(store)[0] - 1e5, well(store)[1]), structures(6), loss="energy")
    assert f.energy_spread_meV.mean > 1
    assert f.whole.relative.value < 1e-10
    assert "round-off" not in describe(f)


def _figure(d):
    from equiscale.symmetry.decomposition import Figure

    return Figure(**d)


def test_batches_change_nothing():
    """Each structure's rotations are its own: a budget of atoms changes neither them nor the figures."""
    model = trained(MPNNConfig(width=8, depth=2, num_radial=8))
    data = tiny_store().take(np.arange(9))
    one, two = (found(model, data, atoms=atoms).to_dict() for atoms in (1, 8192))
    assert one["whole"]["equiv"]["value"] == pytest.approx(two["whole"]["equiv"]["value"], rel=1e-9)
    assert one["torque"]["max"] == pytest.approx(two["torque"]["max"], rel=1e-9)
    assert found(model, data, seed=1).whole.equiv.value != two["whole"]["equiv"]["value"]


def test_every_kind_of_function():
    """Pairs, mappings and objects; energies need not be there; a loss of one's own may be given."""
    chosen = choose(tiny_store().take(np.arange(6)))
    lj = as_model(LennardJones(sigma=1.2, rc=20.0))
    for function in (lambda s: {"forces": torch.tensor(lj(s).forces)}, lambda s: lj(s)):
        assert measure(as_model(function), chosen).whole.relative.value < 1e-20
    assert measure(as_model(lambda s: (None, lj(s).forces)), chosen).energy_spread_meV is None


class Componentwise:
    """The mean of |components|, which is no function of lengths and angles."""

    name, outputs, squared = "component-mae", ("forces",), False

    def __call__(self, z, y, offsets):
        return np.add.reduceat(np.abs(z["forces"] - y["forces"]).mean(-1), offsets[:-1], axis=-1) / np.diff(offsets)


class Dropout(torch.nn.Module):
    def forward(self, store):
        return None, np.zeros((store.atoms, 3))


REFUSED = {
    "a loss that turns": (lambda: found(Field(), loss=Componentwise()), "component-mae loss changes by"),
    "training": (lambda: as_model(_in_training()), "in training mode"),
    "training of another": (lambda: as_model(Dropout()), "in training mode"),
    "one rotation": (lambda: found(Field(), sampler="random:1"), "one rotation"),
    "no structures": (lambda: found(Field(), []), "is empty"),
    "random energies": (lambda: found(_uncertain, loss="energy"), "its energies differ by up to .* meV/atom"),
    "no labels": (lambda: found(Field(), random_molecules(3, 3, 5, 1), loss="force"), "needs labels of forces"),
    "averages": (lambda: found(Field(), random_molecules(3, 3, 5, 1), averages=(1, 2)), "needs labels"),
    "no energy": (lambda: found(lambda s: (None, s.forces), loss="energy"), "predicts no energy"),
    "wrong shape": (lambda: found(lambda s: (None, s.forces[1:])), "wrong shape"),
    "no forces": (lambda: found(lambda s: s.positions), "returns no forces"),
    "NaN": (lambda: found(lambda s: (None, s.positions * np.nan)), "not finite"),
    "no model": (lambda: as_model(3), "is no model"),
    "an element": (
        lambda: found(trained(EGNNConfig(width=8)), [replace(s, numbers=s.numbers + 8) for s in structures(3)]),
        "was not trained on"),
}  # fmt: skip


def _uncertain(store):
    return np.random.default_rng().normal(size=len(store)), np.ones((store.atoms, 3))


def _in_training():
    model = trained(EGNNConfig(width=8))
    model.potential.train()
    return model


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_measured_is_one_sentence(what):
    make, expected = REFUSED[what]
    with pytest.raises(InputError, match=expected) as error:
        make()
    assert len(str(error.value).splitlines()) == 1
