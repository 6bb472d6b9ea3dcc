"""Kind `minerl`: MineRL v0 as it was published."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from imported import imported, write_play

from ahriuwu_cli.core.errors import DataError, InputError
from ahriuwu_cli.sources.imports.archive import Archive
from ahriuwu_cli.sources.imports.minerl import KEYS, MinerlImporter
from ahriuwu_cli.sources.imports.protocol import Recorded, RecordingError, Rows, Source

STEPS, BEFORE, RATE = 20, 3, 20
Arrays = dict[str, np.ndarray]


def arrays(*, crafts: bool = True) -> Arrays:
    """What rendered.npz holds of a recording."""
    steps = np.arange(STEPS)
    found: Arrays = {f"action${key}": (steps % (2 + place) == 0).astype(np.int64) for place, key in enumerate(KEYS)}
    found["action$camera"] = np.stack([steps - 10.0, 0.5 * steps], axis=1).astype(np.float32)
    if crafts:
        found["action$craft"] = np.array(["none"] * STEPS, dtype="<U16")
        found["action$craft"][[4, 7]] = "planks", "crafting_table"
        found["observation$inventory$log"] = np.array([0] * 3 + [1] * 5 + [4] * 13)
    found["observation$inventory$dirt"] = np.full(STEPS + 1, 2)
    found["reward"] = np.zeros(STEPS, np.float32)
    found["reward"][2] = 1.0
    return found


def write(folder: Path, change: Callable[[Arrays], object] | None = None, frames: int = STEPS + 1 + BEFORE) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_play(folder / "recording.mp4", np.arange(frames), RATE)
    content = arrays(crafts="Treechop" not in folder.parent.name)
    if change:
        change(content)
    np.savez_compressed(folder / "rendered.npz", **content)  # type: ignore[arg-type]
    about = {"success": True, "duration_ms": 1000, "duration_steps": STEPS, "total_reward": 1.0, "stream_name": "x"}
    (folder / "metadata.json").write_text(json.dumps(about))
    return folder


def source(folder: Path) -> Source:
    return MinerlImporter().open_source(folder, {})


def opened(folder: Path) -> Recorded:
    found = source(folder).recordings
    assert len(found) == 1
    return found[0].open()


def rows(recorded: Recorded, part: str) -> np.ndarray:
    track = recorded.actions[part]
    assert isinstance(track, Rows)
    np.testing.assert_array_equal(track.times, recorded.frames.times[:-1])
    return track.values


def test_the_play_is_the_last_frames_of_the_video(tmp_path: Path) -> None:
    recorded = opened(write(tmp_path / "v3_absolute_grape-1"))
    assert len(recorded.frames.times) == STEPS + 1
    np.testing.assert_allclose(recorded.frames.times, (BEFORE + np.arange(STEPS + 1)) / RATE)
    shown = [int(image[0, 0, 0]) for image in recorded.frames.chosen(range(STEPS + 1))]
    assert shown == list(range(BEFORE, BEFORE + STEPS + 1))


def test_actions_are_those_of_the_file_and_rewards_come_with_the_next_frame(tmp_path: Path) -> None:
    recorded, wanted = opened(write(tmp_path / "MineRLObtainDiamond-v0" / "a")), arrays()
    np.testing.assert_array_equal(rows(recorded, "camera"), wanted["action$camera"])
    np.testing.assert_array_equal(rows(recorded, "keys"), np.stack([wanted[f"action${key}"] for key in KEYS], axis=1))
    craft = source(tmp_path).action.components[2]
    assert craft.labels == ("none", "crafting_table", "planks")
    assert {
        int(step): craft.labels[int(value)] for step, value in enumerate(rows(recorded, "craft")[:, 0]) if value
    } == {
        4: "planks",
        7: "crafting_table",
    }
    assert recorded.reward is not None
    (at,) = np.flatnonzero(recorded.reward.values)
    assert recorded.reward.times[at] == recorded.frames.times[3]
    assert recorded.terminal
    assert recorded.task == "MineRLObtainDiamond-v0"


def test_what_was_gained_is_an_event_of_the_frame_that_shows_it(tmp_path: Path) -> None:
    recorded = opened(write(tmp_path / "a"))
    assert set(recorded.events) == {"gained_log"}  # dirt stayed what it was
    gained = recorded.events["gained_log"]
    times = recorded.frames.times
    assert {t: v for t, v in zip(gained.times, gained.values[:, 0], strict=True) if v} == {times[3]: 1, times[8]: 3}


def test_tasks_beside_each_other_share_one_spec(tmp_path: Path) -> None:
    write(tmp_path / "MineRLTreechop-v0" / "b")
    write(tmp_path / "MineRLObtainDiamond-v0" / "a")
    found = source(tmp_path)
    assert [each.name for each in found.recordings] == ["MineRLObtainDiamond-v0/a", "MineRLTreechop-v0/b"]
    assert [part.name for part in found.action.components] == ["camera", "keys", "craft"]
    chop = found.recordings[1].open()
    assert not rows(chop, "craft").any()
    assert set(chop.actions) == {"camera", "keys", "craft"}


def test_choices_that_are_numbers_are_classes_too(tmp_path: Path) -> None:
    def numbered(content: Arrays) -> None:
        content["action$craft"] = np.array([[0]] * 18 + [[12], [3]])

    recorded = opened(write(tmp_path / "a", numbered))
    assert source(tmp_path).action.components[2].labels == ("none", "3", "12")
    assert rows(recorded, "craft")[-3:, 0].tolist() == [0, 2, 1]


def test_without_metadata_the_end_is_a_cut(tmp_path: Path) -> None:
    (write(tmp_path / "a") / "metadata.json").unlink()
    recorded = opened(tmp_path)
    assert not recorded.terminal
    assert any("metadata.json" in note for note in recorded.notes)


def test_what_is_no_such_source_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no folder with recording\.mp4"):
        source(tmp_path)
    assert MinerlImporter().detect(tmp_path) is None
    (write(tmp_path / "a") / "rendered.npz").write_bytes(b"PK")
    with pytest.raises(InputError, match="no action that can be read"):
        source(tmp_path)
    with pytest.raises(InputError, match="unknown key fps"):
        MinerlImporter().open_source(tmp_path, {"fps": 1})
    assert MinerlImporter().detect(tmp_path)


def put(name: str, value: Any) -> Callable[[Arrays], object]:
    return lambda content: content.update({name: value})


@pytest.mark.parametrize(
    ("change", "row", "reason"),
    [
        (lambda content: content.pop("reward"), None, "there is no array reward"),
        (put("reward", np.array([0, np.nan] * 10)), 1, "reward is nan; expected a number"),
        (put("reward", np.zeros((STEPS, 2))), None, r"array reward is float64 \(20, 2\)"),
        (put("reward", np.zeros(0)), None, "0 rewards for 24 frames"),
        (put("reward", np.zeros(60)), None, "60 rewards for 24 frames"),
        (put("reward", np.array(["a"] * STEPS)), None, "array reward holds words"),
        (put("action$jump", np.zeros(STEPS - 1)), None, r"action\$jump is float64 \(19,\); .*each of 20 rows"),
        (put("action$camera", np.zeros((STEPS, 3))), None, r"action\$camera is float64 \(20, 3\)"),
        (put("action$jump", np.array([None] * STEPS)), None, r"action\$jump cannot be read: Object arrays"),
        (put("action$craft", np.array([b"x"] * STEPS)), None, r"action\$craft is \|S1"),
        (put("observation$inventory$log", np.full(STEPS + 1, np.inf)), 0, "log is not finite"),
    ],
)
def test_a_defect_is_named(tmp_path: Path, change: Callable[[Arrays], object], row: int | None, reason: str) -> None:
    write(tmp_path / "a", change)
    write(tmp_path / "b")
    bad, fine = source(tmp_path).recordings
    with pytest.raises(RecordingError, match=reason) as told:
        bad.open()
    assert (told.value.file, told.value.row) == ("a/rendered.npz", row)
    assert len(fine.open().frames.times) == STEPS + 1


def test_broken_files_are_told(tmp_path: Path) -> None:
    folder = write(tmp_path / "a")
    (folder / "metadata.json").write_text("{")
    with pytest.raises(RecordingError, match=r"a/metadata\.json, row 1: it is not JSON"):
        opened(tmp_path)
    (folder / "metadata.json").unlink()
    (folder / "recording.mp4").write_bytes(b"no video")
    with pytest.raises(DataError, match="cannot be opened as video"):
        opened(tmp_path)


@given(st.integers(0, 3000), st.binary(min_size=1, max_size=40), st.booleans())
def test_a_damaged_archive_is_read_or_told(
    tmp_path_factory: pytest.TempPathFactory, at: int, put: bytes, cut: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "rendered.npz"
    np.savez_compressed(path, **arrays())  # type: ignore[arg-type]
    content = path.read_bytes()
    path.write_bytes(content[:at] if cut else content[:at] + put + content[at + len(put) :])
    try:
        archive = Archive(path, "rendered.npz")
        for name in archive.names():
            archive.array(name)
    except RecordingError as error:
        str(error).encode()


def test_a_recording_becomes_an_episode(tmp_path: Path) -> None:
    write(tmp_path / "in" / "MineRLObtainDiamond-v0" / "a")
    write(tmp_path / "in" / "MineRLTreechop-v0" / "b")
    (episode, chop), _ = imported(tmp_path / "in", tmp_path / "out", "minerl")
    assert (chop.num_steps, chop.task) == (STEPS, "MineRLTreechop-v0")
    wanted = arrays()
    assert (episode.num_steps, episode.task) == (STEPS, "MineRLObtainDiamond-v0")
    np.testing.assert_array_equal(episode.actions[:, :2], wanted["action$camera"])
    np.testing.assert_array_equal(episode.actions[:, 2 + KEYS.index("jump")], wanted["action$jump"])
    np.testing.assert_array_equal(episode.rewards, wanted["reward"])
    np.testing.assert_array_equal(episode.event("gained_log"), np.diff(wanted["observation$inventory$log"]))
    assert episode.terminals[-1]
    assert [int(frame[0, 0, 0]) for frame in episode.frames] == list(range(BEFORE, BEFORE + STEPS + 1))
