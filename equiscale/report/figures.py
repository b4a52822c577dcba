"""Every figure of the report, in the page's order. Table in, drawing out: nothing here reads or writes a file."""

from __future__ import annotations

from equiscale.report.comparison_figures import exponents, specifications
from equiscale.report.drawing import Drawing
from equiscale.report.dynamics_figures import FIGURES
from equiscale.report.frontier_figures import frontier, summary
from equiscale.report.learning_figures import foretold, gap, parts
from equiscale.report.material import Material
from equiscale.report.surface_figures import allocation, kappa, loss_against_data, loss_against_size
from equiscale.report.variant_figures import remedies, variants

IDS = (
    "summary",
    "frontier-flops",
    "frontier-hours",
    "exponents",
    "loss-data",
    "loss-size",
    "kappa",
    "allocation",
    "specifications",
    "prediction",
    "gap",
    "parts",
)


def drawings(material: Material) -> dict[str, Drawing]:
    """All figures by id; one that the records cannot show is there too, and says why."""
    made = [
        summary(material),
        frontier(material, "C"),
        frontier(material, "H_train"),
        exponents(material),
        loss_against_data(material),
        loss_against_size(material),
        kappa(material),
        allocation(material),
        specifications(material),
        foretold(material),
        gap(material),
        parts(material),
    ]
    side_by_side = variants(material)
    if side_by_side.panels:  # only where a study has variants
        made.append(side_by_side)
    bought = remedies(material)
    if bought.panels:
        made.append(bought)
    if material.tracks:
        made += [d for figure in FIGURES.values() if (d := figure(material.tracks)).panels]
    return {d.id: d for d in made}
