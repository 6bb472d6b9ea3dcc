"""The same play on both sides of the split is named however it was encoded; other plays of the game are not."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from ahriuwu_cli.doctor.duplicates import Plays
from ahriuwu_cli.doctor.findings import Area
from ahriuwu_cli.episodes.config import DataSection, SourceSection
from ahriuwu_cli.episodes.frames import FrameTransform, to_frame
from ahriuwu_cli.episodes.store import EpisodeStore
from ahriuwu_cli.games.environment import GameEnv
from ahriuwu_cli.sources import lookalikes
from ahriuwu_cli.sources.imports.transfer import import_source
from ahriuwu_cli.sources.lookalikes import Lookalikes, Sketch, compared, twice


def play(seed: int, steps: int = 120, env_id: str = "ahriuwu/Bricks-v0", side: int = 64) -> np.ndarray:
    """A game of Bricks or another, played at random for as long as it lasts, but at least half the steps."""
    env, random = GameEnv(env_id, FrameTransform(side, side)), np.random.default_rng(seed)
    frame, info = env.reset(seed)
    frames = [frame]
    while len(frames) <= steps:
        row = info.get("expert_action")
        if row is None or random.random() < 0.3:
            row = np.array([random.integers(env.action_spec.components[0].num_classes)], np.float32)
        step = env.step(row)
        info = step.info
        frames.append(step.frame)
        if step.terminal or step.truncated:
            break
    env.close()
    return np.stack(frames)


def encode(path: Path, frames: np.ndarray, side: int, crf: int) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=15, options={"crf": str(crf), "bf": "2"})
        stream.height, stream.width, stream.pix_fmt = side, side, "yuv420p"
        for number, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(to_frame(frame, side, side), format="rgb24")
            picture.pts, picture.time_base = number, Fraction(1, 15)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def sketched(episodes: dict[str, np.ndarray]) -> Lookalikes:
    found = Lookalikes()
    for name, frames in episodes.items():
        for _ in found.watch(name, len(frames), np.array_split(frames, 3)):
            pass
    return found


def sides(names: dict[str, np.ndarray]) -> dict[str, str]:
    return {name: "heldout" if number % 3 == 0 else "train" for number, name in enumerate(names)}


@pytest.fixture(scope="module")
def plays() -> dict[str, np.ndarray]:
    return {f"{seed:02d}": play(seed) for seed in range(24)}


def test_plays_of_one_game_are_not_alike(plays: dict[str, np.ndarray]) -> None:
    assert sketched(plays).pairs(sides(plays)) == []


def test_plays_of_another_game_are_not_alike() -> None:
    pytest.importorskip("ale_py")
    games = {f"{seed}": play(seed, 60, "ALE/Pong-v5") for seed in range(8)}
    assert sketched(games).pairs(sides(games)) == []


def test_pieces_of_any_size_make_the_same_sketch(plays: dict[str, np.ndarray]) -> None:
    frames = plays["00"]
    whole, single = Sketch(len(frames)), Sketch(len(frames))
    whole.add(frames)
    for frame in frames:
        single.add(frame[None])
    assert len(whole.places) == len(whole.hashes(whole.stride)) < lookalikes.MOST
    assert np.array_equal(whole.hashes(whole.stride), single.hashes(whole.stride))


@pytest.mark.parametrize("frames", [1, 2, 15, 16, 31, 32, 33, 63, 64, 1000, 99_999])
def test_a_sketch_has_few_frames(frames: int) -> None:
    assert min(frames, lookalikes.FEWEST) <= len(Sketch(frames).places) <= lookalikes.MOST


@pytest.mark.parametrize(("first", "second"), [(0, 3), (2, 0)])
def test_a_copy_of_another_length_is_named(first: int, second: int) -> None:
    """Of 33 and 30 frames: sketched at strides 2 and 1."""
    games = {f"{seed}": play(seed, 32) for seed in range(3, 9)}
    whole = play(1, 32)
    games |= {"a": whole[: 33 - first], "b": whole[: 33 - second]}
    split = dict.fromkeys(games, "train") | {"a": "heldout"}
    assert sketched(games).pairs(split) == [("a", "b")]


def test_episodes_in_which_nothing_moves_say_nothing() -> None:
    still = np.full((40, 32, 32, 3), 9, np.uint8)
    assert sketched({"a": still, "b": still}).pairs({"a": "train", "b": "heldout"}) == []


def test_what_all_plays_share_does_not_make_them_alike() -> None:
    """A bright bar crosses every play; what differs is small beside it."""
    random = np.random.default_rng(0)
    games = {}
    for number in range(16):
        frames = np.zeros((40, 64, 64, 3), np.uint8)
        for frame in range(40):
            frames[frame, :, frame : frame + 16] = 250
        at = random.integers(0, 56, 2)
        for frame in range(40):
            at = np.clip(at + random.integers(-6, 7, 2), 0, 56)
            frames[frame, at[0] : at[0] + 8, at[1] : at[1] + 8] = 120
        games[f"{number:02d}"] = frames
    copy = games["04"].astype(np.int16) + random.integers(-6, 7, games["04"].shape)
    games["xx"] = copy.clip(0, 255).astype(np.uint8)
    split = sides(games) | {"04": "train", "xx": "heldout"}
    assert sketched(games).pairs(split) == [("xx", "04")]


def data(source: Path) -> DataSection:
    settings = SourceSection(kind="video", path=str(source), check_lag=False)
    return DataSection(source=settings, height=64, width=64, heldout_fraction=0.34)


def test_a_video_that_was_encoded_anew_is_named_at_import_and_by_doctor(
    tmp_path: Path, plays: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    long = [frames for frames in plays.values() if len(frames) > 40][:5]
    (tmp_path / "in").mkdir()
    for number, frames in enumerate(long):
        encode(tmp_path / "in" / f"{number}.mp4", frames, 256, 18)
    out = tmp_path / "out"
    assert import_source(out, data(tmp_path / "in"), seed=0).data["import"]["lookalikes"] == []
    splits = {record.id: record.split for record in EpisodeStore.open(out).episodes}
    assert set(splits.values()) == {"train", "heldout"}
    for number, frames in enumerate(
        long
    ):  # again, smaller and coarser; those that fall on the other side are to be told
        encode(tmp_path / "in" / f"again{number}.mp4", frames, 128, 30)
    report = import_source(out, data(tmp_path / "in"), seed=0)
    store = EpisodeStore.open(out)
    by_name = {record.origin.name: record for record in store.episodes if record.origin is not None}
    expected = {
        frozenset((by_name[f"{number}.mp4"].id, by_name[f"again{number}.mp4"].id))
        for number in range(5)
        if by_name[f"{number}.mp4"].split != by_name[f"again{number}.mp4"].split
    }
    assert expected
    assert {frozenset(pair) for pair in report.data["import"]["lookalikes"]} == expected
    told = [note for note in report.notes if "show the same play" in note]
    assert len(told) == min(len(expected), lookalikes.SHOWN)
    assert all(".mp4" in note and "again" in note for note in told)

    seen, area = Plays(), Area("episodes", "mend it")
    for record in store.episodes:
        seen.take(record, store.tracks(record.id), store.frames(record.id))
    seen.judge(area, store)
    [note] = [finding for finding in area.findings if finding.check == "lookalikes"]
    assert note.status == "note"
    assert f"{len(expected)} pair" in note.found

    monkeypatch.setattr(lookalikes, "SAMPLED", 1)
    fresh = Lookalikes()
    fresh.sample(by_name["again0.mp4"].id, store.frames(by_name["again0.mp4"].id))
    pairs, unseen = compared(store, fresh)
    assert unseen == 8
    assert "8 older episodes were not looked at" in twice(store, pairs, unseen)[-1]
