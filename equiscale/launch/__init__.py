"""Where runs are trained. A launcher is given its function, so this chapter knows no training.

events   what a launcher is and yields     local    processes of this machine
failed   items that failed, told together  sharing  beside launchers of other machines
on_slurm a SLURM job array
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from equiscale.errors import InputError, Stopped
from equiscale.launch.events import RETRIES, Event, Failure, Launcher, Work
from equiscale.launch.failed import Failed, result
from equiscale.launch.local import Local, local_processes
from equiscale.launch.sharing import shared

__all__ = [
    "RETRIES",
    "Event",
    "Failed",
    "Failure",
    "Launcher",
    "Local",
    "Stopped",
    "Work",
    "chosen",
    "local_processes",
    "result",
    "shared",
]


def chosen(on: str, workers: int, folder: Path = Path("slurm"), slurm: Sequence[str] = ()) -> Launcher:
    """The launcher that ``--on local|ray[://ADDRESS]|slurm`` names; jobs' files lie in ``folder``."""
    engine, _, address = on.partition("://")
    if slurm and on != "slurm":
        raise InputError("--slurm is for --on slurm: give that, too.")
    if on == "slurm":
        from equiscale.launch.on_slurm import OnSlurm, parameters

        return OnSlurm(workers, folder, parameters(slurm))
    if on == "local":
        return Local(workers)
    if engine == "ray":
        try:
            from equiscale.launch.on_ray import OnRay
        except ImportError:
            raise InputError("ray is not installed: this needs `pip install 'equiscale[ray]'`.") from None
        return OnRay(workers, address)
    raise InputError(f"--on is local, ray, ray://ADDRESS or slurm, not {on!r}.")
