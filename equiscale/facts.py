"""From a results folder to what the laws and the report read: the table, the facts beside it, the analyses."""

import json
from dataclasses import asdict
from typing import Any

import numpy as np

from equiscale.config import to_json
from equiscale.errors import InputError
from equiscale.results import Results
from equiscale.run import RunRecord, Sets, load_losses, table


def facts(results: Results, records: list[RunRecord], dropped: list[dict[str, Any]]) -> dict[str, Any]:
    """What the report says besides the table: data, baselines, machine, predictions, tuning."""
    study = results.study()
    first = records[0]
    spec = first.spec
    kinds = sorted({r.spec.model.kind for r in records})
    trivial = {
        name: {
            part: getattr(getattr(first, f"trivial_{name}"), part)
            for part in ("loss", "energy_loss", "force_loss", "energy_mae", "force_mae")
        }
        for name in Sets
    }
    atoms = [r.curve[-1].atoms for r in records if r.curve]
    return {
        "study": study.name,
        "title": study.title,
        "description": study.description,
        "data": {
            "name": spec.data.name,
            "hash": spec.data.content_hash,
            "label": data_label(spec.data.name),
            "num_train": spec.data.structures,
            "atoms": max(atoms, default=0),
            "epochs": spec.data.epochs,
            "augment": spec.data.augment,
        },
        "trivial": trivial,
        "sigma": first.sigma,
        "mu": first.mu,
        "machine": first.provenance.get("hardware", "unknown"),
        "hardware": sorted({r.provenance.get("hardware", "unknown") for r in records}),
        "versions": {k: v for k, v in first.provenance.items() if k != "hardware"},
        "batch_size": {k: _first(records, k).spec.optim.batch_structures for k in kinds},
        "learning_rate": {k: _first(records, k).spec.optim.learning_rate for k in kinds},
        "base_width": {k: _first(records, k).spec.optim.base_width for k in kinds},
        "width_rule": {k: _first(records, k).spec.optim.width_rule for k in kinds},
        "config": {k: json.loads(to_json(RunRecord, _first(records, k)))["spec"]["model"] for k in kinds},
        "final": {
            r.spec.key: {
                "status": r.status,
                "reason": r.reason,
                "molecules": asdict(r.final_molecules),
                "conformers": asdict(r.final_conformers),
                "step_seconds": r.step_seconds,
                "shared_device": r.shared_device,
                "ranks": int(r.provenance.get("ranks", "1")),
            }
            for r in records
        },
        "D_max": float(max(atoms, default=0)),
        "exclude_below": study.exclude_below,
        "runs_declared": len(results.declared()["runs"]),
        "runs_recorded": len(records),
        "dropped": dropped,
        "predictions": results.predictions(),
        "tuning": results.tuning(),
    }


def _made(prediction: dict[str, Any], validation: str) -> bool:
    return prediction["validation"] == validation and "loss" in prediction


def _of_set(prediction: dict[str, Any]) -> dict[str, Any]:
    """A prediction as the laws know it: which set it is of is ours."""
    return {k: v for k, v in prediction.items() if k != "validation"}


def data_label(name: str) -> str:
    """The level of theory that labels a data set, where it is known."""
    return "GFN2-xTB" if name == "builtin" else "as labelled in the file"


def _first(records: list[RunRecord], kind: str) -> RunRecord:
    return next(r for r in records if r.spec.model.kind == kind)


def analyses(
    results: Results, *, sets: tuple[str, ...] = Sets, architecture: str | None = None, **options: Any
) -> tuple[dict[str, np.ndarray], dict[str, Any], dict[str, Any]]:
    """(table, facts, analysis per validation set) of a results folder; InputError where nothing is recorded.

    architecture: of that one alone, without what compares it with others.
    """
    from equiscale.laws import analyse

    records = results.records()
    if not records:
        raise InputError(f"{results.folder} holds no record yet: `equiscale run` its study first.")
    rows, dropped = table(records)
    if not rows:
        raise InputError(f"every run in {results.folder} diverged: lower the learning rate and run again.")
    about = facts(results, records, dropped)
    losses = load_losses(results.folder, [r.spec.key for r in records])
    if architecture is not None:
        rows = {name: column[rows["architecture"] == architecture] for name, column in rows.items()}
    options.setdefault("exclude_below", about["exclude_below"])
    made = {}
    for name in sets:
        own = {**about, "predictions": [_of_set(p) for p in about["predictions"] if _made(p, name)]}
        made[name] = analyse(rows, own, validation=name, losses=losses, **options)
    return rows, about, made
