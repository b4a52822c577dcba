"""Refits of a table as another study would have measured it, all at once.

Ways to make another study of a law's own runs:

    run effect   ln L = law + u_run + eps with the variances that the residuals show (`components`); the default
    wild         residuals of each run times one random number (Webb's six points): no model of the noise
    runs         whole runs drawn anew, neighbouring sizes among themselves
    rows         rows drawn anew, as if they were independent: for comparison
    mixed        the run-effect model's own estimate, generalised least squares, in place of the fit's

**Run effect.** The fit weighs rows alike and must, since a law that is half a per cent off somewhere turns an estimate
that trusts the shape within each run (`mixed`) by many of its standard errors. But where studies are simulated around
the fit itself, the error of a few runs is taken for the truth, and what a wrong exponent does to the spread with it. So
they are simulated around the generalised least-squares estimate, three to four times nearer the truth if the model
holds and harmless if not; and each refit's error, as a curve, is taken off the fit's own curve, and the law refitted to
that. Errors of curves are nearly normal where those of parameters are not: plain quantiles of these draws cover, for
parameters and for whatever follows from them. Both variances are drawn too, as few runs tell them badly (this makes a
t of a normal interval).

**Wild.** Residuals are those a fit without the run would have (jackknifed, MacKinnon, Nielsen & Webb 2023); intervals
are studentised by the jackknife over runs.

Measured coverage of all of them: docs/intervals.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from equiscale.laws.components import (
    Components,
    Runs,
    components,
    efficient,
    misfit,
    moments,
    shares,
    without_each,
)
from equiscale.laws.fit import Coordinates, Fit, prepare
from equiscale.laws.intervals import Draws, Refits
from equiscale.laws.prior import penalty_of
from equiscale.laws.solve import Penalty, Problem, descend

METHODS = ("run effect", "mixed", "runs", "wild", "rows")
FEWEST = 4  # runs below which there is no interval
FEW = 6  # runs below which an interval is flagged
MANY = 100  # runs from which on whole runs are drawn anew; of 30, their percentiles cover 87 to 93 %
MISFIT = 0.01  # p-value below which a law is said to miss a bend
WEBB = np.sqrt([1.5, 1.0, 0.5, 0.5, 1.0, 1.5]) * [-1, -1, -1, 1, 1, 1]
LAD_ZONE = 100.0  # least absolute deviations are refitted as Huber's with a zone of a tenth of the noise


@dataclass(frozen=True)
class _Study:
    """A fit's table, and how it is refitted."""

    fit: Fit
    problem: Problem
    y: np.ndarray  # [rows]
    weights: np.ndarray  # [rows]
    coordinates: Coordinates
    best: np.ndarray  # [p]
    held: np.ndarray  # [p]
    runs: Runs
    penalty: Penalty | None

    def refit(self, targets: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
        """[fits, p] with the fit's own objective."""
        fits = len(targets if weights is None else weights)
        return descend(
            self.problem,
            targets,
            self.weights if weights is None else weights * self.weights,
            self.fit.delta * (LAD_ZONE if self.fit.objective == "lad" else 1.0),
            np.repeat(self.best[None], fits, 0),
            iterations=60,
            tolerance=1e-8,
            fixed=self.held,
            tilt=self.fit.tilt,
            penalty=self.penalty,
        )[0]

    def project(self, curves: np.ndarray) -> np.ndarray:
        """[fits, p] of the law's nearest curves, by least squares."""
        start = np.repeat(self.best[None], len(curves), 0)
        options = {"iterations": 40, "tolerance": 1e-6, "fixed": self.held, "penalty": self.penalty}
        return descend(self.problem, curves, self.weights, np.inf, start, **options)[0]  # type: ignore[arg-type]

    def curve(self, params: np.ndarray) -> np.ndarray:
        return self.problem.curve(np.atleast_2d(params), False)[0]

    def good(self, params: np.ndarray) -> np.ndarray:
        """[fits] finite, and no exponent at the end of where it may wander."""
        steep = np.array([p.kind == "exponent" for p in self.fit.law.parameters]) & ~self.held
        inside = (params > self.problem.low + 1e-6) & (params < self.problem.high - 1e-6)
        return np.isfinite(params).all(1) & inside[:, steep].all(1)

    def told(self, weights: np.ndarray) -> np.ndarray:
        """[fits] enough is left of a resample: three values of each variable that has but few, and rows for all
        parameters."""
        enough = (weights > 0).sum(1) > (~self.held).sum()
        for name, z in zip(self.fit.law.variables, self.problem.z, strict=True):
            level = np.unique(z.round(9), return_inverse=True)[1]
            if level.max() < 50 and name not in self.fit.law.same_unit:
                member = (level[:, None] == np.arange(level.max() + 1)).astype(float)
                enough &= ((weights @ member) > 0).sum(1) >= min(3, level.max() + 1)
        return enough


def _study(
    fit: Fit, x: Mapping[str, np.ndarray], loss: np.ndarray, runs: np.ndarray, weights: np.ndarray | None
) -> _Study:
    # A given coefficient whose exponent is free stands still in the user's units only.
    turns = any(
        p.name in fit.fixed
        and any(isinstance(q, str) and q.lstrip("-") not in fit.fixed for q in p.dimensions.values())
        for p in fit.law.parameters
    )
    problem, y, coordinates = prepare(fit.law, x, loss, centred=not turns, held=len(fit.fixed))
    labels = np.asarray(runs)
    if labels.shape != y.shape:
        raise ValueError(f"runs has {labels.size} labels and the loss {len(y)} rows: they must agree.")
    best = coordinates.centred(fit.values)
    held = np.array([name in fit.fixed for name in fit.law.names])
    problem = replace(problem, low=np.minimum(problem.low, best), high=np.maximum(problem.high, best))
    w = np.ones(len(y)) if weights is None else np.asarray(weights, float).ravel()
    penalty = None
    if fit.prior:
        residual = problem.curve(best[None], False)[0][0] - y
        inside = max(float(np.mean(np.abs(residual) <= fit.delta)), 1 / len(y))
        psi = float(np.mean(np.clip(residual, -fit.delta, fit.delta) ** 2))
        penalty = penalty_of(fit.prior, fit.law, coordinates, psi / inside)
    return _Study(fit, problem, y, w, coordinates, best, held, Runs.of(labels), penalty)


def bootstrap(
    fit: Fit,
    x: Mapping[str, np.ndarray],
    loss: np.ndarray,
    runs: np.ndarray,
    *,
    sizes: np.ndarray | None = None,
    method: str = "auto",
    resamples: int = 200,
    seed: int = 0,
    shift: np.ndarray | None = None,
    weights: np.ndarray | None = None,
) -> Draws:
    """Draws of a fit's parameters by one of METHODS; "auto": "run effect", from MANY runs on "runs".

    sizes: what resampled runs are stratified by. shift [resamples, rows] is added to ln L: the second level, what other
    validation molecules would have measured (`molecule_shift`). weights: those of the fit. Fewer than four runs give no
    draws (but by rows), fewer than six a warning.
    """
    if method not in (*METHODS, "auto"):
        raise ValueError(f"bootstrap method {method!r} is not known: 'auto', {', '.join(map(repr, METHODS))}.")
    study = _study(fit, x, loss, runs, weights)
    count = len(study.runs)
    if method == "auto":
        method = "run effect" if count < MANY else "runs"
    noise = components(study.problem, study.y, study.best, study.runs, study.held)
    rng = np.random.default_rng(seed)
    warnings = few_runs(count) if method != "rows" else ()
    if count < FEWEST and method != "rows":
        draws = _Drawn("none: too few runs", "percentile", study.best, study.best, np.empty((0, len(study.best))))
    else:
        make = {"run effect": _run_effect, "mixed": _mixed, "runs": _runs, "wild": _wild, "rows": _rows}[method]
        draws = make(study, noise, rng, resamples, sizes, shift)
    if method in ("run effect", "mixed") and len(draws.params):
        warnings += _bends(study, draws.centre, noise)
    label = draws.label if shift is None else f"{draws.label}, × validation molecules"
    given = {} if "E" in fit.law.names else {"E": 0.0}
    refits = Refits(
        study.coordinates,
        {**given, **{name: fit.values[name] for name in fit.fixed}},
        draws.point,
        draws.centre,
        draws.params,
        draws.covariance,
        draws.covariances,
        draws.left_out,
    )
    values = refits.named(draws.params if draws.turned is None else draws.turned)
    return Draws(
        method=f"{label}, {resamples} draws" if len(draws.params) else label,
        values=values,
        resamples=resamples,
        failed=resamples - len(draws.params),
        run_noise=noise.run,
        checkpoint_noise=noise.checkpoint,
        icc=noise.icc,
        runs=count,
        design_effect=_design_effect(study, noise),
        warnings=warnings,
        way=draws.way,
        refits=refits,
    )


def few_runs(count: int) -> tuple[str, ...]:
    """What is to be said of so few runs."""
    if count < FEWEST:
        return (f"{count} runs: no interval. Fewer than {FEWEST} do not tell how runs differ.",)
    if count < FEW:
        return (
            f"{count} runs: so few hardly tell how runs differ; intervals of fewer than {FEW} may hold less often.",
        )
    return ()


def _bends(study: _Study, centre: np.ndarray, noise: Components) -> tuple[str, ...]:
    found = misfit(study.problem, study.y, centre, study.runs, noise, study.held)
    return tuple(
        f"losses bend along {name} in a way the law does not have (p = {p:.1g}): intervals hold the noise, not what "
        "the law misses."
        for name, p in found.items()
        if p < MISFIT
    )


@dataclass(frozen=True)
class _Drawn:
    label: str
    way: str
    point: np.ndarray  # [p]
    centre: np.ndarray  # [p]
    params: np.ndarray  # [good, p]
    covariance: np.ndarray | None = None
    covariances: np.ndarray | None = None
    left_out: np.ndarray | None = None
    turned: np.ndarray | None = None  # [good, p] what the parameters may be, where it is not `params`


def _run_effect(study, noise, rng, resamples, sizes, shift) -> _Drawn:  # type: ignore[no-untyped-def]
    free = _unbounded(study)
    noise = components(free.problem, free.y, free.best, free.runs, free.held)
    centre = _centre(study, noise)
    curve, fitted = study.curve(centre), free.curve(free.best)
    targets = curve + _noise(rng, noise, study.runs, resamples)
    told = replace(free, penalty=_prior_drawn(free, centre, rng, resamples))
    params = told.refit(targets if shift is None else targets + shift)
    # The fit holds the prior already: errors are taken off it, and the prior is not asked again.
    turned = replace(study, penalty=None).project(fitted - (free.curve(params) - curve))
    good = free.good(params) & study.good(turned)
    params, turned, targets = params[good], turned[good], targets[good]
    own = moments(free.problem, study.y, study.best[None], study.runs, study.held).covariance[0]
    each = moments(free.problem, targets, params, study.runs, study.held).covariance
    label = "random run effect, parametric bootstrap"
    return _Drawn(label, "percentile", study.best, centre, params, own, each, turned=turned)


def _prior_drawn(study: _Study, centre: np.ndarray, rng: np.random.Generator, resamples: int) -> Penalty | None:
    """What a prior would say of the simulated truth: it errs as it says it does. Were it kept where it is, every refit
    would be pulled from the truth to it, and that pull be taken for an error."""
    prior = study.penalty
    if prior is None:
        return None
    names = study.fit.law.names
    said = {p.name: p.deviation * p.weighed for p in study.fit.prior}
    deviation = np.array([said.get(name, 0.0) for name in names])
    drawn = np.ravel(centre) + deviation * rng.normal(size=(resamples, len(prior.precision)))
    return Penalty(drawn, prior.precision)


def _unbounded(study: _Study) -> _Study:
    """The study with floors that may be negative. An error that ends at the bound zero has one side only, and taken
    off a fit that ends there too it would leave no floor but zero; the last refits keep the bound."""
    floors = np.array([p.kind == "floor" for p in study.fit.law.parameters]) & ~study.held
    if not floors.any():
        return study
    low = np.where(floors, np.minimum(study.problem.low, -0.9 * np.exp(study.y.min())), study.problem.low)
    free = replace(study, problem=replace(study.problem, low=low))
    best = free.refit(np.broadcast_to(study.y, (1, len(study.y))))[0]
    return replace(free, best=best) if free.good(best[None])[0] else study


def _centre(study: _Study, noise: Components) -> np.ndarray:
    """Where studies are simulated: the efficient estimate, or the fit where that runs to a bound."""
    if noise.run == 0:
        return study.best
    found = efficient(study.problem, study.y, study.best, study.runs, noise, held=study.held)
    return found[0] if study.good(found)[0] else study.best


def _mixed(study, noise, rng, resamples, sizes, shift) -> _Drawn:  # type: ignore[no-untyped-def]
    point = _centre(study, noise)
    noise = components(study.problem, study.y, point, study.runs, study.held)
    point = _centre(replace(study, best=point), noise)
    share = shares(study.runs.counts, noise.checkpoint**2, noise.run**2)
    targets = study.curve(point) + _noise(rng, replace(noise, degrees=np.inf), study.runs, resamples)
    if shift is not None:
        targets = targets + shift
    start = np.repeat(point[None], resamples, 0)
    params = efficient(study.problem, targets, start, study.runs, noise, held=study.held)
    good = study.good(params)
    params = params[good]
    own = moments(study.problem, study.y, point[None], study.runs, study.held, share).covariance[0]
    each = moments(study.problem, targets[good], params, study.runs, study.held, share).covariance
    label = "random run effect, generalised least squares, studentised parametric bootstrap"
    return _Drawn(label, "studentised", point, point, params, own, each)


def _runs(study, noise, rng, resamples, sizes, shift) -> _Drawn:  # type: ignore[no-untyped-def]
    drawn = clusters(rng, study.runs, sizes, resamples)
    found = _resampled(study, drawn[:, study.runs.index].astype(float), shift)
    label = "bootstrap over runs, percentile" + ("" if sizes is None else ", stratified by width")
    runs = study.runs
    if len(runs) <= MANY:
        weights = (runs.index != np.arange(len(runs))[:, None]).astype(float)
        left_out = study.refit(study.y, weights)
        left_out = left_out[study.told(weights) & study.good(left_out)]
    else:
        left_out = study.best + without_each(study.problem, study.y, study.best[None], runs, study.held)[0]
    return replace(found, label=label, left_out=left_out)


def _rows(study, noise, rng, resamples, sizes, shift) -> _Drawn:  # type: ignore[no-untyped-def]
    rows = len(study.y)
    weights = rng.multinomial(rows, np.full(rows, 1 / rows), size=resamples).astype(float)
    return replace(_resampled(study, weights, shift), label="bootstrap over rows, percentile")


def _resampled(study: _Study, weights: np.ndarray, shift: np.ndarray | None) -> _Drawn:
    told = study.told(weights)
    targets = np.broadcast_to(study.y, weights.shape) if shift is None else study.y + shift
    params = study.refit(targets[told], weights[told])
    return _Drawn("", "percentile", study.best, study.best, params[study.good(params)])


def _wild(study, noise, rng, resamples, sizes, shift) -> _Drawn:  # type: ignore[no-untyped-def]
    runs, held = study.runs, study.held
    curve, slopes = study.problem.curve(study.best[None])
    away = without_each(study.problem, study.y, study.best[None], runs, held)[0]
    residual = study.y - curve[0] - np.einsum("pr,rp->r", slopes[0], away[runs.index])
    factor = WEBB[rng.integers(0, len(WEBB), (resamples, len(runs)))]
    targets = curve + factor[:, runs.index] * residual
    params = study.refit(targets if shift is None else targets + shift)
    good = study.good(params)
    params, targets = params[good], targets[good]
    each = _jackknife(without_each(study.problem, targets, params, runs, held))
    label = "wild bootstrap of runs (Webb), studentised"
    return _Drawn(label, "studentised", study.best, study.best, params, _jackknife(away[None])[0], each)


def _jackknife(moved: np.ndarray) -> np.ndarray:
    """[fits, p, p] from what leaving each run out does to the parameters, [fits, runs, p]."""
    count = moved.shape[1]
    return (count - 1) / count * moved.transpose(0, 2, 1) @ moved


def _design_effect(study: _Study, noise: Components) -> dict[str, float]:
    """Variance of each parameter over that of as many independent rows, the law linearised."""
    found = moments(study.problem, study.y, study.best[None], study.runs, study.held)
    robust = np.diag(found.covariance[0])
    return {name: float(v / n) for name, v, n in zip(study.fit.law.names, robust, found.naive[0], strict=True) if n > 0}


def simulate(
    fit: Fit, x: Mapping[str, np.ndarray], loss: np.ndarray, runs: np.ndarray, resamples: int, seed: int = 0
) -> np.ndarray:
    """[resamples, rows] ln L of studies that never were: the law, run effects and checkpoint noise as estimated."""
    study = _study(fit, x, loss, runs, None)
    noise = components(study.problem, study.y, study.best, study.runs, study.held)
    return study.curve(study.best) + _noise(np.random.default_rng(seed), noise, study.runs, resamples)


def _noise(rng: np.random.Generator, noise: Components, runs: Runs, resamples: int) -> np.ndarray:
    """[resamples, rows]. Both deviations are drawn with the degrees of freedom that tell them, at least 2, so that
    tails stay finite."""
    degrees = max(noise.degrees, 2.0)
    scale = np.ones((resamples, 1))
    if np.isfinite(degrees):
        scale = np.sqrt(degrees / rng.chisquare(degrees, size=(resamples, 1)))
    u = noise.run * scale * rng.normal(size=(resamples, len(runs)))
    return u[:, runs.index] + noise.checkpoint * scale * rng.normal(size=(resamples, len(runs.index)))


def clusters(rng: np.random.Generator, runs: Runs, sizes: np.ndarray | None, resamples: int) -> np.ndarray:
    """[resamples, runs] multiplicities; strata are neighbouring sizes, merged until each has three runs."""
    count = len(runs)
    strata = [np.arange(count)]
    if sizes is not None:
        size = np.asarray(sizes)[runs.order[runs.first]]
        strata, pending = [], []
        for value in np.unique(size):
            pending += np.flatnonzero(size == value).tolist()
            if len(pending) >= 3:
                strata.append(np.array(pending))
                pending = []
        if pending:
            last = strata.pop() if strata else np.array([], int)
            strata.append(np.r_[last, pending].astype(int))
    out = np.zeros((resamples, count), int)
    for stratum in strata:
        out[:, stratum] = rng.multinomial(len(stratum), np.full(len(stratum), 1 / len(stratum)), resamples)
    return out


def molecule_shift(
    run: np.ndarray,
    step: np.ndarray,
    losses: Mapping[str, Mapping[str, np.ndarray]],
    validation: str,
    resamples: int,
    seed: int = 0,
) -> np.ndarray | None:
    """[resamples, rows] change of ln L when the validation molecules are drawn anew, the same draw for every run.

    losses[run] holds "steps" [T], validation [T, structures] and "group_<validation>" [structures] (the molecule); runs
    without it get no shift. NaN marks structures that were not evaluated at a step.
    """
    rng = np.random.default_rng(seed + 1)
    drawn: dict[bytes, np.ndarray] = {}
    out = np.zeros((resamples, len(run)))
    found = False
    for name in np.unique(run):
        if name not in losses or validation not in losses[name]:
            continue
        record = losses[name]
        value, group = np.asarray(record[validation], float), np.asarray(record[f"group_{validation}"])
        labels, index = np.unique(group, return_inverse=True)
        key = labels.tobytes()
        if key not in drawn:
            drawn[key] = rng.multinomial(len(labels), np.full(len(labels), 1 / len(labels)), resamples).astype(float)
        member = np.zeros((len(group), len(labels)))
        member[np.arange(len(group)), index] = 1.0
        seen = np.isfinite(value)
        total, count = np.where(seen, value, 0.0) @ member, seen.astype(float) @ member
        again = (drawn[key] @ total.T) / np.maximum(drawn[key] @ count.T, 1e-12)
        change = np.log(np.maximum(again, 1e-300) / (total.sum(1) / np.maximum(count.sum(1), 1e-12)))
        where = {int(s): t for t, s in enumerate(np.asarray(record["steps"]))}
        for row in np.flatnonzero(run == name):
            if int(step[row]) in where:
                out[:, row] = change[:, where[int(step[row])]]
                found = True
    return out if found else None
