"""A study's results folder: records, and the small files beside them. Reading it needs no torch."""

import fcntl
import gc
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from socket import gethostname
from typing import Any

from equiscale.config import from_json, to_json
from equiscale.errors import InputError
from equiscale.files import write_atomically
from equiscale.ladder import Study
from equiscale.run import SCHEMA, RunRecord, RunSpec, load


class Results:
    """A study's results folder: what is recorded, what is missing, and the small files beside the records."""

    def __init__(self, folder: Path):
        self.folder = folder

    def begin(self, study: Study, runs: list[RunSpec]) -> None:
        """Note the study as declared; refuse a folder of another study or version."""
        if self.folder.exists() and not self.folder.is_dir():
            raise InputError(f"{self.folder} is a file: choose another results folder.")
        if self._path("study").exists():
            name = self.declared()["study"]["name"]
            if name != study.name:
                raise InputError(f"{self.folder} holds the study {name!r}, not {study.name!r}: choose another folder.")
        elif self.folder.is_dir() and (strange := self._strangers({run.key for run in runs})):
            raise InputError(
                f"{self.folder} has no study.json, and {strange} records that are not of the study {study.name!r}: "
                "choose another results folder."
            )
        about = {
            "schema": SCHEMA,
            "study": json.loads(to_json(Study, study)),
            "runs": [run.key for run in runs],
        }
        text = json.dumps(about, indent=1)
        if not self._path("study").exists() or self._path("study").read_text() != text:
            write_atomically(self._path("study"), text.encode())

    def declared(self) -> dict[str, Any]:
        """study.json, its version checked."""
        if not self.folder.is_dir() or not self._path("study").exists():
            raise InputError(
                f"{self.folder} is not a results folder (no study.json): name one that `equiscale run` wrote."
            )
        about = self._read("study")
        if not isinstance(about, dict) or "schema" not in about:
            raise InputError(f"{self._path('study')} is damaged: remove it and run the study again.")
        if about["schema"] != SCHEMA:
            raise InputError(
                f"{self.folder} was written with schema version {about['schema']}, this equiscale reads {SCHEMA}: "
                "use the equiscale that wrote it, or another results folder."
            )
        if not isinstance(about.get("study"), dict) or "name" not in about["study"] or not about.get("runs"):
            raise InputError(f"{self._path('study')} is damaged: remove it and run the study again.")
        return about

    def _strangers(self, keys: set[str]) -> int:
        return sum(len(p.stem) == 16 and p.stem not in keys for p in self.folder.glob("*.json"))

    def study(self) -> Study:
        return from_json(Study, json.dumps(self.declared()["study"]), str(self._path("study")))

    def done(self, key: str) -> bool:
        return (self.folder / f"{key}.json").exists()

    def records(self) -> list[RunRecord]:
        """The records of the study's runs that are there."""
        keys = self.declared()["runs"]
        with _nothing_collected():
            records = [load(self.folder / f"{key}.json") for key in keys if self.done(key)]
            return sorted(records, key=lambda r: (r.spec.architecture, r.spec.model.width, r.spec.seed))

    def timings(self) -> dict[str, dict[str, Any]]:
        return self._read("timing") if self._path("timing").exists() else {}

    def add_timings(self, new: dict[str, Any]) -> dict[str, dict[str, Any]]:
        timings = {**self.timings(), **{key: asdict(value) for key, value in new.items()}}
        write_atomically(self._path("timing"), json.dumps(timings, indent=1).encode(), within=self.folder)
        return timings

    def predictions(self) -> list[dict[str, Any]]:
        return self._read("prediction") if self._path("prediction").exists() else []

    def add_predictions(self, predictions: list[dict[str, Any]]) -> None:
        write_atomically(self._path("prediction"), json.dumps(predictions, indent=1).encode(), within=self.folder)

    def recorded(self, item: Any) -> bool:
        """Whether a launcher's item has its record."""
        return self.done(item.spec.key)

    def claim(self, item: Any) -> Path:
        """The claim on a launcher's item."""
        return self.folder / f"{item.spec.key}.claim"

    def add_error(self, key: str, text: str) -> Path:
        """Keep the traceback of a run that failed; where it lies."""
        path = self.folder / f"{key}.error.txt"
        write_atomically(path, text.encode(), within=self.folder)
        return path

    def drop_error(self, key: str) -> None:
        (self.folder / f"{key}.error.txt").unlink(missing_ok=True)

    def tuning(self) -> dict[str, Any] | None:
        return self._read("tuning") if self._path("tuning").exists() else None

    def live(self) -> dict[str, Any]:
        """What the running launchers, one a machine, said in the last minute."""
        said = []
        for path in self.folder.glob(".*.progress"):
            with suppress(OSError, ValueError):
                said.append(json.loads(path.read_text()))
        said = [about for about in said if time.time() - about["at"] < 60]
        if not said:
            return {}
        running = {key: step for about in said for key, step in about["running"].items()}
        return {"running": running, "left": max(said, key=lambda about: about["at"])["left"]}

    @contextmanager
    def alone(self) -> Iterator[None]:
        """One launcher per folder and machine; a killed one's lock goes with it. Other machines' are not kept out."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / f".{gethostname()}.lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(
                    f"another `equiscale run` works on {self.folder}: wait for it, or see `equiscale status`."
                ) from None
            yield

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def _read(self, name: str) -> Any:
        try:
            return json.loads(self._path(name).read_text())
        except (OSError, ValueError):
            raise InputError(f"{self._path(name)} is damaged: remove it and run the study again.") from None


@contextmanager
def _nothing_collected() -> Iterator[None]:
    """No search for garbage while values pile up that hold none: over 10,000 records it takes as long as all else.

    They leave as old objects, so that the next search, of young ones, does not begin with them.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            if not gc.get_freeze_count():  # else somebody keeps objects out of every search: not ours to undo
                gc.freeze()
                gc.unfreeze()  # into the oldest generation
            gc.enable()


def status(results: Results) -> str:
    """One line per run: recorded, running or waiting; for another terminal while a study runs, or afterwards."""
    about = results.declared()
    study = results.study()
    live = results.live()
    lines = []
    for run, key in zip((r for ladder in study.ladders for r in ladder.runs()), about["runs"]):
        if results.done(key):
            record = load(results.folder / f"{key}.json")
            state = f"recorded  L {record.final_molecules.loss:.4f}" + (
                "" if record.status == "ok" else f"  {record.status}: {record.reason}"
            )
        elif live and key in live["running"]:
            state = f"running   step {live['running'][key]} of {run.steps}"
        elif (results.folder / f"{key}.ckpt" / "unfinished.pt").exists():
            state = "stopped   goes on from its checkpoint"
        elif (results.folder / f"{key}.error.txt").exists():
            state = f"failed    see {key}.error.txt"
        else:
            state = "waiting"
        lines.append(f"  {run!s:<24} {key}  {state}")
    done = sum(results.done(key) for key in about["runs"])
    head = f"{study.name}: {done} of {len(about['runs'])} runs recorded"
    return "\n".join([head + (f", about {live['left']} left" if live else ""), *lines])
