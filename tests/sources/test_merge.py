"""`data merge`: components come together by name, recordings stay whole, and nothing changes that need not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sources.exports.round_trip import episode, ids
from typer.testing import CliRunner

from ahriuwu_cli.cli.main import app
from ahriuwu_cli.core.errors import AhriuwuError, InputError
from ahriuwu_cli.core.specs import ActionComponent, ActionSpec, FrameSpec
from ahriuwu_cli.episodes.manifest import Origin
from ahriuwu_cli.episodes.store import EpisodeStore
from ahriuwu_cli.sources.imports.mapping import UNLABELLED
from ahriuwu_cli.sources.merge import merge

MOVE = ActionComponent(name="move", type="categorical", num_classes=3, labels=("left", "stay", "right"))
JUMP = ActionComponent(name="jump", type="binary")
AIM = ActionComponent(name="aim", type="continuous", dim=2, low=-1, high=1)


def spec_of(*parts: ActionComponent) -> ActionSpec:
    return ActionSpec(components=parts)


def made(
    folder: Path, spec: ActionSpec, count: int = 4, *, first: int = 0, steps: int = 6, storage: Any = "raw",
    recordings: list[int] | None = None, origin: str = "", env: str = "", **changes: Any,
) -> EpisodeStore:  # fmt: skip
    """A store of episodes whose seeds begin at `first`; `recordings` are their numbers, of files named `origin`."""
    frame = FrameSpec(height=16, width=24, fps=changes.pop("fps", 15.0))
    store = EpisodeStore.create(folder, spec, frame, env, {}, storage=storage)
    records = []
    for number in range(count):
        own = episode(first + number, steps, spec=spec, **changes)
        recording = recordings[number] if recordings else None
        content = f"{origin}{recording}".encode().hex().rjust(64, "0")
        known = Origin(name="file", content=content, piece=0, pieces=1) if origin else None
        records.append(store.write(f"{number:06d}", own, [own.frames], recording, known))
    store.list_episodes(records)
    return store


def merged(tmp_path: Path, *stores: EpisodeStore) -> EpisodeStore:
    merge([store.folder for store in stores], tmp_path / "out")
    return EpisodeStore.open(tmp_path / "out")


def test_equal_specs(tmp_path: Path) -> None:
    spec = spec_of(MOVE, AIM)
    one, two = made(tmp_path / "a", spec), made(tmp_path / "b", spec, first=10)
    store = merged(tmp_path, one, two)
    assert store.action_spec == spec
    assert [(each.fingerprint, each.episodes) for each in store.merged_from] == [
        (one.fingerprint, 4),
        (two.fingerprint, 4),
    ]
    pairs = zip(store.episodes, [*map(one.read, ids(one)), *map(two.read, ids(two))], strict=True)
    for record, wanted in pairs:
        found = store.read(record.id)
        for name, array in wanted.arrays().items():
            np.testing.assert_array_equal(found.arrays()[name], array)
        assert (found.task, found.policy, found.seed) == (wanted.task, wanted.policy, wanted.seed)
    assert [record.sha256 for record in store.episodes[:4]] == [record.sha256 for record in one.episodes], "copied"


def test_a_component_that_a_store_lacks(tmp_path: Path) -> None:
    one, two = made(tmp_path / "a", spec_of(AIM, MOVE)), made(tmp_path / "b", spec_of(MOVE, JUMP, AIM), first=10)
    report = merge([one.folder, two.folder], tmp_path / "out")
    store = EpisodeStore.open(tmp_path / "out")
    assert [part.name for part in store.action_spec.components] == ["aim", "move", "jump"]
    columns = store.action_spec.slices()
    for record in store.episodes[:4]:
        assert not store.tracks(record.id).action_valid.any()
        assert not store.tracks(record.id).actions.any()
    for record, own in zip(store.episodes[4:], map(two.tracks, ids(two)), strict=True):
        found = store.tracks(record.id)
        np.testing.assert_array_equal(found.action_valid, own.action_valid)
        for name, place in two.action_spec.slices().items():
            np.testing.assert_array_equal(found.actions[:, columns[name]], own.actions[:, place])
    lost, kept = report.data["merged"]
    assert (lost["labels_lost"], lost["lacks"]) == (lost["labelled"], ["jump"])
    assert (kept["labels_lost"], kept["lacks"]) == (0, [])
    assert f"{lost['labelled']} labelled steps are unlabelled now, for want of jump" in " ".join(report.notes)


def test_recordings_without_labels_take_none_away(tmp_path: Path) -> None:
    labelled = made(tmp_path / "a", spec_of(MOVE))
    bare = made(
        tmp_path / "b", UNLABELLED, first=10, action_valid=np.zeros(6, bool), actions=np.zeros((6, 1), np.float32)
    )
    store = merged(tmp_path, bare, labelled)
    assert store.action_spec == spec_of(MOVE)
    valid = [store.tracks(record.id).action_valid for record in store.episodes]
    assert not np.any(valid[:4])
    np.testing.assert_array_equal(valid[4:], [labelled.tracks(each).action_valid for each in ids(labelled)])


def test_only_recordings_without_labels(tmp_path: Path) -> None:
    bare = {"action_valid": np.zeros(6, bool), "actions": np.zeros((6, 1), np.float32)}
    stores = [made(tmp_path / name, UNLABELLED, first=seed, **bare) for name, seed in (("a", 0), ("b", 10))]
    assert merged(tmp_path, *stores).action_spec == UNLABELLED


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (MOVE.model_copy(update={"num_classes": 4, "labels": ()}), "num_classes 4"),
        (MOVE.model_copy(update={"labels": ("a", "b", "c")}), r"labels \['a', 'b', 'c'\]"),
        (ActionComponent(name="move", type="binary"), "type binary"),
        (AIM.model_copy(update={"high": 2.0}), "high 2.0"),
        (AIM.model_copy(update={"dim": 3}), "dim 3"),
    ],
)
def test_two_definitions_of_one_name_are_refused(other: ActionComponent, said: str, tmp_path: Path) -> None:
    one, two = made(tmp_path / "a", spec_of(MOVE, AIM)), made(tmp_path / "b", spec_of(other), first=10)
    with pytest.raises(InputError, match=f"action component '{other.name}' is type .* in .*a, and .*{said}.* in .*b"):
        merge([one.folder, two.folder], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_labels_and_rules_that_one_leaves_open(tmp_path: Path) -> None:
    bare, ruled = MOVE.model_copy(update={"labels": ()}), MOVE.model_copy(update={"aggregate": "mode"})
    store = merged(tmp_path, made(tmp_path / "a", spec_of(bare)), made(tmp_path / "b", spec_of(ruled), first=10))
    assert store.action_spec == spec_of(ruled)
    other = made(tmp_path / "c", spec_of(MOVE.model_copy(update={"aggregate": "last"})), first=20)
    with pytest.raises(InputError, match="aggregate"):
        merge([tmp_path / "b", other.folder], tmp_path / "out2")


def test_recordings_stay_on_one_side(tmp_path: Path) -> None:
    """Twelve recordings of three pieces each, some of them in both stores: whatever is held out is so as a whole."""
    numbers = [number // 3 for number in range(36)]
    one = made(tmp_path / "a", spec_of(MOVE), 36, recordings=numbers, origin="x")
    two = made(tmp_path / "b", spec_of(MOVE, JUMP), 36, first=100, recordings=[n + 6 for n in numbers], origin="x")
    alone = made(tmp_path / "c", spec_of(MOVE), 5, first=200)
    store = merged(tmp_path, one, two, alone)
    sides: dict[str, set[str]] = {}
    for record in store.episodes:
        sides.setdefault(record.origin.content if record.origin else record.id, set()).add(record.split)
    assert len(sides) == 18 + 5
    assert all(len(side) == 1 for side in sides.values())
    assert {side for found in sides.values() for side in found} == {"train", "heldout"}
    kept = {record.number for record in store.episodes}
    assert len(kept) == 18 + 5, "recordings that are not the same have different numbers"
    store.set_split(0.5, 3)
    again = {record.origin.content: record.split for record in store.episodes if record.origin}
    assert all(again[record.origin.content] == record.split for record in store.episodes if record.origin)


def test_episodes_of_one_seed_stay_together(tmp_path: Path) -> None:
    one, two = (
        made(tmp_path / name, spec, env="Game-v0") for name, spec in (("a", spec_of(MOVE)), ("b", spec_of(JUMP)))
    )
    store = merged(tmp_path, one, two)
    assert [record.number for record in store.episodes] == [0, 1, 2, 3, 0, 1, 2, 3]


def test_what_is_in_two_stores_comes_once(tmp_path: Path) -> None:
    one = made(tmp_path / "a", spec_of(MOVE), 4)
    two = made(tmp_path / "b", spec_of(MOVE), 6)  # the same and two more, as of a copy that has grown
    report = merge([one.folder, two.folder], tmp_path / "out")
    store = EpisodeStore.open(tmp_path / "out")
    assert [record.seed for record in store.episodes] == [0, 1, 2, 3, 4, 5]
    assert report.data["merged"][1]["repeated"] == 4


def test_video_is_copied_bit_for_bit(tmp_path: Path) -> None:
    raw, filmed = made(tmp_path / "a", spec_of(MOVE)), made(tmp_path / "b", spec_of(JUMP), first=10, storage="video")
    store = merged(tmp_path, raw, filmed)
    assert store.storage == "video"
    assert [record.video is None for record in store.episodes] == [True] * 4 + [False] * 4
    for record, own in zip(store.episodes[4:], filmed.episodes, strict=True):
        assert record.video is not None and own.video is not None
        assert record.video.sha256 == own.video.sha256
        np.testing.assert_array_equal(store.read(record.id).frames, filmed.read(own.id).frames)


def test_the_game_stays_where_all_are_of_it(tmp_path: Path) -> None:
    one, two = (made(tmp_path / name, spec_of(MOVE), first=seed, env="Game-v0") for name, seed in (("a", 0), ("b", 10)))
    assert merged(tmp_path, one, two).env == "Game-v0"
    film = made(tmp_path / "c", spec_of(MOVE), first=20)
    merge([film.folder, one.folder], tmp_path / "with-film")
    assert EpisodeStore.open(tmp_path / "with-film").env == "Game-v0"
    for name, other in (
        ("game", made(tmp_path / "d", spec_of(MOVE), first=30, env="Other-v0")),
        ("actions", made(tmp_path / "e", spec_of(MOVE, JUMP), first=40)),
    ):
        report = merge([one.folder, other.folder], tmp_path / name)
        assert EpisodeStore.open(tmp_path / name).env == ""
        assert "no game can be played" in " ".join(report.notes)


@pytest.mark.parametrize(("change", "said"), [({"fps": 20.0}, "at 20 per second"), ({}, "is the same store")])
def test_stores_that_do_not_go_together(change: dict[str, float], said: str, tmp_path: Path) -> None:
    one, two = made(tmp_path / "a", spec_of(MOVE)), made(tmp_path / "b", spec_of(MOVE), **change)
    with pytest.raises(InputError, match=said):
        merge([one.folder, two.folder], tmp_path / "out")
    with pytest.raises(InputError, match="expected two or more"):
        merge([one.folder], tmp_path / "out")


def test_what_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    one, two = made(tmp_path / "a", spec_of(MOVE)), made(tmp_path / "b", spec_of(MOVE), first=10, storage="video")
    (two.folder / "000002.mp4").write_bytes(b"")
    with pytest.raises(AhriuwuError):
        merge([one.folder, two.folder], tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b"}
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine").write_text("mine")
    with pytest.raises(InputError, match="not an empty folder"):
        merge([one.folder, two.folder], tmp_path / "full")


def test_the_command_and_what_follows(tmp_path: Path) -> None:
    """A merged store is a store like any other: it grows, and is merged again."""
    stores = [made(tmp_path / name, spec_of(MOVE), first=seed) for name, seed in (("a", 0), ("b", 10))]
    words = ["data", "merge", *(str(store.folder) for store in stores), "--out", str(tmp_path / "out"), "--json"]
    said = json.loads(CliRunner().invoke(app, words).stdout)
    assert [each["fingerprint"] for each in said["merged"]] == [store.fingerprint for store in stores]
    store = EpisodeStore.open(tmp_path / "out")
    assert store.fingerprint == said["fingerprint"]
    before = {record.id: record.split for record in store.episodes}
    own = episode(99, 6, spec=spec_of(MOVE))
    assert store.append([own]) == ["000008"]
    assert {record.id: record.split for record in store.episodes[:8]} == before
    third = made(tmp_path / "c", spec_of(MOVE), first=20)
    merge([store.folder, third.folder], tmp_path / "more")
    assert EpisodeStore.open(tmp_path / "more").num_episodes == 13


PARTS = (MOVE, JUMP, AIM)


@given(
    st.lists(
        st.permutations(PARTS).flatmap(lambda parts: st.integers(1, 3).map(lambda n: parts[:n])), min_size=2, max_size=3
    )
)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_components(tmp_path_factory: pytest.TempPathFactory, wanted: list[list[ActionComponent]]) -> None:
    """Whatever stores have: an episode is labelled exactly where its store has all components, and then as it was."""
    folder = tmp_path_factory.mktemp("merge")
    stores = [made(folder / str(n), spec_of(*parts), 2, first=10 * n) for n, parts in enumerate(wanted)]
    store = merged(folder, *stores)
    everything = {part.name for parts in wanted for part in parts}
    columns = store.action_spec.slices()
    assert columns.keys() == everything
    found = iter(store.episodes)
    for own in stores:
        names = {part.name for part in own.action_spec.components}
        for tracks in map(own.tracks, ids(own)):
            there = store.tracks(next(found).id)
            np.testing.assert_array_equal(there.action_valid, tracks.action_valid & (names == everything))
            valid = there.action_valid
            for name, place in own.action_spec.slices().items():
                np.testing.assert_array_equal(there.actions[valid, columns[name]], tracks.actions[valid, place])
            assert (
                replace(there, actions=tracks.actions, action_valid=tracks.action_valid).total_reward
                == tracks.total_reward
            )
