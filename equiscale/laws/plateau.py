"""A sum of powers that begins on a plateau: early in training the loss stays at a trivial predictor's, L0.

    L = E + ((L0 - E)^-s + (A N^-alpha + B D^-beta)^-s)^(-1/s)

Small N or D: L0. Large: E + A N^-alpha + B D^-beta. s is how sharp the turn between the two is (s -> inf: a corner).
With L0 known, the loss of a predictor that knows nothing of its input, `fixed={"L0": ...}` leaves one parameter more
than the sum of powers has. Not published: this project's own form, for ladders whose small rungs hardly learn.
"""

from __future__ import annotations

import numpy as np

from equiscale.laws.forms import check_floor
from equiscale.laws.law import Columns, Law, Values, exponent, scale
from equiscale.laws.law import floor as floor_parameter
from equiscale.laws.search import grid, positive_least_squares, spread


def plateau(*, floor: str = "zero") -> Law:
    """L = [E +] ((L0 [- E])^-s + (A N^-alpha + B D^-beta)^-s)^(-1/s).

    >>> p = {"A": 1e2, "B": 1e3, "alpha": 0.5, "beta": 0.5, "L0": 1.3, "s": 4.0}
    >>> plateau().loss({"N": np.array([1e6]), "D": np.array([1e3, 1e6, 1e9])}, p).round(4)
    array([1.3   , 0.9919, 0.1316])
    """
    free = check_floor(floor) is not None

    def loss(x: Columns, p: Values) -> np.ndarray:
        e = p["E"] if free else 0.0
        rest = p["A"] * x["N"] ** -p["alpha"] + p["B"] * x["D"] ** -p["beta"]
        # In logarithms: of a small sum of powers and a sharp turn the power itself is beyond a float.
        # Not logaddexp: slopes are checked by complex steps.
        high, low = -p["s"] * np.log(p["L0"] - e), -p["s"] * np.log(rest)
        top = np.maximum(np.real(high), np.real(low))
        turn = top + np.log(np.exp(high - top) + np.exp(low - top))
        return np.asarray(e + np.exp(-turn / p["s"]))

    def curve(z: np.ndarray, u: np.ndarray, slopes: np.ndarray | None) -> np.ndarray:
        model, data = u[:, 0:1] - u[:, 2:3] * z[0], u[:, 1:2] - u[:, 3:4] * z[1]
        ln = np.logaddexp(model, data)
        s, level = np.exp(u[:, 5:6]), np.exp(u[:, 4:5])
        top = np.log(level - u[:, 6:7]) if free else u[:, 4:5]
        turn = np.logaddexp(-s * top, -s * ln)
        out = np.exp(-turn / s)  # above the floor
        total = out + u[:, 6:7] if free else out
        if slopes is not None:
            share = np.exp(model - ln)
            fallen = np.exp(-s * ln - turn)  # d ln out / d ln(sum of powers); the rest is the plateau's
            part = out / total
            slopes[:, 0] = part * fallen * share
            slopes[:, 1] = part * fallen * (1 - share)
            slopes[:, 2] = -slopes[:, 0] * z[0]
            slopes[:, 3] = -slopes[:, 1] * z[1]
            slopes[:, 4] = part * (1 - fallen) * (level * np.exp(-top))
            slopes[:, 5] = part * (turn / s + fallen * ln + (1 - fallen) * top)
            if free:
                slopes[:, 6] = (1 - (1 - fallen) * out * np.exp(-top)) / total
        return np.asarray(np.log(total))

    def starts(z: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return _starts(z, y, weights, free)

    e, top = ("E + ", "(L0 - E)") if free else ("", "L0")
    return Law(
        name="plateau",
        formula=f"L = {e}({top}^-s + (A N^-alpha + B D^-beta)^-s)^(-1/s)",
        variables=("N", "D"),
        parameters=(
            scale("A", N="alpha", loss=1.0, meaning="model term"),
            scale("B", D="beta", loss=1.0, meaning="data term"),
            exponent("alpha", meaning="exponent of model size"),
            exponent("beta", meaning="exponent of data"),
            scale("L0", loss=1.0, meaning="loss of the plateau, a trivial predictor's"),
            scale("s", search=(0.5, 20.0), bounds=(0.1, 200.0), meaning="sharpness of the turn off the plateau"),
            *((floor_parameter(),) if free else ()),
        ),
        loss=loss,
        curve=curve,
        starts=starts,
        source="this project; without L0, Hoffmann et al. 2022, arXiv:2203.15556",
    )


def _starts(z: np.ndarray, y: np.ndarray, weights: np.ndarray, free: bool) -> np.ndarray:
    """Given L0, s and E the loss unfolds into a sum of powers: ((L - E)^-s - (L0 - E)^-s)^(-1/s)."""
    points = grid([(0.05, 2.0)] * 2, 144, [True, True])
    least, most = float(y.min()), float(y.max())
    found, values = [], []
    for share in (0.0, 0.5, 0.85) if free else (0.0,):
        e = share * np.exp(least)
        rest = np.log(np.exp(y) - e)
        for over in (0.85, 0.95, 1.003, 1.05, 1.3, 3.0):
            top = np.log(np.exp(most) * over - e)
            for s in (1.0, 3.0, 8.0, 20.0):
                # The share that the powers have of the turn; none where noise has lifted a loss above the plateau.
                fallen = np.maximum(-np.expm1(s * np.minimum(rest - top, 0.0)), 1e-3)
                target = rest - np.log(fallen) / s
                design = np.exp(np.stack([-points[:, :1] * z[0] - target, -points[:, 1:] * z[1] - target], 1))
                pull = weights * (fallen * (1 - e * np.exp(-y))) ** 2
                coefficients, value = positive_least_squares(design, pull)
                best = spread(value, np.log(points), 3)
                ln = np.log(np.maximum(coefficients[best], 1e-4 * np.exp(np.average(y, weights=weights))))
                tail = [top if not e else np.log(np.exp(top) + e), np.log(s), *([e] if free else [])]
                found.append(np.hstack([ln, points[best], np.tile(tail, (len(best), 1))]))
                values.append(value[best])
    return np.vstack(found)[np.argsort(np.concatenate(values), kind="stable")]
