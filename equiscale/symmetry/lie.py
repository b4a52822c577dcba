"""How fast a twisted function changes with small turns: the Lie derivative, which bounds the equivariance error.

With L_a f the derivative of the twisted function by an angle about axis a, and P_l the power of degree l (``degrees``),

    E_R Σ_a ‖L_a f(R x)‖² = Σ_l l(l + 1) P_l >= 2 L_equiv        (Poincaré's inequality on SO(3)),

so that half of it is an upper bound of L_equiv, tight where all error is of degree 1, and its ratio to L_equiv is the
mean l(l + 1), the angular roughness: 6 where all is of degree 2. Predictions with jumps have no derivative.

Derivatives are central differences, (Z(+h) - Z(-h)) / (2 sin h), so that any calculator has them. The sine makes them
exact for m = 1; for others sin(mh) / sin(h) is too small, by (m² - 1) h² / 6 of itself. Predictions of relative
precision ε add about ε² / h² of their mean square to the bound. At h = 0.001, float64's are 1e-24 and a map of degree 2
is 1e-6 off; float32's would be 1e-6 there, and are 1e-9 at h = 0.03, where degree 2 is off by 1e-3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial.transform import Rotation

from equiscale.errors import InputError
from equiscale.graph import AtomGraph
from equiscale.symmetry.decomposition import Figure, ratio_of_sums
from equiscale.symmetry.elements import Elements
from equiscale.symmetry.estimate import Kind, estimate
from equiscale.symmetry.graphs import Predict, twisted_predictions
from equiscale.symmetry.losses import Loss, Outputs

ANGLE = {"float64": 1e-3, "float32": 0.03}  # radians: see above

Twisted = Callable[[Elements], Outputs]
"""ρ(g)⁻¹ f(ρ(g) x) for elements [M, structures]: energy [M, structures], forces [M, atoms, 3]."""


@dataclass(frozen=True, eq=False)
class Derivatives:
    """Of each structure, in the unit of the loss."""

    square: Float[np.ndarray, " structures"]  # Σ_a ‖L_a f‖², mean over the rotations
    size: Float[np.ndarray, " structures"]  # the mean square of the predictions
    equiv: Float[np.ndarray, " structures"] | None  # L_equiv from the same evaluations; None: of one rotation

    def __len__(self) -> int:
        return len(self.square)

    @staticmethod
    def joined(parts: Iterable[Derivatives]) -> Derivatives:
        """One after another."""
        parts = list(parts)
        equiv = [p.equiv for p in parts if p.equiv is not None]
        return Derivatives(
            np.concatenate([p.square for p in parts]),
            np.concatenate([p.size for p in parts]),
            np.concatenate(equiv) if len(equiv) == len(parts) else None,
        )


@dataclass(frozen=True)
class Roughness:
    """Over structures, with jackknife errors over molecules."""

    bound: Figure  # of L_equiv, from above
    relative: Figure  # the bound over the mean square of the predictions
    equiv: Figure | None
    roughness: Figure | None  # the mean l(l + 1), 2 or more

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)


def roughness(d: Derivatives, groups: Int[np.ndarray, " structures"] | None = None) -> Roughness:
    """Means and ratios of sums. ``groups``: each structure's molecule."""
    each = np.ones(len(d))
    return Roughness(
        bound=ratio_of_sums(d.square / 2, each, groups),
        relative=ratio_of_sums(d.square / 2, d.size, groups),
        equiv=None if d.equiv is None else ratio_of_sums(d.equiv, each, groups),
        roughness=None if d.equiv is None else ratio_of_sums(d.square, d.equiv, groups),
    )


def derivatives(
    f: Twisted,
    g: Elements,
    offsets: Int[np.ndarray, " structures_1"],
    loss: Loss,
    kind: Kind = "random",
    weights: Float[np.ndarray, " m"] | None = None,
    angle: float = ANGLE["float64"],
) -> Derivatives:
    """Three pairs of evaluations for each of the rotations ``g`` [M, structures], drawn as ``kind`` says.

    The expectation is over rotations: draw them. ``identity(1, structures)`` looks at each structure as it lies, which
    estimates the same over a data set in which orientations are uniform, and over no other. Of two rotations or more
    L_equiv is estimated too, from the means of the pairs.
    """
    if not loss.squared:
        raise InputError(f"the Lie derivative bounds a squared error, the {loss.name} loss is none.")
    if (g.sign < 0).any():
        raise InputError("the Lie derivative knows rotations only: draw from SO(3), without reflections.")
    if not 0 < angle < np.pi / 2:
        raise InputError(f"the angle of a finite difference is small and positive, not {angle:g}.")
    m = len(g)
    weight = np.full(m, 1 / m) if weights is None else np.asarray(weights, float)
    square = np.zeros(len(offsets) - 1)
    middle = {name: np.zeros(1) for name in loss.outputs}
    for axis in np.eye(3):
        there, back = (Rotation.from_rotvec(sign * angle * axis).as_matrix() for sign in (1, -1))
        both = Elements(np.concatenate([there @ g.matrix, back @ g.matrix]))
        z = f(both)
        plus, minus = ({n: np.asarray(z[n][half], float) for n in loss.outputs} for half in (slice(m), slice(m, None)))
        square += weight @ loss(plus, minus, offsets) / (2 * np.sin(angle)) ** 2
        middle = {n: middle[n] + (plus[n] + minus[n]) / 6 for n in middle}
    zero = {name: np.zeros_like(values[0]) for name, values in middle.items()}
    if m == 1:
        return Derivatives(square, loss(middle, zero, offsets)[0], None)
    samples = estimate(middle, zero, offsets, loss, kind, weights)
    return Derivatives(square, samples.size, samples.equiv)


def of_graph(f: Predict, graph: AtomGraph) -> Twisted:
    """The twisted predictions of a batch of graphs, for ``derivatives``."""

    def outputs(g: Elements) -> Outputs:
        out = twisted_predictions(f, graph, g)
        return {
            "energy": out.energy.detach().double().cpu().numpy(),
            "forces": out.forces.detach().double().cpu().numpy(),
        }

    return outputs
