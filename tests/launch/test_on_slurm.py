"""Job arrays, on submitit's local executor: processes of this machine, with its files, signals and queue."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest
from runs import here, refused, write_study
from works import awkward, b_waits_for_c, echo, long, once

from equiscale.errors import InputError
from equiscale.ladder import load_study
from equiscale.launch import Failure, Local, Stopped, Waiting, chosen
from equiscale.launch.events import Deaths
from equiscale.launch.on_slurm import OnSlurm, Task, parameters
from equiscale.results import Results
from equiscale.study import run_study

submitit = pytest.importorskip("submitit")


@pytest.fixture
def launcher(tmp_path, monkeypatch):
    tests = os.pathsep.join(str(Path(__file__).parents[i]) for i in (0, 1))
    monkeypatch.setenv("PYTHONPATH", tests)  # jobs find the functions of the tests
    return OnSlurm(2, tmp_path / "slurm", parameters(["time=10"]), "local", every=0.1)


def test_items_become_jobs(launcher):
    """Results, failures and their tracebacks come back; nothing is left in the folder but logs."""
    events = list(launcher(awkward, ["input", "bug", "fine"]))
    last = {e.item: e for e in events if e.kind in ("done", "failed")}
    assert last["fine"].value == "fine"
    assert last["input"].value == Failure("this is wrong: do that.")
    assert "in awkward" in last["bug"].value.traceback
    assert {e.item for e in events if e.kind == "started"} == {"input", "bug", "fine"}
    assert {p.suffix for p in launcher.folder.iterdir() if p.is_file()} <= {".out", ".err"}


def test_a_dead_job_is_submitted_again(launcher, tmp_path):
    events = list(launcher(once, [str(tmp_path / "a")]))
    kinds = [e.kind for e in events]
    assert kinds.count("died") == 1
    assert (kinds[-1], events[-1].value) == ("done", "second")


def ended(pid: int, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def test_a_warned_job_saves_and_is_queued_again(launcher, tmp_path):
    """SIGUSR2, the scheduler's: the function ends at its next ``tell``, and a new process goes on; that is no death."""
    path, kinds, pids = tmp_path / "a", [], []
    for event in launcher(long, [str(path)]):
        kinds.append(event.kind)
        if event.kind == "progress" and not pids:
            pids.append(int(path.read_text()))
            os.kill(pids[0], signal.SIGUSR2)
            assert ended(pids[0], 10)
            assert path.with_suffix(".saved").exists()
        elif event.kind == "progress" and int(path.read_text()) != pids[0]:
            break
    assert "died" not in kinds


def test_a_job_that_was_asked_to_stop_is_no_fault_of_its_own(launcher, tmp_path, monkeypatch):
    """SIGTERM, as of a pre-emption: would catch spot partitions that use up a run's retries."""
    path, blamed, count = tmp_path / "a", [], Deaths.count

    def counted(self, item, innocent=False):
        blamed.append(not innocent)
        return count(self, item, innocent)

    monkeypatch.setattr(Deaths, "count", counted)
    pids: list[int] = []
    for event in launcher(long, [str(path)]):
        if event.kind == "progress" and int(path.read_text()) not in pids:
            pids.append(int(path.read_text()))
            if len(pids) == 3:
                break
            os.kill(pids[-1], signal.SIGTERM if len(pids) == 1 else signal.SIGKILL)
    assert blamed == [False, True]


def test_a_scheduler_that_is_down_for_a_while_does_not_end_the_others(launcher, tmp_path, monkeypatch):
    """Would catch a dead job's second submission that fails and takes all other jobs with it."""
    submit, calls = OnSlurm._submit, []

    def refuses(self, executor, work, jobs):
        calls.append(len(jobs))
        if len(calls) in (2, 3):
            for job in jobs:
                job.job = None  # as after a batch that was not taken: nothing can be asked of it
            raise InputError("the jobs could not be submitted: Socket timed out.")
        submit(self, executor, work, jobs)

    monkeypatch.setattr(OnSlurm, "_submit", refuses)
    events = list(launcher(once, [str(tmp_path / "a")]))
    assert calls == [1, 1, 1, 1]
    assert [e.kind for e in events if e.kind in ("died", "done")] == ["died", "done"]
    monkeypatch.setattr("equiscale.launch.on_slurm.REFUSALS", 0)
    calls.clear()
    with pytest.raises(InputError, match="could not be submitted"):
        list(launcher(once, [str(tmp_path / "b")]))


def test_what_is_put_there_later_is_submitted_too(launcher, tmp_path, monkeypatch):
    """Would catch largest rungs that are never submitted, or whose refusal ends the jobs that run."""
    submit, calls = OnSlurm._submit, []

    def refuses(self, executor, work, jobs):
        calls.append([Path(job.item).name for job in jobs])
        if len(calls) == 2:
            raise InputError("the jobs could not be submitted: Socket timed out.")
        submit(self, executor, work, jobs)

    monkeypatch.setattr(OnSlurm, "_submit", refuses)
    waiting, done = Waiting([str(tmp_path / "a"), str(tmp_path / "b")]), []
    for event in launcher(b_waits_for_c, waiting):
        if event.kind == "done":
            done.append(Path(event.item).name)
            if len(done) == 1:
                waiting.append(str(tmp_path / "c"))
    assert sorted(done) == ["a", "b", "c"]
    assert calls == [["a", "b"], ["c"], ["c"]]


def test_what_is_cancelled_saves_first(launcher, tmp_path):
    """Ctrl-C: the launcher's end asks each job to stop, and none outlives it for long."""
    path = tmp_path / "a"
    events = launcher(long, [str(path)])
    for event in events:
        if event.kind == "progress":
            break
    events.close()
    assert ended(int(path.read_text()), 10)
    assert path.with_suffix(".saved").exists()


def test_the_function_is_told_to_stop_between_its_steps(tmp_path):
    """``tell`` raises Stopped once a signal came; the outcome says so."""

    def work(item, tell):
        tell(1)
        task._stop.set()
        tell(2)

    task = Task(work, "a", tmp_path / "told")
    import threading

    task._stop, task._outcome, task._last = threading.Event(), [], 0.0
    task._run()
    assert task._outcome == [("stopped", None)]
    with pytest.raises(Stopped):
        task._tell(3)


@pytest.mark.parametrize(
    ("text", "minutes"), [("90", 90), ("90:30", 91), ("2:00:00", 120), ("1-0", 1440), ("1-2:30", 1590), ("0:30", 1)]
)
def test_times_as_sbatch_reads_them(text, minutes):
    assert parameters([f"time={text}"])["timeout_min"] == minutes


def test_options():
    found = parameters(["partition=gpu", "gpus=1", "mem=32GB", "setup=module load a", "setup=module load b"])
    assert found["slurm_partition"] == "gpu"
    assert found["gpus_per_node"] == 1
    assert found["slurm_setup"] == ["module load a", "module load b"]


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("partiton=gpu", "no option 'partiton': did you mean 'partition'"),
        ("colour=red", "no option 'colour': there are partition, "),
        ("partition", "write KEY=VALUE"),
        ("gpus=none", "wants a whole number"),
        ("time=tomorrow", "write minutes, or HOURS:MINUTES:SECONDS"),
        ("time=0", "needs some time"),
        ("warning=14400", "a job has 14400 seconds in all"),
    ],
)
def test_options_that_cannot_be(option, said):
    with pytest.raises(InputError, match=said):
        parameters([option])


def test_submitit_knows_every_option(tmp_path, monkeypatch):
    """Would catch a name that submitit does not have: it makes the script that sbatch would get."""
    (tmp_path / "srun").write_text("#!/bin/sh\n")
    (tmp_path / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    given = ["partition=p", "account=a", "qos=q", "constraint=c", "exclude=n1", "gres=gpu:1", "mem=8GB", "time=60"]
    given += ["gpus=1", "cpus=4", "warning=60"]
    executor = OnSlurm(8, tmp_path, parameters([*given, "setup=module load a"]))._executor()
    text = executor._executor._make_submission_file_text("command", "uid")
    for line in ("partition=p", "account=a", "qos=q", "constraint=c", "exclude=n1", "gres=gpu:1", "mem=8GB", "time=60",
                 "gpus-per-node=1", "cpus-per-task=4", "signal=USR2@60"):  # fmt: skip
        assert f"#SBATCH --{line}\n" in text, text
    assert "module load a" in text


def test_no_slurm_here(tmp_path, monkeypatch, capsys):
    """One sentence each: no srun, no submitit, options without SLURM, an engine that there is not."""
    monkeypatch.chdir(tmp_path)
    write_study(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="there is no srun here"):
        list(OnSlurm(1, tmp_path / "slurm")(echo, [1]))
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(InputError, match=r"pip install 'equiscale\[slurm\]'"):
        list(OnSlurm(1, tmp_path / "slurm")(echo, [1]))
    assert "--slurm is for --on slurm" in refused(capsys, "tune", "study.py", "--slurm", "gpus=1")
    assert "--on is local, ray" in refused(capsys, "run", "study.py", "--on", "lsf")
    assert not (tmp_path / "results").exists()


def test_a_study_by_jobs(launcher, tmp_path, monkeypatch):
    """The records are those of a study trained in this process, to the bit; no claim is left."""
    monkeypatch.chdir(tmp_path)
    study = load_study(write_study(tmp_path, structures=12, widths=(4,)))
    by_jobs, reference = Results(tmp_path / "jobs"), Results(tmp_path / "reference")
    assert run_study(study, by_jobs, launcher=launcher, say=lambda text: None)
    monkeypatch.setattr("equiscale.launch.local.local_processes", here)
    assert run_study(study, reference, launcher=Local(1), say=lambda text: None)
    learned = [[r.without_clock() for r in results.records()] for results in (by_jobs, reference)]
    assert len(learned[0]) == 2
    assert learned[0] == learned[1]
    assert not list(by_jobs.folder.glob("*.claim*"))


def test_chosen(tmp_path):
    made = chosen("slurm", 3, folder=tmp_path, slurm=["gpus=2"])
    assert isinstance(made, OnSlurm)
    assert (made.workers, made.options["gpus_per_node"]) == (3, 2)
    assert echo(1, None) == 1
