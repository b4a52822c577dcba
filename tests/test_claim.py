"""Claims: one holder of many who ask, whatever the clocks say, and a holder that lost its claim finds out."""

from __future__ import annotations

import errno
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from runs import ENVIRONMENT

from equiscale import claim as claims
from equiscale.claim import EXPIRY, SIZE, Busy, Claim, Lost, Owner, Watch, settle, take
from equiscale.errors import InputError


class Clock:
    """A monotonic clock that is turned by hand; each observer has its own zero."""

    def __init__(self, zero: float = 0.0):
        self.now = zero

    def __call__(self) -> float:
        return self.now


def elsewhere(claim: Claim) -> None:
    """Make the claim one of another machine: nothing is known of its process."""
    about = json.loads(claim.file.read_bytes()[:SIZE])
    about |= {"host": "other", "machine": "another boot"}
    claim.file.write_bytes(json.dumps(about).encode().ljust(SIZE))


def look(watch: Watch, clock: Clock, seconds: float, every: float = 5.0) -> bool:
    """Whether it is ever found free while so many seconds pass."""
    for _ in range(round(seconds / every)):
        if watch.free():
            return True
        clock.now += every
    return watch.free()


def race(count: int, ask) -> list:
    """What ``ask`` returned to each of ``count`` threads that were let go at once."""
    found, barrier = [None] * count, threading.Barrier(count)

    def run(place):
        barrier.wait()
        found[place] = ask()

    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_one_of_many_threads(tmp_path):
    """Twenty rounds: first claims, then takeovers of the one before, with each loser told who holds it."""
    path = tmp_path / "a.claim"
    for _ in range(20):
        found = race(8, lambda: take(path))
        (won,) = (c for c in found if isinstance(c, Claim))
        assert all(isinstance(c, Busy) for c in found if c is not won)
        won.confirm()
        elsewhere(won)
        watches = [(Watch(path, clock=clock), clock) for clock in (Clock(zero) for zero in (0.0, 1e9, -5e6, 3.7))]
        observers = iter(watches)
        found = race(4, lambda observers=observers: look(*next(observers), EXPIRY + 10))
        assert all(found)


RACER = """
import sys, time
from pathlib import Path
from equiscale.claim import Busy, Lost, take

folder, name = Path(sys.argv[1]), sys.argv[2]
(folder / f"{name}.ready").touch()
while not (folder / "go").exists():
    time.sleep(0.001)
for work in range(30):
    claim = take(folder / f"{work}.claim")
    if isinstance(claim, Busy):
        continue
    with claim:
        done = folder / f"{work}.done"
        if not done.exists():
            with (folder / f"{work}.began").open("a") as file:
                file.write(name + "\\n")
            time.sleep(0.002)
            claim.confirm()
            done.touch()
        claim.done()
"""


def test_many_processes_do_each_work_once(tmp_path):
    """Thirty pieces of work, six processes: would catch two that train the same rung, and a claim left behind."""
    crew = [subprocess.Popen([sys.executable, "-c", RACER, str(tmp_path), f"p{i}"], env=ENVIRONMENT) for i in range(6)]
    while len(list(tmp_path.glob("*.ready"))) < 6:
        time.sleep(0.01)
    (tmp_path / "go").touch()
    assert [p.wait(60) for p in crew] == [0] * 6
    assert [len((tmp_path / f"{w}.began").read_text().split()) for w in range(30)] == [1] * 30
    assert not list(tmp_path.glob("*.claim*"))


def test_a_living_holder_keeps_it(tmp_path):
    """It counts: no observer ever finds it free, whatever its clock's zero and whatever the file's times say."""
    with take(tmp_path / "a.claim", beat=0.01) as claim:
        elsewhere(claim)
        clock = Clock(1e9)
        watch = Watch(claim.path, clock=clock)
        for _ in range(30):
            seen = claim.count
            while claim.count == seen:
                time.sleep(0.002)
            os.utime(claim.file, (0, 0))
            assert not watch.free()
            clock.now += EXPIRY / 3
        claim.confirm()
        assert isinstance(take(claim.path), Busy)


@pytest.mark.parametrize("file_time", [0.0, 4e9])
@pytest.mark.parametrize("zero", [0.0, -1e7, 1e9])
def test_a_silent_one_is_taken_over_by_the_observers_clock(zero, file_time, tmp_path):
    """Not before EXPIRY seconds of looking, even if the file says 1970; not later, even if it says 2096."""
    lost = take(tmp_path / "a.claim")
    elsewhere(lost)
    os.utime(lost.file, (file_time, file_time))
    clock = Clock(zero)
    watch = Watch(lost.path, clock=clock)
    assert not look(watch, clock, EXPIRY - 5)
    lost.confirm()
    assert look(watch, clock, 10)
    won = take(lost.path)
    assert isinstance(won, Claim)
    with pytest.raises(Lost):
        lost.confirm()
    won.confirm()
    lost._beat()  # it wakes up and counts on: in its own file, which is nobody's
    won.confirm()
    assert isinstance(take(lost.path), Busy)


def test_an_observer_that_slept_begins_anew(tmp_path):
    """A suspended machine has looked twice in an hour: that says nothing of the minutes between."""
    lost = take(tmp_path / "a.claim")
    elsewhere(lost)
    clock = Clock()
    watch = Watch(lost.path, clock=clock)
    assert not watch.free()
    clock.now += 3600
    assert not watch.free()
    assert look(watch, clock, EXPIRY)


def test_a_late_observer_cannot_take_the_winners(tmp_path):
    """Two see the same dead claim; the slow one acts after the quick one's takeover: it is told that it is held."""
    lost = take(tmp_path / "a.claim")
    elsewhere(lost)
    slow_clock, quick_clock = Clock(), Clock()
    slow, quick = Watch(lost.path, clock=slow_clock), Watch(lost.path, clock=quick_clock)
    assert not look(slow, slow_clock, EXPIRY - 5)
    assert look(quick, quick_clock, EXPIRY)
    won = take(lost.path)
    slow_clock.now += 10
    assert not slow.free()
    won.confirm()
    assert isinstance(take(lost.path), Busy)


def test_a_killed_holder_of_this_machine_is_noticed_at_once(tmp_path):
    path = tmp_path / "a.claim"
    code = "import sys, time; from pathlib import Path; from equiscale.claim import take\n"
    code += "with take(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code, str(path)], env=ENVIRONMENT, stdout=subprocess.PIPE)
    assert process.stdout.readline().strip() == b"held"
    assert isinstance(take(path), Busy)
    assert f"process {process.pid} on " in take(path).holder
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert Watch(path).free()
    found = race(8, lambda: take(path))
    assert sum(isinstance(c, Claim) for c in found) == 1
    process.stdout.close()


def test_a_pid_that_was_given_out_again(tmp_path):
    """This process has the dead holder's number, but did not begin when that one did."""
    me = Owner.me()
    assert not me.gone()
    assert Owner(me.host, me.pid, me.machine, "1").gone()
    assert not Owner(me.host, me.pid, "another boot", "1").gone()
    assert not Owner(me.host, me.pid, "", "1").gone()


@pytest.mark.parametrize(
    "content", [b"", b"{", b'{"host": "a"}', b"[]", b"\x00" * SIZE, random.Random(0).randbytes(200)]
)
def test_a_damaged_claim_expires(content, tmp_path):
    """Half-written by a kill, or by a disk: held by nobody knows whom, until it did not change for long."""
    path = tmp_path / "a.claim"
    path.write_bytes(content)
    assert take(path) == Busy("another worker")
    clock = Clock()
    assert look(Watch(path, clock=clock), clock, EXPIRY + 5)
    assert isinstance(take(path), Claim)


def test_what_is_no_file(tmp_path):
    (tmp_path / "a.claim").mkdir()
    with pytest.raises(InputError, match=r"a\.claim cannot be read \(Is a directory\)"):
        take(tmp_path / "a.claim")


def test_settling_with_a_holder_of_another_machine(tmp_path):
    """Would catch a run put off to the study's end as its node was lost; and one that waits for the living."""
    path, clock = tmp_path / "a.claim", Clock()
    lost = take(path)
    elsewhere(lost)

    def sleep(seconds):
        clock.now += seconds

    assert isinstance(settle(path, clock=clock, sleep=sleep), Claim)
    assert 60 <= clock.now < 62
    living, clock.now = take(tmp_path / "b.claim"), 0.0
    elsewhere(living)

    def beat(seconds):
        sleep(seconds)
        if clock.now == 5.0:
            living.file.write_bytes(living.file.read_bytes()[: SIZE - 2] + b"1\n")

    assert settle(living.path, clock=clock, sleep=beat) == Busy(f"process {os.getpid()} on other")
    assert clock.now == 5.0
    mine, clock.now = take(tmp_path / "c.claim"), 0.0
    assert isinstance(settle(mine.path, clock=clock, sleep=sleep), Busy)
    assert clock.now == 0.0


def test_given_up_and_done(tmp_path):
    """Stopped: the next begins at once. Done: nothing is left of the chain."""
    path = tmp_path / "a.claim"
    for number in (1, 2, 3):
        with take(path) as claim:
            assert claim.number == number
    assert Watch(path).free()
    with take(path) as claim:
        claim.done()
    assert not list(tmp_path.iterdir())


def test_what_is_done_leaves_the_next_holder_alone(tmp_path):
    """Would catch an end that gives up a file of its name which another has made since."""
    path = tmp_path / "a.claim"
    with take(path) as first:
        first.done()
        second = take(path)
        assert second.file == first.file
    second.confirm()
    assert isinstance(take(path), Busy)


def test_a_claim_that_nfs_removes_while_it_is_read(tmp_path, monkeypatch):
    """Would catch a study that ends because another machine's run did, just as this one looked who has it."""
    path = tmp_path / "a.claim"
    with monkeypatch.context() as patch:

        def stale(self):
            raise OSError(errno.ESTALE, "Stale file handle")

        patch.setattr(Path, "read_bytes", stale)
        assert Watch(path).free()
        assert isinstance(take(path), Claim)
    assert isinstance(take(path), Busy)


def test_a_folder_that_is_gone(tmp_path):
    """Would catch a holder that goes on elsewhere, and a claim that makes another folder in the place of that one."""
    (tmp_path / "folder").mkdir()
    claim = take(tmp_path / "folder" / "a.claim")
    (tmp_path / "folder").rename(tmp_path / "away")
    with pytest.raises(InputError, match="is gone: bring it back"):
        take(tmp_path / "folder" / "b.claim")
    with pytest.raises(InputError, match="is gone: bring it back"):
        claim.confirm()
    with pytest.raises(OSError, match="No such file"):
        claim._beat()
    (tmp_path / "away").rename(tmp_path / "folder")
    claim.confirm()


def test_a_file_system_without_links(tmp_path, monkeypatch):
    def link(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    found = race(8, lambda: take(tmp_path / "a.claim"))
    assert sum(isinstance(c, Claim) for c in found) == 1


def test_a_history_of_random_moves(tmp_path, monkeypatch):
    """Many workers that claim, stall, wake, confirm and finish in random order: never two whose claim is confirmed."""
    for seed in range(30):
        rng, path = random.Random(seed), tmp_path / f"{seed}.claim"
        held: list[Claim] = []
        clocks = [Clock(rng.uniform(-1e9, 1e9)) for _ in range(3)]
        watches = [Watch(path, clock=clock) for clock in clocks]
        for _ in range(120):
            move = rng.choice(("take", "beat", "watch", "watch", "check"))
            if move == "take" and isinstance(claim := take(path), Claim):
                elsewhere(claim)
                held.append(claim)
            elif move == "beat" and held:
                rng.choice(held)._beat()
            elif move == "watch":
                for clock, watch in zip(clocks, watches):
                    clock.now += rng.uniform(0, EXPIRY / 2)
                    watch.free()
            confirmed = []
            for claim in held:
                try:
                    claim.confirm()
                    confirmed.append(claim.number)
                except Lost:
                    pass
            assert len(confirmed) <= 1
            assert not confirmed or confirmed == [max(c.number for c in held)]


def test_claims_of_many_machines_take_no_lock(tmp_path):
    """`equiscale run` on two machines works on one folder; on one machine the second is refused."""
    from equiscale.results import Results

    results = Results(tmp_path)
    names = itertools.cycle(["one", "two"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("equiscale.results.gethostname", lambda: next(names))
        with results.alone(), results.alone():
            pass
    with results.alone(), pytest.raises(InputError, match="another `equiscale run` works on"), results.alone():
        pass
    assert {p.name for p in Path(tmp_path).glob(".*.lock")} >= {".one.lock", ".two.lock"}
    assert claims.BEAT * 4 < claims.EXPIRY
