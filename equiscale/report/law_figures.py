"""The figures of the laws of anybody's table: a value of `equiscale.laws` in, a drawing out; `write_figure` draws it.

reading_figures    a law on its rows, residuals, parameters     plan_figures      N*, D* and L against compute
budget_figures     frontier, isoFLOP profiles                   approach_figures  three approaches side by side
choice_figures     laws compared, every way to ask, held out    study_figures     further runs, the power of a study
averaging_figures  averages over rotations, eq. 24
one_figure         the file: .svg, .pdf, .png or .html
"""

from equiscale.report.approach_figures import approaches_figure
from equiscale.report.averaging_figures import averages_figure
from equiscale.report.budget_figures import frontier_figure, isoflop_figure
from equiscale.report.choice_figures import comparison_figure, extrapolation_figure, specification_figure
from equiscale.report.one_figure import figure_path, write_figure
from equiscale.report.plan_figures import plan_figure
from equiscale.report.reading_figures import reading_figure
from equiscale.report.study_figures import design_figure, suggest_figure

__all__ = [
    "approaches_figure",
    "averages_figure",
    "comparison_figure",
    "design_figure",
    "extrapolation_figure",
    "figure_path",
    "frontier_figure",
    "isoflop_figure",
    "plan_figure",
    "reading_figure",
    "specification_figure",
    "suggest_figure",
    "write_figure",
]
