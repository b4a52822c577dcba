"""Faults at random moments of a study on a Ray cluster of two nodes made on this machine, each many times.

Killed: a process that trains, a node, the command itself; the results' disk is filled; the results folder is taken away
for a while. Then the same command is given until it ends well. Told: how often every run ended recorded once with the
same result as in a study that nothing happened to, how often the command was given, and how long it took.

    python benchmarks/faults.py [--times 10] [--seed 0]        # needs the extra `ray`; to fill a disk, root
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")
ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests" / "launch"), str(ROOT / "tests")]

from faults import FAULTS, Bench, Trial, two_nodes  # noqa: E402
from on_ray import quiet  # noqa: E402

from equiscale.train.provenance import provenance  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the moments; what runs then depends on the machine")
    parser.add_argument("--only", choices=FAULTS, action="append")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "faults.json")
    a = parser.parse_args()
    draw, outcomes = random.Random(a.seed), []
    with tempfile.TemporaryDirectory() as folder, quiet():
        bench = Bench(Path(folder))
        bench.reference()
        print(f"training undisturbed, by two local processes: {bench.seconds:.1f} s")
        for turn in range(a.times):
            with two_nodes() as cluster:
                for fault in a.only or FAULTS:
                    outcome = Trial(bench, cluster, Path(folder) / f"{turn}-{fault}", draw).run(fault)
                    outcomes.append(outcome)
                    good = "same" if outcome.same and not outcome.left else f"NOT THE SAME\n{outcome.said}"
                    at = f"after {outcome.after:4.1f} s" + ("" if outcome.hit else " (nothing ran)")
                    print(
                        f"{turn} {fault:<7} {at}: exit codes {outcome.codes}, {outcome.seconds:.0f} s, {good}",
                        flush=True,
                    )
    table = {}
    for fault in a.only or FAULTS:
        mine = [o for o in outcomes if o.fault == fault]
        table[fault] = {
            "times": len(mine),
            "while_training": sum(o.hit for o in mine),
            "recorded_once_and_same": sum(o.same and not o.left for o in mine),
            "commands": statistics.mean(o.commands for o in mine),
            "seconds_median": statistics.median(o.seconds for o in mine),
        }
        print(fault, table[fault])
    about = {k: v for k, v in provenance("cpu").items() if k in ("hardware", "torch", "python")}
    import ray  # after on_ray has said how: it reads the environment when it is imported

    made = {"at": datetime.now(UTC).isoformat(timespec="seconds"), **about, "ray": ray.__version__}
    told = [{k: v for k, v in asdict(o).items() if k != "said"} for o in outcomes]
    undisturbed = round(bench.seconds, 2)
    a.out.write_text(
        json.dumps({**made, "undisturbed_seconds": undisturbed, "table": table, "trials": told}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
