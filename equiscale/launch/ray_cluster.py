"""Joining a Ray cluster, or beginning one; one sentence where that cannot be."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path
from typing import Any

from equiscale.errors import InputError, need

DEAF = 120.0
"""Seconds for a first task to come back: a node may be busy starting."""

SOME = 16
"""Nodes that are asked whether they hear this process."""


def connected(address: str, cpus: int | None) -> Any:
    """The module ``ray``, connected to the cluster at ``address`` (`HOST:PORT` of its head).

    Without an address to that of RAY_ADDRESS, to one that runs on this machine, or to a new one with ``cpus``
    processors (None: all) that ends with this process. InputError where none takes this process.
    """
    # Nothing is reported to anybody; and a warning about a default that is to change is not our users' concern.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # With an address Ray does not look whether there is a token, as it does without; it reads this when it is imported.
    if (address or "RAY_ADDRESS" in os.environ) and _token():
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    try:
        import ray
    except ImportError as error:
        raise need("ray", error) from None
    if not ray.is_initialized():
        _connect(ray, address or os.environ.get("RAY_ADDRESS", ""), cpus)
    return ray


def _refuse_deaf(ray: Any, at: str) -> None:
    """InputError where tasks and this process do not hear each other: with tokens on one side alone, above all."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    echo, content = ray.remote(lambda content: len(content)), ray.put(b"heard")
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]][:SOME]
    places = [NodeAffinitySchedulingStrategy(node, soft=True) for node in nodes]
    try:
        sent = [echo.options(num_cpus=0, max_retries=0, scheduling_strategy=p).remote(content) for p in places]
        ray.get(sent, timeout=DEAF)
    except ray.exceptions.RayError as error:
        ray.shutdown()
        raise InputError(
            f"the Ray cluster {at} takes tasks that do not reach this process ({line(error)}): set "
            "RAY_AUTH_MODE=token here if the cluster was started with tokens, else RAY_AUTH_MODE=disabled."
        ) from None


def _token() -> bool:
    """Whether this user has a token for clusters."""
    named = any(os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
    return named or (Path.home() / ".ray" / "auth_token").exists()


def _connect(ray: Any, address: str, cpus: int | None) -> None:
    if address:
        _refuse_silent(address)
    quiet = {"log_to_driver": False, "configure_logging": False}
    at = f"at {address}" if address else "of this machine"
    try:
        try:
            ray.init(address=address or "auto", **quiet)
        except ConnectionError:
            if address:
                raise
            # None was started on this machine: one of our own, which ends with this process. Ray's niceness of 15 would
            # let any other process of the machine first.
            os.environ.setdefault("RAY_worker_niceness", "0")
            ray.init(address="local", num_cpus=cpus or os.cpu_count() or 1, include_dashboard=False, **quiet)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise InputError(
            f"the Ray cluster {at} does not take this process: {line(error)}; the port is that of the head (6379), "
            "and a cluster with tokens wants RAY_AUTH_MODE=token and its token in ~/.ray/auth_token."
        ) from None
    _refuse_deaf(ray, at)


def _refuse_silent(address: str) -> None:
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise InputError(f"--on ray://{address}: write HOST:PORT of the cluster's head, as in ray://10.0.0.1:6379.")
    try:
        socket.create_connection((host, int(port)), timeout=5.0).close()
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(
            f"no Ray cluster answers at {address} ({why}): `ray status` on its head says whether it runs, and "
            "`ray start --address` makes this machine a part of it."
        ) from None


def line(error: BaseException) -> str:
    """The sentence of what Ray says that tells most, without its colours."""
    said = [line.strip() for line in re.sub(r"\x1b\[\d*m", "", str(error)).splitlines() if line.strip()]
    telling = [line for line in said if "Error:" in line] or said or [type(error).__name__]
    return telling[0].split(". ")[0].rstrip(".")
