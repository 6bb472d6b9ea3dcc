"""`data info`: figures by hand, unlabelled steps, planted odd episodes, the picture, the same JSON every time."""

from __future__ import annotations

import json
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest

from ahriuwu_cli.cli.main import run
from ahriuwu_cli.core.errors import InputError
from ahriuwu_cli.core.specs import ActionComponent, ActionSpec, FrameSpec
from ahriuwu_cli.episodes.store import EpisodeStore
from ahriuwu_cli.sources import census
from ahriuwu_cli.sources.looks import Looks
from ahriuwu_cli.sources.summary import info
from ahriuwu_cli.sources.telling import most_frequent


def test_figures_by_hand(make_store, make_episode) -> None:
    store = make_store()
    actions = np.array([[1, 1, 0, 0.5], [1, 0, 0, -1], [2, 1, 0, 1], [0, 1, 1, 0]], np.float32)
    rewards = np.array([0, 1, 0, -2], np.float32)
    store.append([make_episode(0, 4, actions=actions, rewards=rewards, events={"coin": rewards * 3})])
    store.append([make_episode(1, 1, actions=actions[:1], rewards=rewards[:1])])
    report = info(store.folder)
    data = report.data
    assert data["hours"] == pytest.approx(0.5 / 3600)
    assert data["steps_per_second"] == pytest.approx(10)
    assert data["labelled"] == {"steps": 5, "of": 5, "share": 1.0}
    assert data["actions"]["move"]["shares"] == {"noop": 0.2, "left": 0.6, "right": 0.2}
    assert (data["actions"]["keys"]["names"], data["actions"]["keys"]["on"]) == (["0", "1"], [0.8, 0.2])
    [aim] = data["actions"]["aim"]["quantiles"]
    assert (aim["min"], aim["median"], aim["max"], aim["mean"]) == (-1, 0.5, 1, pytest.approx(0.2))
    assert [(entry["low"], entry["count"]) for entry in data["rewards"]["histogram"]] == [(-2, 1), (0, 3), (1, 1)]
    assert (data["lengths"]["min"], data["lengths"]["median"], data["lengths"]["max"]) == (1, 1, 4)
    assert data["ends"] == {"terminal": 2, "truncated": 0}
    assert data["events"] == {"coin": -3}
    assert data["outliers"]["frames_looked_at"] == 7  # all five, and both
    assert data["groups"]["all"]["steps"] == 5
    words = " ".join(report.notes)
    assert "5 of 5 steps have a known action (100.0 %)" in words
    cells = [cell for table in report.tables for row in table.rows for cell in row]
    assert {"left", "60.0 %", "aim", "-2"} <= set(cells)


def test_steps_without_a_label_are_told_and_not_counted(make_store, make_episode) -> None:
    store = make_store()
    actions = np.array([[2, 1, 1, 1], [1, 0, 0, 0], [2, 1, 1, 1], [2, 1, 1, 1]], np.float32)
    store.append([make_episode(0, 4, actions=actions, action_valid=np.array([False, True, False, False]))])
    data = info(store.folder).data
    assert data["labelled"] == {"steps": 1, "of": 4, "share": 0.25}
    assert data["actions"]["move"]["shares"] == {"noop": 0.0, "left": 1.0, "right": 0.0}
    assert data["actions"]["keys"]["on"] == [0.0, 0.0]
    assert data["actions"]["aim"]["quantiles"][0]["max"] == 0
    store.append([make_episode(1, 2, action_valid=np.zeros(2, bool))])
    assert info(store.folder).data["labelled"]["steps"] == 1


# ---------------------------------------------------------------- odd episodes


def played(make_episode, steps: int, *, background: int = 60, moving: bool = True, seed: int = 0):
    frames = np.full((steps + 1, 8, 10, 3), background, np.uint8)
    if moving:
        frames[np.arange(steps + 1), np.arange(steps + 1) % 8, 0] = 255 - background
    return make_episode(seed, steps, frames=frames)


def test_planted_odd_episodes_are_found(make_store, make_episode) -> None:
    store = make_store()
    noise = np.random.default_rng(0).integers(90, 94, (31, 8, 10, 3)).astype(np.uint8)  # what compression leaves
    store.append(
        [
            played(make_episode, 30),
            played(make_episode, 30, moving=False),
            make_episode(2, 30, frames=noise),
            played(make_episode, 30, background=4, moving=False),
            played(make_episode, 30, background=252),
            played(make_episode, 2),
            played(make_episode, 30, background=6),  # dark, with something bright that moves
        ]
    )
    report = info(store.folder)
    assert {name: found for name, found in report.data["outliers"].items() if name != "frames_looked_at"} == {
        "still": ["000001", "000002", "000003"],
        "black": ["000003"],
        "over-bright": ["000004"],
        "very short": ["000005"],
    }
    assert report.data["outliers"]["frames_looked_at"] == 6 * census.LOOKED_AT + 3
    told = next(note for note in report.notes if note.startswith("odd episodes"))
    assert "still: 3 (000001, 000002, 000003); black: 1 (000003)" in told
    assert "51 frames were looked at" in told


def test_an_episode_that_is_black_at_its_start_is_not_black() -> None:
    frames = np.full((8, 8, 10, 3), 100, np.uint8)
    frames[:4] = 0
    looks = Looks()
    looks.take(frames)
    assert looks.faults() == []
    frames[4] = 0
    looks = Looks()
    looks.take(frames)
    assert looks.faults() == ["black"]


def test_a_bounded_number_of_frames_is_read(make_store, make_episode, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store()
    store.append([make_episode(0, 500)])
    asked: list[int] = []
    whole = EpisodeStore.frames

    def watched(store: EpisodeStore, episode_id: str):
        reader = whole(store, episode_id)
        read = reader.read
        reader.read = lambda start, stop: asked.append(stop - start) or read(start, stop)
        return reader

    monkeypatch.setattr(EpisodeStore, "frames", watched)
    monkeypatch.setattr(EpisodeStore, "read", None)  # nobody asks for a whole episode
    info(store.folder)
    assert asked == [1] * census.LOOKED_AT


# ---------------------------------------------------------------- the command


def test_the_json_is_the_same_every_time_and_complete(make_store, capfd) -> None:
    store = make_store(5)
    answers = []
    for _ in range(2):
        assert run(["data", "info", str(store.folder), "--json"]) == 0
        answers.append(capfd.readouterr().out)
    assert answers[0] == answers[1]
    own = "hours steps_per_second labelled lengths rewards actions ends brightness outliers unreadable"
    before = "folder fingerprint env env_options frame action tasks events split groups"
    assert list(json.loads(answers[0])) == [*before.split(), *own.split()]


def test_the_table_and_the_picture(make_store, tmp_path: Path, capfd) -> None:
    store = make_store(5)
    assert run(["data", "info", str(store.folder), "--png", str(tmp_path / "deep" / "store.png")]) == 0
    out = capfd.readouterr().out
    for text in ("hours of play", "share of labelled steps", "steps of an episode", "odd episodes: none", "store.png"):
        assert text in out
    picture = iio.imread(tmp_path / "deep" / "store.png")
    assert picture.shape[1] > 800
    assert picture[..., :3].std() > 10


def test_many_choices_and_numbers_are_told_in_short(tmp_path: Path, make_episode) -> None:
    spec = ActionSpec(
        components=(
            ActionComponent(name="button", type="categorical", num_classes=300),
            ActionComponent(name="torque", type="continuous", dim=90, low=-1.0, high=1.0),
        )
    )
    store = EpisodeStore.create(tmp_path / "many", spec, FrameSpec(height=8, width=10, fps=10.0), "A-v0", {})
    actions = np.zeros((4, 91), np.float32)
    actions[:, 0] = (7, 299, 299, 299)
    store.append([make_episode(0, 4, actions=actions)])
    report = info(store.folder, tmp_path / "many.png")
    spread, shares, _ = report.tables
    assert len(spread.rows) == 3 + 24
    assert list(shares.rows[0]) == ["button", "299", "75.0 %"]
    assert list(shares.rows[-1]) == ["button", "276 others", "0.0 %"]
    assert iio.imread(tmp_path / "many.png").shape[0] < 3000


def test_most_frequent_keeps_the_order_of_few() -> None:
    named = [("a", 0.1), ("b", 0.7), ("c", None)]
    assert most_frequent(named, 3) == named
    assert most_frequent(named, 2) == [("b", 0.7), ("a", 0.1)]


def test_an_unreadable_episode_is_told_and_the_others_are_counted(make_store, capfd) -> None:
    store = make_store(3)
    path = store.folder / "000001.safetensors"
    path.write_bytes(path.read_bytes()[:-9])
    assert run(["data", "info", str(store.folder), "--json"]) == 0
    data = json.loads(capfd.readouterr().out)
    assert list(data["unreadable"]) == ["000001"]
    assert data["labelled"]["of"] == 8
    assert run(["data", "info", str(store.folder)]) == 0
    assert "1 episodes cannot be read" in capfd.readouterr().out


def test_an_empty_store_has_figures_and_no_picture(make_store, tmp_path: Path, capfd) -> None:
    store = make_store()
    data = info(store.folder).data
    assert (data["hours"], data["steps_per_second"], data["labelled"]["share"]) == (0, None, None)
    assert run(["data", "info", str(store.folder)]) == 0
    with pytest.raises(InputError, match="nothing to draw"):
        info(store.folder, tmp_path / "a.png")
    assert run(["data", "info", str(store.folder), "--png", str(tmp_path / "a.jpg")]) == 2
    assert "expected a file name that ends in .png" in capfd.readouterr().err
    assert not list(tmp_path.glob("a.*"))


def test_a_picture_that_cannot_be_written_is_told(make_store, tmp_path: Path, capfd) -> None:
    (tmp_path / "taken.png").mkdir()
    assert run(["data", "info", str(make_store(2).folder), "--png", str(tmp_path / "taken.png")]) == 1
    assert "could not write" in capfd.readouterr().err
