"""Several launchers on one folder share the work: what another one's worker holds is left to it, and waited for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from equiscale.claim import Busy, Watch
from equiscale.launch.events import Event, Launcher, Waiting, Work

PAUSE = 1.0


def shared(
    launcher: Launcher,
    work: Work,
    items: Sequence[Any],
    claim: Callable[[Any], Path],
    recorded: Callable[[Any], bool],
) -> Iterator[Event]:
    """The launcher's events; an item for which ``work`` returned ``Busy`` is "elsewhere" (``value``: Busy).

    At the end those are waited for: "done" when they are recorded; begun here when their holder has ended.
    """
    todo, away = Waiting.of(items), dict[int, Any]()
    watches: dict[int, Watch] = {}
    while todo or away:
        for event in launcher(work, todo) if todo else ():
            if event.kind == "done" and isinstance(event.value, Busy):
                watches.setdefault(id(event.item), Watch(claim(event.item)))
                away[id(event.item)] = event.item
                event = Event("elsewhere", event.item, event.value)
            yield event
        for name, item in list(away.items()):
            if recorded(item):
                yield Event("done", away.pop(name))
            elif watches[name].free():
                todo.append(away.pop(name))
        if away and not todo:
            time.sleep(PAUSE)
