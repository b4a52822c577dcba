"""The one primitive of symmetry: a map seen from a turned frame; its average over a group is equivariant."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from equiscale.errors import InputError
from equiscale.symmetry.actions import Action
from equiscale.symmetry.elements import Elements


def twisted(f: Callable[[Any], Any], act_in: Action, act_out: Action) -> Callable[[Elements, Any], Any]:
    """Z(g, x) = ρ_out(g)⁻¹ f(ρ_in(g) x): the same for all g where f is equivariant."""

    def z(g: Elements, x: Any) -> Any:
        return act_out(g.inverse(), f(act_in(g, x)))

    return z


def twirl(
    f: Callable[[Any], Any],
    act_in: Action,
    act_out: Action,
    elements: Elements,
    weights: Float[np.ndarray, "m"] | None = None,
) -> Callable[[Any], Any]:
    """x -> Σ_m w_m Z(g_m, x) over the last axis of ``elements``; equal weights where none are given.

    f is called M times, each on what x is: a whole batch with one element, or, for elements [samples, M], with an
    element per sample. Over a whole group the outcome is equivariant, and f's projection onto the equivariant maps.
    """
    m = elements.shape[-1] if elements.shape else 0
    if m == 0:
        raise InputError("a twirl is an average over one element or more: the collection has none.")
    w = np.full(m, 1 / m) if weights is None else np.asarray(weights, float)
    if w.shape != (m,) or not abs(w.sum() - 1) < 1e-6:
        raise InputError(f"{m} elements need {m} weights of sum one; these are {w.size} of sum {w.sum():g}.")
    z = twisted(f, act_in, act_out)

    def average(x: Any) -> Any:
        total = _scaled(z(elements[..., 0], x), w[0])
        for k in range(1, m):
            total = _sum(total, _scaled(z(elements[..., k], x), w[k]))
        return total

    return average


def _scaled(y: Any, w: float) -> Any:
    return {name: _scaled(value, w) for name, value in y.items()} if isinstance(y, Mapping) else y * float(w)


def _sum(a: Any, b: Any) -> Any:
    return {name: _sum(a[name], b[name]) for name in a} if isinstance(a, Mapping) else a + b
