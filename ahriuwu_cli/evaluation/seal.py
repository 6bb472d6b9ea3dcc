"""A seal on results: a hash over their content, so that an edited file can be told from what a command wrote."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from ahriuwu_cli.core.artifact import canonical

SEAL = "seal"
"""Key of the hash in the results it is made from."""


def sealed(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts with the hash of all else in them at the end; a seal they had is replaced.

    Raises:
        ValueError: a number is not finite.
    """
    bare = {key: value for key, value in facts.items() if key != SEAL}
    return {**bare, SEAL: _hash(bare)}


def seal_fault(facts: Mapping[str, Any]) -> str | None:
    """What is wrong with the seal of results read from a file; None when it fits.

    Results without a seal were written before there were seals, or had it taken away.
    """
    if SEAL not in facts:
        return "they carry no seal"
    bare = {key: value for key, value in facts.items() if key != SEAL}
    try:
        found = _hash(bare)
    except ValueError:
        return "they hold values that are no numbers"
    return None if found == facts[SEAL] else "their content is not what was sealed: they were edited"


def _hash(facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical(facts).encode()).hexdigest()
