"""A SLURM job array through submitit: one task an item. What is told and returned lies in files beside the jobs.

A job that is pre-empted or meets its time limit gets a signal: the function saves, and the job is queued again. One
that ends without a result is submitted again, as ``Deaths`` allows. The launcher only looks: it may end, and be called
again.
"""

from __future__ import annotations

import difflib
import os
import pickle
import re
import signal
import sys
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from equiscale.errors import InputError, Stopped, need
from equiscale.launch.events import REQUEUE, Deaths, Event, Waiting, Work, failure

PATIENCE = 60.0
"""Seconds that a job waits for its function to save after a signal: as long as the scheduler's own warning."""

REFUSALS = 120
"""Looks in a row at which a scheduler may refuse a job that it has had before: ten minutes."""

TAKEN = {"PREEMPTED", "NODE_FAIL", "BOOT_FAIL", "TIMEOUT", "REVOKED", "REQUEUED"}
"""How SLURM says that a job's end was not the function's fault."""

OPTIONS = {
    "partition": ("slurm_partition", str),
    "account": ("slurm_account", str),
    "qos": ("slurm_qos", str),
    "constraint": ("slurm_constraint", str),
    "exclude": ("slurm_exclude", str),
    "gres": ("slurm_gres", str),
    "mem": ("slurm_mem", str),
    "time": ("timeout_min", "minutes"),
    "gpus": ("gpus_per_node", int),
    "cpus": ("cpus_per_task", int),
    "warning": ("slurm_signal_delay_s", int),
    "setup": ("slurm_setup", "lines"),
}
"""What ``--slurm KEY=VALUE`` takes. ``time``: minutes, or as sbatch has it; ``setup``: a line of shell, may be
repeated; ``warning``: seconds between the signal and the end of the time."""


def parameters(options: Iterable[str]) -> dict[str, Any]:
    """submitit's parameters from `KEY=VALUE`s; InputError for what is unknown, naming the nearest."""
    found: dict[str, Any] = {"timeout_min": 240, "cpus_per_task": 1}
    for option in options:
        key, equals, value = option.partition("=")
        if not equals or not value:
            raise InputError(f"--slurm {option!r}: write KEY=VALUE, as in partition=gpu.")
        if key not in OPTIONS:
            near = difflib.get_close_matches(key, OPTIONS, 1)
            meant = f"did you mean {near[0]!r}" if near else f"there are {', '.join(OPTIONS)}"
            raise InputError(f"--slurm has no option {key!r}: {meant}.")
        name, kind = OPTIONS[key]
        if kind == "lines":
            found[name] = [*found.get(name, ()), value]
        elif kind == "minutes":
            found[name] = _minutes(value)
        elif kind is int and not (value.isdigit() and int(value) > 0):
            raise InputError(f"--slurm {key}={value}: wants a whole number above zero.")
        else:
            found[name] = int(value) if kind is int else value
    seconds = 60 * found["timeout_min"]
    if found.setdefault("slurm_signal_delay_s", min(120, seconds // 2)) >= seconds:
        raise InputError(f"--slurm warning={found['slurm_signal_delay_s']}: a job has {seconds} seconds in all.")
    return found


def _minutes(text: str) -> int:
    """As sbatch reads times: minutes, minutes:seconds, hours:minutes:seconds, days-hours[:minutes[:seconds]]."""
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text)
    if match is None:
        raise InputError(f"--slurm time={text}: write minutes, or HOURS:MINUTES:SECONDS, or DAYS-HOURS.")
    days, *rest = (None if g is None else int(g) for g in match.groups())
    first, second, third = rest
    if days is not None:
        seconds = 86400 * days + 3600 * (first or 0) + 60 * (second or 0) + (third or 0)
    elif third is not None:
        seconds = 3600 * (first or 0) + 60 * (second or 0) + third
    else:
        seconds = 60 * (first or 0) + (second or 0)
    if not seconds:
        raise InputError(f"--slurm time={text}: a job needs some time.")
    return -(-seconds // 60)


class Task:
    """What a job does. Picklable: submitit calls ``checkpoint`` in its handler of the scheduler's warning.

    The function runs in a thread, so that it can go on to its next save while the handler waits.
    """

    def __init__(self, work: Work, item: Any, told: Path):
        self.work, self.item, self.told = work, item, told

    def __call__(self) -> tuple[str, Any]:
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        self._stop, self._outcome, self._last = threading.Event(), list[tuple[str, Any]](), 0.0
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, lambda *_: self._stop.set())
        self._note(("started", None))
        thread = threading.Thread(target=self._run, daemon=True)
        thread.start()
        self._wait(float("inf"))
        kind, value = self._outcome[0]
        if kind != "stopped":
            return kind, value
        self._note(("stopped", None))
        # SLURM pre-empts with SIGTERM and queues the job again itself, if it is still there when the grace time ends;
        # a job that is cancelled is killed within this time.
        if "SLURM_JOB_ID" in os.environ:
            time.sleep(PATIENCE)
        sys.exit(REQUEUE)

    def checkpoint(self) -> Any:
        """Let the function save, then hand over what the queued job begins with."""
        from submitit.helpers import DelayedSubmission

        self._stop.set()
        self._wait(PATIENCE)
        return DelayedSubmission(Task(self.work, self.item, self.told))

    def _wait(self, patience: float) -> None:
        # By looking, not by a lock: a signal's handler waits here inside the main thread's own wait.
        end = time.monotonic() + patience
        while not self._outcome and time.monotonic() < end:
            time.sleep(0.05)

    def _run(self) -> None:
        try:
            self._outcome.append(("done", self.work(self.item, self._tell)))
        except Stopped:
            self._outcome.append(("stopped", None))
        except Exception as error:
            self._outcome.append(("failed", failure(error)))
        except BaseException as error:  # nothing else may leave the main thread waiting
            self._outcome.append(("failed", failure(RuntimeError(repr(error)))))

    def _tell(self, value: Any) -> None:
        if self._stop.is_set():
            raise Stopped
        if time.monotonic() - self._last > 1.0:
            self._last = time.monotonic()
            self._note(("progress", value))

    def _note(self, what: tuple[str, Any]) -> None:
        partial = self.told.with_suffix(".partial")
        with suppress(OSError):  # for people who look; what counts is what the function writes
            partial.write_bytes(pickle.dumps(what))
            partial.replace(self.told)


@dataclass
class _Job:
    item: Any
    told: Path
    job: Any  # submitit's
    seen: bytes = b""
    stopped: bool = False  # by a signal, and it saved
    gone: int = 0  # looks at which the job had ended without a result
    refused: int = 0  # looks at which the scheduler did not take it again


@dataclass(frozen=True)
class OnSlurm:
    """``cluster="local"``: processes of this machine under submitit, for trying it out without SLURM."""

    workers: int  # jobs at the same time
    folder: Path  # on a file system that all nodes share
    options: dict[str, Any] = field(default_factory=dict)
    cluster: str = "slurm"
    every: float = 5.0

    device_each = True  # a job has its GPUs to itself

    def __call__(self, work: Work, items: Sequence[Any]) -> Iterator[Event]:
        executor = self._executor()
        waiting, jobs, deaths = Waiting.of(items), list[_Job](), Deaths()
        try:
            while waiting or jobs:
                if waiting:  # all of them are one array; what is put there later is another one
                    new = [_Job(item, self._new_file(), None) for item in waiting]
                    waiting.clear()
                    jobs += new
                    try:
                        self._submit(executor, work, new)
                    except InputError:
                        if len(jobs) == len(new):  # nothing else runs that would end with this
                            raise
                        for job in new:
                            job.refused = 1
                time.sleep(self.every)
                for job in list(jobs):
                    yield from self._look(executor, work, job, jobs, deaths)
        finally:
            for job in jobs:
                self._cancel(job)

    def _executor(self) -> Any:
        try:
            import submitit
        except ImportError as error:
            raise need("slurm", error) from None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            # Time limits are no deaths: a long run meets many of them.
            executor = submitit.AutoExecutor(self.folder, cluster=self.cluster, slurm_max_num_timeout=1000)
        except RuntimeError:
            raise InputError(
                "there is no srun here: --on slurm is for a machine from which jobs are submitted."
            ) from None
        executor.update_parameters(name="equiscale", slurm_array_parallelism=self.workers, **self.options)
        return executor

    def _new_file(self) -> Path:
        return self.folder.absolute() / f"{uuid.uuid4().hex}.told"

    def _submit(self, executor: Any, work: Work, jobs: list[_Job]) -> None:
        import subprocess

        try:
            with executor.batch():
                for job in jobs:
                    job.job = executor.submit(Task(work, job.item, job.told))
        except (subprocess.SubprocessError, OSError, RuntimeError) as error:
            said = " ".join(str(error).split())
            raise InputError(f"the jobs could not be submitted: {said.rstrip('.')}.") from None

    def _look(self, executor: Any, work: Work, job: _Job, jobs: list[_Job], deaths: Deaths) -> Iterator[Event]:
        for kind, value in self._news(job):
            if kind == "progress":
                deaths.told(job.item, value)
            yield Event(kind, job.item, value)
        if job.refused:
            self._again(executor, work, job)
        elif job.job.paths.result_pickle.exists():
            jobs.remove(job)
            kind, value = self._result(job)
            _remove(job)
            yield Event(kind, job.item, value)
        elif job.job.done():
            job.gone += 1
            if job.gone < 3:  # a shared file system may show a result late
                return
            state = job.job.state
            how = f"{state.lower()}, see {job.job.paths.stderr}"
            if not deaths.count(job.item, innocent=job.stopped or state in TAKEN):
                jobs.remove(job)
                yield Event("failed", job.item, deaths.gave_up(job.item, how))
                return
            job.gone, job.stopped = 0, False
            self._again(executor, work, job)
            yield Event("died", job.item, how)

    def _again(self, executor: Any, work: Work, job: _Job) -> None:
        """Submit it anew. A scheduler that is down for a while does not end the other jobs."""
        try:
            self._submit(executor, work, [job])
            job.refused = 0
        except InputError:
            job.refused += 1
            if job.refused > REFUSALS:
                raise

    def _news(self, job: _Job) -> Iterator[tuple[str, Any]]:
        try:
            seen = job.told.read_bytes()
        except OSError:
            return
        if seen != job.seen:
            before, job.seen = job.seen, seen
            kind, value = pickle.loads(seen)  # our own job's
            if not before and kind != "started":  # told since the last look
                yield "started", None
            job.stopped = kind == "stopped"
            if not job.stopped:
                yield kind, value

    def _result(self, job: _Job) -> tuple[str, Any]:
        try:
            kind, value = job.job.result()
            return kind, value
        except Exception as error:  # outside the function: of unpickling, mostly
            return "failed", failure(error)

    def _cancel(self, job: _Job) -> None:
        if job.job is None:
            return
        with suppress(Exception):  # a job that has ended, or a scheduler that does not answer: others are asked, too
            if self.cluster == "local":
                job.job._process.send_signal(signal.SIGTERM)
            else:
                job.job.cancel(check=False)
        with suppress(OSError):
            job.told.unlink()


def _remove(job: _Job) -> None:
    for path in (job.told, job.job.paths.submitted_pickle, job.job.paths.result_pickle):
        with suppress(OSError):
            path.unlink()
