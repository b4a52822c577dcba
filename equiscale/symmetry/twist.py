"""The one primitive: an element acts on the input, the function is evaluated, the element is undone on the output."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from equiscale.symmetry.elements import Elements

Action = Callable[[Elements, Any], Any]


def twisted(f: Callable[[Any], Any], act_in: Action, act_out: Action) -> Callable[[Elements, Any], Any]:
    """(g, x) -> ρ_out(g)⁻¹ f(ρ_in(g) x): f itself where f is equivariant."""
    return lambda g, x: act_out(g.inverse(), f(act_in(g, x)))
