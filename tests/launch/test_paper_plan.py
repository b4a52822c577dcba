"""The plan of the scaling paper's ladders follows from the study, and a reader's rates replace its guesses."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "benchmarks"))

import paper_plan  # noqa: E402
from paper_ladders.counts import count  # noqa: E402
from paper_ladders.schedule import Job, Rung, enough, finish, whole, with_ranks  # noqa: E402

from equiscale.errors import InputError  # noqa: E402
from equiscale.ladder import load_study  # noqa: E402

STUDY = load_study(ROOT / "studies" / "paper.py")
KEPT = json.loads((paper_plan.RESULTS / "paper_plan.json").read_text())


def job(seconds: float, ranks: int = 1, last: bool = False, floor: float = 0.0, of: str = "mpnn") -> Job:
    """Of one step, with weights that take no time to sum."""
    return Job(Rung(of, 1, 0, 64, 1, 1.0, 1.0, 1, last), seconds, floor, ranks)


def test_the_rungs_are_the_papers():
    """Would catch a width that is not in tables 3 to 6, and FLOPs that are not those of the paper's exponents: κ."""
    made = paper_plan.rungs(STUDY, KEPT["counted"])
    by_width = {(r.architecture, r.width): r for r in made}
    printed = {("mpnn", 128): 222404, ("egnn", 500): 24959523, ("gemnet_oc", 204): 8340060, ("esen", 32): 3721474}
    assert {name: by_width[name].parameters for name in printed} == printed
    assert len(made) == 15 + 14 + 12 + 7
    assert {(r.architecture, r.width) for r in made if r.last} == {
        ("mpnn", 2557), ("egnn", 800), ("gemnet_oc", 204), ("esen", 32),
    }  # fmt: skip
    for name, kappa in {("mpnn", 2557): 2.08, ("egnn", 800): 28.1, ("gemnet_oc", 204): 34.9, ("esen", 32): 82}.items():
        r = by_width[name]
        atoms = r.batch * paper_plan.ATOMS / paper_plan.STRUCTURES
        assert r.step_flops / (3 * atoms * r.parameters) == pytest.approx(kappa, rel=0.05)


def test_what_was_counted_is_counted_again():
    """Would catch a step that does other work than the plan was made with, by more than a tenth of its operations."""
    now = count(STUDY, ["mpnn"], widths=1)
    kept = KEPT["counted"]
    assert now["mpnn"]["executed"]["128"] == pytest.approx(kept["mpnn"]["executed"]["128"], rel=0.01)
    assert now["mpnn"]["operations"] == pytest.approx(kept["mpnn"]["operations"], rel=0.1)
    for name in ("checkpoint_per_parameter", "checkpoint_per_step"):
        assert now["files"][name] == pytest.approx(kept["files"][name], rel=0.1)
    assert now["files"]["checkpoint_per_parameter"] == pytest.approx(12, rel=0.1)  # weights, z and second moments


def test_longest_first():
    """Would catch a schedule that lets short runs delay a long one, or that puts a run's ranks on two nodes."""
    assert finish([job(s) for s in (3, 3, 2, 2, 2)], 2) == 7  # the classic case: 6 is best, the rule gives 7
    assert finish([job(5), job(1), job(1)], 8) == 5
    assert finish([job(8, ranks=8), job(1)], 8) == pytest.approx(2, abs=0.01)
    assert finish([job(8, ranks=8), job(1)], 12) == pytest.approx(1, abs=0.01)  # the other node has four
    assert finish([job(16, ranks=16), job(1)], 16) == pytest.approx(2, abs=0.01)
    assert finish([job(3), job(16, ranks=8), job(1)], 8) == pytest.approx(5, abs=0.01)  # 1 begins while 16 has no room


def test_the_largest_rungs_wait():
    """Would catch a largest rung that does not wait for its ladder, waits for others, or does not pass shorter runs."""
    jobs = [job(4), job(1), job(5, last=True)]
    assert whole(jobs, 8) == 9
    assert finish(jobs, 8) == 5
    # On two GPUs: 5 and egnn's 4 begin; at 4 egnn's 3; at 5 mpnn's largest, before egnn's 2, which begins at 7.
    two = [job(5), job(6, last=True), *[job(s, of="egnn") for s in (4, 3, 2)]]
    assert whole(two, 2) == 11  # if it waited for egnn too: 13
    assert whole([*two, job(1, last=True, of="egnn")], 2) == 11  # at 9
    assert finish(two, 2) == 11  # 6 and 5 first, then 4 at 5, 3 at 6, 2 at 9


def test_enough_is_of_the_ladder_that_takes_longest():
    """Would catch a least time that adds one ladder's largest rung to another's others."""
    assert enough([job(1)] * 16, ranks=False) == 16
    # On one node egnn's 0.2 begins at 4; the longest of all others and then the longest of the largest are 7.
    ladders = [*[job(4)] * 8, job(1, last=True), job(0.2, of="egnn"), job(3, last=True, of="egnn")]
    assert whole(ladders, 8) == pytest.approx(7.2)
    assert whole(ladders, 16) == 5
    assert enough(ladders, ranks=False) == 16


def test_ranks_shorten_the_longest():
    """Would catch ranks where they gain nothing, and more of them than a step has structures for."""
    jobs = [job(80), *[job(1) for _ in range(7)]]
    split = with_ranks(jobs, 16)
    assert split[0].ranks == 8
    assert {j.ranks for j in split[1:]} == {1}
    assert [j.ranks for j in with_ranks([job(80, floor=80)], 16)] == [1]
    narrow = replace(jobs[0], rung=replace(jobs[0].rung, batch=16))
    assert with_ranks([narrow], 16)[0].ranks == 2
    climb = [job(80), job(80, last=True), job(20, of="egnn")]
    assert [j.ranks for j in with_ranks(climb, 16)] == [8, 8, 1]


def test_the_tables_are_those_kept(tmp_path, capsys):
    """Would catch a plan in the repository that its script no longer makes."""
    paper_plan.main(["--json", str(tmp_path / "plan.json")])
    assert _same(json.loads((tmp_path / "plan.json").read_text()), KEPT["plan"])
    assert "all 48" in capsys.readouterr().out


def _same(a, b) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_same(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(_same, a, b))
    return a == b if isinstance(a, str) else a == pytest.approx(b, rel=1e-9)


def test_rates_and_probes_replace_guesses(tmp_path, capsys):
    """Would catch a measured rate that is ignored where it was asked for."""
    paper_plan.main(["--gpus", "8", "--rate", "esen=1e12", "--json", str(tmp_path / "rated.json")])
    cases = json.loads((tmp_path / "rated.json").read_text())["cases"]
    hours = {name: case["rungs"][-1]["hours"] for name, case in cases.items()}
    assert (
        hours["fast"] == hours["slow"] == pytest.approx(cases["fast"]["rungs"][-1]["step_flops"] / 1e12 * 529687 / 3600)
    )
    made = paper_plan.rungs(STUDY, KEPT["counted"])
    ends = [r for kind in ("mpnn", "egnn", "gemnet_oc", "esen") for r in made if r.architecture == kind]
    found = {
        f"{i}": {"parameters": r.parameters, "step_seconds": 0.01 + r.step_flops / 2e12} for i, r in enumerate(ends)
    }
    (tmp_path / "probe.json").write_text(json.dumps({"found": found}))
    shown = paper_plan.main(
        ["--gpus", "8", "--probe", str(tmp_path / "probe.json"), "--json", str(tmp_path / "p.json")]
    )
    (case,) = json.loads((tmp_path / "p.json").read_text())["cases"].values()
    for rung in case["rungs"]:
        assert rung["step_ms"] == pytest.approx(10 + rung["step_flops"] / 2e9)
    assert "probed: " in shown
    capsys.readouterr()


@pytest.mark.parametrize(
    ("words", "told"),
    [(["--rate", "egn=1e12"], "ARCHITECTURE=FLOP/s"), (["--rate", "egnn=fast"], "ARCHITECTURE=FLOP/s"),
        (["--gpus", "0"], "1 or more"),
     (["--probe", "nowhere.json"], "is no probe")],
)  # fmt: skip
def test_bad_input_is_one_sentence(words, told):
    with pytest.raises(InputError, match=told):
        paper_plan.main(words)
