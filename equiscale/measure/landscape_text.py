"""A loss landscape in words: one table of the three losses, and what its figures mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from equiscale.measure.landscape import Landscape
from equiscale.symmetry.hessian import Spectrum

ROWS: tuple[tuple[str, Callable[[Spectrum], float | None]], ...] = (
    ("largest eigenvalue", lambda s: s.largest),
    ("least eigenvalue", lambda s: float(s.eigenvalues[0])),
    ("smallest positive above round-off", lambda s: s.smallest),
    ("rank", lambda s: s.rank),
    ("condition number on the range", lambda s: s.condition),
    ("effective rank, trace / largest", lambda s: s.effective_rank),
    ("90 % over 10 % quantile", lambda s: s.quantile_ratio),
    ("negative share of Σ|λ|", lambda s: s.negative_mass),
    ("naive ratio, float64", lambda s: s.naive_ratio),
    ("naive ratio, float32", lambda s: s.naive_single),
)


def describe(found: Landscape) -> str:
    """What is printed."""
    shown = ", ".join(found.parameters[:6]) + (f" and {len(found.parameters) - 6} more" * (len(found.parameters) > 6))
    lines = [
        f"{found.model}: {found.size} parameters ({shown}), of norm {found.norm:.3g}",
        f"{found.structures} structures ({found.atoms} atoms), {found.rotations}, the same throughout; float64",
        "",
        _row("", ("L", "L_mean", "L_equiv")),
        _row("loss, (eV/Å)² per component", [_number(v) for v in found.values]),
    ]
    for name, of in ROWS:
        values = [of(s) for s in found.spectra]
        if any(v is not None for v in values):
            lines.append(_row(name, [_number(v) for v in values]))
    for view in found.views:
        said = f"{view.name}, rotations redrawn" if view.redrawn else view.name
        lines += [
            "",
            f"plane of {said}, {len(view.plane.steps)} × {len(view.plane.steps)} points, step {found.step:.3g}",
        ]
        lines.append(_row("R² of a quadratic", [f"{v:.6f}" if v == v else "-" for v in view.plane.r2]))
        lines.append(_row("roughness (2: white noise)", [f"{v:.3f}" if v == v else "-" for v in view.plane.roughness]))
        lines.append(_row("curvature, first axis", [_number(v) for v in view.plane.curvature[:, 0]]))
        lines.append(_row("curvature, second axis", [_number(v) for v in view.plane.curvature[:, 1]]))
    if not found.spectra[0].complete:
        lines += ["", "Lanczos' method finds the extreme eigenvalues alone: the rank and the condition number are not "
                  "known, and the trace is an estimate."]  # fmt: skip
    else:
        lines += ["", "The naive ratio is the largest over the smallest positive eigenvalue without a cut-off (Shen et "
                  "al. 2025, section 3.4): where there is a null space, it is round-off."]  # fmt: skip
    if (head := found.head) is not None:
        low, high = head.bounds
        least, most = head.eigenvalues[[0, -1]]
        kappa = f"condition {most / least:.3g} of both Hessians" if least > 0 else "dead features"
        lines.append(
            f"EScAIP's last map in closed form, over all rotations: L_mean {head.mean:.4g}, L_equiv {head.equiv:.4g}, "
            f"between {low:.3g} and {high:.3g} (‖W_⊥‖ {head.norms[1]:.3g}, ‖W_E‖ {head.norms[0]:.3g}; {kappa})."
        )
    return "\n".join(lines)


def _row(name: str, values: Sequence[str]) -> str:
    return f"{name:<36}" + "".join(f"{v:>14}" for v in values)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:d}" if isinstance(value, int) else f"{value:.4g}"
