"""What every potential promises, tested for each architecture in ``ModelConfig``: being in it is being tested."""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import replace

import numpy as np
import pytest
import torch
from molecules import crystal, random_molecules
from pydantic import ValidationError
from torch.autograd import grad

from equiscale.config import from_json, to_json
from equiscale.data.orientation import haar
from equiscale.data.structure import Structure
from equiscale.errors import InputError
from equiscale.graph import AtomGraph, safe_norm
from equiscale.models import EGNNConfig, ModelConfig, MPNNConfig
from equiscale.models import name as name_of
from equiscale.models.base import CHARGES, SPINS, count_parameters, graph_for
from equiscale.predict import predict
from equiscale.run import DataSpec, RunSpec
from equiscale.train.flops import counted

ARCHITECTURES = typing.get_args(typing.get_args(ModelConfig)[0])
# Of further fields those that a config has.
SMALL = dict(width=12, depth=2, num_radial=8, cutoff=4.0, max_neighbors=None, head_dim=4)
SMALL |= dict(lmax=2, mmax=1, grid=(20, 21))  # a grid on which eSEN is equivariant to 5e-6
CHOICES = dict(forces=("direct", "conservative"), norm=("graph", "atom"))


def small(cls: type, **fields):
    """A small config of ``cls``: those of the fields that it has, an envelope where forces are a gradient."""
    if fields.get("forces") == "conservative":
        fields.setdefault("envelope", "polynomial")
    known = {f.name for f in dataclasses.fields(cls)}
    return cls(**{k: v for k, v in {**SMALL, **fields}.items() if k in known})


def variants() -> list:
    """Every architecture, direct and conservative, with every norm it has; and each ablation of a symmetry."""
    found = []
    for cls in ARCHITECTURES:
        types = typing.get_type_hints(cls)
        norms = CHOICES["norm"] if "norm" in types else (None,)
        for forces in CHOICES["forces"]:
            for norm in norms:
                made = small(cls, forces=forces, norm=norm)
                found.append(pytest.param(made, id=f"{made.kind}-{forces}-{norm}"))
        if "translation_invariant" in {f.name for f in dataclasses.fields(cls)}:
            made = small(cls, translation_invariant=False)
            found.append(pytest.param(made, id=f"{made.kind}-absolute"))
        for ablation in (
            dict(force_head="tied"),
            dict(centered=True),
            dict(centered=True, forces="conservative"),
            dict(edges="distances"),
            dict(absolute_directions=True),
            dict(quadruplets=True),
            dict(quadruplets=True, forces="conservative"),
        ):
            if set(ablation) <= {f.name for f in dataclasses.fields(cls)}:
                made = small(cls, **ablation)
                found.append(pytest.param(made, id="-".join([made.kind, next(iter(ablation)), made.forces])))
        if "charge_spin" in {f.name for f in dataclasses.fields(cls)}:
            made = small(cls, charge_spin=True)
            found.append(pytest.param(made, id=f"{made.kind}-charged"))
    return found


VARIANTS = variants()
every_potential = pytest.mark.parametrize("config", VARIANTS)
conservative = pytest.mark.parametrize("config", [v for v in VARIANTS if v.values[0].forces == "conservative"])
every_architecture = pytest.mark.parametrize("cls", ARCHITECTURES, ids=lambda c: c().kind)


def made(config, seed: int = 0):
    """A potential in float64 with every weight, zero-initialised ones too, moved off its start."""
    torch.manual_seed(seed)
    potential = config.build().double()
    with torch.no_grad():
        for p in potential.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return potential


def graph_of(config, structures) -> AtomGraph:
    return graph_for(config, structures, dtype=torch.float64)


def outputs(potential, structures) -> tuple[np.ndarray, np.ndarray]:
    out = predict(potential, graph_of(potential.config, structures))
    return out.energy.detach().numpy(), out.forces.detach().numpy()


def crystals(config, *arguments, **options) -> list[Structure]:
    """A crystal where the architecture sees periodic images (has a cutoff), else none."""
    return [] if config.cutoff is None else [crystal(*arguments, **options)]


def needs_images(config) -> None:
    if config.cutoff is None:
        with pytest.raises(InputError, match="no periodic images"):
            graph_of(config, [crystal(3, seed=1)])
        pytest.skip(f"{config.kind} sees no periodic images, and says so")


def turned(s: Structure, turn: np.ndarray) -> Structure:
    return replace(s, positions=s.positions @ turn.T, cell=None if s.cell is None else s.cell @ turn.T)


def moved(s: Structure, by) -> Structure:
    return replace(s, positions=s.positions + np.asarray(by))


def close(a, b, tolerance: float = 1e-9) -> None:
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def deviation(a: np.ndarray, b: np.ndarray) -> float:
    """Largest difference over the typical size."""
    return float(np.abs(a - b).max() / np.abs(a).mean())


@every_potential
@pytest.mark.parametrize("periodic", [False, True], ids=["molecules", "crystals"])
def test_batching_changes_nothing(config, periodic):
    structures = random_molecules(4, 1, 9, seed=3)
    if periodic:
        needs_images(config)
        structures += [crystal(5, seed=1), crystal(3, seed=2)]
    potential = made(config)
    energy, forces = outputs(potential, structures)
    alone = [outputs(potential, [s]) for s in structures]
    close(energy, np.concatenate([e for e, _ in alone]))
    close(forces, np.concatenate([f for _, f in alone]))


@every_potential
@pytest.mark.parametrize("periodic", [False, True], ids=["molecule", "crystal"])
def test_permutation(config, periodic):
    """Energies do not know the order of atoms, forces go with them."""
    if periodic:
        needs_images(config)
    s = crystal(6, seed=4) if periodic else random_molecules(1, 8, 8, seed=4)[0]
    order = np.random.default_rng(0).permutation(len(s))
    potential = made(config)
    energy, forces = outputs(potential, [s])
    again, other = outputs(potential, [replace(s, numbers=s.numbers[order], positions=s.positions[order])])
    close(energy, again)
    close(forces[order], other)


@every_potential
def test_translation_if_and_only_if_declared(config):
    s = random_molecules(1, 8, 8, seed=5) + crystals(config, 4, seed=5)
    potential = made(config)
    before = np.concatenate([x.ravel() for x in outputs(potential, s)])
    after = np.concatenate([x.ravel() for x in outputs(potential, [moved(x, [3.0, -2.0, 5.0]) for x in s])])
    if config.translation_invariant:
        close(before, after)
    else:
        assert deviation(before, after) > 1e-2


@every_potential
@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["rotation", "reflection"])
def test_equivariant_if_and_only_if_declared(config, sign):
    """Energies stay, forces turn, under rotations and under improper ones; the unconstrained really violate it."""
    structures = random_molecules(2, 8, 8, seed=6) + crystals(config, 4, seed=6)
    potential = made(config)
    energy, forces = outputs(potential, structures)
    declared = config.equivariant if sign > 0 else config.reflection_equivariant
    errors = []
    for turn in sign * haar(np.random.default_rng(1), 3):
        again, other = outputs(potential, [turned(s, turn) for s in structures])
        if declared:
            close(energy, again, config.equivariance_tolerance)
            close(forces @ turn.T, other, config.equivariance_tolerance)
        errors.append(max(deviation(energy, again), deviation(forces @ turn.T, other)))
    if not declared:
        assert min(errors) > 1e-2


@every_potential
def test_no_gradient_between_structures(config):
    """Exactly zero: a leak through a norm, a padding row or a scatter would show."""
    structures = random_molecules(3, 4, 7, seed=7)
    potential = made(config)
    graph = graph_of(config, structures)
    x = graph.positions.clone().requires_grad_()
    out = potential(replace(graph, positions=x))
    mine = graph.structure == 1
    (g,) = grad(out.energy[mine].sum(), x, create_graph=True)
    assert g[mine].abs().max() > 0
    assert not g[~mine].any()
    force = out.force if out.force is not None else -g
    (second,) = grad(force[mine].sin().sum(), x)
    assert second[mine].abs().max() > 0
    assert not second[~mine].any()


@conservative
@pytest.mark.parametrize("periodic", [False, True], ids=["molecule", "crystal"])
def test_conservative_forces_are_finite_differences(config, periodic):
    if periodic:
        needs_images(config)
    s = crystal(4, seed=8) if periodic else random_molecules(1, 6, 6, seed=8)[0]
    potential = made(config)
    h = 1e-4
    steps = h * np.eye(3 * len(s)).reshape(-1, len(s), 3)
    energy, _ = outputs(potential, [moved(s, sign * step) for step in steps for sign in (1, -1)])
    differences = -(energy[0::2] - energy[1::2]).reshape(-1, 3) / (2 * h)
    _, forces = outputs(potential, [s])
    assert np.abs(forces).max() > 1e-3
    np.testing.assert_allclose(forces, differences, atol=1e-6 * np.abs(forces).max() + 1e-9)


@conservative
def test_create_graph_leads_back_to_the_weights(config):
    """Double backward: the gradient of a force loss with respect to the weights against finite differences."""
    potential = made(config)
    graph = graph_of(config, random_molecules(2, 4, 5, seed=9))

    def loss():
        return predict(potential, graph, create_graph=True).forces.square().sum()

    loss().backward()
    rng = np.random.default_rng(0)
    weights = [p for p in potential.parameters() if p.grad is not None and p.grad.abs().max() > 1e-6]
    assert len(weights) > 5
    for p in weights[:: max(1, len(weights) // 6)]:
        at = int(p.grad.abs().flatten().argmax()) if rng.random() < 0.5 else int(rng.integers(p.numel()))
        flat, h = p.data.view(-1), 1e-5
        flat[at] += h
        above = loss().item()
        flat[at] -= 2 * h
        below = loss().item()
        flat[at] += h
        assert p.grad.flatten()[at].item() == pytest.approx((above - below) / (2 * h), rel=1e-4, abs=1e-6)


# --- smooth at the cutoff ------------------------------------------------------------------------------------------


def jump(config, structure: Structure, atom: int, along: np.ndarray) -> float:
    """Relative change of energy and forces when one atom moves by 2e-8 Å through ``structure``."""
    step = np.zeros((len(structure), 3))
    step[atom] = 1e-8 * along / np.linalg.norm(along)
    potential = made(config)
    (e1, f1), (e2, f2) = (outputs(potential, [moved(structure, sign * step)]) for sign in (-1, 1))
    return max(abs((e1 - e2).item()) / abs(e1.item()), deviation(f1, f2))


def at_the_cutoff(cutoff: float) -> tuple[Structure, int, np.ndarray]:
    """A molecule, and one atom of it exactly at the cutoff of one other atom and of no third."""
    s = random_molecules(1, 6, 6, seed=11)[0]
    along = s.positions[5] - s.positions[:5].mean(0)
    along = along / np.linalg.norm(along)
    x = s.positions.copy()
    b = along @ (x[5] - x[0])
    x[5] += along * (-b + np.sqrt(b * b - (x[5] - x[0]) @ (x[5] - x[0]) + cutoff**2))
    d = np.linalg.norm(x[:5] - x[5], axis=1)
    assert abs(d[0] - cutoff) < 1e-12
    assert np.abs(d[1:] - cutoff).min() > 1e-3
    assert d.min() < cutoff - 1e-3
    return replace(s, positions=x), 5, along


def at_the_cap() -> tuple[Structure, int, np.ndarray]:
    """Two atoms equally far from a third, whose second and last neighbour under a cap of 2 is one of them."""
    x = np.array([[0.0, 0, 0], [1.0, 0.2, 0], [0, 0, 2.0], [0, 2.0, 0], [2.1, -1.5, 1.0]])
    return Structure(np.array([6, 1, 8, 7, 1]), x), 3, np.array([0.0, 1.0, 0])


@every_architecture
@pytest.mark.parametrize("forces", CHOICES["forces"])
def test_smooth_at_the_cutoff_if_declared(cls, forces):
    config = small(cls, forces=forces, envelope="polynomial", aggregation="sum", max_neighbors=None)
    if not config.smooth:
        pytest.skip(f"{config.kind} is never smooth, and says so")
    assert jump(config, *at_the_cutoff(config.cutoff or SMALL["cutoff"])) < 1e-6


@every_architecture
@pytest.mark.parametrize(
    ("why", "fields"),
    [
        ("default", dict(envelope="none", aggregation="mean", max_neighbors=30)),
        ("no envelope", dict(envelope="none", aggregation="sum", max_neighbors=None)),
        ("mean", dict(envelope="polynomial", aggregation="mean", max_neighbors=None)),
        ("cap", dict(envelope="polynomial", aggregation="sum", max_neighbors=2)),
    ],
)
def test_what_is_not_declared_smooth_jumps(cls, why, fields):
    """Each reason alone makes a jump, so none of the three could be left out of the declaration."""
    known = {f.name for f in dataclasses.fields(cls)}
    if not set(fields) <= known:
        pytest.skip(f"{cls().kind} has no field {', '.join(set(fields) - known)}")
    config = small(cls, **fields)
    assert not config.smooth
    assert jump(config, *(at_the_cap() if why == "cap" else at_the_cutoff(config.cutoff))) > 1e-4


# --- degenerate structures -----------------------------------------------------------------------------------------


def finite_everywhere(config, structures) -> None:
    """Outputs, and gradients of a training loss with respect to weights and (twice) positions."""
    potential = made(config)
    graph = graph_of(config, structures)
    out = predict(potential, graph, create_graph=True)
    assert torch.isfinite(out.energy).all()
    assert torch.isfinite(out.forces).all()
    assert out.forces.shape == graph.positions.shape
    (out.energy.abs().sum() + safe_norm(out.forces).sum()).backward()
    for name, p in potential.named_parameters():
        assert p.grad is None or torch.isfinite(p.grad).all(), name
    x = graph.positions.clone().requires_grad_()
    (first,) = grad(potential(replace(graph, positions=x)).energy.sum(), x, create_graph=True, allow_unused=True)
    if first is not None and first.requires_grad:
        assert torch.isfinite(first).all()
        (second,) = grad(first.sin().sum(), x)
        assert torch.isfinite(second).all()


def radials(config) -> list:
    return [replace(config, radial=r) for r in ("gaussian", "bessel")] if hasattr(config, "radial") else [config]


ATOM = Structure(np.array([8]), np.array([[1.0, 2.0, 3.0]]))
APART = Structure(np.array([1, 6]), np.array([[0.0, 0, 0], [100.0, 0, 0]]))
COINCIDENT = Structure(np.array([6, 6, 1]), np.array([[0.5, 0, 0], [0.5, 0, 0], [1.5, 0.3, 0]]))
COLLINEAR = Structure(np.array([6, 8, 8, 1]), np.array([[0.0, 0, 0], [1.2, 0, 0], [-1.2, 0, 0], [2.4, 0, 0]]))
PLANAR = Structure(np.full(4, 6), np.array([[1.0, 1, 0], [-1, 1, 0], [-1, -1, 0], [1, -1, 0]]))


@every_potential
@pytest.mark.parametrize(
    "structures",
    [[ATOM], [ATOM, ATOM], [APART], [ATOM, *random_molecules(1, 5, 5, seed=12), APART]],
    ids=["atom", "atoms", "apart", "mixed"],
)
def test_isolated_atoms_are_finite(config, structures):
    """No edge in the whole batch, or none at some atoms."""
    for made_ in radials(config):
        finite_everywhere(made_, structures)


@every_potential
@pytest.mark.parametrize("structure", [COINCIDENT, COLLINEAR, PLANAR], ids=["coincident", "collinear", "symmetric"])
def test_degenerate_geometries_are_finite(config, structure):
    for made_ in radials(config):
        finite_everywhere(made_, [structure])


@every_potential
def test_forces_of_symmetric_structures_keep_the_symmetry(config):
    """CO2-like O-C-O: an equivariant potential leaves its centre force-free."""
    if not config.equivariant:
        pytest.skip("not equivariant, and says so")
    _, forces = outputs(
        made(config), [replace(COLLINEAR, numbers=COLLINEAR.numbers[:3], positions=COLLINEAR.positions[:3])]
    )
    close(forces[0], 0.0, config.equivariance_tolerance)
    close(forces[:, 1:], 0.0, config.equivariance_tolerance)


# --- learning ------------------------------------------------------------------------------------------------------


def morse(s: Structure) -> tuple[float, np.ndarray]:
    """Energy and forces of one Morse bond per pair, its length by elements: labels that a potential can learn."""
    r = s.positions[:, None] - s.positions[None]
    d = np.linalg.norm(r, axis=-1) + np.eye(len(s))
    r0 = 1.0 + 0.03 * (s.numbers[:, None] + s.numbers[None])
    pair = 1 - np.eye(len(s))
    y = np.exp(-1.2 * (d - r0))
    energy = 0.5 * ((y * y - 2 * y) * pair).sum()
    forces = ((-1.2 * (-2 * y * y + 2 * y) * pair / d)[..., None] * r).sum(1) * -1
    return float(energy), forces


@every_architecture
@pytest.mark.parametrize("forces", CHOICES["forces"])
def test_overfits_eight_structures(cls, forces):
    """The loss of eq. 1 falls more than tenfold: every part that should learn does."""
    config = small(cls, forces=forces, width=32, depth=2, num_radial=16, grid=None)
    torch.manual_seed(0)
    potential = config.build()
    structures = random_molecules(8, 4, 6, seed=13)
    values = [morse(s) for s in structures]
    e = np.array([v[0] for v in values])
    scale = np.sqrt(np.mean(np.concatenate([v[1].ravel() for v in values]) ** 2))
    energy = torch.tensor((e - e.mean()) / scale, dtype=torch.float32)
    force = torch.tensor(np.concatenate([v[1] for v in values]) / scale, dtype=torch.float32)
    graph = graph_for(config, structures)
    made_, steps = torch.optim.Adam(potential.parameters(), 5e-3), 300
    losses = []
    for step in range(steps):
        for group in made_.param_groups:
            group["lr"] = 5e-3 * (1 - step / steps)
        out = predict(potential, graph, create_graph=True)
        loss = ((out.energy - energy).abs() / graph.size).mean() + safe_norm(out.forces - force).mean()
        made_.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(potential.parameters(), 10.0)
        made_.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 10


# --- locality ------------------------------------------------------------------------------------------------------


@every_potential
def test_extensive_if_and_only_if_declared(config):
    """Two molecules 50 Å apart in one structure: energies add up and forces stay, unless declared otherwise."""
    a, b = random_molecules(2, 5, 7, seed=14)
    both = Structure(
        np.concatenate([a.numbers, b.numbers]), np.concatenate([a.positions, b.positions + np.array([50.0, 0, 0])])
    )
    potential = made(config)
    energy, forces = outputs(potential, [a, b])
    together, other = outputs(potential, [both])
    if config.extensive:
        close(energy.sum(), together.item())
        close(forces, other)
    else:
        assert max(deviation(energy.sum(keepdims=True), together), deviation(forces, other)) > 1e-3


# --- configurations ------------------------------------------------------------------------------------------------


@every_potential
def test_json_round_trip_keeps_the_key(config):
    spec = RunSpec(config, DataSpec(structures=8))
    again = from_json(RunSpec, to_json(RunSpec, spec), "spec")
    assert again == spec
    assert again.key == spec.key
    assert type(again.model) is type(config)
    assert RunSpec(replace(config, width=config.width + 1), spec.data).key != spec.key


@every_architecture
def test_unknown_fields_are_refused(cls):
    with pytest.raises(ValidationError, match="widht"):
        cls(widht=3)
    text = to_json(RunSpec, RunSpec(cls(), DataSpec())).replace(b'"width"', b'"widht"')
    with pytest.raises(InputError, match=r"the spec: .model\..*widht"):
        from_json(RunSpec, text, "the spec")
    with pytest.raises(ValidationError):
        cls(width="64")


@every_architecture
def test_elements_outside_the_table_are_one_sentence(cls):
    config = small(cls, elements=(1, 6))
    with pytest.raises(InputError, match=r"no row for N, O.*elements"):
        made(config)(graph_of(config, [Structure(np.array([1, 7, 8]), np.eye(3))]))


@every_potential
def test_dtype_changes_values_and_keeps_indices(config):
    graph = graph_of(config, random_molecules(2, 5, 7, seed=15))
    single = graph.to(dtype=torch.float32)
    for name in ("numbers", "structure", "size", "receiver", "sender", "degree", "slot", "charge", "spin"):
        assert getattr(single, name).dtype == torch.int64
        assert torch.equal(getattr(single, name), getattr(graph, name))
    potential = made(config)
    double = predict(potential, graph)
    out = predict(potential.float(), single)
    assert out.energy.dtype == out.forces.dtype == torch.float32
    for a, b in ((out.energy, double.energy), (out.forces, double.forces)):
        torch.testing.assert_close(a.double(), b, rtol=1e-3, atol=1e-3)


@every_potential
def test_bfloat16_products_stay_near(config):
    """Autocast on the CPU: finite, of the graph's dtype where it is summed, and within a few percent."""
    potential, graph = (
        made(config).float(),
        graph_of(config, random_molecules(4, 5, 9, seed=16)).to(dtype=torch.float32),
    )
    exact = predict(potential, graph, create_graph=True)
    with torch.autocast("cpu", torch.bfloat16):
        near = predict(potential, graph, create_graph=True)
    for a, b in ((near.energy, exact.energy), (near.forces, exact.forces)):
        assert torch.isfinite(a).all()
        assert (a.float() - b).norm() < 0.1 * b.norm()
    near.forces.float().square().sum().backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in potential.parameters())


@every_architecture
def test_charge_and_spin_are_seen_if_and_only_if_asked_for(cls):
    if "charge_spin" not in {f.name for f in dataclasses.fields(cls)}:
        pytest.skip(f"{cls().kind} has no field charge_spin")
    a = random_molecules(1, 6, 6, seed=17)[0]
    ion = replace(a, charge=-1, spin=2)
    blind, seeing = made(small(cls)), made(small(cls, charge_spin=True))
    close(outputs(blind, [a])[0], outputs(blind, [ion])[0])
    assert deviation(outputs(seeing, [a])[0], outputs(seeing, [ion])[0]) > 1e-3
    more = count_parameters(seeing)[0] - count_parameters(blind)[0]
    assert more == sum(p.numel() for p in seeing.state.parameters()) > 0
    assert count_parameters(seeing)[1] == count_parameters(blind)[1]  # inputs, not body
    for wrong in (replace(a, charge=CHARGES + 1), replace(a, spin=SPINS + 1)):
        with pytest.raises(InputError, match="charge_spin"):
            outputs(seeing, [wrong])


@every_potential
def test_input_parameters_are_parameters(config):
    potential = config.build()
    mine = {id(p) for p in potential.parameters()}
    named = [id(p) for p in potential.input_parameters()]
    assert set(named) <= mine
    assert len(named) == len(set(named))


def test_absolute_positions_add_three_weights_per_channel():
    """Appendix J's ablation: 3w more, and translation is really broken (tested above)."""
    n, _ = count_parameters(small(MPNNConfig).build())
    more, _ = count_parameters(small(MPNNConfig, translation_invariant=False).build())
    assert more - n == 3 * SMALL["width"]


def test_positions_about_the_centroid_are_a_variant_of_their_own():
    """Named in tables, as many weights as absolute positions, and not both at once; a spec without it keeps its key."""
    assert name_of(small(MPNNConfig, centered=True)) == "mpnn centered"
    n, _ = count_parameters(small(MPNNConfig).build())
    more, _ = count_parameters(small(MPNNConfig, centered=True).build())
    assert more - n == 3 * SMALL["width"]
    assert not small(MPNNConfig, edges="distances", centered=True).equivariant
    graph, plain = graph_of(small(MPNNConfig), random_molecules(2, 4, 5, seed=18)), small(MPNNConfig)
    executed = [counted(lambda c=c: made(c)(graph)) for c in (plain, replace(plain, centered=True))]
    assert executed[1] - executed[0] == replace(plain, centered=True).flops(graph.counts) - plain.flops(graph.counts)
    assert b"centered" not in to_json(RunSpec, RunSpec(small(MPNNConfig), DataSpec()))
    with pytest.raises(ValidationError, match="know no translation"):
        small(MPNNConfig, centered=True, translation_invariant=False)


@pytest.mark.parametrize("channels", [1, 3, 8, 11])
@pytest.mark.parametrize("width", [16, 64])
def test_vector_channels_change_n_by_the_formula(width, channels):
    """N = 85w² + (11E² + 12E + 1831)w + E + 1 at depth 12 for every E, not only ⌊√w⌋."""
    with torch.device("meta"):
        n, _ = count_parameters(EGNNConfig(width=width, vector_channels=channels).build())
    e, w = channels, width
    assert n == 85 * w * w + (11 * e * e + 12 * e + 1831) * w + e + 1
