"""The processes that train one run together: who this one is, how it meets the others, and what they tell one another.

One run is trained by data parallelism: every rank holds the weights, takes its part of each step, and the gradients are
summed. A process that nobody started as one of several is ``ALONE``, for which nothing here does anything.
"""

from __future__ import annotations

import math
import os
import re
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from equiscale.errors import InputError
from equiscale.predict import refuse_missing_device

PATIENCE = timedelta(minutes=20)
"""A rank that was killed is noticed at once, as its connections close; one that hangs is given up after this time."""

LOADING = timedelta(hours=24)
"""How long ranks wait for one that reads its data, which for a large set takes longer than any step."""

REQUEUE = 75
"""Exit code (EX_TEMPFAIL) of a run that was asked to stop, or lost a rank: the same command goes on."""

FIRST_PORT, PORTS = 20_000, 12_000
"""Where ports are derived from a job's number: below those that the system hands out."""


class Lost(InputError):
    """Another rank is gone, so that this one cannot go on."""


class Alike(InputError):
    """Every rank meets this mistake: the first one tells it."""


class Asked(Exception):
    """A signal asked the run to stop; it did so between two steps, after a checkpoint."""


@dataclass(frozen=True)
class Call:
    """What rank 0 trains, for the others to train it too."""

    spec: Any
    folder: Path
    device: str
    ahead: bool | None


@dataclass(frozen=True)
class Ranks:
    """This process among the ``world`` that train a run together. Every method is to be called by all of them."""

    rank: int = 0
    world: int = 1
    local: int = 0  # on its node: the device it takes

    @property
    def leads(self) -> bool:
        """Whether it is the one that writes files, talks and decides."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """``tensor``, in place, summed over ranks; the same bits on all of them."""
        if self.world > 1:
            with self._together():
                dist.all_reduce(tensor)
        return tensor

    def told(self, value: Any) -> Any:
        """What rank 0 says."""
        return self._broadcast(value, None)

    def all(self, value: Any) -> list[Any]:
        """What every rank says, in the order of ranks."""
        found: list[Any] = [value]
        if self.world > 1:
            found = [None] * self.world
            with self._together():
                dist.all_gather_object(found, value)
        return found

    def call(self, call: Call) -> None:
        """Rank 0 calls the others, which wait in ``awaited``, to what it is about to train; all are to call this."""
        if self.world == 1:
            return
        if self.leads:
            self._broadcast(call, _patient[-1])
            _called.append(call)
        with self._together():  # nobody's patience with a step begins before all have their data
            dist.all_reduce(torch.zeros(1), group=_patient[-1])  # on the CPU; a barrier would choose a device

    def awaited(self) -> Call | None:
        """What rank 0 calls to; None where it has nothing more."""
        found: Call | None = self._broadcast(None, _patient[-1])
        return found

    def dismiss(self) -> None:
        """Rank 0 lets go the others, which wait in ``awaited``."""
        if self.world > 1:
            self._broadcast(None, _patient[-1])

    def _broadcast(self, value: Any, group: Any) -> Any:
        if self.world == 1:
            return value
        box = [value]
        with self._together():
            dist.broadcast_object_list(box, src=0, group=group)
        return box[0]

    @property
    def called(self) -> bool:
        """Whether rank 0 has."""
        return bool(_called)

    def in_turn(self, things: list[Any]) -> list[Any]:
        """What this rank takes of things that are dealt out one by one."""
        return things[self.rank :: self.world]

    def in_order(self, mine: list[Any]) -> list[Any]:
        """What came of all the things dealt out by ``in_turn``, in their order; ``mine``: of this rank's."""
        if self.world == 1:
            return mine
        of = self.all(mine)
        return [of[i % self.world][i // self.world] for i in range(sum(map(len, of)))]

    def refuse_drift(self, model: nn.Module) -> None:
        """InputError where ranks no longer hold the same weights, which each steps by itself."""
        if self.world == 1:
            return
        with torch.no_grad():
            sums = self.all(sum(float(p.double().sum()) for p in model.parameters()))
        # NaN equals nothing, not even itself: of a run that diverged on all ranks alike.
        if len({"nan" if math.isnan(s) else str(s) for s in sums}) > 1:
            raise Alike(
                "the ranks' weights are no longer the same: are all devices of one kind, with one version of torch?"
            )

    @contextmanager
    def _together(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:  # torch has no class of its own for a peer that is gone
            raise Lost(
                f"rank {self.rank} of {self.world} lost another rank, which was killed, failed or did not answer: the "
                "same command goes on from the last checkpoint."
            ) from error


ALONE = Ranks()

_here: list[Ranks] = []  # of this process, while it is joined to others, as torch's own group is of a process
_called: list[Call] = []
_patient: list[Any] = []  # the group in which they wait for data
_signals: list[int] = []  # that asked to stop


def here() -> Ranks:
    """The ranks that this process has joined; ``ALONE`` if none."""
    return _here[-1] if _here else ALONE


def in_environment(environment: Mapping[str, str] = os.environ) -> Ranks | None:
    """The rank that torchrun, or else SLURM's srun, gave to this process; None where none did.

    What an sbatch script runs without srun is one process, however many tasks the job has: it is in no step.
    """
    if "RANK" in environment and "WORLD_SIZE" in environment:
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    elif "SLURM_PROCID" in environment and "SLURM_STEP_ID" in environment:
        tasks = "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in environment else "SLURM_NTASKS"
        names = ("SLURM_PROCID", tasks, "SLURM_LOCALID")
    else:
        return None
    try:
        rank, world = (int(environment[name]) for name in names[:2])
        local = int(environment.get(names[2], rank))
    except (KeyError, ValueError):
        said = ", ".join(f"{name}={environment.get(name, '')}" for name in names)
        raise InputError(f"the environment names no rank ({said}): start the ranks by torchrun or srun.") from None
    if not 0 <= rank < world or local < 0:
        raise InputError(f"the environment names rank {rank} of {world}: ranks are 0 to {world - 1}.")
    return Ranks(rank, world, local)


def meeting_point(ranks: Ranks, environment: Mapping[str, str] = os.environ) -> tuple[str, int]:
    """Host and port of rank 0: those of the environment, else the step's first node and a port of the job's own."""
    host, port = environment.get("MASTER_ADDR"), environment.get("MASTER_PORT")
    if port is not None and not port.isdigit():
        raise InputError(f"MASTER_PORT is {port!r}: it must be a number.")
    if "SLURM_STEP_ID" in environment and "SLURM_JOB_ID" in environment:
        nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST") or "localhost"
        host = host or first_host(nodes)
        if port is None:
            # All ranks must come to it by themselves. Of 750 jobs that follow on each other, with 16 steps each, no
            # two have the same.
            number = 16 * int(environment["SLURM_JOB_ID"]) + int(environment["SLURM_STEP_ID"]) % 16
            port = str(FIRST_PORT + number % PORTS)
            if ranks.leads and not is_free(int(port)):
                raise InputError(f"port {port}, which follows from the job's number, is taken: set MASTER_PORT.")
    if host is None or port is None:
        raise InputError("RANK is set, and MASTER_ADDR or MASTER_PORT is not: start the ranks by torchrun or srun.")
    return host, int(port)


def first_host(nodes: str) -> str:
    """The first of SLURM's node list: ``gpu[003-007,9],login1`` begins with gpu003."""
    first = re.match(r"[^,\[]*(\[[^\]]*\][^,\[]*)*", nodes)
    assert first is not None  # it matches the empty word
    return re.sub(r"\[(\d+)[^\]]*\]", r"\1", first.group())


def is_free(port: int) -> bool:
    """Whether nothing listens on the port here."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as torch does: the last run's may linger
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


@contextmanager
def joined(device: str, environment: Mapping[str, str] = os.environ) -> Iterator[Ranks | None]:
    """Meet the other ranks of the environment; None where it names none. On GPUs each takes the one of its number."""
    ranks = in_environment(environment)
    if ranks is None:
        yield None
        return
    cuda = device == "cuda"
    if device.startswith("cuda:"):
        raise InputError(f"every rank takes the GPU of its number: --device cuda, not {device}.")
    if device == "cpu":
        torch.set_num_threads(1)
    if cuda:
        try:
            refuse_missing_device(device)
        except InputError as error:  # once a node
            raise (Alike(str(error)) if ranks.local else error) from None
        count = torch.cuda.device_count()
        if count > 1 and ranks.local >= count:
            raise InputError(f"rank {ranks.rank} is number {ranks.local} on its node, which has {count} GPUs.")
        torch.cuda.set_device(ranks.local if count > 1 else 0)  # srun may show each its own alone
    if ranks.world > 1:
        _meet(ranks, cuda, environment)
    _here.append(ranks)
    try:
        yield ranks
        if ranks.world > 1:
            dist.destroy_process_group()
    finally:
        _here.pop()
        _patient.clear()


def _meet(ranks: Ranks, cuda: bool, environment: Mapping[str, str]) -> None:
    # What ranks say goes over gloo, which notices a closed connection; gradients on GPUs go over NCCL.
    backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
    host, port = meeting_point(ranks, environment)
    # torchrun, and `equiscale train --ranks`, hold the meeting point themselves; else rank 0 does.
    held = environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    try:
        store = dist.TCPStore(host, port, ranks.world, ranks.leads and not held, PATIENCE)
        prefix = f"equiscale/{environment.get('TORCHELASTIC_RESTART_COUNT', '0')}"
        meeting = dist.PrefixStore(prefix, store)
        dist.init_process_group(
            backend, store=meeting, rank=ranks.rank, world_size=ranks.world, timeout=PATIENCE,
            device_id=torch.device("cuda", torch.cuda.current_device()) if cuda else None,
        )  # fmt: skip
        _patient.append(dist.new_group(backend="gloo", timeout=LOADING))
    except RuntimeError:
        raise Lost(
            f"rank {ranks.rank} of {ranks.world} did not meet the others at {host}:{port}: see that this address can "
            "be reached from every node, and that every rank was started."
        ) from None
    if cuda:
        index = torch.cuda.current_device()
        mine = (socket.gethostname(), str(torch.cuda.get_device_properties(index).uuid))
        if len(set(ranks.all(mine))) < ranks.world:
            raise Alike(f"{ranks.world} ranks share a GPU: give each its own, --gpus-per-task 1 or fewer ranks.")


@contextmanager
def heeding() -> Iterator[None]:
    """While a run trains on several ranks, SIGINT, SIGTERM and SIGUSR1 wait for the end of the step."""
    if not _here or threading.current_thread() is not threading.main_thread():
        yield
        return
    _signals.clear()
    asking = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    before = {number: signal.signal(number, lambda n, _: _signals.append(n)) for number in asking}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def asked() -> bool:
    """Whether a signal has asked this process to stop."""
    return bool(_signals)
