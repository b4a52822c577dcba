"""How far a study is and how long it will take, for the terminal and for `equiscale status`."""

import json
import time
from collections.abc import Callable
from socket import gethostname

from equiscale.launch import Event
from equiscale.results import Results
from equiscale.run import RunSpec, load

EVALUATION_SHARE = 1.3
"""A run takes about this much longer than its steps: looks, the final evaluation and loading (for estimates only)."""

SHOWN = 8
"""Running runs of a cluster that fit into a line."""


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class Board:
    """Live progress with a time estimate, for the terminal and for `equiscale status`."""

    def __init__(
        self,
        results: Results,
        missing: dict[str, RunSpec],
        seconds: dict[str, float],
        workers: Callable[[], int],
        say: Callable[[str], None],
        live: Callable[[str], None],
    ):
        self.results, self.missing, self.seconds, self.workers = results, missing, seconds, workers
        self.say, self.live = say, live
        self.path = results.folder / f".{gethostname()}.progress"
        self.steps = dict.fromkeys(missing, 0)
        self.losses: dict[str, float] = {}
        self.finished: set[str] = set()
        self.failed: set[str] = set()
        self.unfit: set[str] = set()  # sentences about nodes
        self.running: dict[str, float] = {}
        self.written = 0.0
        self.started = time.monotonic()

    def on(self, event: Event) -> None:
        key = event.item.spec.key
        if event.kind == "started":
            self.running[key] = time.monotonic()
        elif event.kind == "progress":
            self.steps[key] = event.value.step
            if event.value.loss is not None:
                self.losses[key] = event.value.loss
        elif event.kind == "died":
            self.running.pop(key, None)
            self.say(f"  {event.item}: its process died ({event.value}); it goes on from its checkpoint")
        elif event.kind == "unfit":
            self.running.pop(key, None)
            if event.value not in self.unfit:
                self.unfit.add(event.value)
                self.say(f"  {event.item}: {event.value} Other nodes are tried.")
        elif event.kind == "elsewhere":
            self.running.pop(key, None)
            self.say(f"  {event.item!s:<22} is trained by {event.value.holder}")
        elif event.kind == "failed":
            self.failed.add(key)
            self.running.pop(key, None)
            self.say(f"  {event.item!s:<22} failed: {event.value.sentence}")
        elif event.kind == "done":
            self.finished.add(key)
            self.steps[key] = self.missing[key].steps
            record = load(self.results.folder / f"{key}.json")
            took = time.monotonic() - self.running.pop(key, time.monotonic())
            what = "" if record.status == "ok" else f"  [{record.status}: {record.reason}]"
            self.say(
                f"  {event.item!s:<22} N {record.parameters:>9,}  L {record.final_molecules.loss:.4f}"
                f"  {took:5.0f} s  ({len(self.finished)}/{len(self.missing)}, {self.left()} left){what}"
            )
        self.show()

    def left(self) -> str:
        work = [
            (self.missing[k].steps - self.steps[k]) * self.seconds[k]
            for k in self.missing.keys() - self.finished - self.failed
        ]
        # The longest run bounds the time from below, however many workers there are.
        return duration(EVALUATION_SHARE * max(sum(work) / self.workers(), max(work, default=0.0)))

    def show(self) -> None:
        parts = [
            f"{self.missing[k].architecture} w={self.missing[k].model.width} {self.steps[k]}/{self.missing[k].steps}"
            + (f" L={self.losses[k]:.3f}" if k in self.losses else "")
            for k in self.running
        ]
        if len(parts) > SHOWN:
            parts = [*parts[:SHOWN], f"{len(parts) - SHOWN} more: `equiscale status` shows all"]
        lost = f"{len(self.failed)} failed, " if self.failed else ""
        self.live(f"{len(self.finished)}/{len(self.missing)} done, {lost}{self.left()} left | " + " | ".join(parts))
        if time.monotonic() - self.written > 2:
            self.written = time.monotonic()
            about = {
                "running": {k: self.steps[k] for k in self.running},
                "left": self.left(),
                "at": time.time(),
            }
            partial = self.path.with_suffix(".progress.partial")
            try:
                partial.write_text(json.dumps(about))
                partial.replace(self.path)
            except OSError:
                pass  # only a convenience for `status`; records are what counts

    def end(self) -> None:
        self.path.unlink(missing_ok=True)
        self.live("")
