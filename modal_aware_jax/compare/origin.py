"""What made a number: the commit, the versions and the machine."""

import os
import pathlib
import platform
import subprocess


def provenance() -> dict:
    """Versions, hardware, and the commit if known."""
    import flax
    import jax

    try:
        commit = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=pathlib.Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = None
    return {
        "commit": commit,
        "python": platform.python_version(),
        "jax": jax.__version__,
        "flax": flax.__version__,
        "devices": [device.device_kind for device in jax.devices()],
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }
