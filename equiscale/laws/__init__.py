"""Laws: plain tables in, fits with intervals, frontiers, comparisons, and decisions out.

A law:

    law          what a law is: formula, parameters, units     catalogue    every law by its name
    forms        power laws and sums of them                   joint        Kaplan's joint law
    data_constrained  unique and repeated tokens               broken       BNSL, any number of breaks
    saturating   Zhai's shifted power, M1 to M4                annealing    along a schedule of learning rates
    plateau      a sum of powers that begins on a plateau

A fit:

    sample       rows that a law may see, the others named     columns      what no law can be read from
    fit          a law with numbers, and its status            objective    `huber:1e-3`, `lad`, … as written
    search       starts by variable projection                 solve        descent, batched over fits
    trust        what is to be distrusted                      reading      fit, intervals, decisions together
    misfit       whether residuals are scatter
    prior        published laws as weak knowledge              prior_effect with one and without, side by side

Intervals:

    uncertainty  the names of the four below in one place      components   noise between runs and within
    resample     refits of other studies, all at once          intervals    from draws to intervals and differences
    profile_interval  ends by the objective itself             information  the linearised model: designs without fits

Decisions:

    decisions    N*, D*, L at a budget, gamma, a, b            allocation   the same for measured costs; crossings
    row_frontier least loss at a cost, of any table            frontier     the same of a ladder's rungs
    isoflop      best sizes at budgets                         budget_profile  one budget's dip, or why there is none
    approaches   frontier, isoFLOP and surface side by side    growth       power laws along a frontier
    gap          break-even efficiency, compute multipliers

Averaging over rotations:

    averaging    L(M) = L_mean + L_equiv / M, and its check   paired       exponents of L and L_mean, their change
    size_exponent  L - L_D = A N^-alpha, and what it hangs on

Choosing and checking:

    choose       laws on one table                             likelihood   AICc and BIC by effective rows
    cross_validation  runs and sizes left out                  extrapolation  scales left out
    specifications  one number under every way to ask          suggest      further runs that tell most per FLOP
    design       a power analysis of a study

A study of this package's own records:

    table        a study's rows                                surfaces     L(N, D), cut-offs, the largest rung
    analysis     every law of a study                          pairs        two architectures side by side
    results      what an analysis holds                        text         an analysis as a page of text
    plan         what to train with a budget                   verdict      five lines in words
    paper        the scaling paper's own laws                  plain        values as JSON
    noise_floor  by how much two runs differ by chance
    dips         broken symmetry along a run, and its rise     correlation  of two quantities along runs

Only numpy, scipy and the standard library: it fits anybody's runs. `docs/laws.md` is the tutorial.

Where a module and its one function share a name (`fit`, `sample`, `design`, …) `equiscale.laws.fit` is the function;
the module's other names come by `from equiscale.laws.fit import Fit`.
"""

from equiscale.laws.analysis import analyse
from equiscale.laws.approaches import approaches
from equiscale.laws.averaging import Averaging, averaged_runs, averaging_of
from equiscale.laws.catalogue import describe_laws, law_of, load_law
from equiscale.laws.choose import compare
from equiscale.laws.cross_validation import cross_validate
from equiscale.laws.design import assume, design, pilot
from equiscale.laws.extrapolation import extrapolate
from equiscale.laws.fit import Fit, fit
from equiscale.laws.forms import power, sum_power
from equiscale.laws.frontier import frontier
from equiscale.laws.gap import efficiency_gap, multiplier_curve
from equiscale.laws.isoflop import isoflop
from equiscale.laws.law import Law, Parameter, exponent, floor, scale
from equiscale.laws.paired import exponent_change
from equiscale.laws.paper import PAPER, paper_crossings
from equiscale.laws.plan import Plan, plan
from equiscale.laws.prior_effect import with_prior
from equiscale.laws.reading import Reading, read
from equiscale.laws.results import Analysis
from equiscale.laws.row_frontier import row_frontier
from equiscale.laws.sample import Sample, sample
from equiscale.laws.size_exponent import size_exponent
from equiscale.laws.specifications import specification_curve
from equiscale.laws.suggest import suggest
from equiscale.laws.surfaces import predict_largest, prediction_from_dict, score
from equiscale.laws.text import describe
from equiscale.laws.uncertainty import Estimate, Interval, bootstrap, difference, estimate_of, interval_of, profile_of
from equiscale.laws.verdict import verdict

__all__ = [
    "PAPER",
    "Analysis",
    "Averaging",
    "Estimate",
    "Fit",
    "Interval",
    "Law",
    "Parameter",
    "Plan",
    "Reading",
    "Sample",
    "analyse",
    "approaches",
    "assume",
    "averaged_runs",
    "averaging_of",
    "bootstrap",
    "compare",
    "cross_validate",
    "describe",
    "describe_laws",
    "design",
    "difference",
    "efficiency_gap",
    "estimate_of",
    "exponent",
    "exponent_change",
    "extrapolate",
    "fit",
    "floor",
    "frontier",
    "interval_of",
    "isoflop",
    "law_of",
    "load_law",
    "multiplier_curve",
    "paper_crossings",
    "pilot",
    "plan",
    "power",
    "predict_largest",
    "prediction_from_dict",
    "profile_of",
    "read",
    "row_frontier",
    "sample",
    "scale",
    "score",
    "size_exponent",
    "specification_curve",
    "suggest",
    "sum_power",
    "verdict",
    "with_prior",
]
