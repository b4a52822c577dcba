"""Training throughput of every potential beside a literal implementation of the same architecture, in the same run.

One thread, one step = forward + eq. 1 + backward + AdamW, on 16 molecules of about 21 atoms (degree about 20) of the
built-in set. Ours and the literal one take turns within a round, so that a drift of the machine meets both; medians.
Peak memory: bytes of CPU tensors alive at once during one step, counted by torch's profiler; weights, gradients and
the optimiser's state included, the same for both.

    python benchmarks/train_step.py [--rounds 9] [--only egnn] [--out benchmarks/results/NAME.json]
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
import sys
import time
from pathlib import Path

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import numpy as np  # noqa: E402
import torch  # noqa: E402

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from models.literal import LiteralEGNN, LiteralMPNN  # noqa: E402

from equiscale.data.builtin import builtin  # noqa: E402
from equiscale.data.references import fit_references  # noqa: E402
from equiscale.data.store import Store  # noqa: E402
from equiscale.graph import AtomGraph, Prediction, build_graph, labels  # noqa: E402
from equiscale.models import EGNNConfig, MPNNConfig  # noqa: E402
from equiscale.models.base import count_parameters  # noqa: E402
from equiscale.predict import predict  # noqa: E402
from equiscale.train.force_field import normalised  # noqa: E402
from equiscale.train.loss import per_structure  # noqa: E402
from equiscale.train.provenance import provenance  # noqa: E402

CASES = [
    *(("egnn", EGNNConfig(width=w), LiteralEGNN) for w in (32, 64, 128, 256)),
    *(("mpnn", MPNNConfig(width=w), LiteralMPNN) for w in (128, 256, 512)),
]
TARGETS = {("egnn", 64): (1.3, None), ("egnn", 256): (1.6, 0.7)}  # speed at least, memory at most
MOLECULES, ATOMS = 16, 21
LOADING = 0.5  # ms per 335 atoms, at most


def structures() -> Store:
    """16 molecules nearest to 21 atoms, of as many different molecules, the first in the set's order."""
    store = builtin()
    train = store.take(store.where("train"))
    _, first = np.unique(train.group, return_index=True)
    near = first[np.argsort(np.abs(train.sizes[first] - ATOMS), kind="stable")[:MOLECULES]]
    return normalised(train.take(near), fit_references(train))


def step(potential, made, graph: AtomGraph, label: Prediction) -> None:
    made.zero_grad(set_to_none=True)
    energy, force = per_structure(predict(potential, graph, create_graph=True), label, graph)
    (energy.mean() + force.mean()).backward()
    made.step()


def seconds(potential, made, graph: AtomGraph, label: Prediction, repeats: int) -> float:
    begun = time.perf_counter()
    for _ in range(repeats):
        step(potential, made, graph, label)
    return (time.perf_counter() - begun) / repeats


def peak_bytes(potential, made, graph: AtomGraph, label: Prediction) -> int:
    """Most bytes of tensors alive at once in a step, beyond what was alive before it, plus weights and two moments."""
    from torch.profiler import ProfilerActivity, profile

    made.zero_grad(set_to_none=True)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        step(potential, made, graph, label)
    events = sorted(
        (e for e in profiled.profiler.kineto_results.events() if e.name() == "[memory]"), key=lambda e: e.start_ns()
    )
    changes = np.cumsum([e.nbytes() for e in events])
    weights = sum(p.numel() * p.element_size() for p in potential.parameters())
    return int(changes.max()) + 3 * weights


def loading(rounds: int) -> float:
    """Median ms per 335 atoms to take a batch from the store, find its neighbours and build the graph and labels."""
    store = builtin()
    train = store.take(store.where("train"))
    rng, taken = np.random.default_rng(0), []
    for turn in range(20 * rounds):
        indices = rng.integers(0, len(train), MOLECULES)
        begun = time.perf_counter()
        batch = train.take(indices)
        build_graph(batch, 6.0, 30)
        labels(batch)
        spent = time.perf_counter() - begun
        if turn >= 10:
            taken.append(1e3 * spent * 335 / len(batch.numbers))
    return statistics.median(taken)


def case(kind: str, config, literal: type, rounds: int) -> dict:
    store = structures()
    graph, label = build_graph(store, config.cutoff, config.max_neighbors), labels(store)
    torch.manual_seed(0)
    fast = config.build()
    slow = literal(config).load(copy.deepcopy(fast))
    pair = [(p, torch.optim.AdamW(p.parameters(), 1e-4)) for p in (fast, slow)]
    with torch.no_grad():
        agree = max(float((a - b).abs().max()) for a, b in zip(*(vars(p(graph)).values() for p, _ in pair)))
    for p, made in pair:
        seconds(p, made, graph, label, 1)
    repeats = max(1, int(0.3 / max(seconds(*pair[0], graph, label, 1), 1e-3)))
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for (p, made), taken in zip(pair, times):
            taken.append(seconds(p, made, graph, label, repeats))
    ours, theirs = (statistics.median(t) for t in times)
    memory = [peak_bytes(p, made, graph, label) for p, made in pair]
    atoms = len(graph.numbers)
    return {
        "architecture": kind,
        "width": config.width,
        "depth": config.depth,
        "parameters": count_parameters(fast)[0],
        "atoms": atoms,
        "degree": len(graph.receiver) / atoms,
        "ms": 1e3 * ours,
        "ms_literal": 1e3 * theirs,
        "atoms_per_s": atoms / ours,
        "atoms_per_s_literal": atoms / theirs,
        "speed": statistics.median(b / a for a, b in zip(*times)),  # of each round: what drifts cancels
        "MB": memory[0] / 1e6,
        "MB_literal": memory[1] / 1e6,
        "memory": memory[0] / memory[1],
        "largest_difference": agree,
        "rounds": rounds,
        "steps_per_round": repeats,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", help="one architecture")
    parser.add_argument("--widths", type=int, nargs="*")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "train_step.json")
    a = parser.parse_args()
    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    ms = loading(a.rounds)
    print(f"loading, neighbours and batching: {ms:.3f} ms per 335 atoms (target: at most {LOADING})")
    head = f"{'':<6}{'width':>6}{'N':>12}{'atoms/s':>10}{'literal':>10}{'speed':>8}{'MB':>9}{'literal':>9}{'memory':>8}"
    print(head)
    rows = []
    for kind, config, literal in CASES:
        if a.only not in (None, kind) or (a.widths and config.width not in a.widths):
            continue
        row = case(kind, config, literal, a.rounds)
        rows.append(row)
        speed, memory = TARGETS.get((kind, config.width), (None, None))
        wanted = "" if speed is None else f"  target ≥ {speed}" + ("" if memory is None else f", memory ≤ {memory}")
        print(
            f"{kind:<6}{row['width']:>6}{row['parameters']:>12,}{row['atoms_per_s']:>10,.0f}"
            f"{row['atoms_per_s_literal']:>10,.0f}{row['speed']:>8.2f}{row['MB']:>9.1f}{row['MB_literal']:>9.1f}"
            f"{row['memory']:>8.2f}{wanted}",
            flush=True,
        )
    about = {**provenance("cpu"), "load_average_before": f"{load:.1f}", "cores": str(os.cpu_count())}
    a.out.parent.mkdir(parents=True, exist_ok=True)
    result = {"machine": about, "loading_ms_per_335_atoms": ms, "rows": rows}
    a.out.write_text(json.dumps(result, indent=1) + "\n")
    print(f"written to {os.path.relpath(a.out)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
