"""Items that failed: the others go on, and at the end one sentence names them all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from equiscale.errors import InputError
from equiscale.launch.events import Event, Failure

IN_A_ROW = 3
"""So many failures in a row for one reason befall every item alike (a full disk, a folder that is gone): stop."""

NAMED = 6


class Failed:
    """Collects failures of several calls of a launcher. ``note`` writes an item's traceback, and says where."""

    def __init__(self, note: Callable[[Any, str], Path]):
        self.note = note
        self.items: list[Any] = []
        self.said: list[Failure] = []
        self._row: list[str] = []

    def watch(self, events: Iterable[Event]) -> Iterator[Event]:
        """The events, each failure's sentence completed. InputError after IN_A_ROW failures for one reason."""
        for event in events:
            if event.kind == "done":
                self._row = []
            if event.kind != "failed":
                yield event
                continue
            self.items.append(event.item)
            said: Failure = event.value
            self.said.append(said)
            self._row = [*(r for r in self._row if r == said.reason), said.reason]
            sentence = said.sentence
            if said.traceback:
                sentence = f"{sentence.rstrip('.')}; the traceback is in {self.note(event.item, said.traceback)}."
            if len(self._row) == IN_A_ROW:
                raise InputError(f"{IN_A_ROW} runs in a row failed for one reason, the last, {event.item}: {sentence}")
            self.said[-1] = Failure(sentence, said.traceback)
            yield Event("failed", event.item, self.said[-1])

    def refuse(self, of: int, again: str) -> None:
        """InputError where something failed: how many, which, and what to do."""
        if self.items:
            names = ", ".join(str(i) for i in self.items[:NAMED]) + (", …" if len(self.items) > NAMED else "")
            one = len({said.reason for said in self.said}) == 1
            why = f" ({self.said[-1].sentence.rstrip('.')})" if one else ""
            raise InputError(f"{len(self.items)} of {of} runs failed: {names}{why}; {again} tries them again.")


def result(events: Iterable[Event], tell: Callable[[Any], None] = lambda value: None) -> Any:
    """Of a single item: what its function returned; its failure ends everything."""
    found = None
    for event in events:
        if event.kind == "failed":
            said: Failure = event.value
            raise InputError(said.sentence) if not said.traceback else RuntimeError(said.traceback)
        if event.kind == "progress":
            tell(event.value)
        elif event.kind == "done":
            found = event.value
    return found
