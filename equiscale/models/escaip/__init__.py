"""EScAIP, attention over each atom's neighbours on invariant features: configuration, declared properties, compute."""

from typing import TYPE_CHECKING, ClassVar, Literal

from equiscale.config import config, later
from equiscale.errors import InputError

if TYPE_CHECKING:
    from equiscale.graph import Counts

LMAX = 9
"""Bond-orientational order of degrees 0 ... 9: ten numbers per atom."""


@config
class EScAIPConfig:
    """Self-attention over each atom's neighbours, and a force head that breaks the symmetry (Qu, Krishnapriyan 2024).

    Defaults are version 1's 6M-parameter model for SPICE: H = 128, 6 layers, 8 heads, 20 neighbours within 12 Å, 600
    Gaussians. One dial: an edge's distance, a neighbourhood's order and an element are embedded in 4H, H/2 and H
    channels (published at H = 128: 512, 64, 128). With these, 100 elements and L layers, N is

        (33L + 31)H² + (2641L + 2649)H + hL   (free head; the tied one has 2H fewer; h heads)

    ``force_head``: the force on i is F_i = m_i Σ_j e_ij ⊙ v_ij with v = W x_ij. ``free`` has three rows w_k in W, one
    per Cartesian axis, which breaks rotations; ``tied`` has one for all three and so is equivariant: the minimal pair.
    """

    kind: Literal["escaip"] = "escaip"
    width: int = 128
    depth: int = 6
    cutoff: float = 12.0  # Å
    max_neighbors: int | None = 20
    num_radial: int = 600
    distance_channels: int | None = None  # None: 4 × width
    order_channels: int | None = None  # None: width / 2
    element_channels: int | None = None  # None: width
    head_dim: int = 16  # least channels of an attention head
    force_head: Literal["free", "tied"] = "free"
    envelope: Literal["none", "polynomial"] = "none"
    elements: tuple[int, ...] | None = None  # None: a row for each Z up to 100
    aggregation: Literal["mean", "sum"] = "mean"
    forces: Literal["direct", "conservative"] = "direct"
    charge_spin: bool = later(False)  # embed a structure's total charge and spin multiplicity too

    equivariance_tolerance: ClassVar[float] = 1e-9  # exact: round-off in float64
    variants: ClassVar[tuple[str, ...]] = ("force_head",)  # told apart in tables
    symmetric_edges: ClassVar[bool] = False
    translation_invariant: ClassVar[bool] = True
    extensive: ClassVar[bool] = True  # energies are summed, far fragments do not see each other

    def __post_init__(self) -> None:
        if self.forces == "conservative" and self.envelope == "none":
            raise InputError("conservative forces need an envelope: set envelope='polynomial' in the EScAIP's config.")

    @property
    def equivariant(self) -> bool:
        """All features are invariant: only the free force head breaks rotations."""
        return self.force_head == "tied" or self.forces == "conservative"

    @property
    def reflection_equivariant(self) -> bool:
        return self.equivariant

    @property
    def smooth(self) -> bool:
        """Energies and forces are continuous when an atom crosses the cutoff."""
        return self.envelope != "none" and self.aggregation == "sum" and self.max_neighbors is None

    @property
    def heads(self) -> int:
        """The most heads of equal size with at least ``head_dim`` channels each; one for a narrower potential."""
        return max((n for n in range(1, self.width // self.head_dim + 1) if self.width % n == 0), default=1)

    @property
    def pieces(self) -> tuple[int, int, int]:
        """Channels D, B, A in which a distance, a neighbourhood's order and an element are embedded."""
        w = self.width
        given = (self.distance_channels, 4 * w), (self.order_channels, max(1, w // 2)), (self.element_channels, w)
        d, b, a = (rule if size is None else size for size, rule in given)
        return d, b, a

    def flops(self, counts: "Counts") -> float:
        """Forward FLOPs of the published formulation: twice the multiplications of every matrix product.

        Edge attributes, L + 1 times: RD + (D + 2B + 2A)w per edge and 20B per atom. Input: 2w² per edge. Layers: 8w²
        per edge and 2w per pair of edges that meet at an atom (attention), 4w² per atom and per edge (FFNs). Readouts,
        L + 1 times: 5w² per atom and per edge. Heads: 4w² + w twice per atom, 4w² + 3w per edge. Cosines: 3 per pair.
        Conservative forces need neither the FFNs, readouts and heads of edges nor the second head of atoms.
        """
        w, l, direct = self.width, self.depth, self.forces == "direct"
        d, b, a = self.pieces
        columns = 3 if self.force_head == "free" else 1
        node = (l + 1) * 2 * (LMAX + 1) * b + l * 4 * w * w + (l + 1) * 5 * w * w + (4 * w * w + w) * (1 + direct)
        edge = (l + 1) * (self.num_radial * d + (d + 2 * b + 2 * a) * w) + 2 * w * w + l * 8 * w * w
        if direct:
            edge += l * 4 * w * w + (l + 1) * 5 * w * w + 4 * w * w + columns * w
        return 2.0 * (counts.atoms * node + counts.edges * edge + counts.edge_pairs * (2 * w * l + 3))

    def build(self):
        from equiscale.models.escaip.potential import EScAIP

        return EScAIP(self)
