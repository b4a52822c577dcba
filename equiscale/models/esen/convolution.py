"""The edge frame and the SO(2) convolutions in it: linear maps that commute with a turn about the edge.

Features in the edge frame are rows (order, sign, degree, channel), channels fastest: order 0, then ±1, ±2, ..., each
with the degrees l = m ... lmax side by side, so that a convolution is one matrix product per order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from equiscale.graph import AtomGraph
from equiscale.models.esen import ESENConfig
from equiscale.so3 import edge_frames, num_components, wigner_rows


@dataclass(frozen=True, eq=False)
class Frames:
    """Rotations of a batch's edges, in the two layouts in which rotating is one product per atom.

    All edges of an atom share its features: turning them into the edges' frames is one (edges · rows × components)
    product per atom, and turning back with the sum over neighbours its transpose; no (edges, components, channels)
    tensor exists. ``arriving`` holds the rows of an atom's incoming edges, ``leaving`` those of its outgoing ones.

    In a symmetric graph nothing needs to be turned twice: the frame of a counter edge is an edge's own, turned by π
    about x', so what a sender looks like from an edge is, up to signs, what it looks like from the counter edge, whose
    receiver it is. The signs go into the convolution's matrices.
    """

    arriving: Tensor  # (atoms, slots · rows, components)
    leaving: Tensor | None  # None: the graph is symmetric
    back: Tensor  # arriving, times the envelope
    places: tuple[Tensor, Tensor]  # (edges,) an edge's slot in the sender's and in the receiver's turned features
    empty: tuple[Tensor, Tensor]  # slots there without an edge
    slots: int  # incoming, per atom
    signs: list[Tensor] | None  # of the first convolution's columns, per order

    @staticmethod
    def of(graph: AtomGraph, vectors: Tensor, smooth: Tensor | None, config: ESENConfig) -> Frames:
        with torch.autocast(vectors.device.type, enabled=False):  # rotations stay exact
            made = wigner_rows(edge_frames(vectors), config.lmax, config.mmax)
            own = _segments(config.lmax, config.mmax).to(vectors)
            # One row per degree: its own segment of the components, zero elsewhere.
            spread = [(row[:, :, None, :] * own[m, m:]).flatten(1, 2) for m, row in enumerate(made)]
        wide = torch.cat(spread, dim=1)  # (edges, rows, components)
        rows, size = wide.shape[1:]
        wide = wide.flatten(1)
        atoms, place = len(graph.numbers), graph.place

        def padded(values: Tensor, place: Tensor, slots: int) -> Tensor:
            blank = values.new_zeros(atoms * slots, rows * size)
            return blank.index_copy(0, place, values).view(atoms, slots * rows, size)

        arriving, empty = padded(wide, place, graph.max_degree), _empty(place, atoms * graph.max_degree)
        back = arriving if smooth is None else padded(wide * smooth, place, graph.max_degree)
        if graph.symmetric:
            places = place.index_select(0, graph.reverse), place
            return Frames(arriving, None, back, places, (empty, empty), graph.max_degree, _signs(config, wide))
        out_place, out_slots = graph.leaving
        leaving, out_empty = padded(wide, out_place, out_slots), _empty(out_place, atoms * out_slots)
        return Frames(arriving, leaving, back, (out_place, place), (out_empty, empty), graph.max_degree, None)

    def turn(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Senders' and receivers' features in the frames of all slots: (slots, rows · channels) each."""
        width = _rows(self.arriving, self.slots) * x.shape[2]
        arriving = torch.bmm(self.arriving, x).view(-1, width)
        return arriving if self.leaving is None else torch.bmm(self.leaving, x).view(-1, width), arriving

    def turn_back(self, slots: Tensor, channels: int) -> Tensor:
        """Messages (slots, rows · channels) turned back and summed at each atom: (atoms, components, channels)."""
        atoms, rows, _ = self.back.shape
        return torch.bmm(self.back.mT, slots.view(atoms, rows, channels))


def _empty(place: Tensor, slots: int) -> Tensor:
    return torch.ones(slots, dtype=torch.bool, device=place.device).index_fill(0, place, False).nonzero().squeeze(1)


def _signs(config: ESENConfig, like: Tensor) -> list[Tensor]:
    """What a turn by π about x does to the sender's columns (sign, side, degree, channel), and a 1 for the bias."""
    made = []
    for m, degrees in enumerate(config.orders):
        even = torch.tensor([(-1.0) ** l for l in range(degrees)])  # (-1)^(l + m), from l = m on
        flipped = torch.stack([even, -even])[: 2 if m else 1]
        both = torch.stack([flipped, torch.ones_like(flipped)], dim=1)[..., None].expand(-1, -1, -1, config.width)
        made.append(torch.cat([both.flatten(), torch.ones(1 if m == 0 else 0)]).to(like))
    return made


def _rows(padded: Tensor, slots: int) -> int:
    return padded.shape[1] // slots if slots else 1


def _segments(lmax: int, mmax: int) -> Tensor:
    """1 where a component belongs to degree l: (orders, degrees, components)."""
    own = torch.zeros(mmax + 1, lmax + 1, num_components(lmax))
    for l in range(lmax + 1):
        own[:, l, l * l : (l + 1) ** 2] = 1
    return own


class Convolution(nn.Module):
    """Linear in each order: m = 0 freely, with ``extra`` scalars first; ±m together as one complex product.

    y₊ = W₁ x₊ - W₂ x₋, y₋ = W₂ x₊ + W₁ x₋, as one product with [[W₁, -W₂], [W₂, W₁]].
    """

    def __init__(self, config: ESENConfig, channels_in: int, channels_out: int, extra: int = 0):
        super().__init__()
        first, *orders = config.orders
        self.zero = nn.Linear(first * channels_in, extra + first * channels_out)
        self.orders = nn.ModuleList(nn.Linear(k * channels_in, 2 * k * channels_out, bias=False) for k in orders)
        for p in self.orders.parameters():
            with torch.no_grad():
                p.mul_(math.sqrt(0.5))

    def matrices(self, signs: list[Tensor] | None = None) -> list[Tensor]:
        """One real matrix (out, in) per order, its columns times ``signs``; order 0 has its bias as a last column, for
        inputs with a last 1."""
        made = [torch.cat([self.zero.weight, self.zero.bias[:, None]], dim=1)]
        for order in self.orders.parameters():
            one, two = order.chunk(2, dim=0)
            made.append(torch.cat([torch.cat([one, -two], dim=1), torch.cat([two, one], dim=1)], dim=0))
        return made if signs is None else [matrix * sign for matrix, sign in zip(made, signs)]
