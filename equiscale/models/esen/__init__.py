"""eSEN, spherical tensors: configuration, declared properties and published compute."""

import math
from typing import TYPE_CHECKING, ClassVar, Literal

from equiscale.config import config
from equiscale.errors import InputError

if TYPE_CHECKING:
    from equiscale.graph import Counts


@config
class ESENConfig:
    """SO(2) convolutions in the edge frame on features of degree l ≤ lmax (Fu et al. 2025; Passaro & Zitnick 2023).

    ``width`` is the number C of sphere channels; edge channels follow it, hidden channels stay. Defaults give table 5
    of the scaling paper: N = 332C² + 105180C + 15746.
    """

    kind: Literal["esen"] = "esen"
    width: int = 16
    depth: int = 12
    lmax: int = 4
    mmax: int = 2  # orders that the convolution mixes, ≤ lmax
    hidden: int = 32  # channels between the two convolutions, and of the grid's network
    grid: tuple[int, int] | None = None  # polar and azimuthal points; None: 2(lmax + 1) and 2(lmax + 1) + 1
    cutoff: float = 6.0  # Å
    max_neighbors: int | None = 30
    num_radial: int = 136
    radial: Literal["gaussian", "bessel"] = "gaussian"
    envelope: Literal["none", "polynomial"] = "none"
    elements: tuple[int, ...] | None = None  # None: a row for each Z up to 100
    forces: Literal["direct", "conservative"] = "direct"
    absolute_directions: bool = False  # True: the edge's direction in space enters too, which breaks the symmetry
    charge_spin: bool = False

    variants: ClassVar[tuple[str, ...]] = ("lmax", "mmax", "absolute_directions")  # told apart in tables
    symmetric_edges: ClassVar[bool] = False
    translation_invariant: ClassVar[bool] = True
    extensive: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.lmax < 1:
            raise InputError(f"eSEN needs lmax of 1 or more (forces are vectors), not {self.lmax}.")
        if not 0 <= self.mmax <= self.lmax:
            raise InputError(f"eSEN's mmax lies between 0 and lmax = {self.lmax}, not {self.mmax}.")
        if self.lmax > 12:
            raise InputError(f"eSEN's edge frames are exact to lmax = 12, not {self.lmax}: choose a smaller one.")
        least = 2 * self.lmax + 1
        if self.grid is not None and min(self.grid) < least:
            raise InputError(
                f"a grid of {self.grid[0]} x {self.grid[1]} points cannot hold lmax = {self.lmax}: it takes at least "
                f"{least} x {least}."
            )
        if self.forces == "conservative" and self.envelope == "none":
            raise InputError("conservative forces need an envelope: set envelope='polynomial' in the eSEN's config.")

    @property
    def equivariant(self) -> bool:
        return not self.absolute_directions

    @property
    def reflection_equivariant(self) -> bool:
        """Orders m ≠ 0 are mixed with -m, which tells left from right: SO(3), not O(3)."""
        return self.equivariant and self.mmax == 0

    @property
    def equivariance_tolerance(self) -> float:
        """The network acts pointwise on a grid and is projected back: exact up to what the grid aliases.

        A bound on what was measured in float64 on two layers of random weights, lmax 1 to 6 (docs/esen.md): the error
        falls by e for every lmax / 1.1 points more than the published grid has. Trained weights may differ.
        """
        extra = min(self.points[0], self.points[1] - 1) - 2 * (self.lmax + 1)
        return max(1e-9, 3e-3 * self.lmax**2 * math.exp(-1.1 * extra / self.lmax))

    @property
    def smooth(self) -> bool:
        """Energies and forces are continuous when an atom crosses the cutoff."""
        return self.envelope != "none" and self.max_neighbors is None

    @property
    def points(self) -> tuple[int, int]:
        """Polar and azimuthal grid points."""
        return (2 * (self.lmax + 1), 2 * (self.lmax + 1) + 1) if self.grid is None else self.grid

    @property
    def orders(self) -> tuple[int, ...]:
        """Degrees per order m = 0 ... mmax: lmax + 1 - m."""
        return tuple(self.lmax + 1 - m for m in range(self.mmax + 1))

    def flops(self, counts: "Counts") -> float:
        """Forward FLOPs of the published code (`architectures.md` §6), for any lmax, mmax and hidden size.

        Per layer and edge: radial network, both convolutions, dense rotations in and out, dense reordering to the
        order-major layout; once per edge: the edge-degree embedding and the Wigner matrices; per atom and layer: the
        network on the grid.
        """
        c, h, nb = self.width, self.hidden, self.num_radial
        size, orders = (self.lmax + 1) ** 2, self.orders
        rows = orders[0] + 2 * sum(orders[1:])
        radial = (nb + 2 * c) * c + c * c
        first = 2 * c * orders[0] * (orders[0] + self.lmax) * h + sum(2 * (2 * c * k) * (2 * h * k) for k in orders[1:])
        second = h * orders[0] * orders[0] * c + sum(2 * (h * k) * (2 * c * k) for k in orders[1:])
        layer = radial + sum(orders) * 2 * c * c + first + second + 3 * rows * size * c + rows * rows * (3 * c + 2 * h)
        wigner = 4 * sum((2 * l + 1) ** 3 for l in range(self.lmax + 1))
        once = radial + orders[0] * c * c + rows * rows * c + rows * size * c + wigner
        points = self.points[0] * self.points[1]
        node = self.depth * points * (2 * size * c + 2 * c * h + h * h) + c
        return 2.0 * (counts.edges * (self.depth * layer + once) + counts.atoms * node)

    def build(self):
        from equiscale.models.esen.potential import ESEN

        return ESEN(self)
