"""Ray for the tests: one small cluster a module, and functions that its processes import by name."""

from __future__ import annotations

import os
import uuid
from contextlib import contextmanager
from pathlib import Path

import pytest

from equiscale.errors import InputError

TESTS = os.pathsep.join(str(Path(__file__).parents[i]) for i in (0, 1))

# Ray reads these once, when it is imported: clusters of the tests take nobody else's tasks.
os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=uuid.uuid4().hex, RAY_USAGE_STATS_ENABLED="0")


@contextmanager
def quiet():
    """What Ray's processes inherit: where the tests' modules are, and how soon a loss is noticed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", TESTS + os.pathsep + os.environ.get("PYTHONPATH", ""))
        patch.setenv("RAY_worker_niceness", "0")  # at Ray's 15 they wait for every other process of the machine
        # That a node is lost is known after three seconds, not after half a minute.
        patch.setenv("RAY_health_check_initial_delay_ms", "0")
        patch.setenv("RAY_health_check_period_ms", "1000")
        patch.setenv("RAY_health_check_failure_threshold", "3")
        patch.delenv("RAY_ADDRESS", raising=False)
        yield patch


class Picky:
    """Refuses the node whose id lies in a file; elsewhere returns the id of its node."""

    def __init__(self, path: Path):
        self.path = path

    def refuse_machine(self, item):
        import ray

        if ray.get_runtime_context().get_node_id() in self.path.read_text():
            raise InputError("this machine will not do.")

    def __call__(self, item, tell):
        import ray

        return ray.get_runtime_context().get_node_id()


class Reader:
    """Reads a file, wherever it was put."""

    def __init__(self):
        self.places: dict[str, str] = {}

    def needs(self, item):
        return [item]

    def __call__(self, item, tell):
        place = Path(self.places.get(item, item))
        return str(place), place.read_bytes() if place.is_file() else sorted(p.name for p in place.rglob("*"))
