"""kill -9 of the main process and of workers, at random times: the records are an undisturbed study's, bit for bit."""

from __future__ import annotations

import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from runs import ENVIRONMENT, write_study

from equiscale.run import checkpoint_path, load

KILLS = ("worker", "main", "worker", "main", "main")


def heed_interrupts() -> None:
    """A shell's background job ignores SIGINT and hands that down; what is tested here is not the shell."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(folder: Path, results: str) -> subprocess.Popen:
    words = ["run", "study.py", "--workers", "2", "--results", results, "--checkpoint-every", "0.05", "--no-report"]
    return subprocess.Popen(
        [sys.executable, "-m", "equiscale.cli", *words],
        cwd=folder, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        preexec_fn=heed_interrupts,
    )  # fmt: skip


def workers(parent: int) -> list[int]:
    """Processes that the launcher spawned, by id; not the standard library's resource tracker."""
    try:
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        return [int(c) for c in children if b"spawn_main" in Path(f"/proc/{c}/cmdline").read_bytes()]
    except OSError:
        return []


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def what_was_learned(results: Path) -> dict[str, object]:
    """Every record less its clocks, the bytes of its series, and its weights."""
    found: dict[str, object] = {}
    for path in sorted(results.glob("????????????????.json")):
        found[path.name] = json.dumps(load(path).without_clock(), sort_keys=True)
        for beside in (f"{path.stem}.losses.npz", f"{path.stem}.curve.parquet"):
            found[beside] = (results / beside).read_bytes()
        state = torch.load(checkpoint_path(results, path.stem) / "weights.pt", weights_only=True)
        buffer = io.BytesIO()
        torch.save(state, buffer)
        found[f"{path.stem}.weights"] = buffer.getvalue()
    return found


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds workers through /proc")
def test_killed_five_times_a_study_ends_as_if_undisturbed(tmp_path):
    folder = write_study(tmp_path, structures=192, widths=(4, 6), count=260).parent
    undisturbed = start(folder, "undisturbed")
    rng, kills, seen = random.Random(7), list(KILLS), []
    process = start(folder, "killed")
    try:
        while kills:
            # Something must be running to be disturbed: at first workers, for later kills runs that are in training.
            deadline = time.monotonic() + 90
            late = len(kills) < 4
            while process.poll() is None and time.monotonic() < deadline:
                if list((folder / "killed").glob("*.claim*")) if late else workers(process.pid):
                    break
                time.sleep(0.01)
            time.sleep(rng.uniform(0.0, 0.5))
            crew = workers(process.pid)
            if process.poll() is not None:
                break
            if kills[0] == "worker" and crew:
                os.kill(rng.choice(crew), signal.SIGKILL)
                seen.append(kills.pop(0))
            elif kills[0] == "main":
                process.kill()
                process.wait()
                seen.append(kills.pop(0))
                deadline = time.monotonic() + 5
                while any(alive(c) for c in crew) and time.monotonic() < deadline:
                    time.sleep(0.05)
                assert not any(alive(c) for c in crew), "a worker outlived its killed parent"
                process.stdout.close()
                process = start(folder, "killed")
        assert not kills, f"the study ended after {seen}: make it longer"
        said, _ = process.communicate(timeout=200)
        assert process.returncode == 0, said
        other, _ = undisturbed.communicate(timeout=200)
        assert undisturbed.returncode == 0, other
    finally:
        for p in (process, undisturbed):
            if p.poll() is None:
                p.kill()
                p.wait()
    a, b = (what_was_learned(folder / name) for name in ("undisturbed", "killed"))
    assert len([name for name in a if name.endswith(".json")]) == 4
    assert a.keys() == b.keys()
    assert [name for name in a if a[name] != b[name]] == []
    assert not list((folder / "killed").rglob("unfinished.pt"))
    assert not list((folder / "killed").glob("*.claim*"))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGUSR1, 75)])
def test_interrupting_saves_first(number, code, tmp_path):
    """Ctrl-C: exit code 130, one sentence, checkpoints of what was running, and no process left.

    A scheduler's signal: the same with 75, by which a job's script knows to queue it again.
    """
    folder = write_study(tmp_path, structures=192, widths=(4,), count=260).parent
    process = start(folder, "results")
    deadline = time.monotonic() + 90
    while not list((folder / "results").rglob("unfinished.pt")) and time.monotonic() < deadline:
        time.sleep(0.02)
    crew = workers(process.pid)
    assert crew
    process.send_signal(number)
    said, _ = process.communicate(timeout=100)
    assert process.returncode == code, said
    assert "the same command goes on from there" in said
    assert "Traceback" not in said
    assert not any(alive(c) for c in crew)
    assert list((folder / "results").rglob("unfinished.pt"))
