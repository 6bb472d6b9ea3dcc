"""HDF5 files by a mapping: the data sets that mappings come along for, mappings of one's own, what is wrong."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ahriuwu_cli.core.errors import ConfigError, DataError, InputError
from ahriuwu_cli.episodes.config import DataSection, SourceSection
from ahriuwu_cli.episodes.store import EpisodeStore
from ahriuwu_cli.sources.imports.hdf5 import Hdf5Importer
from ahriuwu_cli.sources.imports.hdf5_mapping import shipped
from ahriuwu_cli.sources.imports.protocol import Happenings, Recorded, RecordingError, Rows, Source
from ahriuwu_cli.sources.imports.transfer import import_source

random = np.random.default_rng(0)


def painted(*shape: int) -> np.ndarray:
    return random.integers(0, 256, shape, np.uint8)


def opened(root: Path, **options: Any) -> Source:
    return Hdf5Importer().open_source(root, options)


def shown(recorded: Recorded) -> np.ndarray:
    return np.stack(list(recorded.frames.chosen(range(len(recorded.frames.times)))))


def rows(recorded: Recorded, name: str = "action") -> Rows:
    track = recorded.actions[name]
    assert isinstance(track, Rows)
    return track


def came(track: Any) -> dict[float, float]:
    """What is not zero, by its time."""
    assert isinstance(track, Happenings)
    values = track.values[:, 0]
    return dict(zip(track.times[values != 0].tolist(), values[values != 0].tolist(), strict=True))


# ---------------------------------------------------------------- data sets


def write_csgo(path: Path, frames: np.ndarray, choices: np.ndarray) -> None:
    """Frames (N, h, w, 3) RGB; choices (N, 4): a key, a button, places of the mouse; -1 for none."""
    with h5py.File(path, "w") as file:
        for row, (frame, choice) in enumerate(zip(frames, choices, strict=True)):
            pressed = np.zeros(51)
            for start, place in zip((0, 11, 13, 36), choice, strict=True):
                if place >= 0:
                    pressed[start + place] = 1
            file[f"frame_{row}_x"] = frame[..., ::-1]
            file[f"frame_{row}_xaux"] = np.zeros(54)
            file[f"frame_{row}_y"] = pressed
            file[f"frame_{row}_helperarr"] = [row == 3, row == 11]


def test_csgo(tmp_path: Path) -> None:
    frames = painted(12, 15, 28, 3)
    choices = np.stack([np.arange(12) % 12 - 1, np.arange(12) % 2, np.arange(12), np.arange(12) % 15], axis=1)
    choices[5, 2] = -1
    for number in (2, 10):
        write_csgo(tmp_path / f"hdf5_dm_july2021_{number}.hdf5", frames, choices)
    source = opened(tmp_path)
    assert [found.name for found in source.recordings] == [f"hdf5_dm_july2021_{number}.hdf5" for number in (2, 10)]
    kinds = [(part.name, part.type, part.dim, part.num_classes, part.aggregate) for part in source.action.components]
    assert kinds == [
        ("keys", "binary", 11, None, "any"),
        ("clicks", "binary", 2, None, "any"),
        ("mouse_x", "categorical", 1, 23, "mode"),
        ("mouse_y", "categorical", 1, 15, "mode"),
    ]
    assert source.action.components[2].labels[11] == "0" and source.action.components[3].labels[7] == "0"
    recorded = source.recordings[1].open()
    np.testing.assert_allclose(recorded.frames.times, np.arange(12) / 16)
    np.testing.assert_array_equal(shown(recorded), frames)
    np.testing.assert_array_equal(rows(recorded, "keys").values, np.eye(12)[choices[:, 0] + 1][:, 1:])
    np.testing.assert_array_equal(rows(recorded, "clicks").values.argmax(axis=1), choices[:, 1])
    known = rows(recorded, "mouse_x").valid
    assert known is not None and np.flatnonzero(~known).tolist() == [5]
    np.testing.assert_array_equal(rows(recorded, "mouse_x").values[known, 0], choices[known, 2])
    np.testing.assert_array_equal(rows(recorded, "mouse_y").values[:, 0], choices[:, 3])
    assert came(recorded.events["kill"]) == {3 / 16: 1} and came(recorded.events["death"]) == {11 / 16: 1}
    assert recorded.reward is None and not recorded.terminal


def write_robomimic(path: Path, lengths: dict[int, int], cameras: tuple[str, ...] = ("agentview",)) -> dict[int, Any]:
    written = {}
    with h5py.File(path, "w") as file:
        for number, length in lengths.items():
            group = file.create_group(f"data/demo_{number}")
            actions, frames = random.uniform(-1, 1, (length, 7)), painted(length, 12, 12, 3)
            group["actions"], group["dones"] = actions, np.arange(length) == length - 1
            group["rewards"] = (np.arange(length) == length - 1).astype(np.float64)
            for camera in cameras:
                group[f"obs/{camera}_image"] = frames
            group["obs/robot0_eef_pos"] = np.zeros((length, 3))
            written[number] = (actions.astype(np.float32), frames)
        names = [f"demo_{number}".encode() for number in lengths]
        file["mask/train"], file["mask/valid"] = names[:-1], names[-1:]
    return written


def test_robomimic(tmp_path: Path) -> None:
    written = write_robomimic(tmp_path / "image.hdf5", {0: 5, 2: 4, 10: 6})
    source = opened(tmp_path / "image.hdf5")
    assert [found.part for found in source.recordings] == ["data/demo_0", "data/demo_2", "data/demo_10"]
    (part,) = source.action.components
    assert (part.type, part.dim, part.low, part.high, part.aggregate) == ("continuous", 7, -1, 1, "mean")
    for found, (actions, frames) in zip(source.recordings, written.values(), strict=True):
        recorded = found.open()
        np.testing.assert_array_equal(shown(recorded), frames)
        np.testing.assert_array_equal(rows(recorded).values, actions)
        np.testing.assert_array_equal(rows(recorded).times, recorded.frames.times)
        # the frame that the last step led to is not there: its reward is that of the last one that is
        assert recorded.terminal and came(recorded.reward) == {recorded.frames.times[-1]: 1}


def test_subsets_of_robomimic(tmp_path: Path) -> None:
    write_robomimic(tmp_path / "image.hdf5", {0: 5, 2: 4, 10: 6})
    assert [found.part for found in opened(tmp_path, subset="valid").recordings] == ["data/demo_10"]
    assert len(opened(tmp_path, subset="train").recordings) == 2
    with pytest.raises(InputError, match="no subset 'test'; it has train, valid"):
        opened(tmp_path, subset="test")


def test_cameras_of_robomimic(tmp_path: Path) -> None:
    written = write_robomimic(tmp_path / "image.hdf5", {0: 5}, ("agentview", "robot0_eye_in_hand"))
    with pytest.raises(InputError, match="2 cameras: agentview, robot0_eye_in_hand"):
        opened(tmp_path)
    both = shown(opened(tmp_path, cameras="all").recordings[0].open())
    np.testing.assert_array_equal(both, np.concatenate([written[0][1]] * 2, axis=2))


@pytest.mark.parametrize("place", ["sensor_data", "image"])
def test_maniskill(place: str, tmp_path: Path) -> None:
    frames, actions = painted(2, 7, 16, 20, 3), random.normal(0, 3, (2, 6, 8)).astype(np.float32)
    with h5py.File(tmp_path / "trajectory.rgb.pd_joint_pos.h5", "w") as file:
        for number in range(2):
            group = file.create_group(f"traj_{number}")
            group[f"obs/{place}/base_camera/rgb"] = frames[number]
            group[f"obs/{place}/base_camera/depth"] = np.zeros((7, 16, 20, 1), np.uint16)
            group["actions"] = actions[number]
            group["success"] = np.arange(6) >= 4
            if place == "sensor_data":
                group["terminated"], group["rewards"] = np.arange(6) >= 4, np.arange(6.0)
    source = opened(tmp_path)
    (part,) = source.action.components
    assert part.low is not None and part.high is not None
    assert part.low <= actions.min() < -1 and part.high >= actions.max() > 1
    for number, found in enumerate(source.recordings):
        recorded = found.open()
        times = recorded.frames.times
        np.testing.assert_array_equal(shown(recorded), frames[number])
        np.testing.assert_array_equal(rows(recorded).values, actions[number])
        np.testing.assert_array_equal(rows(recorded).times, times[:-1])
        assert came(recorded.events["success"]) == {times[5]: 1, times[6]: 1}
        if place == "sensor_data":
            assert recorded.terminal and came(recorded.reward) == {times[t + 1]: t for t in range(1, 6)}
        else:
            assert not recorded.terminal and recorded.reward is None


@pytest.mark.parametrize("as_floats", [False, True])
def test_d4rl(as_floats: bool, tmp_path: Path) -> None:
    frames, actions = painted(12, 48, 48, 3), random.uniform(-0.5, 0.5, (12, 2)).astype(np.float32)
    with h5py.File(tmp_path / "carla_lane_follow_flat-v0.hdf5", "w") as file:
        flat = frames.reshape(12, -1)
        file["observations"], file["actions"] = flat / np.float32(255) if as_floats else flat, actions
        file["rewards"] = np.arange(1, 13, dtype=np.float32)
        file["terminals"], file["timeouts"] = np.arange(12) == 4, np.arange(12) == 9
    source = opened(tmp_path)
    spans = [(0, 5), (5, 10), (10, 12)]
    assert [found.part for found in source.recordings] == [f"rows {a} to {b - 1}" for a, b in spans]
    ended, timed_out, cut_off = (found.open() for found in source.recordings)
    for recorded, (start, stop) in zip((ended, timed_out, cut_off), spans, strict=True):
        np.testing.assert_array_equal(shown(recorded), frames[start:stop])
        np.testing.assert_array_equal(rows(recorded).values, actions[start:stop])
        assert list(rows(recorded).numbers or ()) == list(range(start, stop))
    assert (ended.terminal, timed_out.terminal, cut_off.terminal) == (True, False, False)
    times = ended.frames.times[1:].tolist()
    assert came(ended.reward) == dict(zip(times, [1, 2, 3, 4 + 5], strict=True))
    assert came(timed_out.reward) == dict(zip(times, [6, 7, 8, 9], strict=True))


def test_it_becomes_episodes(tmp_path: Path) -> None:
    written = write_robomimic(tmp_path / "image.hdf5", {0: 5, 2: 4, 10: 6})
    source = SourceSection(path=str(tmp_path / "image.hdf5"), mapping="robomimic")
    said = import_source(tmp_path / "store", DataSection(source=source, height=12, width=12), 0).data["import"]
    assert (said["imported"], said["episodes"], said["defects"]) == (3, 3, [])
    store = EpisodeStore.open(tmp_path / "store")
    for record, (actions, frames) in zip(store.episodes, written.values(), strict=True):
        episode = store.read(record.id)
        np.testing.assert_array_equal(episode.frames, frames)
        np.testing.assert_array_equal(episode.actions, actions[:-1])
        assert episode.rewards.tolist() == [0] * (len(actions) - 2) + [1] and episode.terminals[-1]


# ---------------------------------------------------------------- mappings


def test_every_mapping_that_comes_along_says_what_it_is_for() -> None:
    assert list(shipped()) == ["csgo", "d4rl", "maniskill", "robomimic"]
    assert all(mapping.says and mapping.known_by for mapping in shipped().values())


OWN = """
group = "run*"
fps = 5
alignment = "led"

[[pictures]]
path = "view"
encoded = true

[[actions]]
name = "turn"
path = "input"
columns = [0, 1]
type = "categorical"
first = -1
labels = ["left", "straight", "right"]

[[actions]]
name = "speed"
path = "input"
columns = [1, 2]
type = "continuous"
low = 0
aggregate = "sum"

[reward]
path = "score"
frame = "same"
"""


def write_own(path: Path) -> np.ndarray:
    frames = painted(6, 10, 14, 3)
    with h5py.File(path, "w") as file:
        array = file.create_dataset("run0/view", (6,), h5py.vlen_dtype(np.uint8))
        for row, frame in enumerate(frames):
            data = io.BytesIO()
            Image.fromarray(frame).save(data, "PNG")
            array[row] = np.frombuffer(data.getvalue(), np.uint8)
        file["run0/input"] = np.stack([np.arange(6) % 3 - 1, np.arange(6) * 2], axis=1)
        file["run0/score"] = np.arange(6)
    return frames


def test_a_mapping_of_ones_own(tmp_path: Path) -> None:
    frames = write_own(tmp_path / "own.h5")
    (tmp_path / "own.toml").write_text(OWN)
    source = opened(tmp_path, mapping=str(tmp_path / "own.toml"))
    turn, speed = source.action.components
    assert (turn.num_classes, turn.labels, turn.aggregate) == (3, ("left", "straight", "right"), "mode")
    assert (speed.low, speed.high, speed.aggregate) == (0, 10, "sum")
    recorded = source.recordings[0].open()
    np.testing.assert_array_equal(shown(recorded), frames)
    np.testing.assert_array_equal(rows(recorded, "turn").values[:, 0], (np.arange(6) % 3)[1:])
    np.testing.assert_array_equal(rows(recorded, "turn").times, np.arange(5) / 5)
    assert came(recorded.reward) == {t / 5: t for t in range(1, 6)}


def test_a_mapping_as_a_table(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["seen"], file["done"] = painted(4, 3, 9, 9), np.array([0, 2, 1, 0])
    table = {
        "pictures": [{"path": "seen"}],
        "actions": [{"name": "move", "path": "done", "type": "categorical"}],
    }
    source = opened(tmp_path, mapping=table, fps=2)
    assert source.fps == 2 and source.action.components[0].num_classes == 3
    assert shown(source.recordings[0].open()).shape == (4, 9, 9, 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("= 3", "is not TOML"),
        ("a = " + "[" * 5000, "is not TOML"),
        ("fps = 3", "pictures: Field required"),
        (OWN.replace("[1, 2]", "[2, 1]"), r"columns is \[first, after the last\]"),
        (OWN.replace('"sum"', '"any"'), "aggregate of a continuous component is one of sum, mean, last"),
        (OWN.replace("speed", "turn"), "names repeat: turn, turn"),
        (OWN.replace("encoded", "encode"), "pictures.0.encode: there is no such key"),
        (OWN.replace("first = -1", "first = 1"), "1 columns from -1; expected one, from 1"),
        (OWN.replace('group = "run*"', 'group = "walk*"'), r"there is no walk\*"),
        (OWN.replace('"view"', '"pictures"'), "there are no pictures"),
        (OWN.replace('"input"', '"keys"'), "there is no run0/keys"),
    ],
)
def test_mappings_that_make_no_sense(text: str, message: str, tmp_path: Path) -> None:
    write_own(tmp_path / "own.h5")
    (tmp_path / "own.toml").write_text(text)
    with pytest.raises((InputError, ConfigError), match=message):
        opened(tmp_path / "own.h5", mapping=str(tmp_path / "own.toml"))


def test_what_there_is_no_mapping_for(tmp_path: Path) -> None:
    write_own(tmp_path / "own.h5")
    assert Hdf5Importer().detect(tmp_path) is None
    for options, message in (({}, "nothing that there is a mapping for"), ({"mapping": "doom"}, "no mapping 'doom'")):
        with pytest.raises(InputError, match=message) as failure:
            opened(tmp_path, **options)
        assert "robomimic" in f"{failure.value.hint} {failure.value}"
    write_robomimic(tmp_path / "own.h5", {0: 3})
    assert Hdf5Importer().detect(tmp_path) == "own.h5: robomimic"
    (tmp_path / "own.h5").write_bytes(b"\x89HDF\r\n\x1a\n and no more")
    assert Hdf5Importer().detect(tmp_path) is None


# ---------------------------------------------------------------- defects


def _put(path: str, values: Any) -> Callable[[Any], None]:
    def change(file: Any) -> None:
        del file[path]
        if values is not None:
            file[path] = values

    return change


def _set(path: str, row: int, value: Any) -> Callable[[Any], None]:
    def change(file: Any) -> None:
        file[path][row] = value

    return change


def _elsewhere(file: Any) -> None:
    del file["data/demo_0"]
    file["data/demo_0"] = h5py.ExternalLink("../other.h5", "/data/demo_0")


D = "data/demo_0"


@pytest.mark.parametrize(
    ("change", "row", "reason"),
    [
        (_put(f"{D}/actions", None), None, f"there is no {D}/actions"),
        (_put(f"{D}/actions", np.zeros((4, 7))), None, "data/demo_0/dones has 5 rows; expected 4"),
        (_put(f"{D}/actions", np.zeros((5, 6))), None, "has 6 columns; other episodes have 7"),
        (_put(f"{D}/actions", np.array([b"left"] * 5)), None, "expected numbers"),
        (_set(f"{D}/actions", 3, np.nan), 3, f"{D}/actions is nan"),
        (_set(f"{D}/rewards", 2, np.inf), 2, f"{D}/rewards is inf"),
        (_put(f"{D}/rewards", np.zeros(4)), None, f"{D}/rewards has 4 rows; expected 5"),
        (_put(f"{D}/rewards", np.zeros((5, 2))), None, "rewards has 2 numbers a row"),
        (_put(f"{D}/obs/agentview_image", painted(9, 12, 12, 3)), None, "and [9] pictures; expected 5 or 6"),
        (_put(f"{D}/obs/agentview_image", np.full((5, 12, 12, 3), 7.0)), 0, "pixels go from 0 to 7; expected 0 to 1"),
        (_put(f"{D}/obs/agentview_image", np.full((5, 12, 12, 3), 300)), 0, "expected 0 to 255"),
        (_put(f"{D}/obs/agentview_image", painted(5, 12, 12, 5)), 0, "a picture is uint8 of shape (12, 12, 5)"),
        (_elsewhere, None, "is a link to other.h5, which is not in the folder"),
    ],
)
def test_defects(change: Callable[[Any], None], row: int | None, reason: str, tmp_path: Path) -> None:
    root = tmp_path / "set"
    root.mkdir()
    written = write_robomimic(root / "a.hdf5", {0: 5, 1: 4, 2: 3})
    write_robomimic(tmp_path / "other.h5", {0: 5})
    with h5py.File(root / "a.hdf5", "a") as file:
        change(file)
    source = opened(root, mapping="robomimic")
    with pytest.raises(RecordingError) as failure:
        shown(source.recordings[0].open())
    assert (failure.value.file, failure.value.row) == ("a.hdf5", row)
    assert reason in failure.value.reason and str(tmp_path) not in str(failure.value)
    np.testing.assert_array_equal(shown(source.recordings[1].open()), written[1][1])


def test_a_row_of_csgo_that_is_missing_or_chooses_twice(tmp_path: Path) -> None:
    frames, choices = painted(6, 15, 28, 3), np.zeros((6, 4), int)
    for name in ("a", "b", "c"):
        write_csgo(tmp_path / f"{name}.hdf5", frames, choices)
    with h5py.File(tmp_path / "a.hdf5", "a") as file:
        file["frame_4_y"][14] = 1
    with h5py.File(tmp_path / "b.hdf5", "a") as file:
        del file["frame_2_x"]
    source = opened(tmp_path)
    for found, reason, row in zip(
        source.recordings, ("2 choices of mouse_x at once", "frame_2_x is missing"), (4, 2), strict=False
    ):
        with pytest.raises(RecordingError, match=reason) as failure:
            found.open()
        assert failure.value.row == row
    np.testing.assert_array_equal(shown(source.recordings[2].open()), frames)


def test_a_file_that_is_none_leaves_the_others(tmp_path: Path) -> None:
    written = write_robomimic(tmp_path / "b.hdf5", {0: 5})
    (tmp_path / "c.hdf5").write_bytes(b"no HDF5")
    (tmp_path / "d.hdf5").symlink_to("/etc/hostname")
    source = opened(tmp_path)
    assert [defect.file for defect in source.defects] == ["c.hdf5", "d.hdf5"]
    np.testing.assert_array_equal(shown(source.recordings[0].open()), written[0][1])
    with pytest.raises(InputError, match="no HDF5 files"):
        opened(tmp_path / "c.hdf5")


# ---------------------------------------------------------------- any bytes


def everything(root: Path, **options: Any) -> None:
    try:
        source = opened(root, **options)
    except (InputError, ConfigError):
        return
    for found in source.recordings:
        try:
            recorded = found.open()
            for _ in recorded.frames.chosen(range(len(recorded.frames.times))):
                pass
        except DataError:
            continue


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    root = tmp_path_factory.mktemp("any")
    write_robomimic(root / "a.hdf5", {0: 4, 1: 3})
    return root, (root / "a.hdf5").read_bytes()


@settings(max_examples=40)
@given(share=st.floats(0, 1))
def test_a_file_that_is_cut_short(small: tuple[Path, bytes], share: float) -> None:
    root, whole = small
    (root / "a.hdf5").write_bytes(whole[: int(len(whole) * share)])
    everything(root, mapping="robomimic")


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=80)
@given(data=st.data())
def test_any_mapping_is_refused_or_read(small: tuple[Path, bytes], data: st.DataObject) -> None:
    root, whole = small
    (root / "a.hdf5").write_bytes(whole)
    table: dict[str, Any] = shipped()["robomimic"].model_dump(exclude_none=True)
    place: Any = data.draw(st.sampled_from([table, table["pictures"][0], table["actions"][0], table["reward"]]))
    key = data.draw(st.sampled_from(sorted(place)))
    there = ("data/demo_*", "actions", "obs/*", "../x", "/", "*", "{i}", "obs/{i}", "mask/train", "", "data")
    place[key] = data.draw(values | st.sampled_from(there) | st.lists(st.sampled_from(there), max_size=2))
    everything(root, mapping=table)
