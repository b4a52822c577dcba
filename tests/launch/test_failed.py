"""An item that fails: told in one sentence, the others go on, and what befalls all alike ends at once."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from runs import here, refused, write_study
from works import awkward, long, once

from equiscale.cli import main
from equiscale.errors import InputError
from equiscale.launch import RETRIES, Event, Failed, Failure, local_processes, result


def test_every_way_to_fail_is_one_event_and_the_others_go_on():
    """Would catch an error that ends the launcher, a traceback that is lost, and a death that is never given up."""
    items = ["input", "disk", "bug", "death", "fine"]
    events = list(local_processes(awkward, items, 1))
    last = {e.item: e for e in events if e.kind in ("done", "failed")}
    assert [e.item for e in events if e.kind == "done"] == ["fine"]
    said = {item: e.value for item, e in last.items() if e.kind == "failed"}
    assert said["input"] == Failure("this is wrong: do that.")
    assert said["disk"] == Failure("some/file: No space left on device; what was recorded is kept.")
    assert said["bug"].sentence == "IndexError: list index out of range."
    assert "in awkward" in said["bug"].traceback
    assert f"its process died {RETRIES + 1} times and it got no further in between (exit code -9)" in str(said["death"])
    assert sum(e.kind == "died" for e in events) == RETRIES


def test_a_death_is_tried_again(tmp_path):
    events = list(local_processes(once, [str(tmp_path / "a")], 2))
    assert [e.kind for e in events] == ["started", "died", "started", "done"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_to_a_worker_saves_first(number, tmp_path):
    """A scheduler's warning reaches the process itself: it stops between two steps, and its item goes on."""
    path, seen = tmp_path / "a", []
    for event in local_processes(long, [str(path)], 1):
        seen.append(event.kind)
        if event.kind == "progress" and "died" not in seen:
            os.kill(int(path.read_text()), number)
        if event.kind == "died":
            assert path.with_suffix(".saved").exists()
            assert event.value == "exit code 75"
        if event.kind == "progress" and "died" in seen:
            break


def failed(*sentences: str) -> list[Event]:
    return [Event("failed", f"w={i}", Failure(s)) for i, s in enumerate(sentences)]


def test_three_in_a_row_for_one_reason_end_it():
    """A full disk must not produce a hundred sentences; names and numbers in them do not make reasons differ."""
    full = [f"results/{i:016x}.{i}.npz cannot be written (No space left on device)." for i in range(4)]
    full.insert(2, "another/file: No space left on device.")
    with pytest.raises(InputError, match="3 runs in a row failed for one reason"):
        list(Failed(lambda item, text: Path()).watch(iter(failed(*full))))
    others = failed(full[0], full[1], "something else.", full[2], full[3])
    assert len(list(Failed(lambda item, text: Path()).watch(others))) == 5
    between = [*failed(full[0], full[1]), Event("done", "w=9"), *failed(full[2])]
    assert len(list(Failed(lambda item, text: Path()).watch(between))) == 4


def test_the_end_counts_and_names():
    watched = Failed(lambda item, text: Path("there.txt"))
    (event,) = watched.watch([Event("failed", "mpnn w=4", Failure("A: b.", "Traceback …"))])
    assert event.value.sentence == "A: b; the traceback is in there.txt."
    with pytest.raises(
        InputError,
        match=r"1 of 12 runs failed: mpnn w=4 \(A: b; the traceback is in there\.txt\); `equiscale run x` tries them",
    ):
        watched.refuse(12, "`equiscale run x`")


def test_the_failure_of_a_single_item():
    with pytest.raises(InputError, match="not there"):
        result(failed("not there."))
    with pytest.raises(RuntimeError, match="Traceback"):
        result([Event("failed", 1, Failure("A: b.", "Traceback"))])


def test_a_study_goes_on_and_ends_with_the_names(tmp_path, monkeypatch, capsys):
    """Four runs, one with a bug: three are recorded, the command says which failed, and tries it again when called."""
    import equiscale.train.worker as worker

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("equiscale.launch.local.local_processes", here)
    monkeypatch.setattr("equiscale.cli.training.write_report", lambda results: None)
    write_study(tmp_path)
    real = worker.train

    def train(spec, *args, **options):
        if spec.model.kind == "egnn" and spec.model.width == 4:
            raise ZeroDivisionError("as a test")
        return real(spec, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(worker, "train", train)
        said = refused(capsys, "run", "study.py", "--workers", "1")
    assert said.startswith(
        "equiscale: 1 of 4 runs failed: egnn w=4 seed=0 (ZeroDivisionError: as a test; the traceback"
    )
    assert said.endswith("; `equiscale run study.py --workers 1` tries them again.")
    results = tmp_path / "results" / "tiny"
    assert len(list(results.glob("????????????????.json"))) == 3
    (error,) = results.glob("*.error.txt")
    assert "ZeroDivisionError: as a test" in error.read_text()
    assert main(["status", "results/tiny"]) == 0
    assert f"failed    see {error.name}" in capsys.readouterr().out
    assert main(["run", "study.py", "--workers", "1"]) == 0
    assert len(list(results.glob("????????????????.json"))) == 4
    assert not error.exists()
