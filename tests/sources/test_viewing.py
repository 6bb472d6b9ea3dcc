"""`data view`: what is written at each frame, shifted labels that are seen, the files, bad arguments."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
import pytest
from PIL import Image

from ahriuwu_cli.cli.main import run
from ahriuwu_cli.core.errors import InputError
from ahriuwu_cli.core.pictures.captions import line_width
from ahriuwu_cli.core.pictures.palette import TOLERANCE
from ahriuwu_cli.core.specs import ActionComponent, ActionSpec, FrameSpec
from ahriuwu_cli.episodes.store import EpisodeStore
from ahriuwu_cli.sources import viewing
from ahriuwu_cli.sources.moments import DOUBT, LIT, Wording, moments
from ahriuwu_cli.sources.viewing import SHEET_COLUMNS, view

MOVES = ("noop", "left", "right")


@pytest.fixture
def shown_episode(make_episode):
    """An episode whose frame t is painted with the action taken on seeing it; `late` labels come too late."""

    def make(late: int = 0, steps: int = 12) -> Any:
        episode = make_episode(3, steps)
        moves = np.arange(steps + 1) * 7 % 3
        frames = np.zeros((steps + 1, 8, 10, 3), np.uint8)
        frames += (moves * 100).astype(np.uint8)[:, None, None, None]
        actions = episode.actions.copy()
        actions[:, 0] = np.roll(moves[:steps], late)
        return make_episode(3, steps, frames=frames, actions=actions)

    return make


def labels_at_frames(episode: Any, spec: ActionSpec) -> list[str]:
    wording = Wording(spec)
    return [wording.action(moment)["move"] for moment in moments(episode, 0, episode.num_steps + 1)]


def test_the_action_stands_at_the_frame_it_was_taken_on(shown_episode, action_spec: ActionSpec) -> None:
    """What is written is what is painted; with labels that are shifted by a step it is something else everywhere."""
    right, late = shown_episode(), shown_episode(late=1)
    painted = [MOVES[frame[0, 0, 0] // 100] for frame in right.frames[:-1]]
    assert labels_at_frames(right, action_spec) == [*painted, "-"]
    assert all(said != seen for said, seen in zip(labels_at_frames(late, action_spec)[:-1], painted, strict=True))


def test_a_shift_is_seen_in_the_pictures(shown_episode, make_store, tmp_path: Path) -> None:
    pictures = []
    for late in (0, 1):
        store = make_store(name=f"late{late}")
        store.append([shown_episode(late)])
        view(store.folder, out=tmp_path / f"out{late}")
        pictures.append([iio.imread(tmp_path / f"out{late}" / "sheet.png")])
        pictures[-1] += list(iio.imread(tmp_path / f"out{late}" / "000000.gif"))
    changed = [
        (np.abs(one.astype(int) - other) > 2 * TOLERANCE).any(axis=-1) for one, other in zip(*pictures, strict=True)
    ]
    assert [mask.any() for mask in changed] == [True] * 13 + [False]  # no action stands at the last frame
    height = 8 * 32  # of the enlarged frame in a clip
    assert not any(mask[:height].any() for mask in changed[1:])


def test_rewards_and_events_stand_at_the_frame_they_arrived_with(make_episode, action_spec: ActionSpec) -> None:
    rewards = np.array([0, 2, 0, -1], np.float32)
    coins = np.array([1, 0, 0, 3], np.float32)
    episode = make_episode(0, 4, rewards=rewards, events={"coin": coins})
    said = moments(episode, 0, 5)
    assert [moment.reward for moment in said] == [None, 0, 2, 0, -1]
    assert [moment.gathered for moment in said] == [0, 0, 2, 2, 1]
    assert [moment.events for moment in said] == [{}, {"coin": 1}, {}, {}, {"coin": 3}]
    assert [moment.ended for moment in said] == ["", "", "", "", "terminal"]
    assert [moment.seconds for moment in said] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    assert Wording(action_spec).short(said[4]) == ("-", "reward -1  coin 3  terminal")
    assert moments(episode, 2, 3)[0].gathered == 2  # of the whole episode, wherever the part begins


def test_words_are_the_names_of_the_spec(make_episode) -> None:
    spec = ActionSpec(
        components=(
            ActionComponent(name="move", type="categorical", num_classes=3),
            ActionComponent(name="keys", type="binary", dim=2, labels=("W", "space")),
            ActionComponent(name="aim", type="continuous", low=-1.0, high=1.0),
        )
    )
    actions = np.array([[2, 0, 1, 0.25], [0, 1, 1, -1], [1, 0, 0, 0]], np.float32)
    valid = np.array([True, True, False])
    episode = make_episode(0, 3, actions=actions, action_valid=valid)
    wording = Wording(spec)
    said = moments(episode, 0, 4)
    assert [wording.action(moment) for moment in said] == [
        {"move": "2", "keys": "space", "aim": "+0.25"},
        {"move": "0", "keys": "W space", "aim": "-1.00"},
        {"move": "unknown", "keys": "unknown", "aim": "unknown"},
        {"move": "-", "keys": "-", "aim": "-"},
    ]
    lit = [[span.text for line in wording.caption(m, "", 400)[2:] for span in line if span.box == LIT] for m in said]
    assert lit == [["2", "space"], ["0", "W", "space"], [], []]
    doubts = [span.text for line in wording.caption(said[2], "", 400)[2:] for span in line if span.box == DOUBT]
    assert doubts == ["unknown"] * 3


def test_captions_have_one_number_of_lines_and_keep_their_width(make_episode) -> None:
    names = tuple(f"key {number}" for number in range(30))
    spec = ActionSpec(
        components=(
            ActionComponent(name="a component with a long name", type="binary", dim=30, labels=names),
            ActionComponent(name="one of many", type="categorical", num_classes=500),
            ActionComponent(name="torque", type="continuous", dim=20, low=-1000.0, high=1000.0),
        )
    )
    rng = np.random.default_rng(0)
    actions = np.concatenate(
        [rng.integers(0, 2, (5, 30)), rng.integers(0, 500, (5, 1)), rng.uniform(-1000, 1000, (5, 20))], axis=1
    ).astype(np.float32)
    events = {f"event_{number}": np.ones(5, np.float32) for number in range(40)}
    valid = np.array([True, True, True, False, True])
    episode = make_episode(0, 5, actions=actions, action_valid=valid, events=events)
    captions = [Wording(spec).caption(moment, "title", 360) for moment in moments(episode, 0, 6)]
    assert len({len(lines) for lines in captions}) == 1
    assert max(line_width(line) for lines in captions for line in lines) <= 360


# ---------------------------------------------------------------- the files


def test_a_sheet_and_clips_of_episodes_spread_over_the_store(make_store, tmp_path: Path) -> None:
    store = make_store(12)
    report = view(store.folder, count=3)
    out = tmp_path / "store-view"
    shown = [entry["id"] for entry in report.data["episodes"]]
    assert shown == ["000000", "000006", "000011"]
    clips = {f"{name}.{kind}" for name in shown for kind in ("mp4", "gif")}
    assert {path.name for path in out.iterdir()} == {"sheet.png", *clips}
    for name in shown:
        assert len(iio.imread(out / f"{name}.mp4", plugin="pyav")) == 5
        with Image.open(out / f"{name}.gif") as gif:
            assert gif.n_frames == 5


def test_frames_of_the_sheet_are_those_of_the_episodes(make_store, make_episode) -> None:
    store = make_store()
    frames = np.zeros((4, 8, 10, 3), np.uint8)
    frames[:] = (np.arange(4) * 60 + 20).astype(np.uint8)[:, None, None, None]
    store.append([make_episode(0, 3, frames=frames)])
    parts = viewing._chosen(store, [], 1, None, 0, 100)
    sheet = viewing.sheet(store, parts, Wording(store.action_spec))
    found = [int((sheet == grey).all(axis=-1).sum()) for grey in (20, 80, 140, 200)]
    assert all(count >= 8 * 10 * 16**2 for count in found)  # each frame once, sixteen times as large
    assert SHEET_COLUMNS > 4  # so there are empty places, and they are no frames


def test_only_the_part_asked_for_is_read(make_store, make_episode, monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    store = make_store()
    store.append([make_episode(0, 300)])
    asked: list[tuple[int, int]] = []
    whole = EpisodeStore.frames

    def watched(store: EpisodeStore, episode_id: str) -> Any:
        reader = whole(store, episode_id)

        class Watched:
            def __len__(self) -> int:
                return len(reader)

            def read(self, start: int, stop: int) -> np.ndarray:
                asked.append((start, stop))
                return reader.read(start, stop)

        return Watched()

    monkeypatch.setattr(EpisodeStore, "frames", watched)
    monkeypatch.setattr(viewing, "GIF_FRAMES", 20)
    report = view(store.folder, ["000000"], tmp_path / "out", start=100, steps=80)
    assert max(stop - start for start, stop in asked) <= viewing.PIECE
    assert (min(start for start, _ in asked), max(stop for _, stop in asked)) == (100, 181)
    assert len(iio.imread(tmp_path / "out" / "000000.mp4", plugin="pyav")) == 81
    with Image.open(tmp_path / "out" / "000000.gif") as gif:
        assert gif.n_frames == report.data["episodes"][0]["gif_frames"] == 20
    assert any("first 20 frames" in note for note in report.notes)


@pytest.mark.parametrize("size", [(8, 8), (64, 64), (400, 700), (2048, 16)])
def test_frames_of_any_size_are_brought_to_a_size_that_can_be_looked_at(size: tuple[int, int]) -> None:
    height, width, scale = viewing._fitted(*size, viewing.CLIP_SIZE)
    assert height * scale <= viewing.CLIP_SIZE[0]
    assert width * scale <= viewing.CLIP_SIZE[1]
    assert height * scale * 2 > viewing.CLIP_SIZE[0] or width * scale * 2 > viewing.CLIP_SIZE[1]


def test_large_frames_are_drawn(tmp_path: Path, action_spec: ActionSpec, make_episode) -> None:
    store = EpisodeStore.create(tmp_path / "wide", action_spec, FrameSpec(height=300, width=500, fps=30.0), "A-v0", {})
    store.append([make_episode(0, 2, frames=np.full((3, 300, 500, 3), 90, np.uint8))])
    view(store.folder, out=tmp_path / "out")
    picture = iio.imread(tmp_path / "out" / "000000.gif")[0]
    assert picture.shape[1] < 500
    assert (picture == 90).all(axis=-1).sum() == 216 * 360


# ---------------------------------------------------------------- the command


def test_the_command_says_what_it_made(make_store, tmp_path: Path, capfd) -> None:
    store = make_store(8, heldout_fraction=0.3)
    assert run(["data", "view", str(store.folder), "--split", "heldout", "--steps", "2", "--json"]) == 0
    data = json.loads(capfd.readouterr().out)
    assert [entry["id"] for entry in data["episodes"]] == store.ids("heldout")
    assert {(entry["start"], entry["stop"]) for entry in data["episodes"]} == {(0, 3)}
    assert all(Path(entry["mp4"]).is_file() and Path(entry["gif"]).is_file() for entry in data["episodes"])
    assert Path(data["sheet"]) == tmp_path / "store-view" / "sheet.png"
    assert run(["data", "view", str(store.folder), "000003", "000001", "--out", str(tmp_path / "two")]) == 0
    assert (tmp_path / "two" / "000003.gif").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["000009"], "no episode '000009'"),
        (["--count", "0"], "--count is 0; expected 1 to 64"),
        (["--count", "65"], "--count is 65"),
        (["--steps", "0"], "--steps is 0; expected at least 1"),
        (["--start", "-1"], "--start is -1"),
        (["--start", "4"], "has 4 steps; --start is 4"),
        (["000000", "--start", "99"], "episode 000000 has 4 steps; --start is 99"),
        (["--split", "test"], "--split is 'test'; expected train or heldout"),
        (["--count", "few"], "Invalid value for '--count'"),
        (["--out", "{store}"], "is not an empty folder"),
        (["--out", "{store}/manifest.json"], "is not an empty folder"),
    ],
)
def test_bad_arguments_are_told_and_make_nothing(make_store, tmp_path: Path, capfd, arguments, message) -> None:
    store = make_store(2)
    before = sorted(path.name for path in tmp_path.rglob("*"))
    arguments = [argument.format(store=store.folder) for argument in arguments]
    assert run(["data", "view", str(store.folder), *arguments]) == 2
    told = capfd.readouterr().err
    assert message in " ".join(told.split())
    assert "Traceback" not in told
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_empty_stores_and_splits_are_told(make_store, make_episode) -> None:
    with pytest.raises(InputError, match="has no episodes"):
        view(make_store().folder)
    store = make_store(name="one")
    store.append([make_episode(0)])
    missing = {"train", "heldout"} - {store.episodes[0].split}
    with pytest.raises(InputError, match=f"has no {missing.copy().pop()} episodes"):
        view(store.folder, split=missing.pop())
    with pytest.raises(InputError, match="is not in"):
        view(store.folder, ["000000"], split="heldout" if store.episodes[0].split == "train" else "train")


def test_a_damaged_episode_is_told(make_store, capfd) -> None:
    store = make_store(2)
    path = store.folder / "000001.safetensors"
    path.write_bytes(path.read_bytes()[:-9])
    assert run(["data", "view", str(store.folder)]) == 3
    assert "000001" in capfd.readouterr().err
