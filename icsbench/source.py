"""The source that this package runs from."""

import subprocess
from pathlib import Path

import icsbench


def commit() -> str | None:
    """Commit of the source tree this package runs from, with ``+`` where it has uncommitted changes."""
    package = Path(icsbench.__file__)
    git = ["git", "-C", str(package.parent)]
    try:
        # Installed into a folder of somebody's own repository, the package is none of its files.
        subprocess.run([*git, "ls-files", "--error-unmatch", package.name], capture_output=True, check=True)
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        status = [*git, "status", "--porcelain", "--untracked-files=no"]
        changed = subprocess.run(status, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + ("+" if changed else "")
