"""The contract between an architecture and the rest of the package, and the two pieces that several share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from equiscale.data.store import Store
from equiscale.data.structure import SYMBOLS, Structure
from equiscale.errors import InputError
from equiscale.graph import AtomGraph, build_graph, sum_by


@dataclass(frozen=True, eq=False)
class AtomicOutput:
    """What an architecture computes per atom, in normalised units."""

    energy: Float[Tensor, " atoms"]
    force: Float[Tensor, "atoms 3"] | None = None  # None: forces are minus the energy's gradient


class Potential(nn.Module, ABC):
    """A trainable map from an atomic graph to per-atom energies, and direct forces where there is a head for them."""

    config: Any  # one of ModelConfig; not named here, as the registry imports the architectures

    @abstractmethod
    def forward(self, graph: AtomGraph) -> AtomicOutput: ...

    @abstractmethod
    def input_parameters(self) -> Iterator[nn.Parameter]:
        """Weights that only embed elements or radial functions: what ``N_body`` leaves out of N."""

    def prepare(self, graph: AtomGraph) -> None:
        """Fit to the geometry of a few structures, before training, what no gradient reaches (scale factors).

        What is fitted is held in buffers, so that a checkpoint has it. As a rule there is nothing to fit.
        """
        return

    def head_deviation(self) -> Float[Tensor, ""] | None:
        """Squared distance ‖W - W̄‖² of a head that may break symmetry from those that do not; None: no such head."""
        return None


def count_parameters(potential: Potential) -> tuple[int, int]:
    """N, and N without embedding and radial-basis weights."""
    n = sum(p.numel() for p in potential.parameters() if p.requires_grad)
    return n, n - sum(p.numel() for p in potential.input_parameters())


def graph_for(
    config: Any,
    structures: Store | Sequence[Structure],
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> AtomGraph:
    """The graph that an architecture (one of ModelConfig) is defined on."""
    symmetric = config.symmetric_edges
    return build_graph(structures, config.cutoff, config.max_neighbors, symmetric=symmetric, dtype=dtype, device=device)


class ElementEmbedding(nn.Module):
    """One learned row per element: rows 1 ... ``rows`` by atomic number, or only for the ``elements`` given."""

    row: Tensor

    def __init__(self, elements: tuple[int, ...] | None, width: int, rows: int = 100):
        super().__init__()
        self.elements = elements
        known = torch.arange(1, rows + 1) if elements is None else torch.tensor(elements)
        rows = len(known)
        self.table = nn.Embedding(rows, width)
        lookup = torch.full((len(SYMBOLS),), -1)
        lookup[known] = torch.arange(rows)
        self.register_buffer("row", lookup, persistent=False)

    def forward(self, numbers: Int[Tensor, " atoms"]) -> Float[Tensor, "atoms width"]:
        rows = self.row[numbers]
        if not rows.is_cuda and bool((rows < 0).any()):  # on a GPU the data are checked before training instead
            missing = sorted({SYMBOLS[z] for z in numbers[rows < 0].tolist()})
            raise InputError(
                f"the potential has no row for {', '.join(missing)}: name these in its `elements`, or leave it unset."
            )
        return self.table(rows)


CHARGES, SPINS = 10, 11
"""Total charges from -10 to 10 and multiplicities from 1 to 11 have a row: OMol25's."""


class ChargeSpinEmbedding(nn.Module):
    """A learned row for the structure's total charge and one for its spin multiplicity, for each of its atoms."""

    def __init__(self, width: int):
        super().__init__()
        self.charge = nn.Embedding(2 * CHARGES + 1, width)
        self.spin = nn.Embedding(SPINS, width)

    def forward(self, graph: AtomGraph) -> Float[Tensor, "atoms width"]:
        charge, spin = graph.charge + CHARGES, graph.spin - 1
        if not charge.is_cuda and bool(((charge < 0) | (charge > 2 * CHARGES) | (spin < 0) | (spin >= SPINS)).any()):
            raise InputError(
                f"charges from {-CHARGES} to {CHARGES} and multiplicities from 1 to {SPINS} have a row, not charge "
                f"{graph.charge.tolist()} with multiplicity {graph.spin.tolist()}: unset `charge_spin`."
            )
        return (self.charge(charge) + self.spin(spin)).index_select(0, graph.structure)


class GraphNorm(nn.Module):
    """Normalise each channel over the atoms of one structure (Cai et al. 2021): weight, bias and mean scale, 3w.

    Not extensive: two far fragments in one structure see each other. One atom has variance zero and comes out as the
    bias (and what the mean scale leaves).
    """

    def __init__(self, width: int, eps: float = 1e-5):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.mean_scale = nn.Parameter(torch.ones(width))

    def forward(self, h: Float[Tensor, "atoms w"], graph: AtomGraph) -> Float[Tensor, "atoms w"]:
        n = graph.size.to(h.dtype)[:, None]
        mean = sum_by(graph.structure, h, graph.num_structures) / n
        h = h - (mean * self.mean_scale).index_select(0, graph.structure)
        variance = sum_by(graph.structure, h.square(), graph.num_structures) / n
        scale = self.weight * (variance + self.eps).rsqrt()
        return h * scale.index_select(0, graph.structure) + self.bias


class AtomNorm(nn.Module):
    """LayerNorm over each atom's channels: extensive, 2w parameters; GraphNorm's replacement where locality matters."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)

    def forward(self, h: Float[Tensor, "atoms w"], graph: AtomGraph) -> Float[Tensor, "atoms w"]:
        return self.norm(h)


Norm = Literal["graph", "atom"]


def norm(kind: Norm, width: int) -> nn.Module:
    return GraphNorm(width) if kind == "graph" else AtomNorm(width)
