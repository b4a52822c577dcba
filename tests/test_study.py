"""Studies as people write them, folders as they find them, every bad input: one sentence, exit code 2, nothing lost."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from runs import ENVIRONMENT, refused, structures, tiny_spec, tiny_store, write_extxyz, write_study

from equiscale.cli import main
from equiscale.config import from_json, to_json
from equiscale.errors import InputError
from equiscale.ladder import Ladder, Study, largest, load_study
from equiscale.models import MPNNConfig
from equiscale.run import SCHEMA, DataSpec, RunRecord, checkpoint_path, load
from equiscale.train.record import train


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


# --- declaring -----------------------------------------------------------------------------------------------------


def test_a_ladder_lists_its_runs_smallest_first():
    ladder = Ladder(MPNNConfig(), (4, 8, 16, 32, 64), DataSpec(structures=8), seeds=(0,), extra_seeds=(1, 2))
    runs = ladder.runs()
    assert [(r.model.width, r.seed) for r in runs] == [
        (4, 0), (4, 1), (4, 2), (8, 0), (16, 0), (16, 1), (16, 2), (32, 0), (64, 0), (64, 1), (64, 2)
    ]  # fmt: skip
    assert len({r.key for r in runs}) == len(runs)
    assert {r.model.width for r in largest(runs)} == {64}
    assert largest(runs[:8]) == []  # too few widths to predict from


@pytest.mark.parametrize("widths", [(), (8, 4), (4, 4), (4, 8, 8)])
def test_widths_must_ascend(widths):
    with pytest.raises(ValidationError, match="must ascend"):
        Ladder(MPNNConfig(), widths, DataSpec())


def test_other_mistakes_in_a_declaration():
    ladder = Ladder(MPNNConfig(), (4,), DataSpec(structures=8))
    with pytest.raises(ValidationError, match="distinct"):
        replace(ladder, extra_seeds=(0,))
    with pytest.raises(ValidationError, match="has no ladder"):
        Study("x", ())
    for name in ("", "a/b", "a b", "../x"):
        with pytest.raises(ValidationError, match="becomes a folder"):
            Study(name, (ladder,))
    with pytest.raises(InputError, match="hold the same run"):
        Study("x", (ladder, ladder)).runs({("builtin", ()): "0"})


def test_a_study_survives_json(tmp_path):
    study = load_study(write_study(tmp_path))
    assert from_json(Study, to_json(Study, study), "study") == study


BROKEN = {
    "syntax": ("STUDY = Study(\n  name='x'\nx = = 2\n", r"study.py, line \d"),
    "unknown field": (
        "from equiscale.models import MPNNConfig\n\nM = MPNNConfig(widht=3)\n",
        r"study.py, line 3: MPNNConfig: 'widht' is not a field",
    ),
    "wrong type": (
        "from equiscale.run import DataSpec\nD = DataSpec(structures='many')\n",
        r"study.py, line 2: DataSpec: structures — .*'many'",
    ),
    "no STUDY": ("x = 1\n", r"study.py sets no STUDY"),
    "something else": ("STUDY = 3\n", r"study.py sets no STUDY"),
    "own mistake": ("a = 1\nb = a / 0\n", r"study.py, line 2: ZeroDivisionError"),
    "import": ("import nonsense_nowhere\n", r"study.py, line 1: ModuleNotFoundError.*nonsense_nowhere"),
    "declaration": (
        "from equiscale.ladder import Ladder\nfrom equiscale.models import MPNNConfig\n"
        "from equiscale.run import DataSpec\n\nL = Ladder(MPNNConfig(), (8, 4), DataSpec())\n",
        r"study.py, line 5: Ladder: widths of the mpnn ladder must ascend",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_study_is_one_sentence_with_the_line(what, here, capsys):
    import re

    text, expected = BROKEN[what]
    (here / "study.py").write_text(text)
    for command in ("run", "dry-run"):
        said = refused(capsys, command, "study.py")
        assert re.search(expected, said), said
    assert not (here / "results").exists()


def test_a_missing_study(here, capsys):
    assert "there is no study nothing.py" in refused(capsys, "run", "nothing.py")
    assert "there is no study" in refused(capsys, "run", here)


# --- data ----------------------------------------------------------------------------------------------------------


def altered(index: int, **changes):
    made = structures(60)
    made[index] = replace(made[index], **{k: v(made[index]) if callable(v) else v for k, v in changes.items()})
    return made


def spoil(values, value):
    values = np.array(values, dtype=float)
    values.flat[0] = value
    return values


def coincide(s):
    x = s.positions.copy()
    x[1] = x[0]
    return x


def far_atom(s):
    x = s.positions.copy()
    x[0] += 50.0
    return x


BAD_DATA = {
    "not extxyz": (lambda p: p.write_text("# a text\nwith lines\n"), {}, "not an extxyz file"),
    "binary": (lambda p: p.write_bytes(bytes(range(256)) * 20), {}, "not an extxyz file"),
    "empty": (lambda p: p.write_text(""), {}, "is empty"),
    "missing": (lambda p: None, {}, "there is no file"),
    "a folder": (lambda p: p.mkdir(), {}, "is a folder"),
    "no such energy key": (
        lambda p: write_extxyz(p, structures(60)), {"energy_key": "REF_energy"}, "no energy under .REF_energy."),
    "no such group key": (
        lambda p: write_extxyz(p, structures(60)), {"group_key": "smiles"}, "no group under 'smiles'"),
    "no forces": (lambda p: write_extxyz(p, structures(60), forces=""), {}, "no forces under 'forces'"),
    "no energy": (lambda p: write_extxyz(p, structures(60), energy=""), {}, "no energy under 'energy'"),
    "NaN force": (
        lambda p: write_extxyz(p, altered(3, forces=lambda s: spoil(s.forces, np.nan))), {}, "structure 3 .* NaN"),
    "infinite position": (
        lambda p: write_extxyz(p, altered(3, positions=lambda s: spoil(s.positions, np.inf))), {}, "structure 3 "),
    "NaN energy": (lambda p: write_extxyz(p, altered(3, energy=float("nan"))), {}, "structure 3 .* NaN"),
    "coincident": (
        lambda p: write_extxyz(p, altered(3, positions=coincide)), {}, "structure 3 .* two atoms at one place"),
    "alone": (lambda p: write_extxyz(p, altered(3, positions=far_atom)), {}, "cutoff of 8 Å leaves an atom"),
    "one molecule": (
        lambda p: write_extxyz(p, [replace(s, group="g") for s in structures(60)]), {}, "at least 3 groups"),
    "too few": (lambda p: write_extxyz(p, structures(12)), {}, "wants 24 training structures, the set .* has"),
    "unknown option": (lambda p: write_extxyz(p, structures(60)), {"enregy_key": "energy"}, "no option enregy_key"),
}  # fmt: skip


@pytest.fixture
def in_process(monkeypatch):
    """Workers in this process: their start takes seconds, and what is tested is what they raise."""
    from runs import here

    monkeypatch.setattr("equiscale.launch.local.local_processes", here)
    monkeypatch.setattr("equiscale.dry_run.local_processes", here)


@pytest.mark.parametrize("what", BAD_DATA)
def test_bad_data_is_one_sentence(what, here, capsys, in_process):
    import re

    make, keys, expected = BAD_DATA[what]
    study = write_study(here)
    data = here / "data.xyz"
    data.unlink()
    make(data)
    if keys:
        whole = {"group_key": "group", **keys}
        study.write_text(study.read_text().replace('(("group_key", "group"),)', repr(tuple(whole.items()))))
    said = refused(capsys, "run", "study.py", "--workers", "1")
    assert re.search(expected, said), said
    assert not list((here / "results").rglob("????????????????.json"))
    # Inspecting needs no split and no study, and reads folders.
    if what not in ("alone", "one molecule", "too few", "no such group key", "unknown option", "a folder"):
        options = [w for k, v in keys.items() for w in (f"--{k.replace('_', '-')}", v)]
        assert re.search(expected, refused(capsys, "data", "inspect", data, *options))


def test_an_element_without_a_reference(here, capsys, in_process):
    """Isolated atoms given for some elements only; and an element that only validation has."""
    study = write_study(here)
    study.write_text(study.read_text().replace("structures=24,", "structures=24, references='isolated_atoms',"))
    assert "no isolated atom of H" in refused(capsys, "run", "study.py", "--workers", "1")


def test_an_element_that_only_validation_has():
    from equiscale.train.force_field import ForceField

    made = structures(44)
    made[-1] = replace(made[-1], numbers=np.full(len(made[-1]), 16))
    from equiscale.data.store import Store

    store = Store.from_structures(made, [0] * 32 + [1] * 6 + [2] * 6)
    with pytest.raises(InputError, match="no energy reference for S"):
        ForceField.of(tiny_spec(), store)


def test_an_element_the_potential_does_not_know(here, capsys, in_process):
    study = write_study(here)
    study.write_text(study.read_text().replace("elements=(1, 6, 7, 8)", "elements=(1, 6)"))
    said = refused(capsys, "run", "study.py", "--workers", "1")
    assert "holds N, O, which the `elements` of the mpnn leave out" in said


# --- results folders -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A study of two runs each of two ladders, trained; the report is tested elsewhere."""
    folder = tmp_path_factory.mktemp("trained")
    write_study(folder)
    done = subprocess.run(
        [sys.executable, "-m", "equiscale.cli", "run", "study.py", "--workers", "2", "--no-report"],
        cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    (folder / "results" / "tiny" / "report.html").write_text("written")
    return folder, done


@pytest.fixture
def finished(trained, tmp_path, monkeypatch):
    """A copy of it to damage."""
    shutil.copytree(trained[0], tmp_path / "copy")
    path = tmp_path / "copy" / "study.py"
    monkeypatch.chdir(trained[0])  # the study names its data by the path it had
    return path, tmp_path / "copy" / "results" / "tiny"


def records(folder: Path) -> list[Path]:
    return [p for p in sorted(folder.glob("*.json")) if len(p.stem) == 16]


def test_a_study_runs(trained):
    folder, done = trained
    assert done.returncode == 0, done.stderr
    results = folder / "results" / "tiny"
    assert len(records(results)) == 4
    assert "4 runs, 0 recorded, 4 to train" in done.stdout
    assert not list(results.rglob("*.partial"))
    assert not list(results.rglob("unfinished.pt"))
    assert not list(results.glob("*.claim*"))


def test_a_second_run_says_so_and_imports_no_torch(trained):
    folder, _ = trained
    code = (
        "import sys; from equiscale.cli import main; code = main(['run', 'study.py']);"
        "print('torch' in sys.modules); sys.exit(code)"
    )
    before = {p: p.stat().st_mtime_ns for p in (folder / "results").rglob("*") if p.is_file()}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "nothing to do" in done.stdout
    assert done.stdout.strip().endswith("False")
    assert {p: p.stat().st_mtime_ns for p in (folder / "results").rglob("*") if p.is_file()} == before


def test_import_loads_neither_torch_nor_pydantic():
    code = "import sys, equiscale; print(sorted({'torch', 'pydantic', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_status(finished, capsys):
    _, folder = finished
    assert main(["status", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "tiny: 4 of 4 runs recorded" in said
    assert said.count("recorded  L") == 4
    key = records(folder)[0].stem
    records(folder)[0].unlink()
    checkpoint_path(folder, key).joinpath("unfinished.pt").write_bytes(b"")
    assert main(["status", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "3 of 4" in said
    assert "goes on from its checkpoint" in said


def test_a_results_folder_of_another_version(finished, capsys):
    study, folder = finished
    about = json.loads((folder / "study.json").read_text())
    (folder / "study.json").write_text(json.dumps({**about, "schema": SCHEMA + 1}))
    for words in (["run", study, "--results", folder], ["status", folder], ["fit", folder], ["report", folder],
                  ["plan", folder, "--flops", "1e12"]):  # fmt: skip
        assert f"schema version {SCHEMA + 1}, this equiscale reads {SCHEMA}" in refused(capsys, *words)
    (folder / "study.json").write_text(json.dumps(about))
    record = json.loads(records(folder)[0].read_text())
    record["spec"]["schema_version"] = SCHEMA + 1
    records(folder)[0].write_text(json.dumps(record))
    assert "schema version" in refused(capsys, "fit", folder)


def test_a_results_folder_of_another_study(finished, capsys):
    study, folder = finished
    study.write_text(study.read_text().replace('"tiny"', '"other"'))
    assert "holds the study 'tiny', not 'other'" in refused(capsys, "run", study, "--results", folder)
    (folder / "study.json").unlink()
    study.write_text(study.read_text().replace("(4, 8)", "(4, 6)"))
    assert "has no study.json, and 2 records that are not" in refused(capsys, "run", study, "--results", folder)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "{}", '{"schema": 1}', '{"schema": 1, "study": {}, "runs": []}']
)
def test_a_damaged_study_json(text, finished, capsys):
    study, folder = finished
    (folder / "study.json").write_text(text)
    for words in (["status", folder], ["fit", folder], ["run", study, "--results", folder]):
        assert "study.json" in refused(capsys, *words)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"spec": {"schema_version": 1}}', "half"])
def test_a_damaged_record_is_named(text, finished, capsys):
    """It is never half-read; a rerun after removing it trains that run again."""
    _, folder = finished
    path = records(folder)[1]
    whole = path.read_text()
    path.write_text(whole[: len(whole) // 2] if text == "half" else text)
    for command in ("fit", "status", "report"):
        assert path.name in refused(capsys, command, folder)


@pytest.mark.parametrize("name", ["timing", "prediction", "tuning"])
def test_damaged_small_files_are_named(name, finished, capsys):
    study, folder = finished
    (folder / f"{name}.json").write_text("{")
    if name == "timing":  # only `run` reads it, and only while something is missing
        records(folder)[0].unlink()
    words = ("run", study, "--results", folder) if name == "timing" else ("fit", folder)
    assert f"{name}.json is damaged" in refused(capsys, *words)


def test_places_that_are_no_results(here, capsys):
    assert "not a results folder" in refused(capsys, "status", "nowhere")
    assert "not a results folder" in refused(capsys, "fit", here)
    write_study(here)
    (here / "file").write_text("")
    assert "is a file" in refused(capsys, "run", "study.py", "--results", "file")


def test_a_study_with_no_record_yet(finished, capsys):
    _, folder = finished
    for path in records(folder):
        path.unlink()
    for words in (["fit", folder], ["report", folder], ["plan", folder, "--flops", "1e12"]):
        assert "holds no record yet" in refused(capsys, *words)


def test_a_study_whose_every_run_diverged(finished, capsys):
    _, folder = finished
    for path in records(folder):
        record = replace(load(path), status="diverged", reason="as a test")
        path.write_bytes(to_json(RunRecord, record))
    assert "every run in" in refused(capsys, "fit", folder)
    assert main(["status", str(folder)]) == 0
    assert "diverged: as a test" in capsys.readouterr().out


def test_plans_that_cannot_be_made(finished, capsys):
    _, folder = finished
    assert refused(capsys, "plan", folder, "--hours", "10", "--hardware", "Cray-1")
    for budget in (["--flops", "-1"], ["--flops", "nan"], ["--flops", "0"], ["--hours", "inf"]):
        refused(capsys, "plan", folder, *budget)


def test_numbers_that_make_no_sense(finished, capsys):
    study, folder = finished
    for command in ("run", "dry-run", "tune"):
        assert "--workers must be at least 1" in refused(capsys, command, study, "--workers", "0")
    assert "has no run with width 5" in refused(capsys, "train", study, "--width", "5")
    assert refused(capsys, "fit", folder, "--exclude-below", "7")
    assert refused(capsys, "fit", folder, "--resamples", "-3")


def test_a_run_that_another_process_trains(here, capsys):
    """`equiscale train` beside an `equiscale run` that has the same rung: who has it, in one sentence."""
    from equiscale.claim import take
    from equiscale.study import data_hashes

    study = load_study(write_study(here, widths=(4,)))
    run = next(r for r in study.runs(data_hashes(study)) if r.model.kind == "mpnn")
    (here / "results" / "tiny").mkdir(parents=True)
    with take(here / "results" / "tiny" / f"{run.key}.claim"):
        said = refused(capsys, "train", "study.py", "--architecture", "mpnn", "--width", "4")
    assert f"is trained by process {os.getpid()} on " in said


def test_a_gpu_that_is_not_there(here, capsys, in_process):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is one")
    write_study(here)
    assert "cuda" in refused(capsys, "run", "study.py", "--workers", "1", "--device", "cuda")
    assert "device" in refused(capsys, "run", "study.py", "--workers", "1", "--device", "abacus")


# --- full disk -----------------------------------------------------------------------------------------------------

LIMITED = """
import resource, sys
from equiscale.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
sys.exit(main(["run", "study.py", "--workers", "1"]))
"""


def test_a_full_disk_loses_nothing(trained, tmp_path, monkeypatch, capsys, in_process):
    """Writing fails midway, of whatever file: exit code 2, one sentence, what was recorded stays, a rerun completes."""
    import errno

    folder, _ = trained
    monkeypatch.chdir(folder)
    results = tmp_path / "results"
    words = ["run", "study.py", "--workers", "1", "--results", str(results)]
    reference = {p.name: load(p).without_clock() for p in records(folder / "results" / "tiny")}
    monkeypatch.setattr("equiscale.cli.training.write_report", lambda results: None)
    real, left = os.fsync, [0]

    def fsync(descriptor):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    kept: dict[str, bytes] = {}
    for room in (0, 1, 3, 5, 4, 8):
        left[0] = room
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fsync)
            said = refused(capsys, *words)
        assert "No space left on device" in said
        assert "kept" in said
        assert not list(results.rglob("*.partial"))
        now = {p.name: p.read_bytes() for p in records(results)} if results.exists() else {}
        assert kept.items() <= now.items()
        kept = now
    assert 0 < len(kept) < 4
    assert main(words) == 0
    assert {p.name: load(p).without_clock() for p in records(results)} == reference


def test_a_full_disk_in_a_worker_process(trained, tmp_path):
    """The same with processes and a limit of the system: no traceback from either side."""
    folder, _ = trained
    shutil.copytree(folder, tmp_path / "copy")
    results = tmp_path / "copy" / "results" / "tiny"
    first, *others = records(results)
    for path in others:
        path.unlink()
    whole = first.read_bytes()
    code = LIMITED.format(limit=20_000)  # study.json fits, a checkpoint does not
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path / "copy", env=ENVIRONMENT, capture_output=True,
                          text=True, timeout=60)  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert "File too large" in done.stderr
    assert first.read_bytes() == whole


def test_the_disk_is_full_while_training(tmp_path, monkeypatch):
    """Through ``train`` itself: the checkpoint that was whole stays whole."""
    import errno

    spec, store = tiny_spec(linear_points=16), tiny_store()
    full = [False]
    real = os.fsync

    def fsync(descriptor):
        if full[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)

    def tell(progress):
        full[0] = progress.step >= 8

    with pytest.raises(InputError, match="No space left"):
        train(spec, store, tmp_path, tell=tell, checkpoint_every=0.0)
    full[0] = False
    record = train(spec, store, tmp_path)
    assert record.without_clock() == train(spec, store, tmp_path / "undisturbed").without_clock()


def test_a_ladder_s_largest_waits_for_its_own_ladder_alone(here, monkeypatch):
    """Would catch a largest rung that is trained before it is predicted, and one that waits for the other ladder."""
    from runs import here as launcher_here

    from equiscale.launch import Local
    from equiscale.results import Results
    from equiscale.study import run_study

    study = load_study(write_study(here, structures=12, widths=(2, 3, 4, 5, 6)))
    results, began, told = Results(here / "results"), [], []

    def launch(work, items, workers):
        for event in launcher_here(work, items):
            if event.kind == "started" and hasattr(event.item, "spec"):
                began.append(event.item.spec)
                told.append({p["architecture"] for p in results.predictions()})
            yield event

    monkeypatch.setattr("equiscale.launch.local.local_processes", launch)
    seconds = {("mpnn", 6): 1e6}  # so the MPNN's largest comes first as soon as it may
    monkeypatch.setattr(
        "equiscale.study.run_seconds",
        lambda results, device, runs, steps: {
            r.key: seconds.get((r.model.kind, r.model.width), 1e3 if r.model.kind == "mpnn" else 1.0) for r in runs
        },
    )
    assert run_study(study, results, launcher=Local(1), say=lambda text: None)
    order = [(spec.model.kind, spec.model.width) for spec in began]
    assert {kind for kind, _ in order[:4]} == {"mpnn"}
    assert order[4] == ("mpnn", 6)
    assert told[4] == {"mpnn"}
    assert order[-1] == ("egnn", 6)
    assert told[-1] == {"mpnn", "egnn"}
    assert len(results.records()) == 10
