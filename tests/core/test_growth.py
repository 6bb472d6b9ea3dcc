"""Data that grows: what was made from an earlier part of it still belongs to it, and nothing else does."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ahriuwu_cli.core.artifact import Header, Provenance, check_fingerprint, fingerprint_of
from ahriuwu_cli.core.errors import ArtifactError
from ahriuwu_cli.core.lineage import MOST_GROWN, grown_from, has_grown, is_parent, outgrown, require_parent

MADE = Provenance(version="0", torch="0", date="")
PRINTS = st.lists(st.text("0123456789abcdef", min_size=16, max_size=16), max_size=4, unique=True)


def header(kind: str = "episodes", parents: dict | None = None, **info: object) -> Header:
    parents = parents or {}
    return Header(
        kind=kind,
        fingerprint=fingerprint_of(kind, {}, {}, parents, info, ""),
        parents=parents,
        info=info,
        provenance=MADE,
    )


@given(PRINTS)
def test_how_data_came_to_be_is_no_part_of_its_fingerprint(earlier: list[str]) -> None:
    """Equal content has an equal fingerprint, and what was written without the key keeps its own."""
    before, grown = header(episodes=[1, 2]), header(episodes=[1, 2], grown_from=earlier)
    assert grown.fingerprint == before.fingerprint
    check_fingerprint(Path("store"), grown, "")
    assert header(episodes=[1, 2, 3], grown_from=earlier).fingerprint != before.fingerprint


def test_a_fingerprint_as_it_was_before_there_was_growth() -> None:
    """Written out by hand: artifacts on disk must still verify."""
    assert fingerprint_of("episodes", {}, {}, {}, {"episodes": [1, 2]}, "") == "f78e0a00bbb24682"


def test_a_grown_parent_is_accepted_and_a_stranger_refused() -> None:
    """Pitfall 7: both fingerprints are named."""
    first = header(episodes=[1])
    second = header(episodes=[1, 2], grown_from=outgrown(first))
    third = header(episodes=[1, 2, 3], grown_from=outgrown(second))
    assert grown_from(third) == [first.fingerprint, second.fingerprint]
    stranger = header(episodes=[4, 5], grown_from=["0" * 16])
    for parent in (first, second):
        child = header("tokenizer", {"episodes": parent.fingerprint})
        require_parent(Path("t"), child, Path("store"), third)
        assert has_grown(child, third) and is_parent(child, third)
        assert is_parent(child, parent) and not has_grown(child, parent)
        with pytest.raises(ArtifactError) as caught:
            require_parent(Path("t"), child, Path("other"), stranger)
        assert parent.fingerprint in caught.value.message
        assert stranger.fingerprint in caught.value.message
        assert parent.fingerprint in caught.value.hint
    younger = header("tokenizer", {"episodes": third.fingerprint})
    with pytest.raises(ArtifactError):  # growth has a direction
        require_parent(Path("t"), younger, Path("store"), second)


def test_what_is_remembered_is_bounded() -> None:
    parent = header(grown_from=[f"{number:016x}" for number in range(MOST_GROWN)])
    assert len(outgrown(parent)) == MOST_GROWN
    assert outgrown(parent)[-2:] == [f"{MOST_GROWN - 1:016x}", parent.fingerprint]
