"""What tracking the loss decomposition costs a run: looks' time over training's, per architecture.

A run of 4,000 steps of 4 structures of the built-in set with `Tracking`'s defaults, as studies/symmetry.py's models.
Measured: the median step, and the median look with the averaged copy that it is taken of, in turns, by processor time
of one thread (other processes on the machine do not enter). Computed: points × look / (steps × step).

    python benchmarks/tracking.py [--rounds 7]
"""

from __future__ import annotations

import argparse
import json
import os
import runpy
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import torch  # noqa: E402

from equiscale.data.builtin import builtin  # noqa: E402
from equiscale.data.store import Store  # noqa: E402
from equiscale.models import ModelConfig, MPNNConfig  # noqa: E402
from equiscale.models.base import count_parameters  # noqa: E402
from equiscale.run import DataSpec, EvalSpec, OptimSpec, RunSpec, Tracking, evaluation_steps, tracking_steps  # noqa: E402
from equiscale.train.checkpoint import State  # noqa: E402
from equiscale.train.force_field import ForceField  # noqa: E402
from equiscale.train.loop import train_step  # noqa: E402
from equiscale.train.optim import averaged, build, optimizer  # noqa: E402
from equiscale.train.provenance import provenance  # noqa: E402
from equiscale.train.tracking import symmetry_point  # noqa: E402

ROOT = Path(__file__).parents[1]
STEPS, BATCH = 4_000, 4
TARGET = 3.0  # per cent of training, at most
ONE_LOOK = Tracking(structures=64, rotations=10)


def cases() -> dict[str, ModelConfig]:
    study = runpy.run_path(str(ROOT / "studies/symmetry.py"))
    mpnn, egnn = study["MPNN"], study["EGNN"]
    esen = next(ladder.model for ladder in study["STUDY"].ladders if ladder.model.kind == "esen")
    return {
        **{f"mpnn w={w}": replace(mpnn, width=w) for w in (12, 34, 90)},
        "egnn w=16": replace(egnn, width=16),
        "esen w=4": replace(esen, width=4),
    }


def seconds(work: Callable[[], object]) -> float:
    begun = time.process_time()
    work()
    return time.process_time() - begun


def measured(name: str, model: ModelConfig, store: Store, rounds: int) -> dict:
    tracking = Tracking()
    data = DataSpec(structures=STEPS * BATCH)
    spec = RunSpec(model, data, OptimSpec(batch_structures=BATCH), EvalSpec(symmetry=tracking))
    task = ForceField.of(spec, store)
    potential = build(model, spec.optim, 0).train()
    potential.prepare(task.first_structures())
    made, state = optimizer(potential, model, spec.optim), State()
    kinds = {"look": tracking, "with_gradients": replace(tracking, gradients=True)}

    def look(kind: str) -> None:
        symmetry_point(task, averaged(potential, made), kinds[kind], state)

    step_seconds, look_seconds = [], {kind: [] for kind in kinds}
    for turn in range(rounds):
        for _ in range(12):
            spent = seconds(lambda: train_step(task, potential, made, state.step, spec.optim.clip))
            state.step += 1
            if turn:  # the first round warms up
                step_seconds.append(spent)
        for kind, spent in look_seconds.items():
            once = seconds(lambda: look(kind))  # noqa: B023
            if turn:
                spent.append(once)
    step = statistics.median(step_seconds)
    points = len(tracking_steps(STEPS, spec.evaluation))
    medians = {kind: statistics.median(spent) for kind, spent in look_seconds.items()}
    share = {kind: 100 * points * spent / (STEPS * step) for kind, spent in medians.items()}
    evaluation = seconds(lambda: [task.evaluate(potential, n, spec.evaluation.structures) for n in task.validation])
    return {
        "case": name,
        "parameters": count_parameters(potential)[0],
        "structures": tracking.structures,
        "rotations": tracking.rotations,
        "points": points,
        "ms_step": round(1e3 * step, 3),
        "ms_look": round(1e3 * medians["look"], 3),
        "ms_look_with_gradients": round(1e3 * medians["with_gradients"], 3),
        "percent_of_training": round(share["look"], 3),
        "percent_with_gradients": round(share["with_gradients"], 3),
        "percent_of_the_evaluations": round(
            100 * evaluation * len(evaluation_steps(STEPS, spec.evaluation)) / (STEPS * step), 3
        ),
    }


def one_decomposition(store: Store, rounds: int) -> dict:
    """A potential of about 10,000 parameters, 64 structures × 10 rotations."""
    model = min(
        (replace(cases()["mpnn w=12"], width=w) for w in range(8, 40)),
        key=lambda m: abs(count_parameters(m.build())[0] - 10_000),
    )
    assert isinstance(model, MPNNConfig)
    spec = RunSpec(model, DataSpec(structures=8))
    task, potential = ForceField.of(spec, store), build(model, spec.optim, 0).eval()
    spent = [seconds(lambda: symmetry_point(task, potential, ONE_LOOK, State())) for _ in range(rounds)]
    return {
        "case": f"mpnn w={model.width}, one decomposition",
        "parameters": count_parameters(potential)[0],
        "structures": ONE_LOOK.structures,
        "rotations": ONE_LOOK.rotations,
        "seconds": round(statistics.median(spent[1:]), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/tracking.json")
    a = parser.parse_args()
    torch.set_num_threads(1)
    store = builtin()
    rows = []
    for name, model in cases().items():
        rows.append(measured(name, model, store, a.rounds))
        print(rows[-1], flush=True)
    one = one_decomposition(store, a.rounds)
    print(one)
    worst = max(row["percent_of_training"] for row in rows)
    print(f"default tracking: at most {worst:.2f} % of training, wanted below {TARGET:g} %")
    print(f"one decomposition: {one['seconds']:.2f} s, wanted below 1 s")
    where = {**provenance("cpu"), "cores": str(os.cpu_count()), "when": f"{datetime.now(UTC):%Y-%m-%dT%H:%M}+00:00"}
    about = {"steps": STEPS, "batch": BATCH, "target_percent": TARGET, "rows": rows, "one": one, "where": where}
    a.out.write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main()
