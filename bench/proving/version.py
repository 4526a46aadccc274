"""What the working tree is at the moment: its commit, and a mark of what has been changed since."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: Without git nobody can say whether two runs had the same code before them.
UNVERSIONED = "unversioned"


def version(root: Path = ROOT) -> str:
    """`<commit>`, or `<commit>+dirty.<digest>` where the digest covers all changes and all new files."""
    try:
        commit = _git(root, "rev-parse", "HEAD").decode().strip()
    except (OSError, subprocess.CalledProcessError):
        return UNVERSIONED
    changes = _git(root, "diff", "--binary", "HEAD")
    new = sorted(filter(None, _git(root, "ls-files", "--others", "--exclude-standard", "-z").split(b"\0")))
    if not changes and not new:
        return commit
    digest = hashlib.sha256(changes)
    for name in new:
        file = root / name.decode()
        digest.update(name + b"\0" + (file.read_bytes() if file.is_file() else b""))
    return f"{commit}+dirty.{digest.hexdigest()[:8]}"


def shown(of: str) -> str:
    """The same, short enough for a line."""
    commit, *dirty = of.split("+")
    return "+".join([commit[:10], *dirty])


def _git(root: Path, *arguments: str) -> bytes:
    return subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True).stdout
