"""How far a trained potential is from labels: errors of energies and forces, by element and by size.

source   a part of a split set, or a whole file, one structure after another
compare  batches of a budget of atoms against their labels
sums     the figures, and the running sums they are made of
text     a table in words, plain JSON
"""

from equiscale.evaluate.compare import evaluate
from equiscale.evaluate.source import read
from equiscale.evaluate.sums import Assessment
from equiscale.evaluate.text import describe, evaluated

__all__ = ["Assessment", "describe", "evaluate", "evaluated", "read"]
