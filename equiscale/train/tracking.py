"""The loss decomposition along a run: what of the loss is broken symmetry, of the weights as they are at one step.

Rotations come from a stream of the run's seed and of the step alone: looking changes nothing that is learned, and a run
that goes on from its checkpoint draws what an undisturbed one does.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from equiscale.graph import AtomGraph
from equiscale.models.base import Potential
from equiscale.run import SymmetryPoint, Tracking
from equiscale.symmetry.decomposition import Decomposition, Figure, decomposition
from equiscale.symmetry.elements import Elements
from equiscale.symmetry.estimate import Samples, estimate
from equiscale.symmetry.graphs import Predict, twisted_predictions
from equiscale.symmetry.groups import SO3
from equiscale.symmetry.losses import SquaredForce, Study
from equiscale.symmetry.parts import parts
from equiscale.train.checkpoint import State
from equiscale.train.force_field import Batch, ForceField

TRACKING = 4  # stream of the run's seed

SET = "molecules"  # new ones: what is learned by heart says nothing of symmetry


def symmetry_point(task: ForceField, model: Potential, tracking: Tracking, state: State) -> SymmetryPoint:
    """Decompose the loss of ``model``, a copy in eval mode that holds the weights to look at."""
    with _highest_precision():
        return _point(task, model, tracking, state)


def _point(task: ForceField, model: Potential, tracking: Tracking, state: State) -> SymmetryPoint:
    begun = time.perf_counter()
    rng = np.random.default_rng([task.spec.seed, TRACKING, state.step])
    squared, study = _samples(task, model, tracking, rng)
    # A diverged run's point is written with what it is: NaN or infinite.
    with np.errstate(all="ignore"):
        found: Decomposition = decomposition(
            squared,
            rotations=tracking.rotations,
            estimator="u-statistic",
            groups=task.groups(SET, tracking.structures),
        )
    slopes = gradients(task, model, tracking, rng) if tracking.gradients else (None, None, None)
    head = model.head_deviation()
    return SymmetryPoint(
        step=state.step,
        structures=state.structures,
        atoms=state.tokens,
        flops_model=state.flops,
        total=found.total.value,
        mean=found.mean.value,
        equiv=found.equiv.value,
        equiv_error=_error(found.equiv),
        percent=found.percent.value,
        percent_error=_error(found.percent),
        size=float(squared.size.mean()),
        loss=float(study.total.mean()),
        loss_mean=float(study.mean.mean()),
        gradient_mean=slopes[0],
        gradient_equiv=slopes[1],
        gradient_cosine=slopes[2],
        head=None if head is None else float(head),
        seconds=time.perf_counter() - begun,
    )


def gradients(
    task: ForceField, model: Potential, tracking: Tracking, rng: np.random.Generator
) -> tuple[float, float, float | None]:
    """‖∇L_mean‖² and ‖∇L_equiv‖² (squared force error) over all parameters, and the cosine of their angle.

    The cosine may leave [-1, 1] by noise; None where one of the squares, which are unbiased, is not positive.
    """
    mean, equiv, cross = products(task, model, tracking, rng)
    return mean, equiv, cross / math.sqrt(mean) / math.sqrt(equiv) if mean > 0 and equiv > 0 else None


def products(
    task: ForceField, model: Potential, tracking: Tracking, rng: np.random.Generator
) -> tuple[float, float, float]:
    """‖∇L_mean‖², ‖∇L_equiv‖² and <∇L_mean, ∇L_equiv>, unbiased.

    A square of a noisy gradient is too large by its noise: each is the product <g_A, g_B> of the gradients from two
    independent sets of rotations, 2 × M in all; the last one is symmetrised. Within a set the parts are U-statistics:
    the gradient of the loss of an average over M holds that of L_equiv / M.
    """
    (mean_a, equiv_a), (mean_b, equiv_b) = (_gradients(task, model, tracking, rng) for _ in range(2))
    return float(mean_a @ mean_b), float(equiv_a @ equiv_b), float(mean_a @ equiv_b + mean_b @ equiv_a) / 2


@contextmanager
def _highest_precision() -> Iterator[None]:
    """No tf32 within: which products a run rounds so is a global switch of torch's, put back as the run set it."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _predict(task: ForceField, model: Potential, create_graph: bool = False) -> Predict:
    """What is decomposed: the potential as the run trains it, its frames included, but in float32: the rounding of
    bf16 breaks symmetry, too; and so does that of tf32, which ``_highest_precision`` keeps out."""
    exact = replace(task, spec=replace(task.spec, dtype="float32"))
    return partial(exact.predict, model, create_graph=create_graph)


def _samples(
    task: ForceField, model: Potential, tracking: Tracking, rng: np.random.Generator
) -> tuple[Samples, Samples]:
    """The squared force error's parts and eq. 1's, structure by structure, in normalised units."""
    squared, study = [], []
    for batch, g in _turned(task, tracking.structures, tracking.rotations, rng):
        with torch.no_grad():
            out = twisted_predictions(_predict(task, model), batch.graph, g)
        z, y = _arrays(out.energy, out.forces), _arrays(batch.label.energy, batch.label.forces)
        offsets = np.concatenate([[0], np.cumsum(batch.graph.size.cpu().numpy())])
        with np.errstate(all="ignore"):
            squared.append(estimate(z, y, offsets, SquaredForce()))
            study.append(estimate(z, y, offsets, Study()))
    return Samples.joined(task.ranks.in_order(squared)), Samples.joined(task.ranks.in_order(study))


def _gradients(
    task: ForceField, model: Potential, tracking: Tracking, rng: np.random.Generator
) -> tuple[Float[Tensor, " parameters"], Float[Tensor, " parameters"]]:
    """∇L_mean and ∇L_equiv from one set of rotations, float64."""
    weights = [p for p in model.parameters() if p.requires_grad]
    total = sum(p.numel() for p in weights)
    mean, equiv = (torch.zeros(total, dtype=torch.float64, device=task.device) for _ in range(2))
    count = len(task.groups(SET, tracking.gradient_structures))
    for batch, g in _turned(task, tracking.gradient_structures, tracking.rotations, rng):
        graph: AtomGraph = batch.graph
        z = twisted_predictions(_predict(task, model, create_graph=True), graph, g).forces.double()
        if not z.requires_grad:  # such as atoms without neighbours: no weight changes their forces
            continue
        found = parts(z, batch.label.forces.double(), graph.structure, graph.size, unbiased=True)
        for sum_, part in ((mean, found.mean), (equiv, found.equiv)):
            of = torch.autograd.grad(part, weights, retain_graph=True, allow_unused=True)
            flat = [torch.zeros_like(w) if d is None else d for w, d in zip(weights, of)]
            sum_ += torch.cat([d.reshape(-1).double() for d in flat]) * (graph.num_structures / count)
    return task.ranks.sum(mean), task.ranks.sum(equiv)


def _turned(
    task: ForceField, structures: int, rotations: int, rng: np.random.Generator
) -> list[tuple[Batch, Elements]]:
    """The fixed first structures in this rank's batches, and elements [rotations, structures] of each batch."""
    g = SO3().sample(rng, rotations, len(task.groups(SET, structures)))
    batches = task.batches(SET, structures)
    return [(batch, g[:, batch.first : batch.first + batch.graph.num_structures]) for batch in batches]


def _arrays(energy: Tensor, forces: Tensor) -> dict[str, np.ndarray]:
    return {"energy": energy.double().cpu().numpy(), "forces": forces.double().cpu().numpy()}


def _error(figure: Figure) -> float:
    """NaN where one molecule alone tells nothing of the spread."""
    return math.nan if figure.error is None else figure.error
