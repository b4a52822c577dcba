"""Eq. 1 of the scaling paper, per structure, so that steps, micro-batches and averages compose exactly."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from equiscale.graph import AtomGraph, Prediction, safe_norm, sum_by


def per_structure(
    prediction: Prediction, label: Prediction, graph: AtomGraph
) -> tuple[Float[Tensor, " structures"], Float[Tensor, " structures"]]:
    """|e_θ - e| / n and (1/n) Σ_i ‖f_θ,i - f_i‖₂ of every structure, in the units of the two predictions."""
    size = graph.size.to(prediction.energy.dtype)
    energy = (prediction.energy - label.energy).abs() / size
    # The norm's gradient at a perfect force is zero, not NaN.
    force = sum_by(graph.structure, safe_norm(prediction.forces - label.forces), graph.num_structures) / size
    return energy, force
