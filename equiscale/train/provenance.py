"""Where and with what a run was made: versions, commit and hardware; no path, no host name."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import equiscale


def provenance(device: str) -> dict[str, str]:
    """Flat and printable; every value a string."""
    import torch

    about = {
        "equiscale": equiscale.__version__,
        "commit": commit(),
        "implementation": "equiscale",
        "python": platform.python_version(),
        "hardware": hardware(device),
        "threads": str(torch.get_num_threads()),
        "system": platform.system(),
    }
    for name in ("torch", "numpy", "schedulefree", "vesin"):
        try:
            about[name] = version(name)
        except PackageNotFoundError:
            about[name] = "not installed"
    return about


def hardware(device: str) -> str:
    """The processor's or the GPU's name."""
    if device.startswith("cuda"):
        import torch  # here, so that a processor's name costs no import of it

        return torch.cuda.get_device_name(device)
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return " ".join(line.split(":", 1)[1].split())
    except OSError:
        pass
    return platform.processor() or platform.machine()


def commit() -> str:
    """The repository's commit, with a + where files differ from it; empty where this is no checkout."""
    root = Path(equiscale.__file__).parents[1]
    if not (root / ".git").exists():
        return ""

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(root), *words], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", "equiscale") else "")
    except (OSError, subprocess.CalledProcessError):
        return ""
