"""Ladders and studies: runs that differ only in scale, declared in Python, and what they will cost before they run."""

import os
import runpy
import sys
import traceback
from collections.abc import Mapping
from dataclasses import field, replace
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from equiscale.config import config, explain, later
from equiscale.errors import InputError
from equiscale.models import ModelConfig
from equiscale.run import DataSpec, EvalSpec, OptimSpec, Remedy, RunSpec, Source, resolved


@config
class Tuning:
    """What `equiscale tune` tries: a grid of rate × batch at each ladder's base width, and a probe of the depth.

    Equal compute for every architecture, not equal data: ``flops`` decides how many structures a grid point sees.
    """

    rates: tuple[float, ...] = (3e-3, 1e-2, 3e-2)
    batches: tuple[int, ...] = (4, 8)
    depths: tuple[int, ...] = (3, 4, 5)
    flops: float = 1e11  # flops_model of each single run of the grid, equal for every architecture


@config
class Ladder:
    """One architecture at every width on one data set; each run's curve serves every D up to its own."""

    model: ModelConfig
    widths: tuple[int, ...]
    data: DataSpec
    optim: OptimSpec = OptimSpec()
    evaluation: EvalSpec = EvalSpec()
    seeds: tuple[int, ...] = (0,)
    extra_seeds: tuple[int, ...] = ()  # at the smallest, the middle and the largest width
    dtype: Literal["float32", "tf32", "bf16"] = "float32"
    remedy: Remedy | None = later(None)
    variant: str = later("")  # added to its name, where data, batch or optimiser set it apart from another ladder

    def __post_init__(self) -> None:
        if not self.widths or sorted(set(self.widths)) != list(self.widths):
            raise InputError(f"widths of the {self.model.kind} ladder must ascend without repeats, not {self.widths}.")
        if not self.seeds or set(self.seeds) & set(self.extra_seeds):
            raise InputError(f"seeds {self.seeds} and extra_seeds {self.extra_seeds} must be distinct and not empty.")

    @property
    def architecture(self) -> str:
        """Its name in tables."""
        return self.runs()[0].architecture

    def runs(self) -> list[RunSpec]:
        """Every run, smallest width first; content hashes are filled in by ``Study.runs``."""
        seeded = {self.widths[0], self.widths[len(self.widths) // 2], self.widths[-1]}
        return [
            RunSpec(
                replace(self.model, width=width),
                self.data,
                self.optim,
                self.evaluation,
                self.dtype,
                seed,
                remedy=self.remedy,
                variant=self.variant,
            )
            for width in self.widths
            for seed in self.seeds + (self.extra_seeds if width in seeded else ())
        ]


@config
class Study:
    """A named set of ladders; its results lie in ``results/<name>``."""

    name: str
    ladders: tuple[Ladder, ...]
    title: str = ""
    description: str = ""
    exclude_below: float = 0.03  # of D_max: rows before it enter no fit; the same rule for all architectures
    tuning: Tuning = field(default_factory=Tuning)

    def __post_init__(self) -> None:
        if not self.name or not all(c.isalnum() or c in "-_." for c in self.name):
            raise InputError(f"a study's name becomes a folder: letters, digits, '-', '_' and '.', not {self.name!r}.")
        if not self.ladders:
            raise InputError(f"the study {self.name!r} has no ladder.")

    def runs(self, hashes: Mapping[Source, str]) -> list[RunSpec]:
        """Every run of every ladder, with the content hash of its data set (``hashes`` by source)."""
        runs = [resolved(run, hashes[run.data.source]) for ladder in self.ladders for run in ladder.runs()]
        if len({run.key for run in runs}) != len(runs):
            raise InputError(f"two ladders of the study {self.name!r} hold the same run.")
        return runs


def largest(runs: list[RunSpec]) -> list[RunSpec]:
    """The runs of each architecture's largest width, which are predicted before they are trained (none where there
    are fewer than four widths to predict from)."""
    widths: dict[str, set[int]] = {}
    for run in runs:
        widths.setdefault(run.architecture, set()).add(run.model.width)
    return [r for r in runs if len(w := widths[r.architecture]) >= 5 and r.model.width == max(w)]


def preset(*names: str) -> str:
    """Which of a study's presets is asked for: ``EQUISCALE_PRESET``, by default the first. InputError for another."""
    chosen = os.environ.get("EQUISCALE_PRESET", names[0])
    if chosen not in names:
        raise InputError(f"EQUISCALE_PRESET is one of {', '.join(names)}, not {chosen!r}.")
    return chosen


def load_study(path: str | Path) -> Study:
    """Run a study's Python file and return its ``STUDY``; whatever is wrong in it is one sentence with the line."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no study {path}: give the path of a Python file that sets STUDY.")
    try:
        space = runpy.run_path(str(path))
    except InputError as error:
        raise InputError(f"{path}{_line(path)}: {error}") from None
    except ValidationError as error:
        raise InputError(str(explain(error, f"{path}{_line(path)}: {error.title}"))) from None
    except SyntaxError as error:
        raise InputError(f"{path}, line {error.lineno}: {error.msg}.") from None
    except Exception as error:
        raise InputError(f"{path}{_line(path)}: {type(error).__name__}: {error}.") from None
    study = space.get("STUDY")
    if not isinstance(study, Study):
        raise InputError(f"{path} sets no STUDY: end it with `STUDY = Study(...)`.")
    return study


def _line(path: Path) -> str:
    """Where in the study's own file the current exception came from."""
    frames = [f for f in traceback.extract_tb(sys.exc_info()[2]) if f.filename == str(path)]
    return f", line {frames[-1].lineno}" if frames else ""
