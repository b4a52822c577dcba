"""Faults at random moments of a study on a Ray cluster of two nodes made on this machine: what ends, and how.

``Trial.run`` strikes once, then gives the same command again until it ends well, and compares the records with those of
a study that nothing happened to. The tests strike each way once, benchmarks/faults.py many times.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runs import structures, write_extxyz

from equiscale.results import Results

FAULTS = ("worker", "node", "driver", "disk", "away")
"""Kill a process that trains, a node, the command; fill the disk; take the results folder away for a while."""

STUDY = """
from equiscale.ladder import Ladder, Study
from equiscale.models import EGNNConfig, MPNNConfig
from equiscale.run import DataSpec, EvalSpec, OptimSpec

SMALL = dict(depth=2, num_radial=8, elements=(1, 6, 7, 8), cutoff=8.0)
DATA = DataSpec({path!r}, structures=24, epochs={epochs}, keys=(("group_key", "group"),))
OPTIM = OptimSpec(batch_structures=2, base_width=8, warmup_steps=5)
LOOKS = EvalSpec(log_points=3, linear_points=2, structures=5, first_fraction=0.1)
STUDY = Study("faults", (
    Ladder(MPNNConfig(**SMALL), (4, 8, 12), DATA, OPTIM, LOOKS),
    Ladder(EGNNConfig(**SMALL), (4, 8), DATA, OPTIM, LOOKS),
))
"""
RUNS = 5


@dataclass
class Bench:
    """A study in a folder, its reference results, and how long its training takes."""

    folder: Path
    epochs: int = 40
    learned: list[Any] = field(default_factory=list)
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        data = write_extxyz(self.folder / "data.xyz", structures(60))
        self.study = self.folder / "study.py"
        self.study.write_text(STUDY.format(path=str(data), epochs=self.epochs))

    def command(self, results: Path, *more: str) -> list[str]:
        words = ["run", str(self.study), "--results", str(results), "--no-report", "--checkpoint-every", "0.5", *more]
        return [sys.executable, "-m", "equiscale.cli", *words]

    def reference(self) -> None:
        """Train the study by local processes."""
        results = self.folder / "reference"
        process = subprocess.Popen(self.command(results, "--workers", "2"), stdout=subprocess.DEVNULL)
        while process.poll() is None and not list(results.glob("*.claim")):
            time.sleep(0.05)
        started = time.monotonic()
        if process.wait() != 0:
            raise RuntimeError("the study does not run even where nothing happens to it")
        self.seconds = time.monotonic() - started
        self.learned = [record.without_clock() for record in Results(results).records()]


@dataclass
class Outcome:
    fault: str
    after: float  # seconds of training before it struck
    hit: bool  # whether anything trained then
    commands: int  # how often the command was given
    codes: list[int]
    same: bool  # every run recorded once, as if nothing had happened
    left: list[str]  # what should not be in the folder
    seconds: float  # from the first command to the end of the last
    said: str  # last lines of what the commands printed


@contextmanager
def two_nodes() -> Iterator[Any]:
    """A Ray cluster: a head with one processor, beside which commands run, and a node with another one."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=1)
        yield cluster
    finally:
        cluster.shutdown()


class Trial:
    def __init__(self, bench: Bench, cluster: Any, results: Path, draw: random.Random):
        self.bench, self.cluster, self.results, self.draw = bench, cluster, results, draw

    def run(self, fault: str) -> Outcome:
        log = self.bench.folder / f"{self.results.name}.log"
        begun, codes = time.monotonic(), []
        strike = {"disk": self._fill}.get(fault) or getattr(self, f"_{fault}")
        with self._disk() if fault == "disk" else contextlib.nullcontext(), log.open("w") as out:
            command = self.bench.command(self.results, "--on", f"ray://{self.cluster.address}")
            process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
            after, hit = self._wait(process), bool(self._holders())
            strike(process)
            codes.append(process.wait(180))
            while codes[-1] != 0 and len(codes) < 4:
                codes.append(subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, timeout=180).returncode)
            end = time.monotonic()
            # A process that lost its cluster ends by itself; it must not write any more, whenever that is.
            records = list(self.results.glob("?" * 16 + ".json"))
            same = (
                len(records) == RUNS
                and [r.without_clock() for r in Results(self.results).records()] == self.bench.learned
            )
            left = sorted(p.name for p in self.results.iterdir() if p.suffix == ".ray" or ".claim" in p.name)
        said = log.read_text().replace("\r", "\n").strip().splitlines()
        return Outcome(fault, after, hit, len(codes), codes, same, left, end - begun, "\n".join(said[-15:]))

    def _wait(self, process: subprocess.Popen) -> float:
        """Until a moment drawn from the training's length; returns it."""
        while process.poll() is None and not self._holders():
            time.sleep(0.05)
        after = self.draw.uniform(0.0, self.bench.seconds)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(after)
        return after

    def _holders(self) -> list[int]:
        """Processes that train."""
        found = []
        for path in self.results.glob("*.claim*"):
            with contextlib.suppress(OSError, ValueError, KeyError):
                if len(content := path.read_bytes()) == 512:  # not given up
                    found.append(json.loads(content)["pid"])
        return found

    def _worker(self, process: subprocess.Popen) -> None:
        if holders := self._holders():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.draw.choice(holders), signal.SIGKILL)

    def _node(self, process: subprocess.Popen) -> None:
        (node,) = (node for node in self.cluster.worker_nodes)
        self.cluster.remove_node(node, allow_graceful=False)
        self.cluster.add_node(num_cpus=1)

    def _driver(self, process: subprocess.Popen) -> None:
        process.kill()

    def _away(self, process: subprocess.Popen) -> None:
        aside = self.results.with_name(f"{self.results.name}.aside")
        self.results.rename(aside)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(self.draw.uniform(0.5, 5.0))
        if self.results.exists():  # somebody made another one: nothing may be lost in it
            made = [str(path) for path in self.results.rglob("*.json")]
            assert not made, f"written into a folder of their own: {made}"
            shutil.rmtree(self.results)
        aside.rename(self.results)

    @contextmanager
    def _disk(self) -> Iterator[None]:
        """The results lie on a small disk of their own."""
        self.results.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(self.results)], check=True)
        try:
            yield
        finally:
            subprocess.run(["umount", "-l", str(self.results)], check=True)

    def _fill(self, process: subprocess.Popen) -> None:
        ballast = self.results / "ballast"
        with contextlib.suppress(OSError), ballast.open("wb") as file:
            while True:
                file.write(bytes(1 << 16))
                file.flush()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(self.draw.uniform(0.5, 5.0))
        ballast.unlink()
