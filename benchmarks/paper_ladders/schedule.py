"""Runs in time: alone, on several GPUs, and many of them on a cluster, longest first as `equiscale run` takes them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

NODE = 8  # GPUs
LINK, NETWORK = 100e9, 25e9  # bytes/s of an all-reduce between a node's GPUs, and between nodes: assumed
REDUCE = 1e-3  # seconds that the two sums of a step take besides: assumed
EACH = 8  # structures of a step that a rank has at least
ENOUGH = 1.05  # more GPUs or ranks do not help where the time is within five per cent of the least


@dataclass(frozen=True)
class Rung:
    """One run. FLOPs are of the published formulation, ``executed`` is what ours executes as a multiple of them."""

    architecture: str
    width: int
    parameters: int
    batch: int  # structures
    steps: int
    step_flops: float
    executed: float
    operations: int  # of a step
    last: bool  # the largest of its ladder: it is predicted first, and so waits for the ladder's others

    @property
    def flops(self) -> float:
        return self.steps * self.step_flops


@dataclass(frozen=True)
class Job:
    """A rung in time. ``alone``: seconds of a step on one GPU; ``floor``: what more GPUs do not shorten of them."""

    rung: Rung
    alone: float
    floor: float
    ranks: int = 1

    @property
    def step(self) -> float:
        """Seconds. Between ranks float32 gradients are summed once a step, after the backward pass."""
        if self.ranks == 1:
            return self.alone
        moved = 2 * (self.ranks - 1) / self.ranks * 4 * self.rung.parameters
        return max(self.alone / self.ranks, self.floor) + moved / (LINK if self.ranks <= NODE else NETWORK) + REDUCE

    @property
    def seconds(self) -> float:
        return self.rung.steps * self.step


def finish(jobs: Sequence[Job], gpus: int) -> float:
    """Seconds until all have ended, if none waits for another."""
    return _listed(jobs, gpus, waits=False)


def whole(jobs: Sequence[Job], gpus: int) -> float:
    """Seconds as `equiscale run` takes them: a ladder's largest rung begins when the ladder's others have ended."""
    return _listed(jobs, gpus, waits=True)


def _listed(jobs: Sequence[Job], gpus: int, waits: bool) -> float:
    """Whenever runs end, those that may begin are gone through longest first, and each that fits begins."""
    gpus = min(gpus, sum(max(NODE, job.ranks) for job in jobs))
    free = [min(NODE, gpus - first) for first in range(0, gpus, NODE)]  # GPUs of each node
    before = Counter(j.rung.architecture for j in jobs if waits and not j.rung.last)  # that have not ended, by ladder
    waiting = sorted(jobs, key=lambda j: -j.seconds)
    running: list[tuple[float, Job, list[int]]] = []  # until when, what, on which nodes
    now = 0.0
    while waiting or running:
        left = []
        for job in waiting:
            held = job.rung.last and before[job.rung.architecture] > 0
            if held or not (nodes := _fitting(job, free)):
                left.append(job)
                continue
            running.append((now + job.seconds, job, nodes))
            for node in nodes:
                free[node] -= min(job.ranks, NODE)
        waiting = left
        now = min(end for end, _, _ in running)
        for end, job, nodes in running:
            if end == now:
                before[job.rung.architecture] -= not job.rung.last
                for node in nodes:
                    free[node] += min(job.ranks, NODE)
        running = [r for r in running if r[0] > now]
    return now


def _fitting(job: Job, free: Sequence[int]) -> list[int]:
    """A node, or the whole nodes, with room for the run: the fullest, so that whole ones stay free. Empty if none."""
    of_each, count = min(job.ranks, NODE), -(-job.ranks // NODE)
    able = sorted((n for n, room in enumerate(free) if room >= of_each), key=lambda n: free[n])[:count]
    return able if len(able) == count else []


def with_ranks(jobs: Sequence[Job], gpus: int) -> list[Job]:
    """More ranks for the longest run that they make faster, again and again: the first that ends within five per cent
    of the soonest, as ranks are given by hand."""
    tried = [list(jobs)]
    while quicker := _quicker(tried[-1], gpus):
        tried.append(quicker)
    seconds = [whole(split, gpus) for split in tried]
    return next(split for split, s in zip(tried, seconds, strict=True) if s <= ENOUGH * min(seconds))


def _quicker(jobs: Sequence[Job], gpus: int) -> list[Job]:
    """One run on more ranks; empty if none gets faster."""
    for job in sorted(jobs, key=lambda j: -j.seconds):
        for choice in _choices(job, gpus):
            if choice.ranks > job.ranks and choice.seconds < job.seconds:
                return [choice if j is job else j for j in jobs]
    return []


def _choices(job: Job, gpus: int) -> list[Job]:
    most = min(gpus, max(1, job.rung.batch // EACH))
    return [replace(job, ranks=r) for r in (1, 2, 4, 8, 16, 32, 64) if r <= most]


def _bound(jobs: Sequence[Job], ranks: bool) -> float:
    """Seconds that no number of GPUs falls below: the longest other rung of a ladder and then its largest."""
    longest: dict[str, list[float]] = {}
    for job in jobs:
        seconds = min(j.seconds for j in (_choices(job, 10**6) if ranks else [job]))
        of_ladder = longest.setdefault(job.rung.architecture, [0.0, 0.0])
        of_ladder[job.rung.last] = max(of_ladder[job.rung.last], seconds)
    return max(map(sum, longest.values()), default=0.0)


def enough(jobs: Sequence[Job], ranks: bool) -> int:
    """The fewest GPUs, in whole nodes, within five per cent of what any number reaches."""
    gpus, bound = NODE, _bound(jobs, ranks)
    while whole(with_ranks(jobs, gpus) if ranks else jobs, gpus) > ENOUGH * bound:
        gpus += NODE
    return gpus
