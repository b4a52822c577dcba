"""Fixtures of the whole suite."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The developers' shared folder (papers' tables, files as people download them); absent for a user."""
    folder = Path(os.environ.get("EQUISCALE_SHARED", ROOT.parent / "shared"))
    if not (folder / "reference").is_dir():
        pytest.skip("no shared folder: set EQUISCALE_SHARED, or place it beside the repository")
    return folder
