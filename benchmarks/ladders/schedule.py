"""Runs in time: alone, on several GPUs, and many of them on a cluster, longest first as `equiscale run` takes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

NODE = 8  # GPUs
LINK, NETWORK = 100e9, 25e9  # bytes/s of an all-reduce between a node's GPUs, and between nodes: assumed
REDUCE = 1e-3  # seconds that the two sums of a step take besides: assumed
EACH = 8  # structures of a step that a rank has at least
ENOUGH = 1.05  # more GPUs do not help where the time is within five per cent of the least


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
    last: bool  # the largest of its ladder: it is predicted first, and so waits for all others

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
    """Seconds until all have ended: longest first, on the GPUs of one node, or the whole nodes, that are free first."""
    gpus = min(gpus, sum(max(NODE, job.ranks) for job in jobs))
    nodes = [[0.0] * min(NODE, gpus - first) for first in range(0, gpus, NODE)]  # when each GPU is free, ascending
    end = 0.0
    for job in sorted(jobs, key=lambda j: -j.seconds):
        of_each, count = min(job.ranks, NODE), -(-job.ranks // NODE)
        able = [node for node in nodes if len(node) >= of_each]
        able = [min(able, key=lambda n: n[of_each - 1])] if count == 1 else sorted(able, key=lambda n: n[-1])[:count]
        ends = able[-1][of_each - 1] + job.seconds
        end = max(end, ends)
        for node in able:
            node[:of_each] = [ends] * of_each
            node.sort()
    return end


def climbs(jobs: Sequence[Job]) -> tuple[list[Job], list[Job]]:
    """What `equiscale run` trains first, and the largest rungs, which it trains then."""
    return [j for j in jobs if not j.rung.last], [j for j in jobs if j.rung.last]


def whole(jobs: Sequence[Job], gpus: int) -> float:
    """Seconds of both."""
    return sum(finish(climb, gpus) for climb in climbs(jobs))


def with_ranks(jobs: Sequence[Job], gpus: int) -> list[Job]:
    """Each climb's runs on as few GPUs as bring them below a limit; of all limits the one that ends soonest."""
    out: list[Job] = []
    for climb in climbs(jobs):
        best, least = climb, finish(climb, gpus)
        limit, bound = max((j.seconds for j in climb), default=0.0), _bound(climb, gpus)
        while limit > bound:
            limit = max(0.95 * limit, bound)
            tried = [_below(job, limit, gpus) for job in climb]
            if (seconds := finish(tried, gpus)) < 0.99 * least:  # not for a trifle
                best, least = tried, seconds
        out += best
    return out


def _choices(job: Job, gpus: int) -> list[Job]:
    most = min(gpus, max(1, job.rung.batch // EACH))
    return [replace(job, ranks=r) for r in (1, 2, 4, 8, 16, 32, 64) if r <= most]


def _below(job: Job, limit: float, gpus: int) -> Job:
    choices = _choices(job, gpus)
    return next((j for j in choices if j.seconds <= limit), min(choices, key=lambda j: j.seconds))


def _bound(jobs: Sequence[Job], gpus: int, ranks: bool = True) -> float:
    """Seconds that no number of GPUs falls below: those of the longest run."""
    return max((min(c.seconds for c in (_choices(j, gpus) if ranks else [j])) for j in jobs), default=0.0)


def enough(jobs: Sequence[Job], ranks: bool) -> int:
    """The fewest GPUs, in whole nodes, within five per cent of what any number reaches."""
    bound = sum(_bound(climb, 10**6, ranks) for climb in climbs(jobs))
    gpus = NODE
    while whole(with_ranks(jobs, gpus) if ranks else jobs, gpus) > ENOUGH * bound:
        gpus += NODE
    return gpus
