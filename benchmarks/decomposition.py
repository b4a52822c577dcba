"""What a decomposition costs, and how many rotations a coset of a design replaces.

    python benchmarks/decomposition.py [--steps 1500]

An MPNN of 10,480 parameters on 64 structures of the built-in set, one thread, as initialised and after ``--steps`` of
Adam on the forces alone, of all structures. Seconds of a decomposition with 10 random rotations, elapsed and of the
processor (the best of five). Mean-square error of the average over a coset of D2, T, O or I: the unbiased variance
between eight independent cosets per structure, of 16 structures; of as many random rotations it is L_equiv / M. Shares
of L_equiv by degree and the bound by Lie derivatives. The result is written to benchmarks/results/decomposition.json.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from equiscale.data.builtin import builtin
from equiscale.data.store import Store
from equiscale.graph import AtomGraph, safe_norm
from equiscale.models import MPNNConfig
from equiscale.models.base import Potential, count_parameters, graph_for
from equiscale.predict import predict
from equiscale.symmetry.decomposition import decomposition
from equiscale.symmetry.degrees import degrees, powers
from equiscale.symmetry.designs import Coset, Random
from equiscale.symmetry.elements import Elements
from equiscale.symmetry.estimate import deviation, estimate
from equiscale.symmetry.graphs import twisted_predictions
from equiscale.symmetry.groups import SO3
from equiscale.symmetry.lie import ANGLE, derivatives, of_graph, roughness
from equiscale.symmetry.losses import SquaredForce
from equiscale.train.provenance import provenance

RESULT = Path(__file__).parents[1] / "benchmarks/results/decomposition.json"
CONFIG = MPNNConfig(width=24, depth=4)
LOSS = SquaredForce()
COSETS = 8
ATOMS = 4096  # of one forward pass


def spread(count: int, skip: int = 0) -> Store:
    """So many structures of all parts of the built-in set."""
    store = builtin()
    return store.take(np.arange(skip, len(store), len(store) // count)[:count])


def train(potential: Potential, steps: int, scale: float) -> float:
    """Adam on the length of the force error, sixteen structures a step, turned by nothing; the last losses' mean."""
    rng, store = np.random.default_rng(0), builtin()
    optimiser = torch.optim.Adam(potential.parameters(), 3e-3)
    losses = []
    for step in range(steps):
        batch = store.take(rng.choice(len(store), 16, replace=False))
        optimiser.param_groups[0]["lr"] = 3e-3 * (1 - step / steps)
        y = torch.as_tensor(batch.forces / scale, dtype=torch.float32)
        loss = safe_norm(predict(potential, graph_for(CONFIG, batch), create_graph=True).forces - y).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return float(np.mean(losses[-20:]))


@torch.no_grad()
def twisted(potential: Potential, graph: AtomGraph, g: Elements) -> np.ndarray:
    step = max(ATOMS // len(graph.numbers), 1)
    parts = [
        twisted_predictions(lambda x: predict(potential, x), graph, g[k : k + step]).forces.double().numpy()
        for k in range(0, len(g), step)
    ]
    return np.concatenate(parts)


def decompose(potential: Potential, store: Store, y: np.ndarray) -> tuple[float, float, dict[str, Any]]:
    """Seconds (elapsed, of the processor) with everything: the graph, the passes, the estimates."""
    begun, used = time.perf_counter(), time.process_time()
    draws = Random(10).draw(SO3(), np.random.default_rng(0), len(store))
    z = {"forces": twisted(potential, graph_for(CONFIG, store), draws.elements.transposed)}
    samples = estimate(z, {"forces": y}, store.offsets, LOSS, draws.kind)
    found = decomposition(samples, rotations=10, estimator="u-statistic", groups=store.group)
    return time.perf_counter() - begun, time.process_time() - used, found.to_dict()


def cosets(potential: Potential, store: Store) -> dict[str, Any]:
    """Mean-square error of the average, per force component, and that of as many random rotations."""
    graph, rng = graph_for(CONFIG, store), np.random.default_rng(1)
    many = Random(100).draw(SO3(), rng, len(store))
    equiv = deviation(twisted(potential, graph, many.elements.transposed), store.offsets)[0].mean()
    rows: dict[str, Any] = {"equiv": equiv}
    for name in ("D2", "T", "O", "I"):
        means = []
        for _ in range(COSETS):
            draws = Coset(name).draw(SO3(), rng, len(store))
            means.append(twisted(potential, graph, draws.elements.transposed).mean(0))
        error = deviation(np.stack(means), store.offsets)[0].mean()
        m = len(draws.weights)
        rows[name] = {"rotations": m, "error": error, "random": equiv / m, "gain": equiv / m / error}
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1500)
    a = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    potential, store, few = CONFIG.build().eval(), spread(64), spread(16, 7)
    scale = float(np.sqrt(np.square(builtin().forces).mean()))
    result: dict[str, Any] = {"when": datetime.now(UTC).isoformat(timespec="minutes"), "provenance": provenance("cpu")}
    result |= {"parameters": count_parameters(potential)[0], "structures": len(store), "atoms": store.atoms}
    result["load_before"] = os.getloadavg()[0]
    for word in ("initialised", "trained"):
        row: dict[str, Any] = {}
        if word == "trained":
            row |= {"steps": a.steps, "loss": train(potential.train(), a.steps, scale)}
            potential.eval()
        y = store.forces.astype(float) / scale
        runs = [decompose(potential, store, y) for _ in range(5)]
        row |= {"seconds": min(r[0] for r in runs), "seconds_processor": min(r[1] for r in runs)}
        row |= {"decomposition": runs[0][2], "cosets": cosets(potential, few)}
        draws = Random(20).draw(SO3(), np.random.default_rng(2), len(store))
        g = draws.elements.transposed
        z = {"forces": twisted(potential, graph_for(CONFIG, store), g)}
        row["degrees"] = degrees(powers(z, g, store.offsets, LOSS, draws.kind), store.group).to_dict()
        graph = graph_for(CONFIG, store)
        with torch.no_grad():
            f = of_graph(lambda x: predict(potential, x), graph)
            d = derivatives(f, g[:4], store.offsets, LOSS, angle=ANGLE["float32"])
        row["lie"] = roughness(d, store.group).to_dict()
        result[word] = row
        print(word, json.dumps(row), flush=True)
    result["load_after"] = os.getloadavg()[0]
    RESULT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
