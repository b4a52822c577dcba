"""The edge frame and the SO(2) convolutions in it: linear maps that commute with a turn about the edge.

Features in the edge frame are kept one tensor per order m: (edges, 1 or 2, degrees l = m ... lmax, channels), the sign
+m first. An order's rows of all degrees lie side by side, so that each convolution is one matrix product per order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from equiscale.graph import AtomGraph
from equiscale.models.esen import ESENConfig
from equiscale.so3 import edge_frames, num_components, wigner_rows


@dataclass(frozen=True, eq=False)
class Frames:
    """Rotations of a batch's edges, in the two layouts in which rotating is a product per atom.

    All edges of one atom share its features: rotating them is one (edges · rows × components) product per atom, and
    rotating back with the sum over neighbours its transpose; no (edges, components, channels) tensor exists.
    ``arriving`` holds the rows of an atom's incoming edges, ``leaving`` those of its outgoing ones, per order.
    """

    arriving: list[Tensor]  # per order (atoms, slots · rows, components)
    leaving: list[Tensor]
    back: list[Tensor]  # arriving, times the envelope
    arriving_place: Tensor  # (edges,) where an edge lies among the atoms' incoming slots
    leaving_place: Tensor
    slots: tuple[int, int]  # per atom: incoming, outgoing
    rows: tuple[int, ...]  # per order: signs times degrees

    @staticmethod
    def of(graph: AtomGraph, vectors: Tensor, smooth: Tensor | None, config: ESENConfig) -> Frames:
        with torch.autocast(vectors.device.type, enabled=False):  # rotations stay exact
            rows = wigner_rows(edge_frames(vectors), config.lmax, config.mmax)
        counts = tuple(k * (2 if m else 1) for m, k in enumerate(config.orders))
        atoms, size = len(graph.numbers), num_components(config.lmax)
        out_place, out_slots = graph.leaving
        arriving, leaving, back = [], [], []
        for m, row in enumerate(rows):
            count = counts[m]
            # One row per degree: its own segment of the components, zero elsewhere.
            own = torch.zeros(config.lmax + 1 - m, size, dtype=row.dtype, device=row.device)
            for k, l in enumerate(range(m, config.lmax + 1)):
                own[k, l * l : (l + 1) ** 2] = 1
            wide = (row[:, :, None, :] * own).view(len(row), count * size)
            for kept, place, slots, values in (
                (arriving, graph.place, graph.max_degree, wide),
                (leaving, out_place, out_slots, wide),
                (back, graph.place, graph.max_degree, wide if smooth is None else wide * smooth),
            ):
                padded = values.new_zeros(atoms * slots, values.shape[1]).index_copy(0, place, values)
                kept.append(padded.view(atoms, slots * count, size))
        return Frames(arriving, leaving, back, graph.place, out_place, (graph.max_degree, out_slots), counts)

    def turn(self, x: Tensor, m: int) -> tuple[Tensor, Tensor]:
        """Order m of the sender's and of the receiver's features, (edges, rows · channels) each."""
        atoms, _, channels = x.shape
        turned = []
        for rows, place, slots in (
            (self.leaving[m], self.leaving_place, self.slots[1]),
            (self.arriving[m], self.arriving_place, self.slots[0]),
        ):
            padded = torch.bmm(rows, x).view(atoms * slots, self.rows[m] * channels)
            turned.append(padded.index_select(0, place))
        return turned[0], turned[1]

    def turn_back(self, parts: list[Tensor], channels: int) -> Tensor:
        """Sum over each atom's edges of the messages turned back: (atoms, components, channels)."""
        total = None
        for rows, part in zip(self.back, parts):
            atoms = len(rows)
            padded = part.new_zeros(atoms * self.slots[0], part.shape[1]).index_copy(0, self.arriving_place, part)
            padded = padded.view(atoms, rows.shape[1], channels)
            total = torch.bmm(rows.mT, padded) if total is None else torch.baddbmm(total, rows.mT, padded)
        assert total is not None
        return total


class Convolution(nn.Module):
    """Linear in each order: m = 0 freely, with ``extra`` scalars first; ±m together as one complex product.

    y₊ = W₁ x₊ - W₂ x₋, y₋ = W₂ x₊ + W₁ x₋, as one product with [[W₁, -W₂], [W₂, W₁]]. Channels run fastest, then
    degrees, then the sign.
    """

    def __init__(self, config: ESENConfig, channels_in: int, channels_out: int, extra: int = 0):
        super().__init__()
        k = config.lmax + 1
        self.zero = nn.Linear(k * channels_in, extra + k * channels_out)
        self.orders = nn.ModuleList(
            nn.Linear(k * channels_in, 2 * k * channels_out, bias=False) for k in config.orders[1:]
        )
        with torch.no_grad():
            for order in self.orders:
                order.weight.mul_(math.sqrt(0.5))

    def matrix(self, m: int) -> Tensor:
        """The real matrix of order m ≥ 1: (2 · degrees · out, 2 · degrees · in)."""
        one, two = self.orders[m - 1].weight.chunk(2, dim=0)
        return torch.cat([torch.cat([one, -two], dim=1), torch.cat([two, one], dim=1)], dim=0)

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        return [self.zero(x[0]), *(linear(part, self.matrix(m)) for m, part in enumerate(x[1:], start=1))]
