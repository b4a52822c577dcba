"""The first function that runs in a process of a Ray node. It is sent by value: the node may lack the package."""

from typing import Any

Outcome = tuple[str, str, Any]
"""The node's id; "done" or "failed" with a pickled value, "stopped", or "unfit" with why this node cannot do it."""


def enter(version: str, *about: Any) -> Outcome:
    """``ray_node.attempt`` of this node's package, if that is the one that the study was started with."""
    import os
    import platform

    import ray

    # The maths libraries read these when they are loaded: one thread for a run, as on one machine.
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
    node, host = ray.get_runtime_context().get_node_id(), platform.node()
    try:
        import equiscale
        from equiscale.launch.ray_node import attempt
    except ImportError as error:
        return node, "unfit", f"{host} lacks {error.name or error}: install equiscale {version} there."
    if equiscale.__version__ != version:
        return node, "unfit", f"{host} has equiscale {equiscale.__version__}: install {version} there."
    return node, *attempt(*about)
