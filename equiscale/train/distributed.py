"""One run on several devices: rank 0 goes its usual way, and whenever it trains, the others train with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from equiscale.errors import InputError
from equiscale.predict import refuse_missing_device
from equiscale.train.memory import within_memory
from equiscale.train.ranks import PATIENCE, REQUEUE, Alike, Asked, Lost, Ranks, joined
from equiscale.train.record import train
from equiscale.train.worker import Worker

PARENT = "EQUISCALE_PARENT"  # environment variable: the process that started the ranks and ends with them
GRACE = 60.0  # seconds that ranks have to save and end, once one of them is gone or a stop was asked for


def take_part(lead: Callable[[], None], device: str, expected: int | None = None) -> int:
    """Be the rank that the environment names: do ``lead`` as rank 0, else follow it. The exit code."""
    if PARENT in os.environ:
        threading.Thread(target=_end_with_parent, args=(int(os.environ[PARENT]),), daemon=True).start()
    with joined(device) as ranks:
        if ranks is None:
            lead()
            return 0
        if expected not in (None, ranks.world):
            raise Alike(f"--ranks asks for {expected} ranks and {ranks.world} were started: leave it out.")
        if ranks.leads:
            with leading(ranks):
                lead()
        else:
            follow(ranks)
        if ranks.world > 1:
            # All is written. Taking the group down, gloo's threads now and then abort the process.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)
    return 0


def told(work: Callable[[], int]) -> int:
    """``work``'s exit code; REQUEUE and one sentence where the run was asked to stop, or a rank was lost."""
    said = os.environ.get("RANK", os.environ.get("SLURM_PROCID", ""))
    rank = int(said) if said.isdigit() else 0  # what is no number is refused where it is read
    quiet = PARENT in os.environ and rank > 0
    try:
        return work()
    except Asked as stop:
        if rank == 0:
            print(f"{stop}: saved, and the same command goes on from there.", file=sys.stderr, flush=True)
        return REQUEUE
    except Lost as error:
        if PARENT not in os.environ:  # it has seen which rank ended, and how
            print(f"equiscale: {error}", file=sys.stderr, flush=True)
        _leave(REQUEUE)
        return REQUEUE
    except InputError as error:  # where it is of this rank alone, such as memory that ran out, the others are in a step
        mute = isinstance(error, Alike) and rank > 0
        if _among_gpus() and not mute:
            print(f"equiscale: {error}", file=sys.stderr)
        _leave(2)
        if mute:
            return 2
        raise
    except Exception:
        if _among_gpus():
            traceback.print_exc()
        _leave(1)
        raise
    except KeyboardInterrupt:
        if quiet:
            return 130
        raise


def _among_gpus() -> bool:
    return dist.is_initialized() and torch.cuda.is_initialized()


def _leave(code: int) -> None:
    """End this process at once where it shares a run on GPUs: NCCL would wait for the others, and they for it."""
    if _among_gpus():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def follow(ranks: Ranks) -> None:
    """The life of a rank that does not lead: train what rank 0 trains, until it has nothing more."""
    workers: dict[tuple[Path, str], Worker] = {}  # each keeps the data that it has loaded
    while (call := ranks.awaited()) is not None:
        worker = workers.setdefault((call.folder, call.device), Worker(call.folder, call.device))
        store, isolated = worker.data(call.spec.data)
        run = partial(train, call.spec, store, call.folder, isolated=isolated, device=call.device, ahead=call.ahead)
        within_memory(run, call.spec, call.device)


@contextmanager
def leading(ranks: Ranks) -> Iterator[None]:
    """Around what rank 0 does: the others are let go at its end, or when it refuses before it has called them."""
    try:
        yield
    except InputError:
        if not ranks.called:
            ranks.dismiss()
        raise
    ranks.dismiss()


def start(words: Sequence[str], count: int, device: str) -> int:
    """Run ``equiscale`` with these words in ``count`` processes of this machine, as its ranks; the exit code of all.

    None outlives this one. Where one fails or is killed, the others end, and what it did is one sentence.
    """
    refuse_missing_devices(count, device)
    # The meeting point is held here, on a port that the system chose: nobody else can have taken it in between.
    store = dist.TCPStore("127.0.0.1", 0, count, True, PATIENCE, wait_for_workers=False)
    about = {
        **os.environ,
        PARENT: str(os.getpid()),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "WORLD_SIZE": str(count),
    }
    if device == "cpu":
        about |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "equiscale.cli", *words]
    crew = [subprocess.Popen(command, env={**about, "RANK": str(r), "LOCAL_RANK": str(r)}) for r in range(count)]
    stopped: list[float] = []

    def stop(*_: object) -> None:
        stopped.append(time.monotonic())
        for process in crew:
            if process.poll() is None:
                process.terminate()

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        return _watch(crew, stopped)
    except KeyboardInterrupt:  # a terminal's Ctrl-C has reached the ranks, too
        stop()
        _end(crew, GRACE)
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _end(crew, 0.0)
        del store


def refuse_missing_devices(count: int, device: str) -> None:
    """InputError where this machine has fewer devices than ranks; asked once for all of them, and on no device."""
    if device == "cuda":
        there = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not there:
            refuse_missing_device(device)
        if there < count:
            raise InputError(f"{count} ranks want a GPU each, and this machine has {there}: start {there} or fewer.")


def _watch(crew: list[subprocess.Popen[Any]], stopped: list[float]) -> int:
    """Until all have ended, or one did so in a way that ends the others. The exit code of all."""
    failed: list[int] = []
    while any(process.poll() is None for process in crew):
        failed = [rank for rank, process in enumerate(crew) if process.poll()]
        if failed or (stopped and time.monotonic() > stopped[0] + GRACE):
            _end(crew, GRACE if not stopped else 1.0)  # they notice by themselves
            break
        time.sleep(0.1)
    codes = [process.returncode for process in crew]
    if stopped and any(codes):
        return REQUEUE
    # Who was killed may be seen in one look with who noticed it; those that ended later, we may have killed.
    killed = [rank for rank in failed or range(len(crew)) if codes[rank] < 0]
    if killed:
        raise Lost(
            f"rank {killed[0]} of {len(crew)} was killed (signal {-codes[killed[0]]}) and the others have ended: the "
            "same command goes on from the last checkpoint."
        )
    # One that failed by itself says what it was; the others ask for another go.
    return next((code for code in codes if code > 0 and code != REQUEUE), REQUEUE if any(codes) else 0)


def _end(crew: list[subprocess.Popen[Any]], patience: float) -> None:
    """Wait for all of them; kill who is left."""
    deadline = time.monotonic() + patience
    for process in crew:
        try:
            process.wait(max(deadline - time.monotonic(), 0.01))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _end_with_parent(parent: int) -> None:
    """End this rank where the process that started it was killed."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(REQUEUE)
