"""When an item whose process died is started again, and when it is given up."""

from __future__ import annotations

import os
import time
from pathlib import Path

from works import Step, creeps, dies_while_it_tells, ends_later

from equiscale.launch import RETRIES, local_processes
from equiscale.launch.events import LOSSES, Deaths


def allowed(deaths: Deaths, item: str, steps: list[int | None], **how) -> int:
    """How many deaths, the k-th after ``steps[k]`` was told, are followed by another start."""
    for k, step in enumerate(steps):
        if step is not None:
            deaths.told(item, Step(step))
        if not deaths.count(item, **how):
            return k
    return len(steps)


def test_in_a_row_without_getting_further():
    """Would catch a count that a resumed run resets by telling steps again, or one that progress does not reset."""
    assert allowed(Deaths(), "a", [None] * 20) == RETRIES
    assert allowed(Deaths(), "a", [40] * 20) == RETRIES  # the first death found it at 40: the others no further
    assert allowed(Deaths(), "a", [40, 20, 39, 40, 10, 40, 40]) == RETRIES
    assert allowed(Deaths(), "a", list(range(20, 1000, 20))) == 49
    assert allowed(Deaths(), "a", [20, *[20] * 4, 40, *[40] * 9]) == RETRIES + RETRIES


def test_what_says_no_step_and_what_says_it_otherwise():
    """Would catch timing, which begins anew each time, held for progress; and a function given that is not asked."""
    deaths = Deaths()
    for turn in range(RETRIES):
        deaths.told("a", (turn, "egnn w=4"))
        assert deaths.count("a")
    assert not deaths.count("a")
    deaths = Deaths(further=float)
    for value in range(3 * RETRIES):
        deaths.told("a", value)
        assert deaths.count("a")


def test_each_item_has_its_own_count():
    """Would catch a count by equality: two equal items are two."""
    deaths, one, other = Deaths(), ["a"], ["a"]
    assert [deaths.count(one) for _ in range(RETRIES + 1)] == [True] * RETRIES + [False]
    assert deaths.count(other)


def test_a_process_that_was_taken_is_not_the_items_fault():
    """Would catch spot machines that use up a run's retries; and one that is taken for ever and never given up."""
    deaths = Deaths()
    assert allowed(deaths, "a", [None] * 2 * LOSSES, innocent=True) == LOSSES
    mixed = Deaths()
    for _ in range(RETRIES):
        assert mixed.count("a", innocent=True)
        assert mixed.count("a")
    assert mixed.count("a", innocent=True)
    assert not mixed.count("a")
    assert f"a: its process died {RETRIES + 1} times" in mixed.gave_up("a", "exit code -9").sentence
    assert "a: its process was taken" in deaths.gave_up("a", "preempted").sentence


def test_a_run_that_gets_further_each_time_ends(tmp_path):
    """Would catch a local launcher that gives up a run which is killed more often than RETRIES, and goes on."""
    events = list(local_processes(creeps, [str(tmp_path / "a")], 1))
    assert sum(e.kind == "died" for e in events) == 9 > RETRIES
    assert (events[-1].kind, events[-1].value) == ("done", 10)


def test_the_death_of_a_process_with_nothing_to_do(tmp_path):
    """Would catch an item None that is begun in its place: two finish at once, one is left, and the idle one ends."""
    items, finished, kinds = [str(tmp_path / name) for name in "abc"], [], []
    for event in local_processes(ends_later, items, 2):
        kinds.append((event.kind, event.item))
        if event.kind == "started" and event.item == items[1]:
            wait_until(lambda: all(Path(i).exists() and Path(i).read_text() for i in items[:2]))
            wait_until(lambda: ended(int(Path(items[1]).read_text())))
        if event.kind == "done":
            finished.append(event.value)
    assert sorted(finished) == ["a", "b", "c"]
    assert all(item is not None for _, item in kinds)


def test_a_death_within_a_message(tmp_path):
    """Would catch a launcher that ends with "got end of file during message", and every other run with it."""
    path, kinds = tmp_path / "a", []
    for event in local_processes(dies_while_it_tells, [str(path)], 1):
        kinds.append(event.kind)
        if kinds == ["started"]:
            wait_until(lambda: path.exists() and path.read_text() and ended(int(path.read_text())))
    assert kinds == ["started", "died", "started", "done"]


def ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
    return False


def wait_until(true, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)
