"""GemNet-OC, edges that hear edges through angles: configuration, declared properties and published compute."""

from typing import TYPE_CHECKING, ClassVar, Literal

from equiscale.config import config, later
from equiscale.errors import InputError

if TYPE_CHECKING:
    from equiscale.graph import Counts

DEGREES = 7
"""Angular functions P_0 ... P_6 of an angle."""

BASIS, TRIPLET = 16, 32
"""Radial functions after the shared projection (of rbf and of cbf); channels of a message inside an interaction."""

QUADRUPLET, SPHERICAL = 32, 32
"""Channels inside a quadruplet interaction; functions of distance, angle and dihedral after their projection."""


@config
class GemNetOCConfig:
    """Directional messages: an edge hears the other edges of its receiver through their angles (Gasteiger 2022).

    Defaults give table 6 of the scaling paper, a triplet model: N = 194w² + 885w + 86016 at depth 4. ``quadruplets``
    adds the published interaction over dihedrals, 4w² + 448w + 350208 more.
    """

    kind: Literal["gemnet_oc"] = "gemnet_oc"
    width: int = 64
    depth: int = 4  # interaction blocks
    cutoff: float = 10.0  # Å
    max_neighbors: int | None = 50
    num_radial: int = 128
    radial: Literal["gaussian", "bessel"] = "gaussian"
    envelope: Literal["none", "polynomial"] = "polynomial"
    elements: tuple[int, ...] | None = None  # None: a row for each Z up to 83
    forces: Literal["direct", "conservative"] = "direct"
    quadruplets: bool = False
    quadruplet_cutoff: float | None = None  # Å, of the middle edge of a quadruplet; None: the cutoff
    quadruplet_neighbors: int | None = 8  # nearest atoms that an atom has middle edges from
    charge_spin: bool = later(False)  # embed a structure's total charge and spin multiplicity too

    equivariant: ClassVar[bool] = True
    reflection_equivariant: ClassVar[bool] = True  # dihedrals have no sign
    equivariance_tolerance: ClassVar[float] = 1e-9  # exact: round-off in float64
    symmetric_edges: ClassVar[bool] = True  # messages are swapped with those of the counter edge
    translation_invariant: ClassVar[bool] = True
    extensive: ClassVar[bool] = True  # sums over neighbours, no norms over structures

    def __post_init__(self) -> None:
        if self.forces == "conservative" and self.envelope == "none":
            raise InputError(
                "conservative forces need an envelope: set envelope='polynomial' in the GemNet-OC's config."
            )
        if self.middle_cutoff > self.cutoff:
            raise InputError("quadruplet_cutoff cannot exceed the cutoff: middle edges are edges of the graph.")
        if self.quadruplets and (self.max_neighbors or 2**31) < (self.quadruplet_neighbors or 0):
            raise InputError("quadruplet_neighbors cannot exceed max_neighbors: middle edges are edges of the graph.")

    @property
    def middle_cutoff(self) -> float:
        """Reach of a quadruplet's middle edge, Å."""
        return self.cutoff if self.quadruplet_cutoff is None else self.quadruplet_cutoff

    @property
    def smooth(self) -> bool:
        """Energies and forces are continuous when an atom crosses the cutoff; dihedrals jump where atoms line up."""
        return self.envelope != "none" and self.max_neighbors is None and not self.quadruplets

    def flops(self, counts: "Counts") -> float:
        """Forward FLOPs of the published formulation, which forms every triplet and quadruplet (`architectures.md` §6).

        Per edge and block 2 (15w² + 128w + 19968), per triplet 2·7·32, per atom and block 2·18w². A quadruplet costs
        2·49·32; their number is taken from the degrees as if neighbours had equal ones and all met one another,
        which is exact for complete graphs of more than ``quadruplet_neighbors`` atoms.
        """
        w, n, blocks, direct = self.width, self.num_radial, self.depth, self.forces == "direct"
        triplets = counts.edge_pairs - counts.edges
        interior = BASIS * DEGREES * TRIPLET + BASIS * TRIPLET * TRIPLET
        node = blocks * 6 * w * w + (blocks + 1) * 12 * w * w + (blocks + 1) * w * w + 4 * w * w + w
        edge = (2 * w + n) * w + n * BASIS * (3 + DEGREES)
        edge += blocks * (15 * w * w + (2 * BASIS + 3 * TRIPLET) * w + interior) + (blocks + 1) * BASIS * w
        if direct:
            edge += (blocks + 1) * (6 * w * w + BASIS * w) + (blocks + 1) * w * w + 4 * w * w + w
        total = float(counts.atoms * node + counts.edges * edge + triplets * blocks * DEGREES * TRIPLET)
        if self.quadruplets and counts.atoms:
            total += self._quadruplet_macs(counts)
        return 2.0 * total

    def _quadruplet_macs(self, counts: "Counts") -> float:
        w, n, angles = self.width, self.num_radial, DEGREES * DEGREES
        degree = counts.edges / counts.atoms
        middle = degree if self.quadruplet_neighbors is None else min(degree, self.quadruplet_neighbors)
        triplets = middle * (counts.edges - counts.atoms)
        quadruplets = middle * (counts.edge_pairs - 3 * counts.edges + 2 * counts.atoms)
        edge = n * (BASIS + angles * SPHERICAL)
        interior = angles * SPHERICAL * QUADRUPLET + SPHERICAL * QUADRUPLET * QUADRUPLET
        edge += self.depth * (w * w + (BASIS + 3 * QUADRUPLET) * w + interior)
        total = counts.edges * edge + middle * counts.atoms * n * DEGREES * BASIS
        total += triplets * (DEGREES * BASIS + self.depth * BASIS * QUADRUPLET)
        return float(total + quadruplets * self.depth * angles * QUADRUPLET)

    def build(self):
        from equiscale.models.gemnet_oc.potential import GemNetOC

        return GemNetOC(self)
