"""Compute grows with atoms and edges, not with their squares: counted, for every architecture with a cutoff."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from models.test_contract import ARCHITECTURES, CHOICES, small
from molecules import crystal, random_molecules
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from equiscale.data.structure import Structure
from equiscale.models import TransformerConfig
from equiscale.models.base import graph_for
from equiscale.predict import predict

CELL = crystal(20, seed=1, edge=6.5)
TILES = {20: (1, 1, 1), 200: (1, 2, 5), 2000: (4, 5, 5)}
TINY = dict(width=4, hidden=8, lmax=2, mmax=1, grid=None)


def tiled(s: Structure, times: tuple[int, int, int]) -> Structure:
    """The same crystal in a larger cell: density and degrees stay exactly, there is no surface."""
    shifts = np.array(list(itertools.product(*map(range, times)))) @ s.cell
    positions = (shifts[:, None] + s.positions).reshape(-1, 3)
    return Structure(np.tile(s.numbers, len(shifts)), positions, cell=s.cell * np.array(times)[:, None])


class Allocated(TorchDispatchMode):
    """Bytes of all new tensors: what a count of FLOPs, matrix products only, does not see."""

    bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        given = {x.untyped_storage().data_ptr() for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)}
        made = {x.untyped_storage() for x in tree_leaves(out) if isinstance(x, torch.Tensor)}
        self.bytes += sum(x.nbytes() for x in made if x.data_ptr() not in given)  # neither views nor in place
        return out


def step(config, structures) -> np.ndarray:
    """FLOPs and bytes of one training step, without building the graph, per atom; and its edges per atom."""
    potential, graph = config.build(), graph_for(config, structures)
    with FlopCounterMode(display=False) as counter, Allocated() as allocated:
        out = predict(potential, graph, create_graph=True)
        (out.energy.sum() + out.forces.square().sum()).backward()
    return np.array([counter.get_total_flops(), allocated.bytes, len(graph.receiver)]) / len(graph.numbers)


with_a_cutoff = pytest.mark.parametrize(
    "cls", [cls for cls in ARCHITECTURES if cls().cutoff is not None], ids=lambda c: c().kind
)


@with_a_cutoff
@pytest.mark.parametrize("forces", CHOICES["forces"])
def test_cost_per_atom_does_not_grow_with_the_structure(cls, forces):
    """20, 200 and 2,000 atoms of one crystal. It may fall: what depends on weights alone is done once, and EScAIP
    multiplies blocks of distances that lie near each other the better the more there are."""
    config = small(cls, forces=forces, **TINY)
    costs = {atoms: step(config, [tiled(CELL, times)]) for atoms, times in TILES.items()}
    assert costs[20][2] == costs[200][2] == costs[2000][2] > 10  # edges per atom
    for fewer, more in ((20, 200), (200, 2000)):
        assert (costs[more] <= 1.02 * costs[fewer]).all()
    assert (costs[2000] > 0.85 * costs[200])[0]


@pytest.mark.parametrize("cls", ARCHITECTURES, ids=lambda c: c().kind)
def test_cost_per_atom_does_not_grow_with_the_batch(cls):
    """Many structures beside each other cost what they cost alone, those without a cutoff too."""
    config = replace(small(cls, **TINY))
    molecule = random_molecules(1, 12, 12, seed=1)
    few, many = step(config, 4 * molecule), step(config, 100 * molecule)
    assert (many <= 1.02 * few).all()


def test_what_looks_at_all_pairs_does_grow():
    """The count sees a square where there is one."""
    config = small(TransformerConfig, **TINY)
    few, many = (step(config, random_molecules(1, n, n, seed=1)) for n in (20, 200))
    assert many[0] > 2 * few[0]
