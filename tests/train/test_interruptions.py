"""What befalls a run from outside: a stop, a lost claim, a checkpoint that is not its own, a second launcher."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import replace

import pytest
import torch
from runs import here, tiny_spec, tiny_store, write_study

from equiscale.claim import Lost as LostClaim
from equiscale.errors import InputError
from equiscale.ladder import load_study
from equiscale.launch import Local
from equiscale.probe import measure
from equiscale.probe.figures import Ask
from equiscale.results import Results
from equiscale.run import checkpoint_path
from equiscale.study import run_study
from equiscale.train import distributed, worker
from equiscale.train.force_field import ForceField
from equiscale.train.memory import TooLarge
from equiscale.train.ranks import REQUEUE, Lost
from equiscale.train.record import train


class Stopped(BaseException):
    pass


def test_a_run_of_slow_steps_hears_that_it_is_to_stop(tmp_path, monkeypatch):
    """Would catch a run that listens every 20 steps only: with steps of seconds it is killed before it has saved."""
    spec, steps = tiny_spec(log_points=1, linear_points=1), []
    train(spec, tiny_store(), tmp_path / "fast", tell=lambda p: steps.append(p.step))
    assert len(steps) < spec.steps
    steps.clear()
    monkeypatch.setattr("equiscale.train.loop.TELL_EVERY", -1.0)
    train(spec, tiny_store(), tmp_path / "slow", tell=lambda p: steps.append(p.step))
    assert steps == list(range(1, spec.steps + 1))


def stopped_at(folder, spec, step: int):
    """The checkpoint of a run that was stopped there."""

    def tell(progress):
        if progress.step == step:
            raise Stopped

    with pytest.raises(Stopped):
        train(spec, tiny_store(), folder, tell=tell)
    return checkpoint_path(folder, spec.key) / "unfinished.pt"


@pytest.mark.parametrize("change", ["another field", "a field less", "other weights"])
def test_a_checkpoint_of_another_version_is_one_sentence(change, tmp_path):
    """Would catch a TypeError of our own class, with a traceback, after an update in the middle of a study."""
    spec = tiny_spec(linear_points=16)
    path = stopped_at(tmp_path, spec, 3)
    saved = torch.load(path, weights_only=True)
    if change == "another field":
        saved["state"]["of_tomorrow"] = 1
    elif change == "a field less":
        del saved["state"]
    else:
        saved["model"].popitem()
    torch.save(saved, path)
    with pytest.raises(InputError, match="is of another version of equiscale"):
        train(spec, tiny_store(), tmp_path)


def test_a_checkpoint_that_cannot_be_read_is_not_said_to_be_damaged(tmp_path):
    """A disk that is away: would catch the advice to remove the checkpoint, which is whole."""
    spec = tiny_spec()
    (checkpoint_path(tmp_path, spec.key) / "unfinished.pt").mkdir(parents=True)
    with pytest.raises(OSError, match="unfinished"):
        train(spec, tiny_store(), tmp_path)


def test_a_claim_that_was_lost_during_the_last_evaluation(tmp_path, monkeypatch):
    """Would catch weights and losses written beside those of the worker that has taken over."""
    spec, whole, late = tiny_spec(), ForceField.evaluate, []

    def evaluate(self, model, name, limit=None):
        late.extend([name] * (limit is None))
        return whole(self, model, name, limit)

    def confirm():
        if late:
            raise LostClaim

    monkeypatch.setattr(ForceField, "evaluate", evaluate)
    with pytest.raises(LostClaim):
        train(spec, tiny_store(), tmp_path, confirm=confirm)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


class Rank:
    """A process that ends by itself with this code, or hangs until it is killed (None)."""

    def __init__(self, code: int | None):
        self.code = self.returncode = code

    def poll(self):
        return self.returncode

    def wait(self, timeout=None):
        if self.returncode is None:
            raise distributed.subprocess.TimeoutExpired("rank", timeout)

    def kill(self):
        self.returncode = -9
        self.wait = lambda timeout=None: None


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ((0, 0), 0),
        ((REQUEUE, REQUEUE), REQUEUE),
        ((REQUEUE, 2), 2),
        ((1, REQUEUE), 1),
        ((2, None), 2),
        ((REQUEUE, None), REQUEUE),
        ((REQUEUE, -9), "rank 1 of 2 was killed"),
        ((-9, None), "rank 0 of 2 was killed"),
    ],
)
def test_the_exit_code_of_all_ranks(codes, expected, monkeypatch):
    """Would catch a killed rank that goes unsaid where who noticed it ends in the same tenth of a second, and the
    signal that we ended a rank with given out as the command's exit code."""
    monkeypatch.setattr(distributed, "GRACE", 0.0)
    crew = [Rank(code) for code in codes]
    if isinstance(expected, str):
        with pytest.raises(Lost, match=expected):
            distributed._watch(crew, [])
    else:
        assert distributed._watch(crew, []) == expected


def test_a_stop_of_all_ranks_asks_for_another_go():
    assert distributed._watch([Rank(REQUEUE), Rank(-15)], [0.0]) == REQUEUE


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (TooLarge("it ran out of memory."), 2, "equiscale: it ran out of memory."),
        (Lost("rank 0 of 2 lost another rank."), REQUEUE, "equiscale: rank 0 of 2 lost another rank."),
        (ZeroDivisionError("a bug"), 1, "ZeroDivisionError: a bug"),
    ],
)
def test_a_rank_on_a_gpu_that_fails_is_gone_at_once(error, code, said, monkeypatch, capsys):
    """Would catch one that has failed and hangs at its end, as its GPU waits for the others; and what it failed of
    left unsaid. On CPUs it goes the usual way."""

    def work():
        raise error

    def leave(code):
        raise SystemExit(code)

    monkeypatch.setattr(distributed.os, "_exit", leave)
    if isinstance(error, Lost):
        assert distributed.told(work) == REQUEUE
    else:
        with pytest.raises(type(error)):
            distributed.told(work)
    capsys.readouterr()
    monkeypatch.setattr(distributed.dist, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    with pytest.raises(SystemExit) as ended:
        distributed.told(work)
    assert ended.value.code == code
    assert said in capsys.readouterr().err


def test_a_probe_whose_weights_do_not_fit_says_so(monkeypatch):
    """Would catch memory that runs out before the first step told as a crash, which is measured again each time."""
    spec = tiny_spec(cutoff=8.0)
    store = tiny_store()
    monkeypatch.setattr(measure.Worker, "data", lambda self, data: (store, None))
    monkeypatch.setattr(measure, "build", lambda *_: torch.empty(2**46))
    fields: dict = {}
    measure.measure(Ask((replace(spec),)), fields.update)
    assert fields["memory_ran_out"] is True
    assert fields["ended"] == "memory ran out in its start"


def test_two_first_launchers_on_one_folder(tmp_path, monkeypatch):
    """As on two machines at the same moment: both time the rungs, nothing is lost, and each run is trained once."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("equiscale.launch.sharing.PAUSE", 0.05)
    monkeypatch.setattr(Results, "alone", lambda self: contextlib.nullcontext())  # it is per machine
    study = load_study(write_study(tmp_path, structures=12, widths=(4, 6)))
    results, trained, ends = Results(tmp_path / "out"), [], []
    both = threading.Barrier(2, timeout=60)

    def launch(work, items, workers=1):
        if not hasattr(items[0], "spec"):  # timing
            both.wait()
        yield from here(work, items)

    def once(spec, *args, **options):
        trained.append(spec.key)
        return train(spec, *args, **options)

    def run():
        ends.append(run_study(study, results, launcher=Local(1), say=lambda text: None))

    monkeypatch.setattr("equiscale.launch.local.local_processes", launch)
    monkeypatch.setattr(worker, "train", once)
    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ends == [True, True]
    keys = results.declared()["runs"]
    assert len(results.records()) == len(keys) == 4
    assert set(results.timings()) == set(keys)
    assert not list(results.folder.glob("*.claim*"))
    assert not list(results.folder.glob("*.partial"))
    assert sorted(trained) == sorted(keys)
