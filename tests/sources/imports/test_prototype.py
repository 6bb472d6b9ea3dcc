"""Kind `prototype`: the first prototype's folders, as its own programs wrote them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from imported import imported
from PIL import Image

from ahriuwu_cli.core.errors import DataError, InputError
from ahriuwu_cli.sources.imports.protocol import Happenings, Recorded, RecordingError, Rows
from ahriuwu_cli.sources.imports.prototype import PrototypeImporter
from ahriuwu_cli.sources.imports.prototype_space import KEYS, STILL, sector_of

FRAMES = 12
Change = Callable[[Any], None]


def picture(number: int) -> np.ndarray:
    """What frame `number` shows: grey by its number."""
    return np.full((32, 32, 3), 10 * number, np.uint8)


def write_pictures(folder: Path, name: str, count: int = FRAMES) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.fromarray(picture(number)).save(folder / name.format(number))


def feature(number: int) -> dict[str, Any]:
    """Frame `number` of features.json: keys in turn, every sector, gold at 3 and 7."""
    right, up = (0.0, 0.0) if number % 3 == 0 else (3.0 * np.cos(number), 3.0 * np.sin(number))
    pressed = dict.fromkeys(
        ("ability_q", "ability_w", "ability_e", "ability_r", "summoner_d", "summoner_f", "item_used"), False
    )
    pressed[list(pressed)[number % 7]] = True
    return {
        "frame_idx": number,
        "timestamp_ms": 50.0 * number + 1000.0,
        "movement_dx": right,
        "movement_dy": -up,
        "movement_slice": sector_of(right, up) % STILL,
        "movement_confidence": 0.5,
        **pressed,
        "gold_gained": {3: 21, 7: 300}.get(number, 0),
        "health_bar_x": None if number == 5 else 900 + number,
        "health_bar_y": None,
    }


def write_video(folder: Path, change: Change | None = None) -> Path:
    write_pictures(folder / "frames", "frame_{:06d}.jpg")
    content = {
        "video_id": folder.name,
        "source_resolution": "1920x1080",
        "source_fps": 60.0,
        "output_fps": 20,
        "output_resolution": "256x256",
        "team_side": "blue",
        "num_frames": FRAMES,
        "frames": [feature(number) for number in range(FRAMES)],
    }
    if change:
        change(content)
    (folder / "features.json").write_text(json.dumps(content, indent=2))
    return folder


def label(number: int) -> dict[str, Any] | None:
    """Frame `number` of labels.json: walking North, then still; nothing is known of frame 6."""
    if number == 6:
        return None
    heading = [1000.0, 2000.0 + 10 * number + 300]
    return {
        "champion_screen": [640, 360],
        "champion_world": [1000.0, 2000.0 + 10 * number],
        "champion_stats": {
            "hp": 600 - 5 * number,
            "hp_max": 600,
            "gold": 9.9e8,
            "gold_total": 500 + 20 * number,
            "level": 1,
        },
        "action": {"type": "idle", "spell": None, "screen": None},
        "cursor": {"world": heading, "screen": [640, 100]},
        "movement": None if number >= 8 else {"heading_world": heading, "heading_screen": [640, 100], "speed": 300.0},
    }


def write_match(folder: Path, change: Change | None = None, clicks: Change | None = None) -> Path:
    write_pictures(folder / "frames", "{:06d}.png")
    content = {
        "match_id": folder.name,
        "champion": "Garen",
        "team": "blue",
        "fps": 20,
        "total_frames": FRAMES,
        "frames": [
            {"frame": number, "gt": round(81 + number / 20, 3), "label": label(number)} for number in range(FRAMES)
        ],
    }
    cast = {
        "clicks": [{"game_t": 81.1, "x": 1.0, "z": 2.0}],
        "casts": [
            {"game_t": 81.32, "slot": "R", "spell_name": "GarenR"},
            {"game_t": 81.1, "slot": "Q", "spell_name": "GarenQ"},
            {"game_t": 81.5, "slot": None, "spell_name": "recall"},
            {"game_t": 81.2, "slot": "trinket", "spell_name": "ward"},
        ],
    }
    if change:
        change(content)
    if clicks:
        clicks(cast)
    (folder / "labels.json").write_text(json.dumps(content))
    (folder / "clicks.json").write_text(json.dumps(cast))
    return folder


def opened(source: Path) -> Recorded:
    found = PrototypeImporter().open_source(source, {}).recordings
    assert len(found) == 1
    return found[0].open()


def rows(recorded: Recorded, name: str) -> Rows:
    track = recorded.actions[name]
    assert isinstance(track, Rows)
    return track


def test_features_of_a_frame_are_what_was_done_on_seeing_the_one_before(tmp_path: Path) -> None:
    recorded = opened(write_video(tmp_path / "v"))
    times = 1 + 0.05 * np.arange(FRAMES)
    np.testing.assert_allclose(recorded.frames.times, times)
    movement, keys = rows(recorded, "movement"), rows(recorded, "keys")
    np.testing.assert_allclose(movement.times, times[:-1])
    for led in range(1, FRAMES):
        shown = feature(led)
        still = led % 3 == 0
        assert movement.values[led - 1, 0] == (STILL if still else shown["movement_slice"])
        assert KEYS[int(keys.values[led - 1].argmax())] == ("Q", "W", "E", "R", "D", "F", "item")[led % 7]
        assert keys.values[led - 1].sum() == 1
    assert list(movement.numbers or ()) == list(range(1, FRAMES))
    assert recorded.reward is not None
    assert {round(t, 3): v for t, v in zip(recorded.reward.times, recorded.reward.values[:, 0], strict=True) if v} == {
        1.15: 21.0,
        1.35: 300.0,
    }
    assert any("recall_b" in note for note in recorded.notes)


def test_east_and_still_are_two_classes_though_both_are_sector_0(tmp_path: Path) -> None:
    def east(content: dict[str, Any]) -> None:
        content["frames"][3] |= {"movement_slice": 0, "movement_dx": 4.0, "movement_dy": -0.5}

    values = rows(opened(write_video(tmp_path / "v", east)), "movement").values[:, 0]
    assert values[2] == 0
    assert values[5] == STILL
    assert PrototypeImporter().open_source(tmp_path, {}).action.components[0].num_classes == STILL + 1


def test_pictures_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    recorded = opened(write_video(tmp_path / "v"))
    shown = list(recorded.frames.chosen(range(FRAMES)))
    assert [round(float(image.mean()) / 10) for image in shown] == list(range(FRAMES))


def test_the_health_bar_moves_by_what_it_moved_since_it_was_last_seen(tmp_path: Path) -> None:
    events = opened(write_video(tmp_path / "v")).events
    assert set(events) == {"gold", "health_bar_dx"}  # its height was never seen
    moved = events["health_bar_dx"]
    assert moved.values[:, 0].tolist() == [1, 1, 1, 1, 2, 1, 1, 1, 1, 1]
    np.testing.assert_allclose(moved.times[4], 1.3)


def test_recall_is_read_where_it_was_written(tmp_path: Path) -> None:
    def recall(content: dict[str, Any]) -> None:
        for number, row in enumerate(content["frames"]):
            row["recall_b"] = number == 4

    keys = rows(opened(write_video(tmp_path / "v", recall)), "keys")
    assert np.flatnonzero(keys.values[:, KEYS.index("B")]).tolist() == [3]


def test_a_match_has_the_walk_of_its_labels_and_the_casts_of_its_clicks(tmp_path: Path) -> None:
    recorded = opened(write_match(tmp_path / "NA1_1"))
    np.testing.assert_allclose(recorded.frames.times, 81 + np.arange(FRAMES) / 20)
    movement = rows(recorded, "movement")
    north = 4  # 80 to 100 degrees
    assert movement.valid is not None
    assert np.flatnonzero(~movement.valid).tolist() == [6]
    assert movement.values[movement.valid, 0].tolist() == [north] * 7 + [STILL] * 4
    keys = recorded.actions["keys"]
    assert isinstance(keys, Happenings)
    assert keys.times.tolist() == [81.1, 81.32, 81.5]
    assert [KEYS[int(row.argmax())] for row in keys.values] == ["Q", "R", "B"]
    assert keys.values.sum() == 3
    assert any("other than" in note and note.endswith(": 1") for note in recorded.notes)


def test_gold_gained_is_the_reward_and_a_gap_loses_none(tmp_path: Path) -> None:
    def bad(content: dict[str, Any]) -> None:
        content["frames"][3]["label"]["champion_stats"]["gold_total"] = 7  # a bad read

    recorded = opened(write_match(tmp_path / "NA1_1", bad))
    assert recorded.reward is not None
    assert recorded.reward.values.sum() == 20 * (FRAMES - 1)
    assert recorded.reward.values[:, 0].tolist() == [20, 20, 40, 20, 40, 20, 20, 20, 20]
    assert recorded.events["gold"] is recorded.reward
    assert recorded.events["health"].values.sum() == -5 * (FRAMES - 1)
    assert any("gold_total" in note for note in recorded.notes)


def test_without_clicks_the_keys_are_not_known(tmp_path: Path) -> None:
    (write_match(tmp_path / "NA1_1") / "clicks.json").unlink()
    recorded = opened(tmp_path / "NA1_1")
    assert "keys" not in recorded.actions
    assert any("clicks.json" in note for note in recorded.notes)


def test_pictures_alone_are_play_without_actions_at_the_rate_that_is_given(tmp_path: Path) -> None:
    write_pictures(tmp_path / "v", "frame_{:06d}.jpg")
    found = PrototypeImporter().open_source(tmp_path, {"fps": 10}).recordings[0]
    recorded = found.open()
    np.testing.assert_allclose(recorded.frames.times, np.arange(FRAMES) / 10)
    assert not recorded.actions
    assert len(found.files) == FRAMES


def test_a_folder_around_recordings_of_all_layouts(tmp_path: Path) -> None:
    write_video(tmp_path / "v10")
    write_match(tmp_path / "v9")
    write_pictures(tmp_path / "v11", "frame_{:06d}.jpg")
    (tmp_path / "notes").mkdir()
    source = PrototypeImporter().open_source(tmp_path, {})
    assert [found.name for found in source.recordings] == ["v9", "v10", "v11"]
    assert all(len(found.open().frames.times) == FRAMES for found in source.recordings)
    assert PrototypeImporter().detect(tmp_path) == "labels.json beside frames"


def test_what_is_no_such_source_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no recordings of the first prototype"):
        PrototypeImporter().open_source(tmp_path, {})
    with pytest.raises(InputError, match="unknown key fsp"):
        PrototypeImporter().open_source(tmp_path, {"fsp": 10})
    assert PrototypeImporter().detect(tmp_path) is None
    assert PrototypeImporter().detect(Path(__file__)) is None


def frame(number: int, **values: Any) -> Change:
    return lambda content: content["frames"][number].update(values)


@pytest.mark.parametrize(
    ("change", "row", "reason"),
    [
        (frame(7, movement_slice=18), 7, "movement_slice is 18; expected a whole number from 0 to 17"),
        (frame(7, movement_dx=float("nan")), 7, "movement_dx is NaN"),
        (frame(7, ability_q="yes"), 7, "ability_q is 'yes'; expected true or false"),
        (frame(7, frame_idx=8), 7, "frame_idx is 8; expected 7"),
        (frame(7, timestamp_ms=1300.0), 7, "timestamp_ms is 1300.0; expected more than 1300"),
        (frame(7, gold_gained=-5), 7, "gold_gained is -5"),
        (frame(7, health_bar_x="left"), 7, "health_bar_x is 'left'"),
        (lambda content: content["frames"][7].pop("movement_dy"), 7, "movement_dy is missing"),
        (lambda content: content["frames"].__setitem__(7, None), 7, "null; expected an object"),
        (lambda content: content.update(num_frames=99), None, "num_frames is 99; expected 12"),
        (
            lambda content: content.update(frames=content["frames"][:-1], num_frames=11),
            None,
            "11 frames in it, and 12",
        ),
        (lambda content: content.pop("frames"), None, "frames is missing"),
    ],
)
def test_a_defect_of_features_is_named(tmp_path: Path, change: Change, row: int | None, reason: str) -> None:
    write_video(tmp_path / "v", change)
    with pytest.raises(RecordingError, match=reason) as told:
        opened(tmp_path)
    assert (told.value.file, told.value.row) == ("v/features.json", row)


@pytest.mark.parametrize(
    ("change", "row", "reason"),
    [
        (frame(4, gt=81.0), 4, "gt is 81.0; expected more than 81.15"),
        (frame(4, frame=5), 4, "frame is 5; expected 4"),
        (frame(4, label=3), 4, "label is 3; expected an object"),
        (lambda content: content["frames"][4]["label"].update(movement=[1]), 4, "label.movement is a list of 1"),
        (
            lambda content: content["frames"][4]["label"]["movement"].update(heading_world=[1, "x"]),
            4,
            "label.movement.heading_world is a list of 2; expected two numbers",
        ),
        (
            lambda content: content["frames"][4]["label"]["champion_stats"].update(gold_total=-1),
            4,
            "champion_stats.gold_total is -1",
        ),
        (lambda content: content.update(total_frames=99), None, "total_frames is 99; expected 12"),
    ],
)
def test_a_defect_of_labels_is_named(tmp_path: Path, change: Change, row: int | None, reason: str) -> None:
    write_match(tmp_path / "m", change)
    with pytest.raises(RecordingError, match=reason) as told:
        opened(tmp_path)
    assert (told.value.file, told.value.row) == ("m/labels.json", row)


@pytest.mark.parametrize(
    ("change", "row", "reason"),
    [
        (lambda content: content["casts"][1].pop("game_t"), 1, "casts.game_t is missing"),
        (lambda content: content["casts"][1].update(slot=4), 1, "casts.slot is 4; expected text"),
        (lambda content: content.pop("casts"), None, "casts is missing; expected a list"),
    ],
)
def test_a_defect_of_clicks_is_named(tmp_path: Path, change: Change, row: int | None, reason: str) -> None:
    write_match(tmp_path / "m", clicks=change)
    with pytest.raises(RecordingError, match=reason) as told:
        opened(tmp_path)
    assert (told.value.file, told.value.row) == ("m/clicks.json", row)


def test_a_missing_picture_and_a_damaged_one_are_named(tmp_path: Path) -> None:
    gone = write_video(tmp_path / "v") / "frames" / "frame_000003.jpg"
    kept = gone.read_bytes()
    gone.write_bytes(kept[:50])
    with pytest.raises(RecordingError, match=r"frame_000003\.jpg: no picture"):
        list(opened(tmp_path).frames.chosen(range(FRAMES)))
    gone.unlink()
    with pytest.raises(RecordingError, match="picture of frame 3 is missing") as told:
        opened(tmp_path)
    assert (told.value.file, told.value.row) == ("v", 3)


def test_one_defect_leaves_the_other_recordings(tmp_path: Path) -> None:
    (write_video(tmp_path / "a") / "features.json").write_bytes(b'{"frames": [')
    write_video(tmp_path / "b")
    first, second = PrototypeImporter().open_source(tmp_path, {}).recordings
    with pytest.raises(RecordingError, match=r"a/features\.json, row 1: it is not JSON"):
        first.open()
    assert len(second.open().frames.times) == FRAMES


ANY = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.lists(st.integers(), max_size=2)
)


@given(st.sampled_from(["features", "labels", "clicks"]), st.data())
def test_any_value_anywhere_is_read_or_named(tmp_path_factory: pytest.TempPathFactory, which: str, data: Any) -> None:
    folder = tmp_path_factory.getbasetemp() / f"any_{which}"
    if not folder.exists():
        (write_video if which == "features" else write_match)(folder)
        (folder / f"{which}.kept").write_bytes((folder / f"{which}.json").read_bytes())
    content = json.loads((folder / f"{which}.kept").read_bytes())
    node: Any = content
    while True:
        place = data.draw(st.sampled_from(sorted(node) if isinstance(node, dict) else range(len(node))))
        if not node[place] or not isinstance(node[place], dict | list) or data.draw(st.booleans()):
            break
        node = node[place]
    node[place] = data.draw(ANY)
    (folder / f"{which}.json").write_text(json.dumps(content))
    try:
        recorded = opened(folder)
    except DataError as error:
        str(error).encode()
    else:
        assert all(np.isfinite(track.values).all() for track in (*recorded.events.values(), *recorded.actions.values()))


def test_a_video_and_a_match_become_episodes(tmp_path: Path) -> None:
    write_video(tmp_path / "in" / "v")
    write_match(tmp_path / "in" / "m")
    (write_video(tmp_path / "in" / "w") / "features.json").write_text("{")
    (match, video), report = imported(tmp_path / "in", tmp_path / "out", "prototype")
    assert [each["file"] for each in report["defects"]] == ["w/features.json"]
    assert (video.num_frames, match.num_frames) == (FRAMES, FRAMES)
    sectors = [STILL if led % 3 == 0 else feature(led)["movement_slice"] for led in range(1, FRAMES)]
    assert video.actions[:, 0].tolist() == sectors
    assert video.action_valid.all()
    assert np.flatnonzero(video.rewards).tolist() == [2, 6]
    assert video.total_reward == 321
    assert match.action_valid.tolist() == [number != 6 for number in range(FRAMES - 1)]
    assert np.flatnonzero(match.actions[:, 1 + KEYS.index("Q")]).tolist() == [2]
    assert np.flatnonzero(match.actions[:, 1 + KEYS.index("B")]).tolist() == [10]
    assert match.total_reward == 20 * (FRAMES - 1)
    assert [round(float(frame.mean()) / 10) for frame in match.frames] == list(range(FRAMES))
