"""Where runs are trained. A launcher is given its function, so this chapter knows no training.

events   what a launcher is and yields     local    processes of this machine
failed   items that failed, told together  sharing  beside launchers of other machines
packing  how many fit on a device
on_slurm a SLURM job array                 on_ray   tasks of a Ray cluster (ray_cluster: joining it; ray_entry,
                                           ray_node, ray_files: what its nodes do)
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from equiscale.errors import InputError, Stopped
from equiscale.launch.events import RETRIES, Event, Failure, Launcher, Waiting, Work
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
    "Waiting",
    "Work",
    "chosen",
    "local_processes",
    "result",
    "shared",
]


def chosen(
    on: str,
    workers: int | None,
    folder: Path = Path(),
    *,
    device: str = "cpu",
    per_gpu: int | None = None,
    slurm: Sequence[str] = (),
) -> Launcher:
    """The launcher that ``--on local|ray[://ADDRESS]|slurm`` names. ``folder``: the results'; jobs' files lie in it.

    ``workers``: None is as many as there are cores, of a Ray cluster as many as it has room for.
    """
    engine, scheme, address = on.partition("://")
    if slurm and on != "slurm":
        raise InputError("--slurm is for --on slurm: give that, too.")
    if per_gpu is not None and engine != "ray":
        raise InputError("--per-gpu is for --on ray; on one machine --workers says how many runs share its GPU.")
    if engine == "ray" and (address or not scheme):
        from equiscale.launch.on_ray import OnRay

        if per_gpu is not None and (per_gpu < 1 or device == "cpu"):
            wrong = "needs --device cuda" if device == "cpu" else f"must be at least 1, not {per_gpu}"
            raise InputError(f"--per-gpu {wrong}.")
        return OnRay(workers, folder, address, device, per_gpu or 1)
    cores = os.cpu_count() or 1
    if on == "slurm":
        from equiscale.launch.on_slurm import OnSlurm, parameters

        return OnSlurm(workers or cores, folder / "slurm", parameters(slurm))
    if on == "local":
        return Local(workers or cores)
    raise InputError(f"--on is local, ray, ray://HOST:PORT or slurm, not {on!r}.")
