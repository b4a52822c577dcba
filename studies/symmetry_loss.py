"""What remedies buy an unconstrained MPNN, at equal training compute (fig. 7 of the scaling paper, and its controls).

Every ladder ends at the same FLOPs per rung: 38,976 structures once; a sixth of them with the symmetry loss of 5 turned
copies (or the consistency loss); all of them again in a six times larger batch, as the control; a third with the Lie
penalty (three passes); a quarter averaged over 4 frames. EQUISCALE_PRESET: laptop (25 minutes on two
cores), smoke, gpu.
"""

from equiscale.ladder import Ladder, Study, preset
from equiscale.models import MPNNConfig
from equiscale.run import DataSpec, EvalSpec, OptimSpec, Remedy, Tracking

PRESETS = {  # structures, widths, seeds at the ends
    "laptop": (38_976, (12, 20, 34, 56, 90, 144), ()),
    "smoke": (192, (4, 8), ()),
    "gpu": (38_976, (34, 56, 90, 144, 230, 360, 576), (1, 2)),
}
PRESET = preset(*PRESETS)
STRUCTURES, WIDTHS, SEEDS = PRESETS[PRESET]

ELEMENTS = (1, 6, 7, 8, 9, 14, 15, 16, 17, 35, 53)  # those of the built-in set
MPNN = MPNNConfig(depth=5, num_radial=32, elements=ELEMENTS)


def ladder(
    remedy: Remedy | None = None, *, widths: tuple[int, ...] = WIDTHS, batch: int = 4, variant: str = "", augment=False
) -> Ladder:
    passes = 1 if remedy is None else remedy.passes
    return Ladder(
        MPNN,
        widths,
        DataSpec("builtin", structures=STRUCTURES // passes, augment=augment),
        OptimSpec(learning_rate=2e-2, base_width=32, batch_structures=batch),  # `equiscale tune`'s, of the plain one
        EvalSpec(symmetry=Tracking()),
        extra_seeds=SEEDS,
        remedy=remedy,
        variant=variant,
    )


FEW = WIDTHS[::2]
STUDY = Study(
    name="symmetry-loss" if PRESET == "laptop" else f"symmetry-loss-{PRESET}",
    title="Remedies for an unconstrained potential, at equal compute",
    ladders=(
        ladder(),
        ladder(Remedy("symmetry")),
        ladder(batch=24, variant="batch 24"),
        ladder(widths=FEW, augment=True),
        ladder(Remedy("consistency"), widths=FEW),
        ladder(Remedy("lie"), widths=FEW),
        ladder(Remedy(frames="canonical"), widths=FEW),
        ladder(Remedy(frames="average"), widths=FEW),
    ),
)
