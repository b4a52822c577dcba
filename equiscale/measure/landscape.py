"""The loss landscape of a few of a potential's parameters: Hessians and planes of L, L_mean and L_equiv.

Structures and rotations are drawn once and are the same for every derivative and every point of a grid (common random
numbers). All is in float64; losses are squared force errors per component, in (eV/Å)².
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from equiscale.data.store import Store
from equiscale.errors import InputError
from equiscale.graph import AtomGraph, Prediction
from equiscale.measure.structures import choose
from equiscale.models.base import Potential, graph_for
from equiscale.predict import FrameKind, TrainedPotential, predict
from equiscale.symmetry.designs import Draws, Random, Sampler
from equiscale.symmetry.designs import sampler as design
from equiscale.symmetry.frozen import frozen
from equiscale.symmetry.graphs import twisted_predictions
from equiscale.symmetry.groups import SO3
from equiscale.symmetry.head import HeadForm, closed_form
from equiscale.symmetry.hessian import DENSE_UP_TO, Losses, Spectrum, axes, extremes, hessians, spectrum
from equiscale.symmetry.parts import parts
from equiscale.symmetry.plane import Plane, check_grid, plane, random_axes

LOSSES = ("total", "mean", "equiv")
HEADS = (r"^direction\.", r"^direction\.out\.", r"^force\.", r"^force\.2\.", r"^energy\.", r"^energy\.2\.")
"""Where forces are read out, widest first; the energy's, where forces are its gradient."""


@dataclass(frozen=True, eq=False)
class View:
    """One plane, and what its two axes are."""

    name: str
    axes: tuple[str, str]
    plane: Plane
    redrawn: bool = False  # rotations at every grid point, instead of common ones


@dataclass(frozen=True, eq=False)
class Landscape:
    """What is known of the three losses around a checkpoint, in the order ``LOSSES``."""

    model: str
    parameters: tuple[str, ...]
    size: int  # numbers in them
    norm: float  # of all of them
    structures: int
    atoms: int
    rotations: str
    step: float
    values: tuple[float, float, float]
    spectra: tuple[Spectrum, Spectrum, Spectrum]
    views: tuple[View, ...]
    head: HeadForm | None = None  # EScAIP's last map, where it is free

    def to_dict(self) -> dict[str, Any]:
        names = ("model", "parameters", "size", "norm", "structures", "atoms", "rotations", "step")
        result: dict[str, Any] = {name: getattr(self, name) for name in names}
        result["losses"] = dict(zip(LOSSES, self.values))
        result["spectra"] = {name: s.to_dict() for name, s in zip(LOSSES, self.spectra)}
        result["planes"] = [
            {"name": v.name, "axes": v.axes, "redrawn": v.redrawn, "losses": LOSSES, **v.plane.to_dict()}
            for v in self.views
        ]
        if self.head is not None:
            form = self.head
            result["head"] = {"mean": form.mean, "equiv": form.equiv, "bounds": form.bounds, "norms": form.norms,
                              "eigenvalues": form.eigenvalues.tolist()}  # fmt: skip
        return result


class _Predicting(nn.Module):
    """``predict`` as a module, so that its parameters can be replaced."""

    def __init__(self, potential: Potential, frames: FrameKind):
        super().__init__()
        self.potential, self.frames = potential, frames

    def forward(self, graph: AtomGraph) -> tuple[Tensor, Tensor]:
        out = predict(self.potential, graph, create_graph=torch.is_grad_enabled(), frames=self.frames)
        return out.energy, out.forces


class ForceLosses:
    """L, L_mean and L_equiv of a batch as functions of some of a potential's parameters, as one vector θ [n]."""

    def __init__(self, trained: TrainedPotential, structures: Store, names: tuple[str, ...], rotations: Sampler,
                 seed: int = 0):  # fmt: skip
        weight = next(trained.potential.parameters())
        potential = copy.deepcopy(trained.potential).double().eval().requires_grad_(False)
        self._predicting = _Predicting(potential, trained.frames)
        self._names = names
        own = dict(potential.named_parameters())
        self._shapes = [own[name].shape for name in names]
        self.at = torch.cat([own[name].detach().reshape(-1) for name in names])
        self.graph = graph_for(trained.model, structures, dtype=torch.float64, device=weight.device)
        self.labels = torch.as_tensor(structures.forces, dtype=torch.float64, device=weight.device)
        self._scale = trained.references.sigma  # the potential's unit of force, eV/Å
        self._sampler, self._rng = rotations, np.random.default_rng(seed)
        self.drawn: Draws = self.draw()

    def draw(self) -> Draws:
        """New rotations, of a generator that goes on."""
        drawn = self._sampler.draw(SO3(), self._rng, self.graph.num_structures)
        if drawn.kind == "pair":
            raise InputError("a landscape takes one coset, or random rotations: name it without *2.")
        return drawn

    def __call__(self, theta: Float[Tensor, " n"]) -> Float[Tensor, "3"]:
        return self._of(theta, self.drawn)

    def redrawn(self, theta: Float[Tensor, " n"]) -> Float[Tensor, "3"]:
        """The same with rotations of their own for this call: an estimate with independent noise."""
        return self._of(theta, self.draw())

    def _of(self, theta: Tensor, drawn: Draws) -> Tensor:
        pieces = theta.split([shape.numel() for shape in self._shapes])
        own = {f"potential.{name}": p.view(s) for name, p, s in zip(self._names, pieces, self._shapes)}

        def f(graph: AtomGraph) -> Prediction:
            return Prediction(*functional_call(self._predicting, own, (graph,)))

        z = twisted_predictions(f, self.graph, drawn.elements.transposed).forces * self._scale
        weights = None if drawn.kind == "random" else torch.as_tensor(drawn.weights).to(self.labels)
        found = parts(z, self.labels, self.graph.structure, self.graph.size, drawn.kind == "random", weights)
        return torch.stack(list(found))

    def twice(self, what: Callable[[Losses], Any]) -> Any:
        """``what`` of these losses, which differentiates them twice."""
        try:
            return what(self.frozen)
        except RuntimeError as error:
            if "once_differentiable" not in str(error):
                raise
            # Messages that are fused for training take autograd's own way where positions want a gradient.
            self.graph.positions.requires_grad_()
            return what(self)

    @cached_property
    def frozen(self) -> Losses:
        """These losses, without computing again what the parameters do not change."""
        return frozen(self, self.at)


def structures_of(data: str, count: int, part: str | None = None, **keys: Any) -> Store:
    """``count`` structures with labelled forces, evenly spaced over a data set."""
    found = choose(data, count, part=part, **keys)
    if "forces" not in found.labels:
        raise InputError(f"{data} has no forces: L and L_mean compare with labels; name them as --forces-key.")
    return found.data.take(found.rows)


def chosen(potential: Potential, pattern: str | None, whole: bool) -> tuple[str, ...]:
    """Names of parameters that a regular expression finds; without one the force head's, or its last map's alone where
    the head has too many for a ``whole`` Hessian.
    """
    sizes = {name: p.numel() for name, p in potential.named_parameters()}
    listed = f"{', '.join(list(sizes)[-6:])} and {max(len(sizes) - 6, 0)} more"
    found: tuple[str, ...] = ()
    if pattern is None:
        options = [tuple(n for n in sizes if re.search(head, n)) for head in HEADS]
        options = [names for names in options if names]
        if not options:
            raise InputError(f"which parameters? name a regular expression that finds some of {listed}.")
        fits = [names for names in options if sum(sizes[n] for n in names) <= DENSE_UP_TO]
        found = fits[0] if fits and whole else options[0]
    else:
        try:
            found = tuple(name for name in sizes if re.search(pattern, name))
        except re.error as error:
            raise InputError(f"{pattern!r} is not a regular expression: {error}.") from None
        if not found:
            raise InputError(f"no parameter's name matches {pattern!r}: there are {listed}.")
    count = sum(sizes[n] for n in found)
    if count < 2:
        raise InputError(f"{found[0]} is a single number: a landscape needs two parameters or more.")
    if whole and count > DENSE_UP_TO:
        raise InputError(
            f"{count} parameters are too many for a whole Hessian (at most {DENSE_UP_TO}): narrow --parameters, or "
            "take --lanczos, which finds the extreme eigenvalues alone."
        )
    return found


def rotations_of(text: str) -> Sampler:
    """ "10": so many random rotations; else the name of a sampler: T, O, I, random:10, lebedev:7, ..."""
    if text.isdecimal():
        return Random(int(text))
    return design(text)


def landscape(
    trained: TrainedPotential,
    structures: Store,
    *,
    parameters: str | None = None,
    rotations: str = "T",
    step: float | None = None,
    points: int = 21,
    lanczos: bool = False,
    redrawn: bool = False,
    seed: int = 0,
    live: Callable[[str], None] = lambda text: None,
) -> Landscape:
    """Hessians and planes at a checkpoint, of the parameters that the expression ``parameters`` finds.

    ``rotations``: of ``rotations_of``. ``step``: between neighbours of the grid, as a distance of parameters; without
    it a hundredth of the norm of those that are moved. ``redrawn``: show also what drawing rotations anew at every grid
    point does. InputError for an equivariant potential, whose L_equiv is zero.
    """
    model = trained.model
    if model.equivariant:
        raise InputError(
            f"this {model.kind} is equivariant by construction: its L_equiv is zero, L is L_mean, and there are no two "
            "landscapes to compare."
        )
    if seed < 0:
        raise InputError(f"the seed is a whole number from 0, not {seed}.")
    check_grid(1.0 if step is None else step, points)  # before anything long
    trained.refuse_unknown(structures.elements)
    names = chosen(trained.potential, parameters, not lanczos)
    losses = ForceLosses(trained, structures, names, rotations_of(rotations), seed)
    at, count = losses.at, losses.drawn.elements.shape[1]
    norm = float(at.norm())
    step = 0.01 * norm if step is None else step
    if not step > 0:
        raise InputError("the parameters are all zero: give the step of the grid.")
    live(f"Hessians by {len(at)} parameters")
    with torch.no_grad():
        values = tuple(losses(at).tolist())
    if lanczos:
        found = losses.twice(lambda f: extremes(f, at, seed=seed))
        spectra, directions = [s for s, _ in found], found[0][1]
        along = ("largest eigenvalue of L", "least eigenvalue of L")
    else:
        mean, equiv = losses.twice(lambda f: hessians(lambda theta: f(theta)[1:], at))
        spectra, directions = [spectrum(h) for h in (mean + equiv, mean, equiv)], axes(mean + equiv)
        along = ("largest eigenvalue of L", "smallest positive eigenvalue of L")
    rng = np.random.default_rng([seed, 1])
    wanted: list[tuple[str, np.ndarray, tuple[str, str], bool]] = [
        ("eigenvectors", directions, along, False),
        ("random directions", random_axes(len(at), rng), ("a random direction", "another"), False),
    ]
    if redrawn:
        wanted.append(("eigenvectors", directions, along, True))
    views = []
    for name, way, about, anew in wanted:
        live(f"{points} × {points} points along {name}")
        f = losses.redrawn if anew else losses.frozen
        views.append(View(name, about, plane(f, at, way, step, points), anew))
    kind = "random rotations" if losses.drawn.kind == "random" else f"rotations of {rotations}"
    return Landscape(
        f"{model.kind} w={model.width}, {model.forces} forces",
        names,
        len(at),
        norm,
        len(structures),
        structures.atoms,
        f"{count} {kind}",
        step,
        cast(tuple[float, float, float], values),
        cast(tuple[Spectrum, Spectrum, Spectrum], tuple(spectra)),
        tuple(views),
        head_form(trained, structures),
    )


def head_form(trained: TrainedPotential, structures: Store) -> HeadForm | None:
    """The closed form of EScAIP's force head on a batch, in (eV/Å)²; None for another architecture or a tied head."""
    potential: Any = trained.potential
    if not hasattr(potential, "head_features") or trained.model.equivariant:
        return None
    potential = copy.deepcopy(potential).double().eval()
    weight = potential.direction.out.weight.detach()
    graph = graph_for(trained.model, structures, dtype=torch.float64, device=weight.device)
    with torch.no_grad():
        unit, features = potential.head_features(graph)
    per_atom = 1 / (graph.num_structures * graph.size.double())[graph.structure]
    arrays = [t.cpu().numpy() for t in (unit, features * trained.references.sigma, graph.receiver, weight, per_atom)]
    e, h, receiver, w, share = arrays
    return closed_form(e, h, receiver, w, share, structures.forces.astype(np.float64))
