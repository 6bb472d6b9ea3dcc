"""LeRobot data sets: what is read is what was written, and what is wrong is named with its file and row."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ahriuwu_cli.core.errors import AhriuwuError, DataError, InputError
from ahriuwu_cli.episodes.config import DataSection, SourceSection
from ahriuwu_cli.episodes.store import EpisodeStore
from ahriuwu_cli.sources.imports.lerobot import LeRobotImporter
from ahriuwu_cli.sources.imports.protocol import Happenings, Recorded, RecordingError, Rows, Source
from ahriuwu_cli.sources.imports.transfer import import_source

from .lerobot_specimen import FPS, NAMES, TASKS, TOP, WRIST, Specimen, film, save, write_lines

BOTH = pytest.mark.parametrize("version", [2, 3])
FIRST = {2: "data/chunk-000/episode_000000.parquet", 3: "data/chunk-000/file-000.parquet"}


def opened(root: Path, **options: Any) -> Source:
    return LeRobotImporter().open_source(root, options)


def shown(recorded: Recorded) -> np.ndarray:
    return np.stack(list(recorded.frames.chosen(range(len(recorded.frames.times)))))


def rows(recorded: Recorded, name: str = "action") -> Rows:
    track = recorded.actions[name]
    assert isinstance(track, Rows)
    return track


# ---------------------------------------------------------------- what is read


@BOTH
def test_all_that_was_written_is_read(version: int, tmp_path: Path) -> None:
    specimen = Specimen(version)
    root = specimen.write(tmp_path / "set")
    source = opened(root)
    assert source.fps == FPS and not source.defects and not source.notes
    (part,) = source.action.components
    assert (part.type, part.dim, part.labels, part.aggregate) == ("continuous", 3, tuple(NAMES), "last")
    assert (part.low, part.high) == (-14 * 3, 14)
    assert len(source.recordings) == 3
    for number, found in enumerate(source.recordings):
        recorded = found.open()
        times = recorded.frames.times
        np.testing.assert_allclose(times, np.arange(specimen.lengths[number]) / FPS, atol=1e-6)
        np.testing.assert_array_equal(shown(recorded), specimen.frames(number, TOP))
        track = rows(recorded)
        np.testing.assert_array_equal(track.values, specimen.actions(number))
        np.testing.assert_array_equal(track.times, times)
        assert recorded.task == TASKS[number % 2] and recorded.terminal
        recorded.frames.close()


def test_rewards_come_with_the_next_frame_and_the_last_one_is_not_lost(tmp_path: Path) -> None:
    specimen = Specimen(lengths=(4, 4, 4))
    specimen.rows[1]["next.done"][:] = False
    for number in range(3):
        specimen.rows[number]["next.reward"][:] = [1, 2, 4, 8]
    source = opened(specimen.write(tmp_path / "set"))
    ended, stopped, _ = (found.open() for found in source.recordings)
    for recorded, wanted in ((ended, [1, 2, 12]), (stopped, [1, 2, 4])):
        assert isinstance(recorded.reward, Happenings)
        np.testing.assert_array_equal(recorded.reward.values[:, 0], wanted)
        np.testing.assert_array_equal(recorded.reward.times, recorded.frames.times[1:])
    assert ended.terminal and not stopped.terminal


def test_an_episode_that_was_cut_off_has_no_end(tmp_path: Path) -> None:
    specimen = Specimen()
    for number, length in enumerate(specimen.lengths):
        specimen.rows[number]["next.truncated"] = np.arange(length) == length - 1
    assert not opened(specimen.write(tmp_path / "set")).recordings[0].open().terminal


@BOTH
def test_pictures_in_the_rows(version: int, tmp_path: Path) -> None:
    specimen = Specimen(version, lengths=(70, 9, 15), in_rows=(TOP,))
    source = opened(specimen.write(tmp_path / "set", video_path=None))
    for number in (0, 1):
        recorded = source.recordings[number].open()
        frames = specimen.frames(number, TOP)
        np.testing.assert_array_equal(shown(recorded), frames)
        wanted = [2, 3, 8] if number else [0, 7, 8, 66, 69]
        for frame, again in zip(recorded.frames.chosen(wanted), frames[wanted], strict=True):
            np.testing.assert_array_equal(frame, again)
        recorded.frames.close()


def test_several_cameras_are_tiled(tmp_path: Path) -> None:
    specimen = Specimen(cameras={TOP: (32, 48), WRIST: (24, 32)}, in_rows=(WRIST,))
    root = specimen.write(tmp_path / "set")
    with pytest.raises(InputError, match=f"2 cameras: {TOP}, {WRIST}") as failure:
        opened(root)
    assert "options.cameras" in failure.value.hint
    both = shown(opened(root, cameras="all").recordings[1].open())
    assert both.shape == (9, 32, 96, 3)
    np.testing.assert_array_equal(both[:, :, :48], specimen.frames(1, TOP))
    np.testing.assert_array_equal(both[:, :24, 48:80], specimen.frames(1, WRIST))
    assert not both[:, 24:, 48:].any() and not both[:, :, 80:].any()
    swapped = shown(opened(root, cameras=[WRIST, TOP]).recordings[1].open())
    np.testing.assert_array_equal(swapped[:, :, 48:], specimen.frames(1, TOP))
    np.testing.assert_array_equal(shown(opened(root, cameras=WRIST).recordings[1].open()), specimen.frames(1, WRIST))


def test_pictures_of_depth_are_no_camera(tmp_path: Path) -> None:
    specimen = Specimen(cameras={TOP: (32, 32), WRIST: (32, 32)})
    features = specimen.info["features"]
    features[WRIST]["info"]["video.is_depth_map"] = True
    root = specimen.write(tmp_path / "set", features=features)
    np.testing.assert_array_equal(shown(opened(root).recordings[0].open()), specimen.frames(0, TOP))


def test_path_templates_are_followed(tmp_path: Path) -> None:
    paths = {
        "data_path": "rows/{chunk_index}/{file_index:05d}.parquet",
        "video_path": "{video_key}/c{chunk_index:02d}-{file_index}.mp4",
    }
    specimen = Specimen()
    root = specimen.write(tmp_path / "set", **paths)
    assert (root / "rows/0/00001.parquet").exists() and (root / TOP / "c00-1.mp4").exists()
    np.testing.assert_array_equal(shown(opened(root).recordings[2].open()), specimen.frames(2, TOP))


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        ({"motors": NAMES}, tuple(NAMES)),
        ({"gripper": 2, "elbow": 1, "shoulder": 0}, tuple(NAMES)),
        (None, ()),
        (["too", "few"], ()),
        ([1, 2, 3], ()),
    ],
)
def test_names_of_columns(names: Any, labels: tuple[str, ...], tmp_path: Path) -> None:
    root = Specimen(names=names).write(tmp_path / "set")
    assert opened(root).action.components[0].labels == labels


@BOTH
def test_bounds_without_statistics_are_those_of_the_data(version: int, tmp_path: Path) -> None:
    root = Specimen(version, lengths=(15, 9, 12)).write(tmp_path / "set")
    part = opened(root).action.components[0]
    assert (part.low, part.high) == (-33, 14)
    stats = root / ("meta/stats.json" if version == 3 else "meta/episodes_stats.jsonl")
    stats.write_text(json.dumps({"action": {"min": [-1, -1, -1], "max": [1, 1, 1]}}))
    if version == 3:
        assert opened(root).action.components[0].high == 1  # as the data set says, wrongly
    assert opened(root, bounds="data").action.components[0] == part
    stats.unlink()
    assert opened(root).action.components[0] == part


def test_columns_apart_have_bounds_of_their_own(tmp_path: Path) -> None:
    root = Specimen().write(tmp_path / "set")
    source = opened(root, columns="apart", aggregate="mean")
    parts = source.action.components
    assert [part.name for part in parts] == ["action/0", "action/1", "action/2"]
    assert [part.labels for part in parts] == [(name,) for name in NAMES]
    assert (parts[0].low, parts[0].high, parts[1].low, parts[1].high) == (0, 14, -42, 0)
    assert parts[2].low < 0.1 < parts[2].high  # it never changes
    assert {part.aggregate for part in parts} == {"mean"}
    np.testing.assert_array_equal(rows(source.recordings[2].open(), "action/1").values, -3 * np.arange(15)[:, None])


def test_a_video_may_have_more_frames_than_there_are_rows(tmp_path: Path) -> None:
    specimen = Specimen(2)
    root = specimen.write(tmp_path / "set")
    frames = specimen.frames(0, TOP)
    film(root / f"videos/chunk-000/{TOP}/episode_000000.mp4", np.concatenate([frames, frames[:5]]))
    np.testing.assert_array_equal(shown(opened(root).recordings[0].open()), frames)


def test_it_is_seen_what_it_is(tmp_path: Path) -> None:
    root = Specimen().write(tmp_path / "set")
    assert "info.json" in str(LeRobotImporter().detect(root))
    assert LeRobotImporter().detect(root / "meta") is None
    (root / "meta/info.json").write_bytes(b"\xff\x00")
    assert LeRobotImporter().detect(root) is None


@BOTH
def test_it_becomes_episodes(version: int, tmp_path: Path) -> None:
    specimen = Specimen(version)
    source = SourceSection(path=str(specimen.write(tmp_path / "set")))
    data = DataSection(source=source, height=32, width=32, heldout_fraction=0.4)
    said = import_source(tmp_path / "store", data, 0).data["import"]
    assert (said["imported"], said["defects"]) == (3, [])
    assert said["frames"] == {"repeated": 0, "dropped": 0, "late": 0}
    store = EpisodeStore.open(tmp_path / "store")
    assert store.frame_spec.fps == FPS
    for number, record in enumerate(store.episodes):
        episode = store.read(record.id)
        np.testing.assert_array_equal(episode.frames, specimen.frames(number, TOP))
        np.testing.assert_array_equal(episode.actions, specimen.actions(number)[:-1])
        rewards = specimen.rows[number]["next.reward"]
        np.testing.assert_array_equal(episode.rewards, [*rewards[:-2], rewards[-2] + rewards[-1]])
        assert episode.task == TASKS[number % 2] and episode.terminals[-1]


def test_a_value_out_of_bounds_is_named_with_its_row(tmp_path: Path) -> None:
    specimen = Specimen()
    root = specimen.write(tmp_path / "set")
    (root / "meta/stats.json").write_text(json.dumps({"action": {"min": [-99] * 3, "max": [13] * 3}}))
    data = DataSection(source=SourceSection(path=str(root), kind="lerobot"), height=32, width=32)
    said = import_source(tmp_path / "store", data, 0).data["import"]
    assert said["imported"] == 2
    (defect,) = said["defects"]
    assert (defect["file"], defect["row"]) == ("data/chunk-000/file-001.parquet", 14)
    assert "14" in defect["reason"]


# ---------------------------------------------------------------- defects

Spoil = Callable[[Specimen], None]


def _jump(specimen: Specimen) -> None:
    specimen.rows[0]["frame_index"][7:] += 1


def _back(specimen: Specimen) -> None:
    specimen.rows[0]["timestamp"][5] = 0


def _no_reward(specimen: Specimen) -> None:
    specimen.rows[0]["next.reward"][3] = np.nan


def _no_event(specimen: Specimen) -> None:
    for rows in specimen.rows:
        rows["next.event.hit"] = np.zeros(len(rows["timestamp"]), np.float32)
    specimen.rows[0]["next.event.hit"][2] = np.inf


def _no_task(specimen: Specimen) -> None:
    specimen.rows[0]["task_index"][6:] = 9


def _late(specimen: Specimen) -> None:
    specimen.rows[0]["timestamp"][6:] += 10


def _mixed(specimen: Specimen) -> None:
    specimen.rows[0]["episode_index"][4] = 8
    specimen.rows[0]["episode_index"][11] = 8


@BOTH
@pytest.mark.parametrize(
    ("spoil", "row", "reason"),
    [
        (_jump, 7, "frame_index is 8; expected 7"),
        (_back, 5, "timestamp is 0 after 0.16"),
        (_no_reward, 3, "next.reward is nan"),
        (_no_event, 2, "next.event.hit is inf"),
        (_no_task, 6, "task_index is 9, which no task has"),
        (_mixed, None, "has 10 rows of episode 0; the list of episodes says 12"),
    ],
)
def test_defects_of_rows(version: int, spoil: Spoil, row: int | None, reason: str, tmp_path: Path) -> None:
    specimen = Specimen(version)
    spoil(specimen)
    source = opened(specimen.write(tmp_path / "set"))
    with pytest.raises(RecordingError) as failure:
        source.recordings[0].open()
    assert (failure.value.file, failure.value.row) == (FIRST[version], row)
    assert reason in failure.value.reason
    np.testing.assert_array_equal(shown(source.recordings[1].open()), specimen.frames(1, TOP))


def test_rows_of_another_episode_in_between(tmp_path: Path) -> None:
    specimen = Specimen()
    specimen.rows[0]["episode_index"][4] = 1
    specimen.rows[1]["episode_index"][0] = 0
    source = opened(specimen.write(tmp_path / "set"))
    for number, row in ((0, 4), (1, 5)):
        with pytest.raises(RecordingError, match=f"within episode {number}") as failure:
            source.recordings[number].open()
        assert failure.value.row == row


def _cut(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


VIDEO = f"videos/chunk-000/{TOP}/episode_000000.mp4"


def _change(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    save(change(pq.read_table(path)), path)


@pytest.mark.parametrize(
    ("file", "spoil", "reason"),
    [
        (FIRST[2], Path.unlink, "it is missing"),
        (FIRST[2], _cut, "no Parquet file"),
        (FIRST[2], lambda path: path.write_bytes(b""), "no Parquet file"),
        (FIRST[2], lambda path: (path.unlink(), path.mkdir()), "no plain file"),
        (FIRST[2], lambda path: _change(path, lambda table: table.drop_columns("timestamp")), "no column 'timestamp'"),
        (FIRST[2], lambda path: _change(path, lambda table: table.slice(0, 4)), "has 4 rows of episode 0"),
        (
            FIRST[2],
            lambda path: _change(path, lambda t: t.set_column(0, "action", pa.array(["left"] * 12))),
            "action holds string; expected numbers",
        ),
        (
            FIRST[2],
            lambda path: _change(path, lambda t: t.set_column(0, "action", pa.array([[1.0, 2.0]] * 12))),
            "action has 2 numbers; meta/info.json says 3",
        ),
        (
            FIRST[2],
            lambda path: _change(
                path, lambda t: t.set_column(0, "action", pa.array([[1.0, 2.0, 3.0]] * 5 + [[1.0]] * 7))
            ),
            "row 5: action has 1 numbers",
        ),
        (
            FIRST[2],
            lambda path: _change(
                path, lambda t: t.set_column(0, "action", pa.array([[1.0] * 3] * 8 + [None] + [[1.0] * 3] * 3))
            ),
            "row 8: action is empty",
        ),
        (VIDEO, Path.unlink, "it is missing"),
        (VIDEO, _cut, ""),
        (VIDEO, lambda path: path.write_bytes(b"no video"), "cannot be opened as video"),
        (VIDEO, lambda path: film(path, np.zeros((7, 32, 32, 3), np.uint8)), "no frame of its own at 0.280 s"),
    ],
)
def test_defects_of_files(file: str, spoil: Callable[[Path], Any], reason: str, tmp_path: Path) -> None:
    specimen = Specimen(2)
    root = specimen.write(tmp_path / "set")
    spoil(root / file)
    source = opened(root)
    with pytest.raises(RecordingError) as failure:
        shown(source.recordings[0].open())
    assert failure.value.file == file and reason in str(failure.value)
    assert str(tmp_path) not in str(failure.value)
    np.testing.assert_array_equal(shown(source.recordings[1].open()), specimen.frames(1, TOP))


def test_a_picture_that_is_none_is_named_with_its_row(tmp_path: Path) -> None:
    specimen = Specimen(in_rows=(TOP,))
    root = specimen.write(tmp_path / "set")

    def spoil(table: pa.Table) -> pa.Table:
        pictures = table.column(TOP).to_pylist()
        pictures[15]["bytes"] = pictures[15]["bytes"][:200]
        kind = table.schema.field(TOP).type
        return table.set_column(table.schema.get_field_index(TOP), TOP, pa.array(pictures, kind))

    _change(root / FIRST[3], spoil)
    source = opened(root)
    assert len(shown(source.recordings[0].open())) == 12
    with pytest.raises(RecordingError, match="row 15: no picture") as failure:
        shown(source.recordings[1].open())
    assert failure.value.file == FIRST[3]


def test_defects_of_the_list_leave_the_others(tmp_path: Path) -> None:
    root = Specimen(2).write(tmp_path / "set")
    good = (root / "meta/episodes.jsonl").read_text()
    (root / "meta/episodes.jsonl").write_text(
        good + '{"episode_index": 3\n\n{"episode_index": -4, "length": 1}\n{"episode_index": 1, "length": 3}\n'
    )
    source = opened(root)
    assert len(source.recordings) == 3
    assert [(defect.file, defect.row) for defect in source.defects] == [("meta/episodes.jsonl", n) for n in (4, 6, 7)]
    for defect, word in zip(source.defects, ("JSON", "-4; expected a whole number", "listed twice"), strict=True):
        assert word in defect.reason


def test_a_list_in_parquet_that_is_damaged(tmp_path: Path) -> None:
    root = Specimen().write(tmp_path / "set")
    shutil.copy(root / "meta/episodes/chunk-000/file-000.parquet", root / "meta/episodes/chunk-000/file-001.parquet")
    _cut(root / "meta/episodes/chunk-000/file-001.parquet")
    source = opened(root)
    assert len(source.recordings) == 3
    assert [defect.file for defect in source.defects] == ["meta/episodes/chunk-000/file-001.parquet"]


@pytest.mark.parametrize(
    "path", ["../secret.parquet", "/etc/{episode_index}", "data/../../x", "C:/x", "linked/episode_000000.parquet"]
)
def test_paths_do_not_leave_the_source(path: str, tmp_path: Path) -> None:
    specimen = Specimen(2)
    outside = specimen.write(tmp_path / "outside")
    shutil.copy(outside / FIRST[2], tmp_path / "secret.parquet")
    root = replace(specimen).write(tmp_path / "set")
    (root / "linked").symlink_to(outside / "data/chunk-000")
    info = json.loads((root / "meta/info.json").read_text())
    (root / "meta/info.json").write_text(json.dumps(info | {"data_path": path}))
    with pytest.raises(RecordingError, match=r"inside the folder|out of the folder"):
        opened(root).recordings[0].open()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"codebase_version": "v1.6"}, "codebase_version is 'v1.6'"),
        ({"fps": 0}, "fps"),
        ({"features": {}}, "no feature 'action'"),
        ({"features": {"action": {"dtype": "string", "shape": [1]}}}, "action is string"),
        ({"features": {"action": {"dtype": "float32", "shape": [2, 3]}}}, r"shape \[2, 3\]"),
        ({"features": {"action": {"dtype": "float32", "shape": [3]}}}, "no pictures"),
        ({"data_path": "{episode_index.__class__}"}, "makes no sense"),
        ({"data_path": "data/{who}.parquet"}, "place {who}"),
        ({"video_path": "videos/{video_key:03d}.mp4"}, "makes no sense"),
        ({"video_path": None}, "video_path is missing"),
    ],
)
def test_a_description_that_makes_no_sense(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    root = Specimen(2).write(tmp_path / "set")
    info = json.loads((root / "meta/info.json").read_text())
    (root / "meta/info.json").write_text(json.dumps(info | change))
    with pytest.raises(InputError, match=message):
        opened(root)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("left or right", "action_spec: "),
        ({"components": []}, "action_spec: "),
        ({"components": [{"name": "move", "type": "binary"}]}, "action_spec has 1 columns; the action has 3"),
    ],
)
def test_an_action_spec_that_does_not_fit(spec: Any, message: str, tmp_path: Path) -> None:
    specimen = Specimen()
    features = specimen.info["features"]
    features["action"]["info"] = {"action_spec": spec}
    with pytest.raises(InputError, match=message):
        opened(specimen.write(tmp_path / "set", features=features))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"camera": TOP}, "unknown key camera; nearest valid key: cameras"),
        ({"cameras": "left"}, "no camera 'left'; cameras: observation.images.top"),
        ({"cameras": [TOP, TOP]}, "named twice"),
        ({"aggregate": "any"}, 'aggregate is "any"; expected one of last, mean, sum'),
        ({"action": "observation.state"}, "no feature 'observation.state'"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    root = Specimen().write(tmp_path / "set")
    with pytest.raises(InputError, match=message):
        opened(root, **options)


# ---------------------------------------------------------------- any bytes


def everything(root: Path) -> None:
    """Read all there is; only what users can mend may go wrong."""
    try:
        source = opened(root)
    except InputError:
        return
    for found in source.recordings:
        try:
            recorded = found.open()
            for _ in recorded.frames.chosen(range(len(recorded.frames.times))):
                pass
        except DataError:
            continue


SIDECARS = {
    2: ("meta/info.json", "meta/episodes.jsonl", "meta/tasks.jsonl", "meta/episodes_stats.jsonl"),
    3: ("meta/info.json", "meta/stats.json"),
}
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(scope="module", params=[(version, file) for version, files in SIDECARS.items() for file in files])
def small(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    version, file = request.param
    specimen = Specimen(version, lengths=(3, 2), files=(0, 0), cameras={TOP: (32, 32)}, in_rows=(TOP,))
    root = specimen.write(tmp_path_factory.mktemp("any") / "set")
    return root, file, (root / file).read_text()


@settings(max_examples=60)
@given(data=st.data())
def test_any_sidecar_is_refused_or_read(small: tuple[Path, str, str], data: st.DataObject) -> None:
    root, file, text = small
    whole = json.loads(text.splitlines()[0] if file.endswith("lines") or "jsonl" in file else text)
    changed: Any = whole
    while isinstance(changed, dict) and changed and data.draw(st.integers(0, 3)):
        key = data.draw(st.sampled_from(sorted(changed)))
        inner = changed[key]
        if not isinstance(inner, dict) or not data.draw(st.booleans()):
            changed[key] = data.draw(values)
            break
        changed = inner
    written = data.draw(st.one_of(st.binary(max_size=60), st.just(json.dumps(whole).encode()), st.just(b"[" * 99999)))
    (root / file).write_bytes(written)
    everything(root)


@pytest.fixture(scope="module")
def small_set(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[Path, bytes]]:
    specimen = Specimen(lengths=(3, 2), files=(0, 0), in_rows=(TOP,))
    root = specimen.write(tmp_path_factory.mktemp("any") / "set")
    return root, {path: path.read_bytes() for path in sorted(root.rglob("*.parquet"))}


@settings(max_examples=60)
@given(data=st.data())
def test_any_parquet_is_refused_or_read(small_set: tuple[Path, dict[Path, bytes]], data: st.DataObject) -> None:
    root, whole = small_set
    path = data.draw(st.sampled_from(list(whole)))
    spoilt = bytearray(whole[path])
    for _ in range(data.draw(st.integers(1, 4))):
        spoilt[data.draw(st.integers(0, len(spoilt) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(spoilt[: data.draw(st.integers(0, len(spoilt))) or None])
    try:
        everything(root)
    finally:
        path.write_bytes(whole[path])


def test_a_file_of_statistics_that_is_damaged_is_refused(tmp_path: Path) -> None:
    root = Specimen().write(tmp_path / "set")
    (root / "meta/stats.json").write_text("{")
    with pytest.raises(AhriuwuError, match=r"meta/stats.json, row 1: it is not JSON"):
        opened(root)


def test_text_in_parquet_that_is_no_utf8(tmp_path: Path) -> None:
    root = Specimen().write(tmp_path / "set")
    path = root / "meta/tasks.parquet"
    task = pa.array([TASKS[0].encode(), b"wave \xff"]).view(pa.string())
    pq.write_table(pa.table({"task_index": [0, 1], "task": task}), path)
    with pytest.raises(InputError, match=r"meta/tasks\.parquet: is no Parquet file that can be read: .*UTF8"):
        opened(root)


def test_a_task_that_is_no_text(tmp_path: Path) -> None:
    root = Specimen(2).write(tmp_path / "set")
    write_lines(root / "meta/tasks.jsonl", [{"task_index": 0, "task": 7}])
    with pytest.raises(InputError, match="row 1: task is 7"):
        opened(root)
