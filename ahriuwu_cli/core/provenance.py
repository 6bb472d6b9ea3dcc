"""Which software wrote an artifact: version, torch, date, commit."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import ahriuwu_cli
from ahriuwu_cli.core.config import Section


class Provenance(Section):
    """The software that wrote an artifact; not part of the fingerprint."""

    version: str
    torch: str
    date: str
    git_commit: str | None = None


def provenance() -> Provenance:
    """Describe the running software: version, torch, date, and the commit when run from a checkout."""
    return Provenance(
        version=ahriuwu_cli.__version__,
        torch=metadata.version("torch"),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        git_commit=_git_commit(),
    )


def _git_commit() -> str | None:
    package = Path(ahriuwu_cli.__file__).resolve().parent
    if not (package.parent / ".git").exists():
        return None
    try:
        answer = subprocess.run(
            ["git", "-C", str(package), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
        )
    except OSError:  # a checkout on a machine without git
        return None
    return answer.stdout.strip() or None
