"""The contract between an architecture and the rest of the package, and the two pieces that several share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from equiscale.data.structure import SYMBOLS
from equiscale.errors import InputError
from equiscale.graph import AtomGraph, sum_by


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


def count_parameters(potential: Potential) -> tuple[int, int]:
    """N, and N without embedding and radial-basis weights."""
    n = sum(p.numel() for p in potential.parameters() if p.requires_grad)
    return n, n - sum(p.numel() for p in potential.input_parameters())


class ElementEmbedding(nn.Module):
    """One learned row per element: rows 1 ... 100 by atomic number, or only for the ``elements`` given."""

    row: Tensor

    def __init__(self, elements: tuple[int, ...] | None, width: int):
        super().__init__()
        self.elements = elements
        rows = 100 if elements is None else len(elements)
        self.table = nn.Embedding(rows, width)
        lookup = torch.full((len(SYMBOLS),), -1)
        known = torch.arange(1, 101) if elements is None else torch.tensor(elements)
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
