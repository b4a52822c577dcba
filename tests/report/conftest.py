"""One study, analysed and written once, for all tests of the report."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import made
import pytest

SYNTHETIC = Path(__file__).parents[1] / "laws" / "synthetic.py"


@pytest.fixture(scope="session")
def synthetic():
    """The laws' factory of tables with known laws."""
    spec = importlib.util.spec_from_file_location("synthetic_tables", SYNTHETIC)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def study(synthetic):
    """Table, facts and the analyses of both validation sets, by the laws themselves."""
    from equiscale.laws import analyse

    table, facts = synthetic.table(seeds=2)
    facts["dropped"] = [
        {"run": "c01d", "architecture": "mpnn", "width": 112, "seed": 3, "reason": "diverged at step 2100"}
    ]
    probe = {
        "rate": 0.003,
        "batch": 4,
        "depth": 5,
        "width": 32,
        "structures": 2000,
        "flops": 1e10,
        "status": "finished",
    }
    grid = [
        {**probe, "early": 1.4, "late": 0.71},
        {**probe, "rate": 0.03, "status": "diverged", "early": 2.0, "late": None},
    ]
    facts["tuning"] = {
        "mpnn": {"grid": grid, "depths": [], "best": grid[0], "text": ["mpnn: best rate 0.003 with batch 4"]}
    }
    facts["config"] = {"mpnn": {"kind": "mpnn", "width": 8, "depth": 5, "elements": [1, 6, 8]}, "egnn": {"depth": 4}}
    facts |= {"title": "Does it scale?", "description": "A made-up study."}
    return table, facts, {v: analyse(table, facts, validation=v, resamples=40) for v in ("molecules", "conformers")}


@pytest.fixture(scope="session")
def written(study, tmp_path_factory):
    """The folder of a whole report."""
    from equiscale.report import write

    folder = tmp_path_factory.mktemp("report")
    assert write(*study, folder) == folder / "report.html"
    return folder


@pytest.fixture
def full(synthetic):
    """The same kind of study with analyses made by hand, to be taken apart."""
    table, facts = synthetic.table(seeds=2)
    truths = {a: synthetic.law(a) for a in ("mpnn", "egnn")}
    return table, facts, {v: made.analysis(table, facts, truths, v) for v in ("molecules", "conformers")}
