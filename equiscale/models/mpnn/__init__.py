"""The unconstrained MPNN of the scaling paper: configuration, declared properties and published compute."""

from typing import TYPE_CHECKING, ClassVar, Literal

from equiscale.config import config, later
from equiscale.errors import InputError

if TYPE_CHECKING:
    from equiscale.graph import Counts


@config
class MPNNConfig:
    """Raw relative vectors and distances as edge features, no symmetry but translation (eq. 9; FAENet's "simple").

    Defaults give table 3 of the scaling paper: N = 12w² + 131w + 137⌈w/2⌉ + 4⌊w/2⌋ + 4.
    """

    kind: Literal["mpnn"] = "mpnn"
    width: int = 128
    depth: int = 5
    cutoff: float = 6.0  # Å
    max_neighbors: int | None = 30
    num_radial: int = 136
    radial: Literal["gaussian", "bessel"] = "gaussian"
    envelope: Literal["none", "polynomial"] = "none"
    elements: tuple[int, ...] | None = None  # None: a row for each Z up to 100
    aggregation: Literal["mean", "sum"] = "mean"
    norm: Literal["graph", "atom"] = "graph"
    forces: Literal["direct", "conservative"] = "direct"
    translation_invariant: bool = True  # False: absolute positions are embedded too (appendix J)
    charge_spin: bool = later(False)  # embed a structure's total charge and spin multiplicity too
    edges: Literal["vectors", "distances"] = later("vectors")  # distances: its equivariant twin, forces along edges
    # Positions about the structure's centroid are embedded too (appendix J: about the centre of mass).
    centered: bool = later(False)

    equivariance_tolerance: ClassVar[float] = 1e-9  # exact: round-off in float64
    variants: ClassVar[tuple[str, ...]] = ("translation_invariant", "edges", "centered")  # told apart in tables
    symmetric_edges: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.forces == "conservative" and self.envelope == "none":
            raise InputError("conservative forces need an envelope: set envelope='polynomial' in the MPNN's config.")
        if self.centered and not self.translation_invariant:
            raise InputError("positions about the centroid know no translation: leave translation_invariant as it is.")

    @property
    def places(self) -> bool:
        """Whether an atom's position is embedded, 3w weights: as it is, or about the centroid."""
        return self.centered or not self.translation_invariant

    @property
    def equivariant(self) -> bool:
        return self.edges == "distances" and not self.places

    @property
    def reflection_equivariant(self) -> bool:
        return self.equivariant

    @property
    def extensive(self) -> bool:
        """Far fragments do not see each other."""
        return self.norm == "atom" and not self.places

    @property
    def smooth(self) -> bool:
        """Energies and forces are continuous when an atom crosses the cutoff."""
        return self.envelope != "none" and self.aggregation == "sum" and self.max_neighbors is None

    def flops(self, counts: "Counts") -> float:
        """Forward FLOPs of the published formulation: 2 (12w² + 4w) per atom, 2 (3⌊w/2⌋ + n_rbf⌈w/2⌉) per edge."""
        w, low = self.width, self.width // 2
        node = (2 * self.depth + 2) * w * w + (4 if self.forces == "direct" else 1) * w
        if self.forces == "conservative":
            node -= w * w
        if self.places:
            node += 3 * w
        edge = 3 * low + self.num_radial * (w - low)
        if self.edges == "distances" and self.forces == "direct":
            node, edge = node - 3 * w, edge + w
        return 2.0 * (counts.atoms * node + counts.edges * edge)

    def build(self):
        from equiscale.models.mpnn.potential import MPNN

        return MPNN(self)
