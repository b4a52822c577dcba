"""Tuning before a study: rate × batch at one width, then depth, at equal FLOPs for every architecture, reported."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from equiscale.errors import InputError
from equiscale.files import write_atomically
from equiscale.ladder import Ladder, Study
from equiscale.launch import Failed, Launcher, result, shared
from equiscale.results import Results
from equiscale.run import EvalSpec, RunSpec, load, resolved
from equiscale.study import data_hashes

EARLY = 1 / 8
"""Each run is read at this share of D too: a rate tuned only at the end steepens β."""


def tune(
    study: Study,
    results: Results,
    *,
    launcher: Launcher,
    device: str,
    say: Callable[[str], None],
    live: Callable[[str], None],
    again: str = "the same command",
) -> str:
    """Run the grid, write ``tuning.json`` into the results folder, and return the outcome in words.

    Records of the grid lie in ``<results>/tuning``; a killed tuning goes on from them. One run serves D/8 and D.
    """
    from equiscale.train.worker import TimeAll, TrainOne, Worker

    hashes = data_hashes(study)
    folder = results.folder / "tuning"
    ladders: dict[str, Ladder] = {ladder.architecture: ladder for ladder in study.ladders}
    probes = {
        kind: resolved(
            _spec(ladder, study, ladder.optim.learning_rate, 4, None, min(4000, ladder.data.structures)),
            hashes[ladder.data.source],
        )
        for kind, ladder in ladders.items()
    }
    worker = Worker.of(folder, probes.values(), device)
    timings: dict[str, Any] = result(launcher(worker, [TimeAll(tuple(probes.values()))]))
    found = Results(folder)
    failed = Failed(lambda item, text: found.add_error(item.spec.key, text))

    def structures(kind: str, depth: int | None, batch: int) -> int:
        """As many as the FLOPs of a grid point buy, in whole steps."""
        t, base = timings[probes[kind].key], ladders[kind].model
        scale = 1.0 if depth is None else depth / base.depth
        bought = study.tuning.flops / (3 * t.flops_per_atom * scale * t.atoms)
        return int(min(bought, ladders[kind].data.structures)) // batch * batch

    def climb(specs: list[RunSpec]) -> None:
        todo = [s for s in specs if not (folder / f"{s.key}.json").exists()]
        for event in failed.watch(shared(launcher, worker, [TrainOne(s) for s in todo], found.claim, found.recorded)):
            if event.kind == "progress":
                live(f"tuning {event.item}: step {event.value.step} of {event.value.steps}")
            if event.kind == "done":
                say(f"  tuned {_point(event.item.spec)}: {_outcome(load(folder / f'{event.item.spec.key}.json'))}")
            if event.kind == "failed":
                say(f"  {_point(event.item.spec)} failed: {event.value.sentence}")
        # A choice among what happened to succeed would be another tuning: each phase needs all of its points.
        failed.refuse(len(specs), again)

    grid = {
        kind: [
            resolved(
                _spec(ladder, study, rate, batch, None, structures(kind, None, batch)),
                hashes[ladder.data.source],
            )
            for batch in study.tuning.batches
            for rate in study.tuning.rates
        ]
        for kind, ladder in ladders.items()
    }
    climb([spec for specs in grid.values() for spec in specs])
    best = {kind: min(specs, key=lambda s: _score(load(folder / f"{s.key}.json"))) for kind, specs in grid.items()}
    depths = {
        kind: [
            replace(
                best[kind],
                model=replace(best[kind].model, depth=depth),
                data=replace(best[kind].data, structures=structures(kind, depth, best[kind].optim.batch_structures)),
            )
            for depth in study.tuning.depths
        ]
        for kind in ladders
    }
    climb([spec for specs in depths.values() for spec in specs])
    live("")
    outcome = {
        kind: _summary(study, ladders[kind], [load(folder / f"{s.key}.json") for s in grid[kind]],
                       [load(folder / f"{s.key}.json") for s in depths[kind]])
        for kind in ladders
    }  # fmt: skip
    write_atomically(results.folder / "tuning.json", json.dumps(outcome, indent=1).encode())
    return "\n".join(text for summary in outcome.values() for text in summary["text"])


def _spec(
    ladder: Ladder,
    study: Study,
    rate: float,
    batch: int,
    depth: int | None,
    structures: int,
) -> RunSpec:
    model = replace(ladder.model, width=ladder.optim.base_width)
    model = model if depth is None else replace(model, depth=depth)
    if structures < batch:
        raise InputError(
            f"the study's tuning.flops {study.tuning.flops:g} do not buy one step of {ladder.architecture}: raise it."
        )
    optim = replace(ladder.optim, learning_rate=rate, batch_structures=batch)
    looks = EvalSpec(log_points=0, linear_points=8, structures=ladder.evaluation.structures)
    return RunSpec(model, replace(ladder.data, structures=structures), optim, looks, ladder.dtype, seed=1000)


def _score(record: Any) -> float:
    return np.inf if record.status == "diverged" else record.curve[-1].molecules.loss


def _point(spec: RunSpec) -> str:
    o = spec.optim
    return f"{spec.architecture} depth {spec.model.depth} rate {o.learning_rate:g} batch {o.batch_structures}"


def _outcome(record: Any) -> str:
    if record.status == "diverged":
        return f"diverged ({record.reason})"
    return f"L {record.curve[0].molecules.loss:.4f} at D/8, {record.curve[-1].molecules.loss:.4f} at D"


def _summary(study: Study, ladder: Ladder, grid: list[Any], depths: list[Any]) -> dict[str, Any]:
    """The grid as rows, the best of each at D/8 and at D, and what is suspicious about it, in words."""
    kind = ladder.architecture

    def row(record: Any) -> dict[str, Any]:
        o = record.spec.optim
        return {
            "rate": o.learning_rate,
            "batch": o.batch_structures,
            "depth": record.spec.model.depth,
            "width": record.spec.model.width,
            "structures": record.spec.data.structures,
            "flops": record.curve[-1].flops_model if record.curve else None,
            "status": record.status,
            "early": record.curve[0].molecules.loss if record.curve else None,
            "late": record.curve[-1].molecules.loss if record.status != "diverged" else None,
        }

    rows, depth_rows = [row(r) for r in grid], [row(r) for r in depths]
    alive = [r for r in rows if r["late"] is not None]
    if not alive:
        raise InputError(f"every run of the {kind}'s grid diverged: add smaller rates to the study's tuning.rates.")
    best, early = min(alive, key=lambda r: r["late"]), min(alive, key=lambda r: r["early"])
    text = [
        f"{kind}: best rate {best['rate']:g} with batch {best['batch']} at width {best['width']} "
        f"(L {best['late']:.4f}); at D/8 it is rate {early['rate']:g} with batch {early['batch']}"
    ]
    warnings = []
    for name, tried in (("rate", study.tuning.rates), ("batch", study.tuning.batches)):
        if best[name] in (min(tried), max(tried)) and len(tried) > 1:
            warnings.append(
                f"{kind}: the best {name} {best[name]:g} lies at the edge of the grid; widen it and tune again"
            )
    deepest = min((r for r in depth_rows if r["late"] is not None), key=lambda r: r["late"], default=None)
    if deepest is not None:
        text.append(
            f"{kind}: best depth {deepest['depth']} of {study.tuning.depths} at equal FLOPs (L {deepest['late']:.4f})"
        )
    used = ladder.optim
    if not used.learning_rate / 2.01 < best["rate"] < 2.01 * used.learning_rate:
        warnings.append(f"{kind}: the study uses a rate of {used.learning_rate:g}, more than a factor 2 from the best")
    flops = sum(r["flops"] or 0.0 for r in rows + depth_rows)
    return {
        "grid": rows,
        "depths": depth_rows,
        "best": best,
        "best_early": early,
        "flops": flops,
        "warnings": warnings,
        "text": [*text, *(f"warning: {w}" for w in warnings), f"{kind}: {flops:.2e} FLOP spent on tuning"],
    }
