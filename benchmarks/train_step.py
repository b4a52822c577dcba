"""What a training step costs, per architecture and width, beside another implementation of the same in the same run.

A step is forward, eq. 1 of the scaling paper, backward and AdamW in float32, on 16 structures of 17 to 23 atoms (335
atoms, 6,538 edges within 6 Å) that `step/cases.py` makes. Measured: milliseconds, atoms/s, peak memory, FLOPs (of the
published formulation and executed) and the fraction of the rate of matrix products that this machine reached in the
same rounds. Ours and the other take turns, A B A B, and a ratio is the median of the rounds' ratios, so that a drift of
the machine meets both; processor time besides leaves out what other processes take. The other is our literal version
of the formulas (tests/models/literal*.py) or, with `--reference`, fairchem-core in its own environment
(benchmarks/parity/README.md), given the same structures and edges.

Peak memory: bytes of tensors alive at once in a step, counted by torch (CPU) or its allocator (CUDA), with weights,
gradients and the optimiser's state. FLOPs: of matrix products; of a published step three times the forward's.

    python benchmarks/train_step.py [--only esen ...] [--widths 4 8] [--threads 1 2] [--rounds 9] [--limit 40]
    python benchmarks/train_step.py --reference reference-env/bin/python --unpacked fairchem-1.10 --only gemnet_oc
    python benchmarks/train_step.py --scaling       # time per atom and per edge, 20 to 2,000 atoms

Rows are kept in the result's JSON by architecture, case, device, threads and opponent: a later run renews its own.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import numpy as np  # noqa: E402
import torch  # noqa: E402

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from step.cases import CASES, SCALING  # noqa: E402
from step.measure import SHAPES, matmul_rates  # noqa: E402
from step.ours import measured  # noqa: E402
from step.peer import Reference  # noqa: E402
from step.scaling import exponent, grow  # noqa: E402

from equiscale.data.builtin import builtin  # noqa: E402
from equiscale.graph import build_graph, labels  # noqa: E402
from equiscale.train.provenance import provenance  # noqa: E402

LOADING = 0.5  # ms per 335 atoms, at most


def loading(rounds: int) -> float:
    """Median ms per 335 atoms to take a batch from the built-in set, find neighbours, build graph and labels."""
    store = builtin()
    train = store.take(store.where("train"))
    rng, taken = np.random.default_rng(0), []
    for turn in range(20 * rounds):
        indices = rng.integers(0, len(train), 16)
        begun = time.perf_counter()
        batch = train.take(indices)
        build_graph(batch, 6.0, 30)
        labels(batch)
        spent = time.perf_counter() - begun
        if turn >= 10:
            taken.append(1e3 * spent * 335 / len(batch.numbers))
    return statistics.median(taken)


HEAD = (
    "| case | on | N | ms, of the processor | atoms/s | MB | GFLOP published | executed | of matmul rate | against | "
    "speed (rounds) | by processor time | without its graph | memory |\n|---|---|"
    + "---:|" * 7
    + "---|---|---:|---:|---|"
)


def wanted(number: float, target: float | None, least: bool) -> str:
    if target is None:
        return f"{number:.2f}"
    met = number >= target if least else number <= target
    return f"{'' if met else '**'}{number:.2f}{'' if met else '**'} ({'≥' if least else '≤'} {target:g})"


def line(r: dict) -> str:
    """A row of the markdown table; bold where a target is missed."""
    cells = [
        f"{r['architecture']} {r['case']}",
        f"{r['device']} {r['threads']}",
        f"{r['parameters']:,}",
        ", ".join(f"{r[k]:.0f}" if r[k] >= 100 else f"{r[k]:.1f}" for k in ("ms", "ms_processor")),
        f"{r['atoms_per_s']:,.0f}",
        f"{r['MB']:.0f}",
        f"{r['flops_model'] / 1e9:.2f}",
        f"{r['flops_executed'] / 1e9:.2f}",
        f"{r['fraction_executed']:.2f}",
    ]
    if r["against"] is None:
        return f"| {' | '.join(cells)} | | | | | |"
    spread = f"{min(r['speed_all']):.2f}–{max(r['speed_all']):.2f}"
    given = f"{r['speed_without_graph']:.2f}" if r.get("graph_ms_other") else ""
    cells += [r["against"], f"{wanted(r['speed'], r['target_speed'], True)}, {spread}"]
    cells += [f"{r['speed_processor']:.2f}", given]
    return f"| {' | '.join([*cells, wanted(r['memory'], r['target_memory'], False)])} |"


def identity(row: dict) -> list:
    return [row.get(k) for k in ("architecture", "case", "width", "device", "threads", "against", "atoms")]


def keep(path: Path, part: str, rows: list[dict]) -> None:
    """Put ``rows`` into the file, in place of those of the same case."""
    result = json.loads(path.read_text()) if path.exists() else {}
    new = [identity(r) for r in rows]
    result[part] = [r for r in result.get(part, []) if identity(r) not in new] + rows
    result[part].sort(key=lambda r: [str(r["architecture"]), r["device"], r["threads"], str(r.get("case")), r["width"]])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")


def where(device: str) -> dict:
    """Machine and versions, for every row."""
    return {**provenance(device), "cores": str(os.cpu_count()), "when": datetime.now(UTC).isoformat(timespec="minutes")}


def scaling(a: argparse.Namespace) -> None:
    print("| architecture | atoms | edges | ms | µs/atom | µs/edge |\n|---|---:|---:|---:|---:|---:|")
    for device in a.devices:
        for config in SCALING:
            if a.only and config.kind not in a.only:
                continue
            load = os.getloadavg()[0]
            rows = grow(config, device)
            for r in rows:
                r |= {"load_before": load, "where": where(device)}
                name = f"{r['architecture']} w={r['width']} d={r['depth']}"
                counts = f"{r['atoms']:,} | {r['edges']:,}"
                print(f"| {name} | {counts} | {r['ms']:.1f} | {r['us_per_atom']:.1f} | {r['us_per_edge']:.2f} |")
            slopes = {by: exponent(rows, by) for by in ("atoms", "edges")}
            print(
                f"| | | | ∝ atoms^{slopes['atoms']:.2f}, edges^{slopes['edges']:.2f} from 100 atoms on | | |",
                flush=True,
            )
            for r in rows:
                r["exponents_from_100_atoms"] = slopes
            keep(a.out, "scaling", rows)


def steps(a: argparse.Namespace) -> None:
    print(HEAD, flush=True)
    for case in CASES:
        if (a.only and case.architecture not in a.only) or (a.widths and case.config.width not in a.widths):
            continue
        if a.match and a.match not in case.name:
            continue
        for device in a.devices:
            peer = None
            if a.reference and case.reference and device == "cpu":
                peer = Reference(a.reference, a.unpacked, case.reference["version"])
            try:
                for threads in a.threads if device == "cpu" else a.threads[:1]:
                    torch.set_num_threads(threads)
                    row = measured(case, device, peer, a.rounds, a.limit) | {"where": where(device)}
                    keep(a.out, "rows", [row])
                    print(line(row), flush=True)
            finally:
                if peer is not None:
                    peer.end()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--limit", type=float, default=60.0, help="seconds after which a case takes no further round")
    parser.add_argument("--only", nargs="*", help="architectures")
    parser.add_argument("--widths", type=int, nargs="*")
    parser.add_argument("--match", help="part of a case's name")
    parser.add_argument("--threads", type=int, nargs="*", default=[1])
    parser.add_argument("--devices", nargs="*", default=["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"])
    parser.add_argument("--reference", type=Path, help="the interpreter of the reference's environment")
    parser.add_argument("--unpacked", type=Path, help="folder with the unpacked wheel of fairchem-core 1.10.0")
    parser.add_argument("--scaling", action="store_true", help="instead: time over the size of a structure")
    parser.add_argument("--no-loading", action="store_true", help="leave out the loading of batches")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "train_step.json")
    a = parser.parse_args()
    torch.set_num_threads(a.threads[0])
    found = (
        f"{rate / 1e9:.0f} ({'x'.join(map(str, shape))})"
        for shape, rate in zip(SHAPES, matmul_rates(torch.device("cpu"), 0.2))
    )
    print(f"load {os.getloadavg()[0]:.2f}; GFLOP/s of products, float32, {a.threads[0]} thread(s): {', '.join(found)}")
    if a.scaling:
        scaling(a)
        return 0
    if not a.no_loading:
        ms = loading(a.rounds)
        print(f"loading, neighbours and batching: {ms:.3f} ms per 335 atoms (target: at most {LOADING})")
        row = {"architecture": "loading", "width": 0, "device": "cpu", "threads": a.threads[0], "ms_per_335_atoms": ms}
        keep(a.out, "loading", [row | {"load_before": os.getloadavg()[0], "where": where("cpu")}])
    steps(a)
    return 0


if __name__ == "__main__":
    sys.exit(main())
