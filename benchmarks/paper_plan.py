"""The scaling paper's four ladders on OMol25, on paper: FLOPs, hours on 8 to 1,000 GPUs, storage and traffic.

The tables of docs/clusters.md, "The paper's four ladders". `studies/paper.py` says which runs; their FLOPs are the
package's own formulas at the paper's mean degrees. No GPU rate was measured: without one, two cases frame it, by the
share of a device's peak that matrix products reach and by what it takes to launch an operation. One's own rates, the
first as good as the second is rough:

    equiscale dry-run studies/paper.py --probe --device cuda --workers 1 --results results/paper
    python benchmarks/paper_plan.py --probe results/paper/probe.json
    python benchmarks/paper_plan.py --rate mpnn=2e12 --rate egnn=3e12    # published FLOP/s that a run reaches alone

`--count` counts anew what does not depend on the device, and keeps it in benchmarks/results/paper_plan.json: FLOPs that
our formulation executes, operations a step, bytes of checkpoints and logs.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import torch  # noqa: E402
from paper_ladders.schedule import Job, Rung, enough, finish, whole, with_ranks  # noqa: E402

from equiscale.errors import InputError  # noqa: E402
from equiscale.graph import Counts  # noqa: E402
from equiscale.ladder import Study, largest, load_study  # noqa: E402
from equiscale.models.base import count_parameters  # noqa: E402
from equiscale.run import RunSpec  # noqa: E402

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"

STRUCTURES, ATOMS = 34e6, 9.2e8
"""Section 3.1 of the paper."""

DEGREE = {6.0: 22.0, 10.0: 31.6}
"""Mean degree by cutoff, with which the architectures' FLOPs agree with tables 1 and 7 of the paper."""

PEAK = {"a100": {"float32": 19.5e12, "tf32": 156e12}, "h100": {"float32": 66.9e12, "tf32": 494.7e12}}
"""Dense FLOP/s of NVIDIA's SXM modules."""


@dataclass(frozen=True)
class Case:
    """Assumed, not measured."""

    name: str
    share: float  # of the peak, that a step's matrix products reach
    launch: float  # seconds that the processor takes for one operation


CASES = (Case("fast", 0.30, 5e-6), Case("slow", 0.05, 20e-6))

READS = 2300 / 256  # small reads a structure where nothing is cached (docs/data.md)
BEAT, CLAIM = 5.0, 512  # seconds between two writes of a claim, and their bytes (equiscale/claim.py)


def rungs(study: Study, counted: dict[str, Any]) -> list[Rung]:
    runs = [run for ladder in study.ladders for run in ladder.runs()]
    last = {run.key for run in largest(runs)}
    out = []
    for run in runs:
        kind, width, batch = run.architecture, run.model.width, run.optim.batch_structures
        if kind not in counted or str(width) not in counted[kind]["executed"]:
            raise InputError(f"{run} is not counted in paper_plan.json: run with --count first.")
        executed, operations = counted[kind]["executed"][str(width)], counted[kind]["operations"]
        n = parameters(run.model)
        step = 3 * run.model.flops(mean_counts(run)) / 1000 * batch * ATOMS / STRUCTURES
        out.append(Rung(kind, width, n, batch, run.steps, step, executed, operations, run.key in last))
    return out


@cache
def parameters(model: Any) -> int:
    with torch.device("meta"):
        return count_parameters(model.build())[0]


def mean_counts(run: RunSpec) -> Counts:
    """Of a thousand atoms that all have the mean degree."""
    degree = DEGREE[run.model.cutoff]
    return Counts(1000, round(1000 * degree), round(1000 * degree**2))


def jobs_of(
    made: Sequence[Rung], case: Case, peak: float, rates: dict[str, float], probed: dict[str, list[tuple[float, float]]]
) -> list[Job]:
    """``rates``: published FLOP/s by architecture. ``probed``: FLOPs and seconds of the steps that were measured, by
    architecture, ascending; others lie on the line through the first and last, or of one through it and nothing."""
    out = []
    for rung in made:
        if points := probed.get(rung.architecture):
            (f0, s0), (f1, s1) = points[0], points[-1]
            slope = max(0.0, (s1 - s0) / (f1 - f0)) if f1 > f0 else s1 / f1
            alone, floor = s0 + slope * (rung.step_flops - f0), max(0.0, s0 - slope * f0)
        else:
            floor = rung.operations * case.launch
            rate = rates.get(rung.architecture, case.share * peak / rung.executed)
            alone = max(rung.step_flops / rate, floor)
        out.append(Job(rung, alone, floor))
    return out


def probed_steps(file: Path, made: Sequence[Rung], study: Study) -> dict[str, list[tuple[float, float]]]:
    """Measured steps of a ``probe.json``, by architecture and N, which name a rung; its FLOPs are the plan's."""
    try:
        found = json.loads(file.read_text())["found"].values()
    except (OSError, ValueError, KeyError, AttributeError):
        raise InputError(f"{file} is no probe: `equiscale dry-run STUDY --probe` writes one.") from None
    by_size = {rung.parameters: rung for rung in made}
    out: dict[str, list[tuple[float, float]]] = {}
    for figures in found:
        rung = by_size.get(figures["parameters"])
        if rung is not None and figures["step_seconds"] is not None:
            out.setdefault(rung.architecture, []).append((rung.step_flops, figures["step_seconds"]))
    if not out:
        raise InputError(f"{file} has no measured rung of the study {study.name!r}: probe that one.")
    return {kind: sorted(points) for kind, points in out.items()}


def bytes_per_structure() -> float:
    """Of the packed store: measured on rows of 23 atoms, 25 bytes more for each atom more."""
    packing = json.loads((RESULTS / "packing.json").read_text())
    return packing["packed_bytes_per_row"] + 25 * (ATOMS / STRUCTURES - packing["made"]["atoms_per_row"])


def made_by_a_core() -> float:
    """Structures/s that a core reads from the page cache and finds neighbours of, by benchmarks/data.py."""
    data = json.loads((RESULTS / "data.json").read_text())
    return 335 / (1e-3 * data["10000000"]["load_and_connect_ms_per_335_atoms"]) / (ATOMS / STRUCTURES)


def again(jobs: Sequence[Job]) -> list[Job]:
    """The runs that a second and a third seed of each ladder's smallest, middle and largest rung would add."""
    ladders: dict[str, list[Job]] = {}
    for job in jobs:
        ladders.setdefault(job.rung.architecture, []).append(job)
    return [x for ladder in ladders.values() for x in (ladder[0], ladder[len(ladder) // 2], ladder[-1]) for _ in (1, 2)]


def plan(by_case: dict[str, list[Job]], counted: dict[str, Any], sizes: Sequence[int]) -> dict[str, Any]:
    """Everything that the tables show, and every rung."""
    row = bytes_per_structure()
    kept = counted["files"]
    first = next(iter(by_case.values()))
    ends = [job.rung for job in first]
    checkpoint = [kept["checkpoint_per_parameter"] * r.parameters + kept["checkpoint_per_step"] * r.steps for r in ends]
    out: dict[str, Any] = {
        "store_bytes": row * STRUCTURES,
        "store_bytes_per_structure": row,
        "checkpoints_bytes": sum(checkpoint),
        "checkpoint_largest_bytes": max(checkpoint),
        "weights_bytes": sum(4 * r.parameters for r in ends),
        "logs_bytes": sum(kept["log_per_step"] * r.steps for r in ends),
        "checkpoint_bytes_per_step": kept["checkpoint_per_step"],
        "checkpoint_seconds_at_end": kept["checkpoint_seconds_per_step"] * max(r.steps for r in ends),
        "structures_per_core_s": made_by_a_core(),
        "claims_per_s": len(ends) / BEAT,
        "claims_bytes_per_s": len(ends) / BEAT * CLAIM,
        "cases": {},
    }
    for name, jobs in by_case.items():
        case: dict[str, Any] = {
            "gpu_hours": sum(j.seconds for j in jobs) / 3600,
            "longest_hours": max(j.seconds for j in jobs) / 3600,
            "more_seeds_gpu_hours": sum(j.seconds for j in again(jobs)) / 3600,
            "launch_bound_gpu_hours": sum(j.seconds for j in jobs if j.alone <= j.floor) / 3600,
            "enough_gpus": enough(jobs, False),
            "enough_gpus_with_ranks": enough(jobs, True),
            "gpus": {},
            "ladders": {},
            "rungs": [],
        }
        for gpus in sizes:
            split = with_ranks(jobs, gpus)
            case["gpus"][str(gpus)] = {
                "hours": whole(jobs, gpus) / 3600,
                "hours_without_wait": finish(jobs, gpus) / 3600,
                "busy": sum(j.seconds for j in jobs) / gpus / whole(jobs, gpus),
                "with_ranks": {
                    "hours": whole(split, gpus) / 3600,
                    "gpu_hours": sum(j.ranks * j.seconds for j in split) / 3600,
                    "rungs": {f"{j.rung.architecture} {j.rung.width}": j.ranks for j in split if j.ranks > 1},
                },
            }
        for job in jobs:
            r = job.rung
            case["rungs"].append({**asdict(r), "step_ms": 1e3 * job.step, "hours": job.seconds / 3600})
            ladder = case["ladders"].setdefault(
                r.architecture, {"flops": 0.0, "gpu_hours": 0.0, "bound_by_launches": 0}
            )
            ladder["flops"] += r.flops
            ladder["gpu_hours"] += job.seconds / 3600
            ladder["bound_by_launches"] += job.alone <= job.floor
            fastest = max(ladder.get("structures_per_s", 0.0), r.batch / job.step)
            ladder["structures_per_s"] = fastest
            ladder["bytes_per_s"], ladder["reads_per_s"] = fastest * row, fastest * READS
            ladder["all_reduce_bytes"] = 4 * r.parameters  # of the largest, the last in its ladder
        out["cases"][name] = case
    return out


def digits(value: float, count: int = 2) -> str:
    """Rounded to so many digits: nothing here is known better."""
    text = f"{value:.{count - 1}e}"
    number = float(text)
    return f"{number:,.0f}" if number >= 10 ** (count - 1) else f"{number:.{max(0, count - 1 - int(text[-3:]))}f}"


def span(values: Sequence[float]) -> str:
    return " – ".join(dict.fromkeys(digits(v) for v in sorted(values)))


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(r) + " |" for r in [head, ["---"] * len(head), *rows])


def ladder_table(found: dict[str, Any], every: bool) -> str:
    """Smallest, middle and largest rung of each ladder, or every rung, and all of it."""
    cases = list(found["cases"].values())
    rows, kinds = [], list(cases[0]["ladders"])
    for kind in kinds:
        mine = [[r for r in case["rungs"] if r["architecture"] == kind] for case in cases]
        count = len(mine[0])
        for i in range(count) if every else (0, count // 2, count - 1):
            same = [rungs_[i] for rungs_ in mine]
            r = same[0]
            rows.append([
                f"{kind} {r['width']}", f"{r['parameters']:,}", digits(r["steps"] * r["step_flops"] / 1e15),
                f"{r['executed']:.2f}", span([s["step_ms"] for s in same]), span([s["hours"] for s in same]),
            ])  # fmt: skip
        every_ = [case["ladders"][kind] for case in cases]
        rows.append([
            f"**all {count} of {kind}**", "", digits(every_[0]["flops"] / 1e15), "", "",
            span([x["gpu_hours"] for x in every_]),
        ])  # fmt: skip
    flops = sum(x["flops"] for x in cases[0]["ladders"].values())
    rows.append(["**all 48**", "", digits(flops / 1e15), "", "", span([c["gpu_hours"] for c in cases])])
    return table(["rung", "N", "PFLOP", "executed", "ms a step", "GPU-hours"], rows)


def gpu_table(found: dict[str, Any]) -> str:
    rows = []
    for name, case in found["cases"].items():
        for gpus, at in case["gpus"].items():
            split = at["with_ranks"]
            most = max(split["rungs"].values(), default=1)
            rows.append([
                name, f"{int(gpus):,}", digits(at["hours"]), digits(at["hours_without_wait"]), digits(split["hours"]),
                f"{len(split['rungs'])}, at most {most}" if split["rungs"] else "none", digits(split["gpu_hours"]),
            ])  # fmt: skip
    head = [
        "case",
        "GPUs",
        "hours",
        "if the largest did not wait",
        "hours with ranks",
        "rungs that have ranks",
        "GPU-hours with ranks",
    ]
    return table(head, rows)


def traffic_table(found: dict[str, Any]) -> str:
    cases = list(found["cases"].values())
    rows = []
    for kind in cases[0]["ladders"]:
        x = [case["ladders"][kind] for case in cases]
        rows.append([
            kind, span([y["structures_per_s"] for y in x]), span([y["bytes_per_s"] / 1e6 for y in x]),
            span([y["reads_per_s"] / 1e3 for y in x]), digits(x[0]["all_reduce_bytes"] / 1e6),
            " – ".join(dict.fromkeys(str(y["bound_by_launches"]) for y in x)),
        ])  # fmt: skip
    head = ["smallest rung, one GPU", "structures/s", "MB/s", "thousand reads/s", "all-reduce of the largest, MB",
            "rungs bound by launches"]  # fmt: skip
    return table(head, rows)


def text(found: dict[str, Any], every: bool) -> str:
    out = [ladder_table(found, every), "", gpu_table(found), ""]
    for name, case in found["cases"].items():
        out.append(
            f"{name}: {digits(case['gpu_hours'])} GPU-hours, {digits(case['launch_bound_gpu_hours'])} of them bound by "
            f"launches; the longest rung {digits(case['longest_hours'])} hours. More than {case['enough_gpus']} GPUs "
            f"do not help, with ranks {case['enough_gpus_with_ranks']}. Two more seeds at three rungs of each ladder: "
            f"{digits(case['more_seeds_gpu_hours'])} GPU-hours."
        )
    out += ["", traffic_table(found), ""]
    whole_, row = found["checkpoints_bytes"], found["store_bytes_per_structure"]
    out += [
        f"Store: {digits(found['store_bytes'] / 1e9)} GB, {row:.0f} bytes a structure. One core makes batches of "
        f"{digits(found['structures_per_core_s'])} structures/s from the page cache.",
        f"Checkpoints: {digits(whole_ / 1e9)} GB when all runs near their end, the largest "
        f"{digits(found['checkpoint_largest_bytes'] / 1e6)} MB; all of them every 15 s {digits(whole_ / 15e6)} MB/s, "
        f"every 600 s {digits(whole_ / 600e6)} MB/s. A step adds {found['checkpoint_bytes_per_step']:.0f} bytes, "
        f"at the end {digits(found['checkpoint_seconds_at_end'])} s of a core a write.",
        f"Records: weights {digits(found['weights_bytes'] / 1e9)} GB, logs {digits(found['logs_bytes'] / 1e9)} GB.",
        f"Claims while all run: {digits(found['claims_per_s'])} writes/s, "
        f"{digits(found['claims_bytes_per_s'] / 1e3)} kB/s.",
    ]
    return "\n".join(out)


def given_rates(texts: Sequence[str], kinds: Sequence[str]) -> dict[str, float]:
    out = {}
    for given in texts:
        kind, _, value = given.partition("=")
        try:
            out[kind] = float(value)
        except ValueError:
            out[kind] = 0.0
        if kind not in kinds or not 0 < out[kind] < float("inf"):
            raise InputError(f"--rate {given!r} is not understood: give ARCHITECTURE=FLOP/s of {', '.join(kinds)}.")
    return out


def main(words: Sequence[str] | None = None) -> str:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", action="store_true", help="count FLOPs, operations and bytes anew (minutes)")
    parser.add_argument(
        "--keep", action="store_true", help="keep the tables beside what was counted, for the repository"
    )
    parser.add_argument("--gpus", type=int, nargs="+", default=[8, 64, 256, 1000])
    parser.add_argument("--device", choices=tuple(PEAK), default="a100")
    parser.add_argument("--dtype", choices=("float32", "tf32"), default="float32", help="of the peak")
    parser.add_argument("--rate", action="append", default=[], metavar="ARCHITECTURE=FLOP/s")
    parser.add_argument("--probe", type=Path, metavar="FILE", help="probe.json of `equiscale dry-run --probe`")
    parser.add_argument("--rungs", action="store_true", help="every rung")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what the tables show, and more")
    a = parser.parse_args(words)
    if min(a.gpus) < 1:
        raise InputError(f"--gpus are 1 or more, not {min(a.gpus)}.")
    study, file = load_study(ROOT / "studies" / "paper.py"), RESULTS / "paper_plan.json"
    if a.count:
        from paper_ladders.counts import count

        counted = count(study)
        file.write_text(json.dumps({"counted": counted}, indent=1) + "\n")
    counted = json.loads(file.read_text())["counted"]
    made = rungs(study, counted)
    rates = given_rates(a.rate, list(dict.fromkeys(r.architecture for r in made)))
    probed = {} if a.probe is None else probed_steps(a.probe, made, study)
    by_case = {c.name: jobs_of(made, c, PEAK[a.device][a.dtype], rates, probed) for c in CASES}
    if by_case["fast"] == by_case["slow"]:  # all was probed: nothing is left to assume
        by_case = {"probed": by_case["fast"]}
    found = plan(by_case, counted, a.gpus)
    if a.keep:
        file.write_text(json.dumps({"counted": counted, "plan": found}, indent=1) + "\n")
    if a.json is not None:
        a.json.write_text(json.dumps(found, indent=1) + "\n")
    print(shown := text(found, a.rungs))
    return shown


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"paper_plan: {error}")
