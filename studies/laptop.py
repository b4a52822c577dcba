"""The laptop study: the design of docs/declare-a-study.md with seeds, an hour or two on two cores, resumable.

One pass over the whole built-in set (9,744 updates of 4 structures), ten widths of each architecture over two decades
of N, three seeds at the smallest, the middle and the largest rung. Rates lie within a factor of two of the best that
`equiscale tune` found (see docs/log.md).
"""

from equiscale.ladder import Ladder, Study, Tuning
from equiscale.models import EGNNConfig, MPNNConfig
from equiscale.run import DataSpec, OptimSpec

ELEMENTS = (1, 6, 7, 8, 9, 14, 15, 16, 17, 35, 53)  # those of the built-in set
PRESET = dict(num_radial=32, elements=ELEMENTS)
DATA = DataSpec("builtin", structures=38_976)

STUDY = Study(
    name="laptop",
    title="An unconstrained and an equivariant potential on 2,677 molecules",
    ladders=(
        Ladder(
            MPNNConfig(depth=5, **PRESET),
            (12, 16, 24, 32, 48, 64, 96, 128, 192, 256),
            DATA,
            OptimSpec(learning_rate=2e-2, base_width=32, batch_structures=4),
            extra_seeds=(1, 2),
        ),
        Ladder(
            EGNNConfig(depth=4, **PRESET),
            (4, 6, 9, 12, 16, 25, 36, 49, 64, 81),
            DATA,
            OptimSpec(learning_rate=1e-2, base_width=16, batch_structures=4),
            extra_seeds=(1, 2),
        ),
    ),
    tuning=Tuning(rates=(5e-3, 1e-2, 2e-2, 4e-2), batches=(4, 8), depths=(3, 4, 5), flops=1e11),
)
