"""The first study: how an unconstrained and two equivariant potentials scale on real molecules, in under 14 minutes."""

from equiscale.ladder import Ladder, Study
from equiscale.models import EGNNConfig, ESENConfig, MPNNConfig
from equiscale.run import DataSpec, OptimSpec

ELEMENTS = (1, 6, 7, 8, 9, 14, 15, 16, 17, 35, 53)  # those of the built-in set
PRESET = dict(num_radial=32, elements=ELEMENTS)
DATA = DataSpec("builtin", structures=16_000)  # 4,000 updates of 4 structures

STUDY = Study(
    name="first",
    title="Does built-in symmetry pay? A first look",
    ladders=(
        Ladder(
            MPNNConfig(depth=5, **PRESET),
            (8, 12, 16, 22, 30, 42, 60, 84),
            DATA,
            OptimSpec(learning_rate=2e-2, base_width=32, batch_structures=4),
            extra_seeds=(1,),
        ),
        Ladder(
            EGNNConfig(depth=4, **PRESET),
            (4, 6, 9, 12, 16, 22, 30),
            DATA,
            OptimSpec(learning_rate=1e-2, base_width=16, batch_structures=4),
            extra_seeds=(1,),
        ),
        Ladder(
            ESENConfig(depth=2, lmax=2, mmax=2, hidden=16, envelope="polynomial", **PRESET),
            (3, 4, 5, 7, 9, 12),
            DataSpec("builtin", structures=12_000),  # its steps cost three times EGNN's
            OptimSpec(learning_rate=2e-2, base_width=6, batch_structures=4),
        ),
    ),
)
