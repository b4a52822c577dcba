"""MC-EGNN, Cartesian vectors in several channels: configuration, declared properties and published compute."""

from math import isqrt
from typing import TYPE_CHECKING, ClassVar, Literal

from equiscale.config import config, later
from equiscale.errors import InputError

if TYPE_CHECKING:
    from equiscale.graph import Counts


@config
class EGNNConfig:
    """E(3)-equivariant messages on E = ⌊√w⌋ vector channels (eqs. 11, 12; Satorras 2021, Levy 2023).

    Defaults give table 4 of the scaling paper: N = 85w² + (11E² + 12E + 1831)w + E + 1 at depth 12.
    """

    kind: Literal["egnn"] = "egnn"
    width: int = 64
    depth: int = 12
    vector_channels: int | None = None  # None: ⌊√w⌋
    cutoff: float = 6.0  # Å
    max_neighbors: int | None = 30
    num_radial: int = 136
    radial: Literal["gaussian", "bessel"] = "gaussian"
    envelope: Literal["none", "polynomial"] = "none"
    elements: tuple[int, ...] | None = None  # None: a row for each Z up to 100
    aggregation: Literal["mean", "sum"] = "mean"
    norm: Literal["graph", "atom"] = "graph"
    forces: Literal["direct", "conservative"] = "direct"
    charge_spin: bool = later(False)  # embed a structure's total charge and spin multiplicity too

    equivariant: ClassVar[bool] = True
    reflection_equivariant: ClassVar[bool] = True
    equivariance_tolerance: ClassVar[float] = 1e-9  # exact: round-off in float64
    variants: ClassVar[tuple[str, ...]] = ("vector_channels",)  # told apart in tables
    symmetric_edges: ClassVar[bool] = False
    translation_invariant: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.forces == "conservative" and self.envelope == "none":
            raise InputError("conservative forces need an envelope: set envelope='polynomial' in the EGNN's config.")

    @property
    def channels(self) -> int:
        """Number E of vector channels."""
        return isqrt(self.width) if self.vector_channels is None else self.vector_channels

    @property
    def extensive(self) -> bool:
        """Far fragments do not see each other."""
        return self.norm == "atom"

    @property
    def smooth(self) -> bool:
        """Energies and forces are continuous when an atom crosses the cutoff."""
        return self.envelope != "none" and self.aggregation == "sum" and self.max_neighbors is None

    def flops(self, counts: "Counts") -> float:
        """Forward FLOPs of the published formulation, which forms Φ(m) of every edge (`architectures.md` §6).

        Per layer and edge 2 [(2w + E_in + n_rbf)w + 2w² + wE_inE + 3E_inE]; per atom 2·3w²; heads 2 (w² + w + 3E).
        """
        w, e = self.width, self.channels
        node = self.depth * 3 * w * w + w * w + w
        edge = 0
        for i in range(self.depth):
            e_in = 1 if i == 0 else e
            edge += (2 * w + e_in + self.num_radial) * w + w * w
            if i < self.depth - 1 or self.forces == "direct":
                edge += w * w + w * e_in * e + 3 * e_in * e
        if self.forces == "direct":
            node += 3 * e
        return 2.0 * (counts.atoms * node + counts.edges * edge)

    def build(self):
        from equiscale.models.egnn.potential import EGNN

        return EGNN(self)
