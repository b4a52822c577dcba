"""dynamics: how broken symmetry went during the training of a study's runs."""

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from equiscale.cli import runs
from equiscale.cli.arguments import add_results, command, results_of
from equiscale.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from equiscale.cli.arguments import Commands
    from equiscale.report.tracks import Track

FIGURES = ("percent", "parts", "gradients", "head")


def add(commands: "Commands") -> None:
    made = command(commands, "dynamics", _dynamics, "how broken symmetry went during training, where it was tracked")
    add_results(made)
    made.add_argument("--only", metavar="REGEX", help="runs whose name it matches: 'escaip.*w=32'")
    made.add_argument("--figure", type=Path, metavar="FILE", help="draw it: .svg, .pdf, .png or .html")
    made.add_argument("--show", choices=FIGURES, default="percent", help="what --figure shows (default: percent)")
    made.add_argument("--json", nargs="?", const="-", metavar="FILE", help="print JSON alone, or write it to FILE")


def _dynamics(a: argparse.Namespace) -> None:
    runs.check_figure(a)
    tracks = _tracks(a)
    drawing = None
    if a.figure is not None:
        from equiscale.report import dynamics_figures

        drawing = dynamics_figures.FIGURES[a.show](tracks)
        if not drawing.panels:
            raise InputError(f"there is no figure of {a.show}: {drawing.missing}")
    runs.emit(a, text(tracks), figures(tracks))
    if drawing is not None:
        runs.draw(a, lambda: drawing)


def _tracks(a: argparse.Namespace) -> "tuple[Track, ...]":
    from equiscale.report.tracks import tracks_of

    results = results_of(a.results)
    records = results.records()
    if not records:
        raise InputError(f"{results.folder} holds no record yet: `equiscale run` its study first.")
    found = tracks_of(records)
    if not found:
        more = "that neither diverged nor began with another run's weights " if any(r.symmetry for r in records) else ""
        raise InputError(
            f"no run {more}in {results.folder} was tracked: give its ladders EvalSpec(symmetry=Tracking()) and train "
            "the study again."
        )
    if a.only is None:
        return found
    try:
        wanted = re.compile(a.only)
    except re.error as error:
        raise InputError(f"--only {a.only!r} is no regular expression: {error}.") from None
    chosen = tuple(t for t in found if wanted.search(t.name))
    if not chosen:
        raise InputError(f"--only {a.only!r} matches none of {len(found)} tracked runs, such as {found[0].name!r}.")
    return chosen


def text(tracks: "Sequence[Track]") -> str:
    """The dips, one line per run, and the correlations of each architecture."""
    import numpy as np

    from equiscale.report.dynamics_figures import said
    from equiscale.report.tracks import by_architecture, gradient_correlation, head_correlation, measured

    wide = max(len("run"), *(len(t.name) for t in tracks))
    lines = ["Percent of the squared force error that comes from broken symmetry (± standard error over structures):"]
    lines.append(f"  {'run':<{wide}}  {'step 0':>14}  {'least':>16} {'at step':>8}  {'end':>16}  {'rel. error':>10}")
    for track in tracks:
        found = track.dip
        cells = [_value(found.start, found.start_error), _value(found.least, found.least_error)]
        step = f"{found.step:.0f}" if np.isfinite(found.step) else "—"
        end, relative = _value(found.last, found.last_error), _value(track.last(track.relative))
        lines.append(
            f"  {track.name:<{wide}}  {cells[0]:>14}  {cells[1]:>16} {step:>8}  {end:>16}  {relative:>10}  {found.text}"
        )
    lines.append("rel. error: L_equiv over the mean squared predicted force component, at the end.")
    lines.append("A rise is called one beyond the errors that the least of so many noisy points has.")
    for name, own in by_architecture(tracks).items():
        if with_gradients := measured(own, "gradient_mean"):
            found_text = said(gradient_correlation(with_gradients))
            lines.append(f"{name}, ratio of squared gradients with L_equiv / L_mean: {found_text}")
        if with_head := measured(own, "head"):
            lines.append(f"{name}, squared distance of the head with L_equiv: {said(head_correlation(with_head))}")
    return "\n".join(lines)


def _value(value: float, error: float | None = None) -> str:
    import math

    if not math.isfinite(value):
        return "—"
    return f"{value:.3g}" + (f" ± {error:.1g}" if error is not None and math.isfinite(error) else "")


def figures(tracks: "Sequence[Track]") -> dict[str, Any]:
    """The same as JSON; the tracked points are in the records."""
    from equiscale.report.style import finite
    from equiscale.report.tracks import by_architecture, gradient_correlation, head_correlation, measured

    of_runs = [
        {
            "run": t.run,
            "architecture": t.architecture,
            "width": t.width,
            "seed": t.seed,
            "N": t.N,
            **t.dip.to_dict(),
            "relative_error_at_end": finite(t.last(t.relative)),
            "loss_at_end": finite(t.last(t["loss"])),
            "loss_mean_at_end": finite(t.last(t["loss_mean"])),
        }
        for t in tracks
    ]
    correlations: dict[str, Any] = {}
    for name, own in by_architecture(tracks).items():
        if with_gradients := measured(own, "gradient_mean"):
            correlations.setdefault(name, {})["gradients"] = gradient_correlation(with_gradients).to_dict()
        if with_head := measured(own, "head"):
            correlations.setdefault(name, {})["head"] = head_correlation(with_head).to_dict()
    return {"runs": of_runs, "correlations": correlations}
