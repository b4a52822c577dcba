"""averages, exponents and gap of a folder, as somebody meets them who has measured or tracked."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from runs import refused

from equiscale.cli import main
from equiscale.results import Results
from equiscale.run import SymmetryPoint, save

ROOT = Path(__file__).parents[1]
SHARE = 0.10  # of the loss that broken symmetry makes
SQUARED = 0.19  # of the squared error


def told(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    capsys.readouterr()
    code = main([str(w) for w in words])
    out = capsys.readouterr()
    assert code == 0, out.err
    return out.out


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study of this repository as if it had been tracked: mpnn loses a tenth to broken symmetry, egnn nothing; the
    last of the runs was not tracked."""
    made = tmp_path_factory.mktemp("results") / "tracked"
    made.mkdir()
    source = Results(ROOT / "results/laptop")
    (made / "study.json").write_text((source.folder / "study.json").read_text())
    records = source.records()
    for record in records:
        rng = np.random.default_rng(record.parameters)
        part = 1 - SHARE if record.spec.architecture == "mpnn" else 1.0
        points = []
        for look in record.curve:
            loss = look.molecules.loss
            mean = loss * part * float(np.exp(0.002 * rng.normal())) if part < 1 else loss
            total = loss**2
            equiv = total * (SQUARED if part < 1 else 0.0)
            points.append(
                SymmetryPoint(
                    step=look.step, structures=look.structures, atoms=look.atoms, flops_model=look.flops_model,
                    total=total, mean=total - equiv, equiv=equiv, equiv_error=0.05 * equiv,
                    percent=100 * equiv / total, percent_error=0.8, size=1.0, loss=loss, loss_mean=mean,
                )
            )  # fmt: skip
        last = record is records[-1]
        save(replace(record, symmetry=() if last else tuple(points)), made)
    return made


# --- gap -----------------------------------------------------------------------------------------------------------


def test_gaps_of_a_folder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """k of each tracked run by the gamma that is given; the run without a look is named, not lost."""
    made = json.loads(told(capsys, "gap", folder, "--gamma", 0.15, "--gamma-error", 0.01, "--json"))
    names = {row["architecture"] for row in made["runs"]}
    assert names == {"mpnn", "egnn"}
    assert len(made["runs"]) == 31
    assert list(made["without"].values()) == ["its broken symmetry was not tracked."]
    for row in made["runs"]:
        expected = (1 / (1 - SHARE)) ** (1 / 0.15) if row["architecture"] == "mpnn" else 1.0
        assert row["k"]["value"] == pytest.approx(expected, rel=0.06)
        assert {"N", "D", "width", "name"} <= set(row)
    text = told(capsys, "gap", folder, "--gamma", 0.15)
    assert "no error: intervals are of gamma alone" in text
    assert "was not tracked" in text


def test_gap_takes_the_folders_own_gamma(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The law that the folder's analysis believes, on the folder's losses."""
    made = json.loads(told(capsys, "gap", folder, "--architecture", "egnn", "--json"))
    gamma = made["gamma"]["egnn"]
    assert gamma["value"] == pytest.approx(0.22, abs=0.02)
    assert gamma["interval"]["low"] < gamma["value"] < gamma["interval"]["high"]


def test_squared_error_has_an_exponent_of_its_own(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both losses in one metric: the squared error here is eq. 1's square, and so is its gamma twice .22. Would catch
    gamma of eq. 1 applied to squared errors, which squares k."""
    made = json.loads(told(capsys, "gap", folder, "--architecture", "egnn", "--loss", "squared", "--json"))
    assert made["gamma"]["egnn"]["value"] == pytest.approx(0.44, abs=0.05)


def test_the_shares_error_is_in_the_interval(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a gamma without error the interval is the share's: d ln k = (error / (1 - share)) / gamma."""
    words = ("gap", folder, "--architecture", "mpnn", "--gamma", 0.3, "--loss", "squared", "--json")
    (row, *_) = json.loads(told(capsys, *words))["runs"]
    assert row["k"]["value"] == pytest.approx((1 / (1 - SQUARED)) ** (1 / 0.3))
    half = 1.96 * 0.008 / (1 - SQUARED) / 0.3
    assert np.log(row["k"]["interval"]["high"] / row["k"]["value"]) == pytest.approx(half, rel=0.15)


def test_three_numbers_are_a_gap_as_before(capsys: pytest.CaptureFixture[str]) -> None:
    made = json.loads(told(capsys, "gap", 0.3, 0.27, 0.15, "--json"))
    assert made["k"]["value"] == pytest.approx((0.3 / 0.27) ** (1 / 0.15))
    assert "three numbers" in refused(capsys, "gap", 0.3, 0.27)
    assert "three numbers" in refused(capsys, "gap", 0.3, 0.27, "x")
    assert "folder" in refused(capsys, "gap", 0.3, 0.27, 0.15, "--gamma", 0.2)


def test_a_folder_that_was_not_tracked(capsys: pytest.CaptureFixture[str]) -> None:
    assert "no run" in refused(capsys, "gap", ROOT / "results/laptop", "--gamma", 0.2)
    assert "Tracking()" in refused(capsys, "exponents", ROOT / "results/laptop")


# --- exponents -----------------------------------------------------------------------------------------------------


def test_exponents_side_by_side(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A tenth of the loss at every N and D changes no exponent: the paired interval is narrow, and contains zero."""
    words = ("exponents", folder, "--architecture", "mpnn", "--bootstrap", 100)
    made = json.loads(told(capsys, *words, "--json"))["architectures"]["mpnn"]
    for name in ("alpha", "beta", "gamma"):
        change = made["changes"][name]
        span = change["difference"]["interval"]
        assert span["low"] < 0 < span["high"]
        assert span["high"] - span["low"] < change["first"]["interval"]["high"] - change["first"]["interval"]["low"]
    text = told(capsys, *words)
    assert "not distinguishable" in text
    assert "eq. 1" in text
    assert "there is no architecture" in refused(capsys, "gap", folder, "--architecture", "nequip")
    assert "tracked no" in refused(capsys, "exponents", folder, "--architecture", "nequip")


# --- averages ------------------------------------------------------------------------------------------------------


def test_a_folder_on_the_plateau_is_told_so(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Would catch two gammas of one folder without a word: `gap` takes that of the law with a plateau."""
    words = ("exponents", folder, "--architecture", "mpnn", "--bootstrap", 0)
    assert "ask for --law plateau" in told(capsys, *words)
    assert json.loads(told(capsys, *words, "--json"))["on_plateau"] == ["mpnn"]
    said = told(capsys, *words, "--law", "sum-power")
    assert "ask for --law plateau" not in said
    assert "[" not in said.split("change")[1].split("gamma")[1].splitlines()[0]  # --bootstrap 0: no intervals


def test_gaps_that_cannot_be(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Would catch an empty table with a success's exit code."""
    assert "--gamma is a finite positive number" in refused(capsys, "gap", folder, "--gamma", -1)
    assert "--gamma is a finite positive number" in refused(capsys, "gap", folder, "--gamma", "nan")
    assert "add --gamma" in refused(capsys, "gap", folder, "--gamma-error", 0.1)
    assert "tells a gap" in refused(capsys, "gap", folder, "--gamma", 0.2, "--floor", 5)


def curve(n: float, *, noise: float = 0.0, seed: int = 0) -> tuple[float, float]:
    u = noise * np.random.default_rng(seed).normal()
    term = 10**1.356 * n**-0.276
    return (0.255 + 0.9 * term) * float(np.exp(u)), 0.1 * term * float(np.exp(u))


SIZES = np.geomspace(4e5, 6e7, 6)


def run(i: int, loss: str = "squared", **fields: object) -> dict:
    mean, equiv = curve(SIZES[i], noise=0.005, seed=i)
    rows = [{"rotations": m, "loss": mean + equiv / m, "error": 0.01 * mean} for m in (1, 2, 8, 32)]
    return {"run": f"mpnn-{i}", "architecture": "mpnn", "N": SIZES[i], "D": 9.2e8, "loss": loss, "mean": mean,
            "equiv": equiv, "averages": rows, **fields}  # fmt: skip


def test_averages_of_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"runs": [run(i) for i in range(3)]}))
    (tmp_path / "b.json").write_text(json.dumps({"runs": [run(i) for i in range(3, 6)]}))
    (tmp_path / "other.json").write_text('{"x": 1}')  # not ours, not in the way
    text = told(capsys, "averages", tmp_path, "--floor", 0.223, "--floor", "0.255,0.25", "--bootstrap", 60)
    assert "no measured point contradicts it" in text
    assert "0.223 given" in text
    assert "0.255, 0.25 given" in text
    assert "M = 32" in text
    made = json.loads(told(capsys, "averages", tmp_path / "a.json", tmp_path / "b.json", "--json", "--rotations", 8))
    assert made["sizes"]["mpnn"]["names"] == ["M = 1", "M = 8"]
    assert all(r["check"]["agrees"] for r in made["runs"])
    everything = json.loads(told(capsys, "averages", tmp_path, "--rotations", "inf", "--bootstrap", 40, "--json"))
    assert everything["sizes"]["mpnn"]["averaged"][0] == pytest.approx(run(0)["mean"])


def test_averages_of_a_csv(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = ["run,N,M,loss"]
    for i in range(6):
        lines += [f"{i},{SIZES[i]},{p['rotations']},{p['loss']}" for p in run(i)["averages"]]
    path = tmp_path / "averages.csv"
    path.write_text("\n".join(lines) + "\n")
    text = told(capsys, "averages", path, "--bootstrap", 60, "--figure", tmp_path / "averages.png")
    assert "leading order" in text
    assert "fitted to L(M)" in text
    assert (tmp_path / "averages.png").stat().st_size > 10_000
    assert "exact" in told(capsys, "averages", path, "--squared", "--bootstrap", 60)
    path.write_text("run,N,loss\n1,2,3\n")
    assert "no column 'M'" in refused(capsys, "averages", path)


def test_runs_at_another_depth_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Eq. 24 is at one D: would catch short runs in the fit."""
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"runs": [run(i) for i in range(5)] + [run(5, D=1e8)]}))
    text = told(capsys, "averages", path, "--bootstrap", 40)
    assert "over 5 runs" in text
    assert "1 runs at another D" in text


def test_what_cannot_be_told_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"runs": [run(i, N=None) for i in range(6)]}))
    assert "name the runs' folder with --results" in told(capsys, "averages", path)
    assert "--floor is of eq. 24" in refused(capsys, "averages", path, "--floor", 0.2)
    path.write_text(json.dumps({"runs": [run(i) for i in range(3)]}))
    assert "at least 4 are needed" in told(capsys, "averages", path)
    path.write_text(json.dumps({"runs": [run(i) for i in range(6)]}))
    assert "not below the least loss" in refused(capsys, "averages", path, "--floor", 0.9)
    assert "not understood" in refused(capsys, "averages", path, "--floor", "x")
    assert "zero or more" in refused(capsys, "averages", path, "--floor", -1)
    assert "averages nothing" in refused(capsys, "averages", path, "--rotations", 1)
    assert "no architecture 'egnn'" in refused(capsys, "averages", path, "--architecture", "egnn")
    path.write_text("{")
    assert "damaged" in refused(capsys, "averages", path)
    assert "cannot be read" in refused(capsys, "averages", tmp_path / "none.json")
    (tmp_path / "empty").mkdir()
    assert "holds no averages" in refused(capsys, "averages", tmp_path / "empty")


def test_losses_are_not_mixed_and_runs_not_doubled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder with measurements of two losses, or the same run twice: would catch both in one fit."""
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"runs": [run(0), run(1, "study")]}))
    assert "several losses (squared, study)" in refused(capsys, "averages", path)
    path.write_text(json.dumps({"runs": [run(0, key="a" * 16), run(0, key="a" * 16)]}))
    assert "is there twice" in refused(capsys, "averages", path)


def test_one_run_in_twenty_is_off_by_chance(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of many runs the largest deviation is judged as the largest of all: would catch a verdict for each alone."""
    path = tmp_path / "a.json"
    made = [run(i % 6) for i in range(20)]
    made[3]["averages"][3]["loss"] += 2.7 * made[3]["averages"][3]["error"]
    path.write_text(json.dumps({"runs": made[3:4]}))
    assert "not so in mpnn-3" in told(capsys, "averages", path, "--bootstrap", 0)
    path.write_text(json.dumps({"runs": made}))
    assert "no measured point contradicts it" in told(capsys, "averages", path, "--bootstrap", 0)


def test_size_and_data_come_from_the_records(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The measuring command names runs as they are spoken of: would catch a name that no longer matches."""
    records = [r for r in Results(folder).records() if r.spec.architecture == "mpnn"]
    rows = [
        {"run": str(r.spec), "loss": "squared", "mean": 0.9 * loss, "equiv": 0.1 * loss,
         "averages": [{"rotations": m, "loss": 0.9 * loss + 0.1 * loss / m} for m in (1, 16)]}
        for r in records for loss in [r.final_molecules.loss]
    ]  # fmt: skip
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"runs": rows}))
    made = json.loads(told(capsys, "averages", path, "--results", folder, "--bootstrap", 40, "--json"))
    assert sorted(made["sizes"]["mpnn"]["N"]) == sorted(float(r.parameters) for r in records)


def test_exponents_off_the_plateau(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """mpnn begins at the trivial predictor's loss: the law with a plateau sees every look, from the first on."""
    words = ("exponents", folder, "--architecture", "mpnn", "--bootstrap", 60, "--json")
    plain = json.loads(told(capsys, *words))["architectures"]["mpnn"]
    off = json.loads(told(capsys, *words, "--law", "plateau"))["architectures"]["mpnn"]
    assert off["rows"] > plain["rows"]
    assert set(off["changes"]) == {"alpha", "beta", "gamma"}
    assert off["changes"]["gamma"]["first"]["value"] == pytest.approx(0.19, abs=0.03)
