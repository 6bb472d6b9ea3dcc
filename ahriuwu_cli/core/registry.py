"""Registries: a name, the place its implementation is imported from, and entry points of other packages."""

from __future__ import annotations

import importlib
from importlib import metadata
from typing import Any


class Registry:
    """Maps names to `module:attribute` targets that are imported when asked for.

    Another package adds an entry under the entry-point group `ahriuwu.<name of the registry>`.

    Args:
        name: of the registry, as in the entry-point group.
        entries: the built-in ones; they win over entry points of the same name.
        what: one entry in the words of a message, where the registry's name is no such word.
    """

    def __init__(self, name: str, entries: dict[str, str], *, what: str = "") -> None:
        self.name = name
        self.what = what or name
        self._entries = dict(entries)

    def names(self) -> list[str]:
        """Known names, sorted."""
        return sorted(self._targets())

    def load(self, name: str) -> Any:
        """Import and return the entry.

        Raises:
            ValueError: no entry has that name (the message lists those there are).
        """
        target = self._targets().get(name)
        if target is None:
            raise ValueError(f"unknown {self.what} {name!r}; known: {', '.join(self.names())}")
        module, _, attribute = target.partition(":")
        return getattr(importlib.import_module(module), attribute)

    def _targets(self) -> dict[str, str]:
        found = {entry.name: entry.value for entry in metadata.entry_points(group=f"ahriuwu.{self.name}")}
        return {**found, **self._entries}
