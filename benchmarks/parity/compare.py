"""Our models with the references' weights, on the references' molecules: relative differences in float64.

    python benchmarks/parity/compare.py OUT [--only NAME ...]     # OUT as given to reference.py

Writes results/parity.json and results/parity.md beside this file when all cases are run, prints the table always.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from importlib.metadata import version
from pathlib import Path

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import numpy as np  # noqa: E402
import torch  # noqa: E402

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "tests"))

from models.reference_names import fitted_scales, linked, outputs  # noqa: E402

TOLERANCE = 1e-10
"""Relative, to the largest energy and force of a case: float64 sums of some 10⁵ terms, with room."""


def off(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Largest difference over the largest value; over 1e-3 where that is rounding, as the force on a lone atom."""
    return float(np.abs(ours - theirs).max() / max(np.abs(theirs).max(), 1e-3))


def worst_gradient(meta: dict, ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> float:
    """Of all weight tensors the worst ``off``. A map of names only sorts numbers, so that gradients follow weights;
    tensors whose gradient is rounding (below 1e-13 of the largest) are held against the largest."""
    largest = max(np.abs(g).max() for g in theirs.values())
    found = []
    for link in linked(meta)[1]:
        if link.ours in ours:  # scale factors have none
            there = link.how(theirs[link.reference])
            top = np.abs(there).max()
            found.append(np.abs(ours[link.ours] - there).max() / (top if top > 1e-13 * largest else largest))
    return float(max(found))


def compare(path: Path) -> dict:
    with np.load(path) as file:
        there = dict(file)
    meta = json.loads(str(there["meta"]))
    weights = {n.removeprefix("weight/"): a for n, a in there.items() if n.startswith("weight/")}
    gradient = {n.removeprefix("gradient/"): a for n, a in there.items() if n.startswith("gradient/")}
    molecules = there["numbers"], there["positions"], there["sizes"]
    ours = outputs(meta, weights, *molecules)
    case = meta["case"]
    scales = {}
    if case["extra"].get("fit_scales"):
        scales = {n: abs(x / float(weights[n]) - 1) for n, x in fitted_scales(meta, weights, *molecules).items()}
    return {
        "case": case["name"],
        "architecture": case["architecture"],
        "fairchem_core": case["version"],
        "width": case["width"],
        "layers": case["layers"],
        "weights": meta["trainable"],
        "energy": off(ours.energy, there["energy"]),
        "forces": off(ours.forces, there["forces"]),
        "gradient": worst_gradient(meta, ours.gradient, gradient),
        "fitted_scales": max(scales.values()) if scales else None,
        "same_edges": set(map(tuple, ours.edges.T)) == set(map(tuple, there["edges"].T)),
        "notes": meta["notes"],
        "reference_rotation_forces": meta["self_checks"]["rotation_forces"],
        "reference_batching_forces": meta["self_checks"]["batching_forces"],
    }


def table(rows: list[dict]) -> str:
    lines = [
        "# Parity with fairchem-core, float64",
        "",
        "Largest difference over the largest value, ours against the reference, for the same weights and molecules "
        "(2 to 20 atoms; 50 and 70 where the cap binds).",
        "Gradient: of a random sum of energies and forces by every weight tensor, the worst of them.",
        "Fitted: scale factors of GemNet-OC, each fit on the case's molecules by either side. Written by `compare.py`.",
        "",
        "| case | fairchem-core | weights | energy | forces | gradient | fitted | same edges |",
        "|---|---|---:|---:|---:|---:|---:|---|",
    ]
    for r in rows:
        lines.append(
            f"| {r['case']} | {r['fairchem_core']} | {r['weights']:,} | {r['energy']:.1e} | {r['forces']:.1e} "
            f"| {r['gradient']:.1e} | {'' if r['fitted_scales'] is None else format(r['fitted_scales'], '.1e')} "
            f"| {'yes' if r['same_edges'] else '**no**'} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", nargs="*", help="names of cases")
    args = parser.parse_args()
    torch.set_num_threads(1)
    paths = [p for p in sorted(args.out.glob("*.npz")) if not args.only or p.stem in args.only]
    rows = [compare(p) for p in paths]
    print(table(rows))
    if not args.only:
        versions = {p: version(p) for p in ("equiscale", "torch", "numpy")}
        results = HERE / "results"
        results.mkdir(exist_ok=True)
        (results / "parity.json").write_text(json.dumps({"ours": versions, "rows": rows}, indent=1) + "\n")
        (results / "parity.md").write_text(table(rows))
    worst = [max(r["energy"], r["forces"], r["gradient"], r["fitted_scales"] or 0.0) for r in rows]
    beyond = [r["case"] for r, off_by in zip(rows, worst) if off_by > TOLERANCE or not r["same_edges"]]
    if beyond:
        sys.exit(f"beyond {TOLERANCE:g}: {', '.join(beyond)}")


if __name__ == "__main__":
    main()
