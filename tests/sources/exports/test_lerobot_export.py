"""`export --to lerobot`: a data set of version 3 that comes back whole."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from sources.exports.round_trip import TASKS, episode, imported, make_store, require_equal

from ahriuwu_cli.core.specs import ActionComponent, ActionSpec
from ahriuwu_cli.episodes.video import VideoFrames, frame_stamps
from ahriuwu_cli.sources.exports import lerobot
from ahriuwu_cli.sources.exports.export import export_store

ONE = ActionSpec(components=(ActionComponent(name="move", type="categorical", num_classes=4, aggregate="mode"),))


@pytest.mark.parametrize("rows", [60, 50_000], ids=["several files", "one file"])
def test_everything_comes_back(rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lerobot, "ROWS_OF_FILE", rows)
    store = make_store(tmp_path / "store", [episode(number, 5 + 20 * number) for number in range(5)])
    report = export_store(store.folder, "lerobot", tmp_path / "out")
    assert report.data["losses"] == []
    assert len(list((tmp_path / "out").rglob("*.mp4"))) == (3 if rows == 60 else 1)
    back = imported(report.data["import"], tmp_path / "back")
    require_equal(store, back, times=1e-6)
    assert back.action_spec == store.action_spec


def test_one_column_and_uneven_times(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    times = [np.arange(21) / 15 + np.concatenate([[0], rng.uniform(-0.01, 0.01, 20)]) for _ in range(3)]
    store = make_store(
        tmp_path / "store", [episode(i, 20, spec=ONE, timestamps=each, events={}) for i, each in enumerate(times)], ONE
    )
    report = export_store(store.folder, "lerobot", tmp_path / "out")
    assert report.data["losses"] == []
    require_equal(store, imported(report.data["import"], tmp_path / "back"), times=1e-6)


def test_long_episodes_say_what_is_rounded(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", [episode(i, 300, size=(8, 8), fps=0.5) for i in range(2)], fps=0.5)
    report = export_store(store.folder, "lerobot", tmp_path / "out")
    assert report.data["losses"] == []
    assert "data.source.gap" in report.data["import"]
    require_equal(store, imported(report.data["import"], tmp_path / "back"), times=1e-5)
    odd = make_store(tmp_path / "odd", [episode(i, 300, size=(8, 8), fps=0.3) for i in range(2)], fps=0.3)
    assert "32 bits" in export_store(odd.folder, "lerobot", tmp_path / "odd-out").data["losses"][0]


def test_the_layout_is_that_of_the_format(tmp_path: Path) -> None:
    """What readers of version 3 go by: templates, rows, the index of tasks, and where each episode is in its video."""
    episodes = [episode(number, 10 + number) for number in range(3)]
    store = make_store(tmp_path / "store", episodes)
    export_store(store.folder, "lerobot", tmp_path / "out")
    root = tmp_path / "out"
    info = json.loads((root / "meta/info.json").read_text())
    assert (info["codebase_version"], info["fps"], info["total_frames"]) == ("v3.0", 15, 36)
    tasks = pq.read_table(root / "meta/tasks.parquet").to_pandas()
    assert tasks.index.tolist() == list(TASKS)
    assert tasks["task_index"].tolist() == [0, 1]
    listed = pq.read_table(root / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    rows = pq.read_table(root / info["data_path"].format(chunk_index=0, file_index=0)).to_pandas()
    assert set(rows.columns) == set(info["features"]) - {"observation.images.frame"}
    video = root / info["video_path"].format(chunk_index=0, file_index=0, video_key="observation.images.frame")
    stamps, unit = frame_stamps(video)
    frames = VideoFrames(video, stamps).read(0, len(stamps))
    for number, entry in enumerate(listed):
        own = rows[rows["episode_index"] == number]
        assert own["index"].tolist() == list(range(entry["dataset_from_index"], entry["dataset_to_index"]))
        shown = entry["videos/observation.images.frame/from_timestamp"] + own["timestamp"].to_numpy()
        places = np.rint(shown * info["fps"]).astype(int)
        np.testing.assert_allclose(stamps[places] * float(unit), shown, atol=1e-5)
        np.testing.assert_array_equal(frames[places], episodes[number].frames)
        assert own["next.done"].tolist() == [False] * (10 + number) + [True]
        assert own["next.truncated"].iloc[-1] == (number % 2 == 1)
        np.testing.assert_array_equal(np.stack(own["action"].to_numpy())[:-1], episodes[number].actions)
    stats = json.loads((root / "meta/stats.json").read_text())
    actions = np.stack(rows["action"].to_numpy())
    np.testing.assert_allclose(stats["action"]["std"], actions.std(axis=0), rtol=1e-5)
    pixels = np.concatenate([each.frames for each in episodes]).reshape(-1, 3) / 255
    np.testing.assert_allclose(np.ravel(stats["observation.images.frame"]["mean"]), pixels.mean(axis=0), rtol=1e-5)
    assert np.shape(stats["observation.images.frame"]["min"]) == (3, 1, 1)
