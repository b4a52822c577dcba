"""GemNet-OC: published counts and compute, the fast formulation against the literal one, scale factors, smoothness."""

from __future__ import annotations

import csv
from dataclasses import replace

import numpy as np
import pytest
import torch
from models.literal_gemnet import LiteralGemNetOC
from molecules import crystal, random_molecules
from pydantic import ValidationError
from runs import tiny_spec, tiny_store
from torch.autograd import grad
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from equiscale.data.structure import Structure
from equiscale.graph import Counts, sum_by
from equiscale.models import GemNetOCConfig
from equiscale.models.base import count_parameters, graph_for
from equiscale.models.gemnet_oc import chains
from equiscale.models.gemnet_oc.layers import Scale, mean_variance
from equiscale.models.gemnet_oc.potential import GemNetOC
from equiscale.predict import TrainedPotential, predict
from equiscale.train.record import train

SMALL = GemNetOCConfig(width=8, depth=2, num_radial=12, cutoff=4.0, max_neighbors=None)
QUADRUPLETS = replace(SMALL, quadruplets=True, quadruplet_neighbors=4, quadruplet_cutoff=3.5)
CROWD = crystal(3, seed=3, edge=2.5)  # many images: more than 49 neighbours


def numbers(config: GemNetOCConfig) -> int:
    with torch.device("meta"):
        return count_parameters(config.build())[0]


def made(config: GemNetOCConfig, seed: int = 0):
    """In float64, with scale factors other than 1."""
    torch.manual_seed(seed)
    potential = config.build().double()
    for module in potential.modules():
        if isinstance(module, Scale):
            module.factor.copy_(0.5 + torch.rand(()))
    return potential


def graph_of(config, structures):
    return graph_for(config, structures, dtype=torch.float64)


def test_parameter_counts_are_the_published_ones(shared):
    with (shared / "reference" / "ladders.csv").open() as file:
        rows = [r for r in csv.DictReader(x for x in file if x[0] != "#") if r["architecture"] == "gemnet_oc"]
    assert len(rows) == 12
    for row in rows:
        assert numbers(GemNetOCConfig(width=int(row["width"]))) == int(row["parameters"])


@pytest.mark.parametrize("width", [16, 32, 100])
def test_parameter_counts_are_the_formulas(width):
    w = width
    assert numbers(GemNetOCConfig(width=w)) == 194 * w * w + 885 * w + 86016


def test_body_knows_neither_elements_nor_radial_functions():
    _, body = count_parameters(SMALL.build())
    _, other = count_parameters(replace(SMALL, num_radial=40, elements=(1, 6)).build())
    assert body == other


def test_kappa_is_near_the_papers():
    """34.3 [33.5, 35.1] by the paper's tables, at the mean degree of 31.6 that 10 Å and 50 neighbours give."""
    n, degree = 1000, 31.6
    counts = Counts(n, int(n * degree), int(n * degree**2))
    for width in (192, 204):
        config = GemNetOCConfig(width=width)
        assert 34.3 < config.flops(counts) / n / numbers(config) < 35.4


@pytest.mark.parametrize("width", [8, 32, 100])
def test_quadruplets_add_the_published_parameters(width):
    more = numbers(GemNetOCConfig(width=width, quadruplets=True)) - numbers(GemNetOCConfig(width=width))
    assert more == 4 * width * width + 448 * width + 350208


def test_literal_flops_with_quadruplets_are_the_formula():
    """Exact for complete graphs of equal molecules: the formula takes the number of quadruplets from degrees."""
    config = GemNetOCConfig(width=16, depth=2, quadruplets=True)
    graph = graph_for(config, random_molecules(2, 11, 11, seed=1))
    with FlopCounterMode(display=False) as counter:
        LiteralGemNetOC(config)(graph)
    assert counter.get_total_flops() == pytest.approx(config.flops(graph.counts), rel=0.01)


@pytest.mark.parametrize("width", [4, 32, 65])
def test_literal_flops_are_the_formula(width):
    config = GemNetOCConfig(width=width)
    graph = graph_for(config, random_molecules(4, 9, 16, seed=1))
    with FlopCounterMode(display=False) as counter:
        LiteralGemNetOC(config)(graph)
    assert counter.get_total_flops() == pytest.approx(config.flops(graph.counts), rel=0.01)


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "composed"])
@pytest.mark.parametrize(
    "structures",
    [random_molecules(3, 5, 9, seed=2), [crystal(6, seed=3)], [CROWD]],
    ids=["molecules", "crystal", "crowd"],
)
def test_fast_formulation_equals_the_literal_one(structures, fused):
    """Outputs and every gradient: would catch a wrong split, a lost 1/√2 or scale, an own term, a swapped edge."""
    equal_to_literal(SMALL, structures, fused)


LINES = [Structure(np.array([6, 8, 7, 1]), np.array([[0.0, 0, 0], [1.2, 0, 0], [-1.2, 0, 0], [2.4, 0, 0]])),
         Structure(np.array([6, 8, 7, 1, 1]),
                   np.array([[0.0, 0, 0], [1.2, 0, 0], [-1.2, 0, 0], [2.4, 0.1, 1.0], [-2, 0.4, -1.0]]))]  # fmt: skip


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "composed"])
@pytest.mark.parametrize(
    "structures",
    [random_molecules(3, 2, 9, seed=2), random_molecules(2, 1, 2, seed=2), [crystal(4, seed=3)]],
    ids=["molecules", "pairs", "crystal"],
)
def test_quadruplets_equal_the_literal_ones(structures, fused, monkeypatch):
    """Every chain once, none with c = d, in pieces as in one: a moment lost or counted twice would show."""
    monkeypatch.setattr(chains, "PIECE", 16)
    equal_to_literal(QUADRUPLETS, structures, fused)


def test_atoms_in_line_have_the_published_dihedral():
    """π/2 wherever one end is in line with the middle edge; energies only, the literal has no derivative there."""
    fast = made(QUADRUPLETS)
    slow = LiteralGemNetOC(QUADRUPLETS).double().load(fast)
    graph = graph_of(QUADRUPLETS, LINES)
    for a, b in zip(vars(fast(graph)).values(), vars(slow(graph)).values()):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def equal_to_literal(config, structures, fused: bool) -> None:
    fast = made(config)
    slow = LiteralGemNetOC(config).double().load(fast)
    graph = graph_of(config, structures)
    assert (graph.max_degree > 49) == (structures[0] is CROWD)
    x = graph.positions.clone().requires_grad_(not fused)
    graph = replace(graph, positions=x)
    a, b = fast(graph), slow(graph)
    torch.testing.assert_close(a.energy, b.energy, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(a.force, b.force, rtol=1e-10, atol=1e-10)
    weight = torch.randn(len(x), 3, dtype=torch.float64)
    losses = [out.energy.sin().sum() + (out.force * weight).sum() for out in (a, b)]
    if not fused:
        ours, theirs = (grad(loss, x, retain_graph=True)[0] for loss in losses)
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)
    for loss in losses:
        loss.backward()
    found = {name: p.grad for name, p in fast.named_parameters()}
    for name, p in slow.named_parameters():
        torch.testing.assert_close(slow.of(name, found), p.grad, rtol=1e-9, atol=1e-10, msg=name)


@pytest.mark.parametrize("quads", [False, True], ids=["triplets", "quadruplets"])
def test_forms_no_tensor_of_triplets_and_channels(quads):
    """With 60 neighbours at most 512 numbers an edge, a triplet's 32 would be 1920. With quadruplets 32·49, the
    functions of an edge's length; one number for each would be 8·60, times 32 channels."""
    config = replace(SMALL, width=32, depth=1, cutoff=20.0, quadruplets=quads)
    graph = graph_for(config, random_molecules(1, 61, 61, seed=5))
    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                largest = max(largest, out.numel())
            return out

    potential = config.build()
    with Watch():
        potential(graph)
    assert graph.max_degree == 60
    assert largest <= (1568 if quads else 512) * len(graph.receiver)


def test_two_hundred_neighbors():
    config = replace(SMALL, depth=1, cutoff=30.0)
    out = predict(config.build(), graph_for(config, random_molecules(1, 201, 201, seed=6)))
    assert torch.isfinite(out.energy).all()
    assert torch.isfinite(out.forces).all()


# --- smoothness ----------------------------------------------------------------------------------------------------


def changes(config, structure: Structure, atom: int) -> float:
    """Relative change of energy and forces while one atom moves by 2e-8 Å along x."""
    step = np.zeros((len(structure), 3))
    step[atom, 0] = 1e-8
    structures = [replace(structure, positions=structure.positions + sign * step) for sign in (-1, 1)]
    out = [predict(made(config), graph_of(config, [s])) for s in structures]
    energy = (out[0].energy - out[1].energy).abs() / out[0].energy.abs()
    return max(energy.item(), ((out[0].forces - out[1].forces).abs().max() / out[0].forces.abs().mean()).item())


def test_each_reason_not_to_be_smooth_makes_a_jump():
    """An atom that crosses the cutoff without an envelope, or ties with another for the last place under a cap."""
    line = Structure(np.array([6, 1, 8, 7]), np.array([[0.0, 0, 0], [4.0, 0, 0], [1.1, 0.5, 0], [0.2, 1.3, 0.4]]))
    assert SMALL.smooth
    assert changes(SMALL, line, 1) < 1e-6
    assert not replace(SMALL, envelope="none").smooth
    assert changes(replace(SMALL, envelope="none"), line, 1) > 1e-4
    # Two pairs, each other's nearest, equally far from a fifth atom, which keeps one edge.
    x = np.array([[0.0, 0, 0], [2.0, 0, 0], [2.8, 0.3, 0], [0.0, 0, 2.0], [0.0, 0.3, 2.9]])
    capped = replace(SMALL, max_neighbors=1)
    assert not capped.smooth
    assert changes(capped, Structure(np.array([6, 1, 8, 7, 6]), x), 1) > 1e-4


def test_conservative_forces_need_an_envelope():
    with pytest.raises(ValidationError, match="envelope"):
        GemNetOCConfig(forces="conservative", envelope="none")


def test_middle_edges_are_edges():
    with pytest.raises(ValidationError, match="quadruplet_cutoff"):
        GemNetOCConfig(quadruplet_cutoff=11.0)
    with pytest.raises(ValidationError, match="quadruplet_neighbors"):
        GemNetOCConfig(quadruplets=True, max_neighbors=5)


# --- scale factors -------------------------------------------------------------------------------------------------


def scales(potential) -> dict[str, float]:
    return {n: m.factor.item() for n, m in potential.named_modules() if isinstance(m, Scale)}


def test_scale_factors_keep_the_variance():
    """22 of them; fitted in one pass, and fitted again they are the same: each saw the outputs of fitted ones."""
    config = replace(SMALL, depth=4)
    potential = made(config)
    graph = graph_of(config, random_molecules(12, 6, 9, seed=7))
    potential.prepare(graph)
    fitted = scales(potential)
    assert len(fitted) == 3 * 4 + 2 * 5
    assert all(0.01 < f < 100 and f != 1.0 for f in fitted.values())
    seen = {}

    def watch(name):
        def fit(reference, output, weight=None):
            scale = dict(potential.named_modules())[name]
            seen[name] = mean_variance(output * scale.factor) / mean_variance(reference, weight)

        return fit

    for name, module in potential.named_modules():
        if isinstance(module, Scale):
            module.fitting = True
            module.fit = watch(name)
    with torch.no_grad():
        potential(graph)
    assert seen.keys() == fitted.keys()
    for name, ratio in seen.items():
        assert ratio.item() == pytest.approx(1.0, rel=1e-9), name


def test_scale_factors_of_quadruplets_keep_the_variance():
    """The third of a quadruplet interaction, against every quadruplet listed: the reference is what each one holds."""
    potential = made(QUADRUPLETS)
    graph = graph_of(QUADRUPLETS, random_molecules(6, 5, 8, seed=8))
    potential.prepare(graph)
    first = scales(potential)
    assert len(first) == 6 * 2 + 2 * 3
    slow = LiteralGemNetOC(QUADRUPLETS).double().load(potential)
    found = []

    def watch(module, inputs):
        m, radial, chains, _ = inputs
        x = module.down(module.message(m) * module.radial(radial) * module.scale_radial)
        before = x[chains.heard]
        x = before * module.angular(chains.circular)
        found.append((x.var(0).mean() / before.var(0).mean()).rsqrt() / module.scale_angular)
        each = (x * module.scale_angular)[chains.triplet]
        q = torch.bmm(chains.rad_w, sum_by(chains.out, torch.bmm(chains.both[:, :, None], each[:, None]), len(m)))
        found.append((module.bilinear(q.flatten(1)).var(0).mean() / each.var(0).mean()).rsqrt() / module.scale_sum)

    for block in slow.blocks:
        block.quadruplets.register_forward_pre_hook(watch)
    slow(graph)
    assert len(found) == 4
    assert all(ratio.item() == pytest.approx(1.0, rel=1e-9) for ratio in found)


def test_scale_factors_need_two_rows():
    for structures in (random_molecules(1, 1, 1, seed=0), random_molecules(1, 2, 2, seed=0)):
        potential = made(SMALL)
        potential.prepare(graph_of(SMALL, structures))
        assert all(np.isfinite(f) and f > 0 for f in scales(potential).values())


def test_scale_factors_are_in_the_checkpoint_and_not_in_n():
    potential = made(SMALL)
    names = {n for n, _ in potential.named_parameters()}
    assert {f"{n}.factor" for n in scales(potential)} <= potential.state_dict().keys() - names


def test_training_fits_them_once(tmp_path, monkeypatch):
    """At a fresh start, from the first structures of the seed's order whatever the run's length; never on resuming."""
    store = tiny_store()
    model = GemNetOCConfig(width=8, depth=1, num_radial=8, cutoff=5.0, elements=(1, 6, 7, 8))
    long, short = (replace(tiny_spec(structures=n), model=model) for n in (32, 16))
    train(short, store, tmp_path)

    def stop(progress):
        if progress.step == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(replace(long, data=replace(long.data, epochs=2)), store, tmp_path, tell=stop)
    monkeypatch.setattr(GemNetOC, "prepare", None)
    train(replace(long, data=replace(long.data, epochs=2)), store, tmp_path)
    fitted = [scales(TrainedPotential.load(path).potential) for path in tmp_path.glob("*.ckpt")]
    assert len(fitted) == 2
    assert fitted[0] == fitted[1]
    assert 1.0 not in fitted[0].values()
