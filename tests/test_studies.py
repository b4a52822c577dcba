"""The studies that ship: they load, their pairs differ in symmetry alone, and every rung trains."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import pytest
import torch
from molecules import random_molecules

from equiscale.data.sources import load
from equiscale.errors import InputError
from equiscale.ladder import load_study
from equiscale.models.base import count_parameters, graph_for
from equiscale.train.force_field import ForceField
from equiscale.train.loop import time_steps
from equiscale.train.optim import build, optimizer

STUDIES = Path(__file__).parents[1] / "studies"


def study(monkeypatch, name: str, preset: str = "laptop"):
    monkeypatch.setenv("EQUISCALE_PRESET", preset)
    return load_study(STUDIES / name)


def test_the_symmetry_study_holds_what_it_is_for(monkeypatch):
    """Six architectures; eSEN of degrees 1 to 4 and EGNN of several vector channels at three widths or more."""
    ladders = study(monkeypatch, "symmetry.py").ladders
    assert len({ladder.model.kind for ladder in ladders}) == 6
    names = Counter(ladder.architecture for ladder in ladders)
    assert set(names.values()) == {1}  # told apart in every table
    degrees = {l.model.lmax for l in ladders if l.model.kind == "esen" and len(l.widths) >= 3}
    channels = {l.model.vector_channels for l in ladders if l.model.kind == "egnn" and len(l.widths) >= 3}
    assert degrees == {1, 2, 3, 4}
    assert len(channels) >= 4


def test_remedies_are_compared_at_equal_compute(monkeypatch):
    """Forward passes of all ladders are those of the plain one; the control takes as many steps as the symmetry loss of
    M = 5, each of M + 1 times the structures and so of the same cost."""
    ladders = {l.architecture: l for l in study(monkeypatch, "symmetry_loss.py").ladders}
    plain, remedied, control = (ladders[name] for name in ("mpnn", "mpnn symmetry loss", "mpnn batch 24"))
    for ladder in ladders.values():
        passes = 1 if ladder.remedy is None else ladder.remedy.passes
        assert passes * ladder.data.structures == pytest.approx(plain.data.structures, abs=passes)
        assert set(ladder.widths) <= set(plain.widths)
    passes = remedied.remedy.passes
    assert passes == 6
    assert control.optim.batch_structures == passes * remedied.optim.batch_structures
    steps = [l.data.structures // l.optim.batch_structures for l in (remedied, control)]
    assert steps[0] == steps[1]
    assert control.optim.learning_rate == remedied.optim.learning_rate


def test_pairs_differ_in_symmetry_alone(monkeypatch):
    """The same skeleton: N and FLOPs of the symmetric and of the unconstrained twin within 3 %."""
    found = {l.architecture: l.model for l in study(monkeypatch, "symmetry.py").ladders}
    pairs = [
        ("mpnn", "mpnn edges=distances"),
        ("escaip", "escaip force head=tied"),
        ("esen lmax=2 absolute directions", "esen lmax=2"),
    ]
    for free, tied in pairs:
        assert not found[free].equivariant
        assert found[tied].equivariant
        sizes = []
        for model in (found[free], found[tied]):
            wide = dataclasses.replace(model, width=32)
            with torch.device("meta"):
                n, _ = count_parameters(wide.build())
            sizes.append((n, wide.flops(graph_for(wide, random_molecules(4, 12, 20, seed=0)).counts)))
        (n, flops), (n_tied, flops_tied) = sizes
        assert n_tied == pytest.approx(n, rel=0.03)
        assert flops_tied == pytest.approx(flops, rel=0.03)


def test_an_unknown_preset_is_one_sentence(monkeypatch):
    with pytest.raises(InputError, match="EQUISCALE_PRESET is one of laptop"):
        study(monkeypatch, "symmetry.py", "lapotp")


@pytest.mark.parametrize("name", ["symmetry.py", "first.py"])
def test_every_ladder_trains(monkeypatch, name):
    """The smallest rung of every ladder takes two steps of the smoke preset's data, and its weights move."""
    ladders = study(monkeypatch, name, "smoke").ladders
    data = load(ladders[0].data.name)
    for ladder in ladders:
        spec = ladder.runs()[0]
        spec = dataclasses.replace(spec, data=dataclasses.replace(spec.data, structures=32))
        task = ForceField.of(spec, data)
        potential = build(spec.model, spec.optim, spec.seed).train()
        before = [p.detach().clone() for p in potential.parameters()]
        time_steps(task, potential, optimizer(potential, spec.model, spec.optim), range(2), spec.optim.clip)
        moved = sum(bool((a != b.detach()).any()) for a, b in zip(before, potential.parameters()))
        assert moved > 0.8 * len(before), ladder.architecture
