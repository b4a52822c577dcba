"""A plain transformer over the atoms of a structure: configuration, declared properties and compute."""

from typing import TYPE_CHECKING, ClassVar, Literal

from equiscale.config import config, later

if TYPE_CHECKING:
    from equiscale.graph import Counts


@config
class TransformerConfig:
    """A GPT-style pre-norm encoder without symmetry and without locality (appendix K of the scaling paper).

    Coordinates (Å) are concatenated with the elements' embeddings, every atom attends to every atom of its structure.
    The paper gives no sizes. Ours are a standard encoder's: GELU, a four times wider MLP, learned LayerNorms, biases;
    widths 64, 128, 256, 512 at depth 6 are the ladder. N = (12d + 3)w² + (13d + 112)w + 4.
    """

    kind: Literal["transformer"] = "transformer"
    width: int = 256
    depth: int = 6
    head_dim: int = 32  # least channels of an attention head
    elements: tuple[int, ...] | None = None  # None: a row for each Z up to 100
    forces: Literal["direct", "conservative"] = "direct"
    centered: bool = False  # True: each structure's centroid is its origin
    charge_spin: bool = later(False)  # embed a structure's total charge and spin multiplicity too

    cutoff: ClassVar[None] = None  # no edges, and so no periodic images
    max_neighbors: ClassVar[None] = None
    equivariant: ClassVar[bool] = False
    reflection_equivariant: ClassVar[bool] = False
    equivariance_tolerance: ClassVar[float] = 1e-9  # exact: round-off in float64
    symmetric_edges: ClassVar[bool] = False
    extensive: ClassVar[bool] = False  # attention is global
    smooth: ClassVar[bool] = True  # there is no cutoff to cross

    @property
    def translation_invariant(self) -> bool:
        return self.centered

    @property
    def heads(self) -> int:
        """The most heads of equal size with at least ``head_dim`` channels each; one for a narrower encoder."""
        return max((n for n in range(1, self.width // self.head_dim + 1) if self.width % n == 0), default=1)

    def flops(self, counts: "Counts") -> float:
        """Forward FLOPs: 2 [(w + 3)w + d 12w² + heads 2w² + 4w] per atom, 2·2wd per pair of atoms of a structure."""
        w, d, direct = self.width, self.depth, self.forces == "direct"
        node = (w + 3) * w + d * 12 * w * w + (w * w + w) + (w * w + 3 * w) * direct
        return 2.0 * (counts.atoms * node + counts.atom_pairs * 2 * w * d)

    def build(self):
        from equiscale.models.transformer.potential import Transformer

        return Transformer(self)
