"""The two width rules: their factors, and the coordinate check that says whether the rate transfers (method.md)."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from molecules import random_molecules
from runs import SMALL, labelled, tiny_spec, tiny_store
from test_loop import Killed, files

from equiscale.config import to_json
from equiscale.data.store import Store
from equiscale.errors import InputError
from equiscale.models import EGNNConfig, MPNNConfig
from equiscale.run import DataSpec, OptimSpec, RunSpec
from equiscale.train.force_field import ForceField
from equiscale.train.loop import train_step
from equiscale.train.optim import averaged, build, optimizer, width_factors
from equiscale.train.record import train

PARTS = [0] * 32 + [1, 1, 2, 2]
CONFIGS = {"mpnn": MPNNConfig, "egnn": EGNNConfig}


def config(kind, width, **fields):
    return CONFIGS[kind](width=width, **{**SMALL, **fields})


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("rule", ["mup", "paper"])
def test_at_the_base_width_every_factor_is_one(kind, rule):
    factors = width_factors(config(kind, 16), OptimSpec(base_width=16, width_rule=rule))
    assert {(f.rate, f.init) for f in factors.values()} == {(1.0, 1.0)}


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_papers_rule_is_one_global_factor(kind):
    factors = width_factors(config(kind, 64), OptimSpec(base_width=16, width_rule="paper"))
    assert {(f.rate, f.init) for f in factors.values()} == {(0.25, 1.0)}


@pytest.mark.parametrize("kind", CONFIGS)
def test_mup_factors_follow_the_shapes(kind):
    """Hidden ∝ 1/fan_in; embeddings, radial bases, biases and norms constant; heads 1/fan_in and variance 1/fan_in²."""
    factors = width_factors(config(kind, 64), OptimSpec(base_width=16))
    kinds = {name: (f.kind, f.rate, f.init) for name, f in factors.items()}
    expected = {
        "embed.table.weight": ("input", 1.0, 1.0),
        "energy.0.weight": ("hidden", 0.25, 1.0),
        "energy.0.bias": ("vector", 1.0, 1.0),
        "energy.2.weight": ("output", 0.25, 0.5),
        "layers.0.norm.weight": ("vector", 1.0, 1.0),
        **(
            {
                "edge_vector.weight": ("input", 1.0, 1.0),
                "edge_radial.weight": ("input", 1.0, 1.0),
                "layers.0.lin1.weight": ("hidden", 0.25, 1.0),
                "force.0.weight": ("hidden", 0.25, 1.0),
                "force.2.weight": ("output", 0.25, 0.5),
            }
            if kind == "mpnn"
            else {
                "layers.0.edge_radial.weight": ("input", 1.0, 1.0),
                "layers.0.edge_vector.weight": ("input", 1.0, 1.0),  # one position, not E channels
                "layers.1.edge_vector.weight": ("hidden", 0.5, 1.0),  # E = √w: 4 -> 8
                "layers.0.edge_node.weight": ("hidden", 0.25, 1.0),
                "layers.1.mix.weight": ("hidden", 0.25, 1.0),  # w -> E²
                "force.weight": ("output", 0.5, 0.5**0.5),
            }
        ),
    }
    assert {name: kinds[name] for name in expected} == expected


@pytest.mark.parametrize("kind", CONFIGS)
def test_building_leaves_the_global_random_state_alone(kind):
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    a, b = (build(config(kind, 8), OptimSpec(), 3) for _ in range(2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters()))
    c = build(config(kind, 8), OptimSpec(), 4)
    assert not all(torch.equal(x, y) for x, y in zip(a.parameters(), c.parameters()))


@pytest.mark.parametrize("kind", CONFIGS)
def test_initial_variance_follows_the_fan_in(kind):
    """Hidden weights ∝ 1/√fan_in; the head ∝ 1/fan_in, so that its output's size does not grow with the width."""
    spread = {}
    for width in (16, 256):
        potential = build(config(kind, width), OptimSpec(base_width=16), 0)
        spread[width] = {n: p.std().item() for n, p in potential.named_parameters() if p.ndim > 1 and p.numel() > 15}
    assert spread[256]["energy.0.weight"] / spread[16]["energy.0.weight"] == pytest.approx(1 / 4, rel=0.15)
    assert spread[256]["energy.2.weight"] / spread[16]["energy.2.weight"] == pytest.approx(1 / 16, rel=0.4)
    assert spread[256]["embed.table.weight"] / spread[16]["embed.table.weight"] == pytest.approx(1, rel=0.3)


def coordinates(kind: str, width: int, rule: str, steps: int = 10, seeds: int = 10) -> dict[str, list[float]]:
    """Root mean square of h after the last layer, energies and forces, and of their change since the start, per step.

    With the warm-up that runs have: 100 steps.
    """
    store = Store.from_structures([labelled(s) for s in random_molecules(36, 5, 9, seed=3)], PARTS)
    watch = ForceField.of(RunSpec(config(kind, width), DataSpec(structures=16)), store)
    probe = watch.batch(store.take(range(16)))
    found: dict[str, list[list[float]]] = {}
    for seed in range(seeds):
        optim = OptimSpec(learning_rate=1e-2, base_width=16, width_rule=rule, batch_structures=4, warmup_steps=100)
        spec = RunSpec(config(kind, width), DataSpec(structures=32, epochs=2), optim, seed=seed)
        task = ForceField.of(spec, store)
        potential = build(spec.model, optim, seed).train()
        made = optimizer(potential, spec.model, optim)
        seen: dict[str, torch.Tensor] = {}
        potential.layers[-1].register_forward_hook(
            lambda module, inputs, out, seen=seen: seen.update(h=out[0] if isinstance(out, tuple) else out)
        )
        first: dict[str, torch.Tensor] = {}
        rows: dict[str, list[float]] = {}
        for step in range(steps + 1):
            with torch.no_grad():
                out = potential(probe.graph)
            now = {"h": seen["h"].detach().clone(), "energy": out.energy, "force": out.force}
            first = first or now
            for name, value in now.items():
                rows.setdefault(name, []).append(value.square().mean().sqrt().item())
                rows.setdefault(f"Δ{name}", []).append((value - first[name]).square().mean().sqrt().item())
            if step < steps:
                train_step(task, potential, made, step, None)
        for name, values in rows.items():
            found.setdefault(name, []).append(values)
    return {name: torch.tensor(values).square().mean(0).sqrt().tolist() for name, values in found.items()}


@pytest.fixture(scope="module", params=CONFIGS)
def check(request):
    return request.param, {w: coordinates(request.param, w, "mup") for w in (16, 32, 64, 128)}


@pytest.mark.parametrize("name", ["h", "Δh", "Δenergy", "Δforce"])
def test_coordinate_check(check, name):
    """Activations and all updates are flat within 2 × over 8 × in width at steps 1 to 10 (ten seeds, rms)."""
    kind, found = check
    ratios = [max(c) / min(c) for c in zip(*(found[w][name][1:] for w in found))]
    assert max(ratios) < 2.0, f"{kind} {name}: {[round(r, 2) for r in ratios]}"


def test_energies_start_small_and_never_grow_with_the_width(check):
    """A head of variance 1/fan_in² starts at ∝ 1/√w (2.8 over 8 × in width) and is overtaken by what is learned."""
    kind, found = check
    for step in range(11):
        values = [found[w]["energy"][step] for w in sorted(found)]
        assert max(values) / values[0] < 1.5, kind
        assert values[0] / min(values) < 2 * 8**0.5, kind


def test_the_coordinate_check_can_fail():
    """With one rate for all tensors at every width updates grow with the width: the check is not vacuous."""
    narrow, broad = (coordinates("mpnn", w, "paper", steps=3, seeds=2) for w in (16, 128))
    constant = [b / n * 8 for n, b in zip(narrow["Δh"][1:], broad["Δh"][1:])]  # the rule's 1/8 undone
    assert max(constant) > 2.0


# --- the other optimisers -----------------------------------------------------------------------------------------

PLAIN = ("adamw", "sgd")


def stepped(name: str, steps: int, **fields):
    """A potential after some steps, its optimiser, and the gradients that it was given."""
    spec = tiny_spec(optimizer=name, learning_rate=0.1, warmup_steps=4, weight_decay=0.01, **fields)
    task = ForceField.of(spec, tiny_store())
    potential = build(spec.model, spec.optim, 0).train()
    made, seen = optimizer(potential, spec.model, spec.optim), []
    for step in range(steps):
        train_step(task, potential, made, step, None)
        seen.append([None if p.grad is None else p.grad.clone() for p in potential.parameters()])
    return spec, potential, made, seen


def test_sgd_by_hand():
    """w <- w - η min(1, (k + 1) / warm-up) (∇ + λ w): no momentum, a linear warm-up, then a constant rate."""
    spec, potential, _, seen = stepped("sgd", 6)
    weights = list(build(spec.model, spec.optim, 0).parameters())
    with torch.no_grad():
        for k, gradients in enumerate(seen):
            for w, g in zip(weights, gradients):
                if g is not None:
                    w -= 0.1 * min(1.0, (k + 1) / 4) * (g + 0.01 * w)
    for w, p in zip(weights, potential.parameters()):
        torch.testing.assert_close(w, p, rtol=1e-5, atol=1e-7)


def test_adamw_is_torchs_with_the_specs_betas():
    """The same gradients through torch's own AdamW, the rate set by hand."""
    spec, potential, _, seen = stepped("adamw", 6, beta1=0.8, beta2=0.99)
    weights = list(build(spec.model, spec.optim, 0).parameters())
    other = torch.optim.AdamW(weights, betas=(0.8, 0.99), weight_decay=0.01)
    for k, gradients in enumerate(seen):
        other.param_groups[0]["lr"] = 0.1 * min(1.0, (k + 1) / 4)
        for w, g in zip(weights, gradients):
            w.grad = g
        other.step()
    assert all(torch.equal(w, p) for w, p in zip(weights, potential.parameters()))


@pytest.mark.parametrize("name", PLAIN)
def test_the_last_weights_are_evaluated(name):
    """A copy in eval mode that holds them; the one in training is left as it is, its optimiser's state with it."""
    _, potential, made, _ = stepped(name, 3)
    before = copy.deepcopy((potential.state_dict(), made.state_dict()))
    twin = averaged(potential, made)
    assert not twin.training
    assert potential.training
    assert all(torch.equal(a, b) for a, b in zip(twin.parameters(), potential.parameters()))
    with torch.no_grad():
        next(twin.parameters()).zero_()
    assert all(torch.equal(a, b) for a, b in zip(before[0].values(), potential.state_dict().values()))
    assert str(before[1]) == str(made.state_dict())


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("stop", [2, 11])
def test_a_killed_run_goes_on_bit_for_bit(name, stop, tmp_path):
    """Within the warm-up and after it: where the rate is, and Adam's moments, are in the checkpoint."""
    spec, store = tiny_spec(optimizer=name, linear_points=16), tiny_store()
    train(spec, store, tmp_path / "undisturbed")

    def tell(progress):
        if progress.step >= stop:
            raise Killed

    with pytest.raises(Killed):
        train(spec, store, tmp_path / "killed", tell=tell, checkpoint_every=0.0)
    train(spec, store, tmp_path / "killed")
    assert files(tmp_path / "killed", spec) == files(tmp_path / "undisturbed", spec)


def test_adamws_rates_follow_the_width_and_sgds_are_refused():
    """muP's factors are Adam's: one sentence instead of a rate that means nothing."""
    model = config("mpnn", 16)
    optim = OptimSpec(base_width=8, optimizer="adamw", learning_rate=0.1)
    made = optimizer(build(model, optim, 0), model, optim)
    assert sorted(group["full_rate"] for group in made.made.param_groups) == [0.05, 0.1]
    with pytest.raises(InputError, match="Adam's and say nothing of sgd"):
        optimizer(build(model, optim, 0), model, replace(optim, optimizer="sgd"))


def test_a_spec_without_an_optimizer_keeps_its_key():
    """Published runs were made before there was a choice."""
    assert b"optimizer" not in to_json(OptimSpec, OptimSpec())
