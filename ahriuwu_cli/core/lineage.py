"""Which artifact was made from which: parents by fingerprint, and data that has grown since.

Data grows: episodes are appended to a store, latents and packed latents follow. Each of these names, under
`grown_from` of its info, the fingerprints it had before; an artifact made from one of them is still of this data.
Decision: `grown_from` says how the content came to be, not what it is, and is left out of the fingerprint. A recording
that was stopped and gone on with is then the same store as one without a break, and what knows no `grown_from` keeps
its fingerprint.
"""

from __future__ import annotations

from pathlib import Path

from ahriuwu_cli.core.artifact import GROWN_FROM, Header
from ahriuwu_cli.core.errors import ArtifactError

MOST_GROWN = 1000
"""Earlier fingerprints that are remembered; the oldest are dropped."""


def grown_from(header: Header) -> list[str]:
    """Earlier fingerprints of what the header describes, oldest first; empty when nothing was added to it."""
    return list(header.info.get(GROWN_FROM, []))


def outgrown(header: Header) -> list[str]:
    """The `grown_from` of what comes of this when something is added to it."""
    return [*grown_from(header), header.fingerprint][-MOST_GROWN:]


def has_grown(header: Header, parent_header: Header) -> bool:
    """True when the artifact of `header` was made from an earlier part of this parent."""
    return header.parents.get(parent_header.kind) in grown_from(parent_header)


def is_parent(header: Header, parent_header: Header) -> bool:
    """True when the artifact of `header` was made from this parent, or from an earlier part of it."""
    wanted = header.parents.get(parent_header.kind)
    return wanted == parent_header.fingerprint or has_grown(header, parent_header)


def require_parent(child: Path, header: Header, parent: Path, parent_header: Header) -> None:
    """Refuse a parent that `child` was not made from, nor from an earlier part of, naming both fingerprints."""
    wanted = header.parents.get(parent_header.kind)
    if wanted is not None and not is_parent(header, parent_header):
        raise ArtifactError(
            f"{child} was made with {parent_header.kind} {wanted}, but {parent} is {parent_header.fingerprint}",
            hint=f"give the {parent_header.kind} with fingerprint {wanted}, or make {child.name} again",
        )
