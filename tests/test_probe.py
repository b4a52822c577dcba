"""A study probed before it is trained: figures that are its own, failures that are answers, advice that holds."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from dying import dies, tells_and_dies
from runs import ENVIRONMENT, refused, tiny_spec, write_study

from equiscale.cli import main
from equiscale.errors import InputError
from equiscale.ladder import load_study
from equiscale.launch.packing import how_many_fit
from equiscale.models import MPNNConfig
from equiscale.probe import figures
from equiscale.probe.budget import largest_that, memory_at, need
from equiscale.probe.figures import Ask, Found, Kept, Point, Size
from equiscale.probe.forecast import forecast
from equiscale.probe.measure import measure
from equiscale.probe.process import alone
from equiscale.probe.study import Prober, Rung, between, fitting, rungs_of
from equiscale.results import Results
from equiscale.run import DataSpec, EvalSpec, OptimSpec, Remedy, RunSpec, evaluation_steps
from equiscale.study import data_hashes

GIB = 2**30
MIB = 2**20


# --- how many fit --------------------------------------------------------------------------------------------------


def test_as_many_run_together_as_fit_whichever_meet():
    """Would catch a count by the mean memory (the two largest may meet), or one that fills the device to the brim."""
    small, large = (1.0, 60.0), (6.0, 60.0)
    assert how_many_fit([small] * 20, 10.0) == 9
    assert how_many_fit([small] * 20 + [large], 10.0) == 4  # 6 + 1 + 1 + 1
    assert how_many_fit([small] * 20 + [large] * 2, 10.0) == 1
    assert how_many_fit([(9.5, 60.0)], 10.0) == 0
    assert how_many_fit([(9.5, 60.0)], 10.0, margin=1.0) == 1
    assert how_many_fit([], 10.0) == 0


def test_no_more_run_together_than_shorten_the_whole():
    """Would catch workers that wait for the longest run while they hold memory."""
    assert how_many_fit([(1.0, 100.0), (1.0, 50.0), (1.0, 50.0)], 100.0) == 2
    assert how_many_fit([(1.0, 10.0)] * 8, 100.0) == 8
    assert how_many_fit([(1.0, 10.0)] * 8, 100.0, most=3) == 3
    assert how_many_fit([(1.0, 0.0)] * 8, 100.0) == 8


@pytest.mark.parametrize("item", [(-1.0, 1.0), (float("nan"), 1.0), (1.0, float("inf")), (1.0, -1.0)])
def test_what_cannot_be_packed(item):
    """Would catch a rung of unknown memory counted as nothing."""
    with pytest.raises(InputError, match="must be numbers"):
        how_many_fit([item], 10.0)
    with pytest.raises(InputError, match="at least one"):
        how_many_fit([(1.0, 1.0)], 10.0, most=0)


# --- memory by the batch -------------------------------------------------------------------------------------------

POINTS = (Point(32, 1.0, 100), Point(64, 2.0, 180), Point(256, 8.0, 660))


def test_memory_between_and_beyond_the_points():
    """Would catch an extrapolation that forgets what weights take, or memory that falls as a batch grows."""
    assert memory_at(POINTS, 4.0) == pytest.approx(180 + 80 * 2)
    assert memory_at(POINTS, 16.0) == pytest.approx(660 + 80 * 8)
    assert memory_at(POINTS[:1], 2.0) == pytest.approx(200)
    noisy = (Point(1, 1.0, 120), Point(2, 2.0, 100), Point(4, 4.0, 140))
    values = [memory_at(noisy, w) for w in np.linspace(0.5, 8, 40)]
    assert (np.diff(values) >= 0).all()


def test_the_end_of_a_run_keeps_the_graphs_of_all_validation_structures():
    """Would catch a rung that trains well and runs out of memory when it is evaluated at its end."""
    found = Found(base=1000, budgets=((32, 1.0), (256, 8.0)), points=POINTS, look_memory=200, kept=50, kept_final=60)
    assert need(found) == 1000 + 660 + 50
    assert need(found, 1.0) == 1000 + 210
    assert need(replace(found, kept_final=9_050)) == 1000 + 200 + 9_000
    assert need(Found(base=1000)) is None


def test_bisection_finds_the_largest_budget():
    """Would catch an off-by-one at either end of the grid."""
    budgets = [32, 48, 64, 96, 128]
    for most in (31, *budgets, 1000):
        expected = max((b for b in budgets if b <= most), default=None)
        assert largest_that(lambda b, most=most: b <= most, budgets) == expected
    assert largest_that(lambda b: True, []) is None


# --- advice and hours ----------------------------------------------------------------------------------------------


def rung(width: int, seeds: int = 1) -> Rung:
    return Rung(0, tuple(tiny_spec(width=width, seed=s) for s in range(seeds)))


def found(step: float, memory: int = 100 * MIB, **fields) -> Found:
    points = (Point(8, 1.0, memory // 4), Point(4096, 4.0, memory))
    plain = Found(
        base=GIB, step_seconds=step, start_seconds=1.0, first_look_seconds=0.5, look_seconds=0.2, final_seconds=0.7,
        budgets=((8, 1.0), (16, 2.0), (4096, 4.0)), points=points, look_memory=0,
    )  # fmt: skip
    return replace(plain, **fields)


def prober(kept: Kept, folder: Path) -> Prober:
    made = Prober([], Results(folder), "cpu", lambda text: None, lambda text: None)
    made.kept = kept
    return made


def ladder_of(widths: tuple[int, ...], ends: tuple[Found, Found], seeds: int = 1) -> tuple[list[Rung], Kept]:
    rungs = [rung(w, seeds) for w in widths]
    sizes = {r.spec.key: Size(10 * w, float(w)) for r, w in zip(rungs, widths)}
    return rungs, Kept("cpu", "torch", {rungs[0].spec.key: ends[0], rungs[-1].spec.key: ends[1]}, sizes)


def test_a_run_is_its_steps_and_its_looks(tmp_path):
    """Would catch hours that leave out evaluation, the end, or the start; and seeds counted once."""
    rungs, kept = ladder_of((4, 8), (found(0.01), found(0.05)), seeds=3)
    spec = rungs[0].spec
    looks = len(evaluation_steps(spec.steps, spec.evaluation))
    made = forecast([rungs], prober(kept, tmp_path), workers=2, limit=8 * GIB, tries=False)
    one = 1.0 + spec.steps * 0.01 + 0.5 + (looks - 1) * 0.2 + 0.7
    assert made.lines[0].seconds == pytest.approx(one)
    two = one + spec.steps * 0.04
    assert made.device_seconds() == pytest.approx(3 * (one + two))
    assert made.wall_seconds() == pytest.approx(2 * two + one)  # two workers, longest first
    assert "measured" in made.text()
    assert json.loads(json.dumps(made.to_dict()))["runs"] == 6


def test_rungs_between_follow_flops_and_say_so(tmp_path):
    """Would catch a rung whose figures pass for measured, or that is put between its neighbours by its place."""
    rungs, kept = ladder_of((4, 5, 8), (found(0.01), found(0.05, 500 * MIB)))
    made = forecast([rungs], prober(kept, tmp_path), workers=1, limit=8 * GIB, tries=False)
    middle = made.lines[1]
    assert [x.how for x in made.lines] == ["measured", "between", "measured"]
    assert middle.step_seconds == pytest.approx(0.02)
    assert middle.need == pytest.approx(GIB + 200 * MIB)
    assert between(found(0.01), Found(), 0.5).step_seconds is None


def test_a_rung_of_unknown_time_is_not_free(tmp_path):
    """Would catch a rung that was killed before its first step and then counts nothing in the hours, unsaid."""
    rungs, kept = ladder_of((4, 5, 8), (found(0.01), Found(ended="killed", memory_ran_out=True)))
    made = forecast([rungs], prober(kept, tmp_path), workers=1, limit=8 * GIB, tries=False)
    assert [x.how for x in made.lines] == ["measured", "unknown", "unknown"]
    assert "at least" in made.text()
    assert "2 runs have no time" in made.text()
    assert "busy" not in made.text()


def test_a_busy_machine_is_said(tmp_path):
    """Would catch hours on a crowded processor that pass for the study's."""
    rungs, kept = ladder_of((4, 8), (found(0.01, core_share=0.98), found(0.05, core_share=0.31)))
    made = forecast([rungs], prober(kept, tmp_path), workers=1, limit=8 * GIB, tries=False)
    assert "steps had 31% of a core" in made.text()
    assert made.to_dict()["core_share"] == 0.31


def test_the_batch_that_fits_is_measured_before_it_is_named(tmp_path):
    """Would catch advice by the model alone: here the line through the points is wrong and the next budget holds."""
    whole = found(0.05, 9 * GIB)
    seen = []

    def tried(other: Rung) -> Found:
        seen.append(other.spec.optim.atom_budget)
        return found(0.05, 9 * GIB if seen[-1] > 8 else GIB)

    fit = fitting(rung(8), whole, 7 * GIB, tried)
    assert seen == [16, 8]
    assert (fit.fits, fit.budget) == (False, 8)
    assert fit.need == 10 * GIB
    modelled = fitting(rung(8), whole, 7 * GIB, None)
    assert (modelled.budget, modelled.found) == (16, None)
    assert fitting(rung(8), whole, 20 * GIB, None).fits
    assert fitting(rung(8), whole, 1 * GIB, None).budget is None


def test_what_does_not_fit_is_one_sentence_with_the_line(tmp_path):
    """Would catch advice without the line to put into the study, or a batch advised where looks are what is large."""
    rungs, kept = ladder_of((4, 8), (found(0.01), found(0.05, 9 * GIB)))
    made = forecast([rungs], prober(kept, tmp_path), workers=1, limit=7 * GIB, tries=False)
    assert "`OptimSpec(..., atom_budget=16)` (5.5 GiB, modelled), which changes rounding only" in made.lines[1].advice
    assert "does not fit" in made.text()
    rungs, kept = ladder_of((4,), (found(0.01, look_memory=9 * GIB),) * 2)
    made = forecast([rungs], prober(kept, tmp_path), workers=1, limit=7 * GIB, tries=False)
    assert "its looks alone take 10 GiB" in made.lines[0].advice
    rungs, kept = ladder_of((4, 8), (found(0.01), found(0.05, 90 * GIB)))
    made = forecast([rungs], prober(kept, tmp_path), workers=1, limit=7 * GIB, tries=False)
    assert "no atom budget makes it fit" in made.lines[1].advice


# --- processes -----------------------------------------------------------------------------------------------------


def test_a_process_that_dies_is_an_answer():
    """Would catch a probe that hangs on, or falls with, the process that was killed for memory."""
    told: list = []
    ends = {how: alone(tells_and_dies, how, told.append) for how in ("done", "killed", "signal", "mistake", "crash")}
    assert len(told) == 5
    assert (ends["done"].kind, ends["done"].value) == ("done", "done")
    assert (ends["killed"].kind, ends["killed"].killed) == ("died", True)
    assert "where memory runs out" in ends["killed"].value
    assert ends["signal"].value.endswith("died of signal 15")
    assert (ends["mistake"].kind, ends["mistake"].value) == ("refused", "the data are not there.")
    assert ends["crash"].value.startswith("ZeroDivisionError: one")


def test_a_process_that_dies_within_a_message_is_an_answer():
    """Would catch a probe that falls with "got end of file during message"."""

    def until_it_ended(fields):
        end = time.monotonic() + 30
        while any(process.is_alive() for process in multiprocessing.active_children()):
            assert time.monotonic() < end

    end = alone(tells_and_dies, "within a message", until_it_ended)
    assert (end.kind, end.killed) == ("died", True)


def test_one_rung_out_of_memory_does_not_stop_the_others(tmp_path):
    """Would catch a probe that ends with the first rung that does not fit, or forgets that it did not."""
    said: list[str] = []
    rungs = [rung(4), rung(6), rung(8)]
    made = Prober([rungs], Results(tmp_path), "cpu", said.append, lambda text: None, measure=dies)
    made.ends(everything=False, again=False)
    assert len(said) == 1
    assert said[0].startswith("  mpnn w=8: its process was killed")
    kept = figures.read(tmp_path)
    assert kept is not None
    assert set(kept.found) == {rungs[0].spec.key, rungs[2].spec.key}
    found = forecast([rungs], made, workers=1, limit=8 * GIB)
    top = found.lines[2]
    assert top.fit is not None
    assert (top.fit.fits, top.fit.need, top.fit.budget) == (False, None, 16)
    assert top.fit.found is not None
    assert "ran out of memory" in top.advice
    assert "atom_budget=16)` (1.2 GiB, measured)" in top.advice
    assert [x.how for x in found.lines] == ["measured", "between", "measured"]


def test_a_ladder_of_one_rung_is_probed_once(tmp_path):
    """Would catch the smallest and the largest, where they are one, measured twice or put between themselves."""
    said: list[str] = []
    live: list[str] = []
    made = Prober([[rung(4)]], Results(tmp_path), "cpu", said.append, live.append, measure=dies)
    made.ends(everything=False, again=False)
    assert live == ["probing mpnn w=4 (1 of 1) …", ""]
    assert [x.how for x in forecast([[rung(4)]], made, workers=1, limit=8 * GIB).lines] == ["measured"]
    made.measure = None  # what is kept is not measured again
    made.ends(everything=True, again=False)


def test_a_failure_is_kept_for_as_little_memory_only(tmp_path):
    """Would catch a rung that is said not to fit for ever, on a machine that has more memory now, or after a crash."""
    from equiscale.probe.study import _holds

    assert _holds(Found(), None)
    assert not _holds(Found(ended="it crashed"), None)
    out = Found(ended="out", memory_ran_out=True, enforced=4 * GIB)
    assert _holds(out, 3 * GIB)
    assert not _holds(out, 5 * GIB)
    assert not _holds(replace(out, enforced=None), 5 * GIB)  # killed before it said
    assert _holds(replace(out, enforced=None), None)  # of a GPU, whose memory stays what it is


# --- the command ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def probed(tmp_path_factory):
    """A study of one ladder of one rung, probed by the command."""
    folder = tmp_path_factory.mktemp("probed")
    path = write_study(folder, widths=(4,))
    text = path.read_text()
    path.write_text(text[: text.index("    Ladder(EGNNConfig")] + "))\n")
    here = os.getcwd()
    os.chdir(folder)
    try:
        assert main(["dry-run", "study.py", "--probe", "--json", "probe.out", "--workers", "1"]) == 0
    finally:
        os.chdir(here)
    return folder


def test_the_command_measures_and_keeps(probed, monkeypatch, capsys):
    """Would catch figures that are not there, memory of the whole machine taken for the run's, and a second call that
    measures again."""
    monkeypatch.chdir(probed)
    told = json.loads((probed / "probe.out").read_text())
    (row,) = told["rungs"]
    assert (row["how"], row["fits"], row["seeds"]) == ("measured", True, 1)
    assert 0 < row["step_seconds"] < 5
    assert row["run_seconds"] > row["steps"] * row["step_seconds"]
    (kept,) = json.loads((probed / "results/tiny/probe.json").read_text())["found"].values()
    assert kept["parameters"] == row["parameters"]
    assert 100 * MIB < kept["base"] < 2 * GIB
    assert [p["work"] for p in kept["points"]] == sorted(p["work"] for p in kept["points"])
    assert all(0 <= p["memory"] < GIB for p in kept["points"])
    assert kept["worst_atoms"] <= 14
    begun = time.perf_counter()
    assert main(["dry-run", "study.py", "--probe", "--json", "--workers", "1"]) == 0
    assert json.loads(capsys.readouterr().out)["rungs"][0]["step_seconds"] == row["step_seconds"]
    assert time.perf_counter() - begun < 3
    assert not list((probed / "results/tiny").glob("*.partial"))


def test_a_plan_with_little_memory_says_what_does_not_fit(probed, monkeypatch, capsys):
    """Would catch a plan that needs no less than the machine's memory to find fault, or one that hides that nothing
    helps: no batch is smaller than a process with torch and its data."""
    monkeypatch.chdir(probed)
    assert main(["dry-run", "study.py", "--probe", "--memory", "0.01", "--workers", "1"]) == 0
    said = capsys.readouterr().out
    assert "does not fit" in said
    assert "mpnn w=4 takes" in said
    assert "a worker may take 0.009 GiB" in said


def test_probes_that_cannot_be(probed, monkeypatch, capsys):
    """Would catch a traceback, or silence, for options that make no sense together."""
    import torch

    monkeypatch.chdir(probed)
    study = ("dry-run", "study.py")
    assert "--all is of a probe" in refused(capsys, *study, "--all")
    assert "--memory is in GiB" in refused(capsys, *study, "--probe", "--memory", "0")
    assert "give --probe" in refused(capsys, *study, "--device", "cuda")
    if not torch.cuda.is_available():
        assert "'cuda' cannot be used here" in refused(capsys, *study, "--probe", "--device", "cuda")
        assert "'cuda' cannot be used here" in refused(
            capsys, "run", "study.py", "--workers", "auto", "--device", "cuda"
        )
    path = probed / "results/tiny/probe.json"
    whole = path.read_bytes()
    for damaged in (b"{", b"[]", whole[:200], whole.replace(b'"points"', b'"pionts"')):
        path.write_bytes(damaged)
        assert "probe.json is damaged" in refused(capsys, *study, "--probe")
    path.write_bytes(whole)


def test_workers_by_what_a_probe_found(probed, monkeypatch, tmp_path):
    """Would catch `--workers auto` that fills a device it knows nothing of, or more workers than cores."""
    from equiscale.dry_run import automatic_workers

    monkeypatch.chdir(probed)
    study, results = load_study(Path("study.py")), Results(Path("results/tiny"))
    assert automatic_workers(study, Results(tmp_path), "cpu", 3)[0] == 3
    assert automatic_workers(study, results, "cpu", 3)[0] == 1  # one run: a second worker would have none
    kept = figures.read(results.folder)
    assert kept is not None
    gpu = {key: replace(f, base=0, limit=8 * GIB) for key, f in kept.found.items()}
    monkeypatch.setattr("equiscale.probe.study.kept_figures", lambda folder, device: replace(kept, found=gpu))
    assert automatic_workers(study, results, "cuda", 3)[0] == 1
    monkeypatch.setattr("equiscale.probe.study.kept_figures", lambda folder, device: Kept())
    workers, why = automatic_workers(study, results, "cuda", 3)
    assert workers == 1
    assert "no probe of every ladder on cuda" in why


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are found under /proc")
def test_a_probe_that_is_killed_goes_on(tmp_path):
    """Would catch a figure that is lost with the probe, a damaged probe.json, or a process that outlives it."""
    path = write_study(tmp_path, widths=(4, 8))
    text = path.read_text()
    path.write_text(text[: text.index("    Ladder(EGNNConfig")] + "))\n")
    words = [sys.executable, "-m", "equiscale.cli", "dry-run", "study.py", "--probe"]
    process = subprocess.Popen(words, cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    kept_in = tmp_path / "results/tiny"
    children: set[int] = set()
    deadline = time.monotonic() + 120
    while not (kept_in / "probe.json").exists() and process.poll() is None and time.monotonic() < deadline:
        children |= {int(p) for p in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()}
        time.sleep(0.02)
    process.kill()
    process.wait()
    kept = figures.read(kept_in)
    assert kept is not None
    first = set(kept.found)
    assert len(first) == 1
    assert children
    while not all(gone(pid) for pid in children) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert all(gone(pid) for pid in children)
    study, measured = load_study(path), []
    made = Prober(rungs_of(study, data_hashes(study)), Results(kept_in), "cpu", print, print, measure=tells_and_dies)
    made.live = lambda text: measured.append(text) if text else None
    made.ends(everything=False, again=False)
    assert len(made.kept.found) == 2
    assert all(made.kept.found[key] == kept.found[key] for key in first)


def test_a_process_is_held_to_the_memory_there_is():
    """Would catch a probe that takes the machine's other processes with it, or one that knows nothing of a rung that
    does not fit: the small batch before it was measured, and from it follows the batch that fits."""
    spec = RunSpec(
        MPNNConfig(width=64, depth=4, num_radial=16), DataSpec("builtin", structures=96),
        OptimSpec(batch_structures=96), EvalSpec(structures=8),
    )  # fmt: skip
    fields: dict = {}
    end = alone(measure, Ask((spec,), enforce=110 * MIB), fields.update)
    assert end.kind == "done", end
    fields.pop("sizes", None)
    got = Found(**fields)
    assert got.memory_ran_out
    assert got.ended == "memory ran out in the step with the largest batch"
    assert got.points
    assert got.points[-1].memory < 110 * MIB
    assert got.budgets[-1][0] == spec.optim.atom_budget
    fit = fitting(Rung(0, (spec,)), got, round((got.base + 110 * MIB) / 0.9), None)
    assert (fit.fits, fit.need) == (False, None)
    assert fit.budget is not None
    assert got.points[-1].budget <= fit.budget < spec.optim.atom_budget


def test_a_remedy_has_a_time_of_its_own():
    """Would catch hours of a rung with five turned copies that are those of the plain rung beside it."""
    from equiscale.study import _one_per_rung, _timed_as

    plain = [tiny_spec(seed=s) for s in (0, 1)]
    turned = [replace(r, remedy=Remedy("symmetry")) for r in plain]
    runs = plain + turned
    assert [_timed_as(r, runs) for r in runs] == [plain[0].key] * 2 + [turned[0].key] * 2
    assert _one_per_rung(runs, runs) == [plain[0], turned[0]]
