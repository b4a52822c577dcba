"""Records as columns: evaluations, tracked points, and both to the law commands."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from equiscale.cli import main
from equiscale.ladder import Ladder, Study
from equiscale.models import MPNNConfig
from equiscale.results import Results
from equiscale.run import (
    DataSpec,
    EvalSpec,
    Evaluation,
    Losses,
    RunRecord,
    RunSpec,
    Start,
    SymmetryPoint,
    Tracking,
    evaluation_steps,
    save,
    symmetry_table,
    table,
    tracking_steps,
)

ATOMS = 50  # of a step
TRUTH = {"loss": (300.0, 40.0, 0.4, 0.3), "loss_mean": (100.0, 60.0, 0.3, 0.35), "mse_mean": (80.0, 30.0, 0.35, 0.25)}
TRUTH |= {"mse_total": (90.0, 40.0, 0.32, 0.28), "loss_tracked": (200.0, 50.0, 0.36, 0.31)}


def law(of: str, n: float, d: float) -> float:
    """A N^-α + B D^-β."""
    a, b, alpha, beta = TRUTH[of]
    return a * n**-alpha + b * d**-beta


def point(n: float, step: int) -> SymmetryPoint:
    """Of the laws, whose mean and total are told apart; before training nothing follows them."""
    d = max(1, step) * ATOMS
    of = {name: law(name, n, d) for name in TRUTH}
    return SymmetryPoint(
        step=step, structures=4 * step, atoms=step * ATOMS, flops_model=6 * n * step * ATOMS,
        total=of["mse_total"], mean=of["mse_mean"], equiv=0.5, equiv_error=0.1, percent=7.0, percent_error=2.0,
        size=2.0, loss=of["loss_tracked"], loss_mean=of["loss_mean"], gradient_mean=-0.25 if step else None,
    )  # fmt: skip


def record(spec: RunSpec) -> RunRecord:
    n = 50.0 * spec.model.width**2
    curve = []
    for step in evaluation_steps(spec.steps, spec.evaluation):
        value = law("loss", n, step * ATOMS)
        losses = Losses(value, 0.2 * value, 0.8 * value, value, value, value)
        done = step * ATOMS
        curve.append(Evaluation(step, 4 * step, done, done, 6 * n * done, 6 * n * done, value, losses, losses))
    end, trivial = curve[-1].molecules, Losses(300.0, 60.0, 240.0, 300.0, 1.0, 1.0)
    points = tuple(point(n, step) for step in tracking_steps(spec.steps, spec.evaluation))
    return RunRecord(spec, "ok", "", int(n), int(n), tuple(curve), end, end, trivial, trivial, 0.0, 1.0, 1.0, 0, 0.5,
                     symmetry=points)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six tracked widths, and one width more that was not tracked."""
    made = tmp_path_factory.mktemp("results")
    data, looks = DataSpec("tiny", structures=16_000), EvalSpec(symmetry=Tracking())
    model = MPNNConfig(depth=2, num_radial=8)
    study = Study("tracked", (Ladder(model, (8, 16, 32, 64, 128, 256), data, evaluation=looks),
                              Ladder(model, (512,), data)))  # fmt: skip
    runs = study.runs({data.source: "0" * 64})
    Results(made).begin(study, runs)
    for spec in runs:
        save(record(spec), made)
    return made


def test_the_symmetry_table(folder):
    """Would catch a figure under another's name, points of runs that are no data, or None where numbers belong."""
    records = Results(folder).records()
    one = next(r for r in records if r.symmetry)
    diverged, started = replace(one, status="diverged"), replace(one, spec=replace(one.spec, start=Start("0" * 64)))
    rows = symmetry_table([one, diverged, started])
    steps = tracking_steps(one.spec.steps, one.spec.evaluation)
    assert rows["step"].tolist() == steps
    assert steps[:4] == [0, 1, 2, 5]
    assert set(rows["run"]) == {one.spec.key}
    assert set(rows["architecture"]) == {"mpnn"}
    last = one.symmetry[-1]
    expected = {
        "mse_total": last.total, "mse_mean": last.mean, "mse_equiv": 0.5, "mse_equiv_error": 0.1, "mse_size": 2.0,
        "percent": 7.0, "percent_error": 2.0, "relative": 0.25, "loss_tracked": last.loss, "loss_mean": last.loss_mean,
        "gradient_mean": -0.25, "D": last.atoms, "C": last.flops_model, "structures": last.structures,
        "N": one.parameters, "N_body": one.parameters_body, "width": one.spec.model.width, "seed": 0,
        "H_train": steps[-1] * 0.5 / 3600,
    }  # fmt: skip
    assert {name: rows[name][-1] for name in expected} == expected
    assert np.isnan(rows["gradient_mean"][0])
    assert np.isnan(rows["head"]).all()
    assert np.isnan(symmetry_table([replace(one, step_seconds=None)])["H_train"]).all()
    assert symmetry_table([diverged]) == {}
    assert symmetry_table([replace(one, symmetry=())]) == {}


def test_the_table_joins_points_by_step(folder):
    """Would catch figures of another step or run beside an evaluation, and columns in tables that track nothing."""
    records = Results(folder).records()
    rows, _ = table(records)
    n, d = rows["N"], rows["D"]
    tracked = rows["width"] < 512
    np.testing.assert_allclose(rows["loss_mean"][tracked], [law("loss_mean", *x) for x in zip(n, d)][: tracked.sum()])
    assert np.isnan(rows["loss_mean"][~tracked]).all()
    assert math.isnan(rows["relative"][~tracked][0])
    bare, _ = table([r for r in records if not r.symmetry])
    assert "loss_mean" not in bare
    assert set(bare) < set(rows)


@pytest.mark.parametrize("column", ["loss_molecules", "loss_mean", "mse_mean", "mse_total", "loss_tracked"])
def test_laws_are_fitted_to_every_loss_of_a_folder(column, folder, capsys):
    """Would catch a law of L_mean that reads L: each column gives back the exponents that it was made with."""
    words = ["fit", str(folder), "--loss", column, "--floor", "zero", "--bootstrap", "0", "--json"]
    assert main(words) == 0
    text = capsys.readouterr().out
    values = json.loads(text)["parameters"]
    _, _, alpha, beta = TRUTH["loss" if column == "loss_molecules" else column]
    assert values["alpha"] == pytest.approx(alpha, abs=0.01)
    assert values["beta"] == pytest.approx(beta, abs=0.01)
    assert (f"{column} is missing" in text) == (column != "loss_molecules")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["plan", "--flops", "1e12", "--floor", "zero", "--bootstrap", "10"], "is missing"),
        (["compare", "--laws", "sum-power E zero,tied"], "is missing"),
        (["frontier", "--bootstrap", "10"], "is missing"),
        (["approaches", "--bootstrap", "10"], "three approaches"),
        (["extrapolate", "--floor", "zero"], "is missing"),
        (["specifications", "--laws", "sum-power E zero"], "is missing"),
    ],
    ids=lambda x: x[0] if isinstance(x, list) else "",
)
def test_every_law_command_takes_a_tracked_loss(words, says, folder, capsys):
    """Would catch a command that reads a folder by another way than the table."""
    code = main([words[0], str(folder), "--loss", "loss_mean", *words[1:]])
    told = capsys.readouterr()
    assert code == 0, told.err
    assert says in told.out.lower()
