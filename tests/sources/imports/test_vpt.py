"""Kind `vpt`: contractor recordings of Minecraft as they were published."""

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
from ahriuwu_cli.sources.imports.cursor import SIZE, draw_cursor
from ahriuwu_cli.sources.imports.fields import read_lines
from ahriuwu_cli.sources.imports.protocol import Recorded, RecordingError, Rows, Source
from ahriuwu_cli.sources.imports.vpt import NAMES, Ticks, VptImporter, bin_degrees, camera_bins

FRAMES, RATE = 24, 20
NAME = "cheeky-cornflower-setter-02e496ce4abb-20220421-092639"
Change = Callable[[list[dict[str, Any]]], object]
NOOP = 60


def tick(number: int) -> dict[str, Any]:
    """What the recorder writes of a tick in which nothing is done."""
    return {
        "mouse": {
            "x": 640.0,
            "y": 360.0,
            "dx": 0.0,
            "dy": 0.0,
            "scaledX": 0.0,
            "scaledY": 0.0,
            "dwheel": 0.0,
            "buttons": [],
            "newButtons": [],
        },
        "keyboard": {"keys": [], "newKeys": [], "chars": ""},
        "isGuiOpen": False,
        "isGuiInventory": False,
        "hotbar": 2,
        "yaw": 0.0,
        "pitch": 0.0,
        "xpos": 0.5,
        "ypos": 64.0,
        "zpos": 0.5,
        "tick": number,
        "milli": 1650532000000 + 50 * number,
        "inventory": [{"type": "oak_log", "quantity": 3}],
        "serverTick": 100 + number,
        "stats": {"minecraft.custom:minecraft.jump": number},
    }


def write(folder: Path, change: Change | None = None, frames: int = FRAMES) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_play(folder / f"{NAME}.mp4", np.arange(100, 100 + frames), RATE)
    ticks = [tick(number) for number in range(FRAMES)]
    if change:
        change(ticks)
    (folder / f"{NAME}.jsonl").write_text("".join(json.dumps(each) + "\n" for each in ticks))
    return folder


def source(folder: Path, **options: Any) -> Source:
    return VptImporter().open_source(folder, options)


def opened(folder: Path, **options: Any) -> Recorded:
    found = source(folder, **options).recordings
    assert len(found) == 1
    return found[0].open()


def pressed(recorded: Recorded, names: tuple[str, ...] = NAMES["policy"]) -> dict[int, set[str]]:
    """Names of keys that are down, by tick."""
    track = recorded.actions["keys"]
    assert isinstance(track, Rows)
    return {number: {names[key] for key in np.flatnonzero(row)} for number, row in enumerate(track.values) if row.any()}


def camera(recorded: Recorded) -> list[int]:
    track = recorded.actions["camera"]
    assert isinstance(track, Rows)
    return [int(value) for value in track.values[:, 0]]


def test_every_tick_has_its_frame_and_none_is_dropped(tmp_path: Path) -> None:
    recorded = opened(write(tmp_path / "6.7"))
    np.testing.assert_allclose(recorded.frames.times, np.arange(FRAMES) / RATE)
    track = recorded.actions["camera"]
    assert isinstance(track, Rows)
    np.testing.assert_array_equal(track.times, recorded.frames.times)
    assert list(track.numbers or ()) == list(range(1, FRAMES + 1))
    assert camera(recorded) == [NOOP] * FRAMES
    assert pressed(recorded) == {}
    assert [int(image[0, 0, 0]) for image in recorded.frames.chosen(range(FRAMES))] == list(range(100, 100 + FRAMES))
    assert not recorded.notes


def test_keys_buttons_and_slots_become_the_keys_of_the_published_agents(tmp_path: Path) -> None:
    def play(ticks: list[dict[str, Any]]) -> None:
        ticks[1]["keyboard"]["keys"] = ["key.keyboard.w", "key.keyboard.left.control", "key.keyboard.h"]
        ticks[2]["mouse"].update(buttons=[0, 1, 2], newButtons=[0])
        for each in ticks[3:]:
            each["hotbar"] = 7
        ticks[5]["keyboard"]["keys"] = ["key.keyboard.1"]
        ticks[6]["keyboard"]["keys"] = ["key.keyboard.escape"]
        ticks[7].update(isGuiOpen=True, keyboard={"keys": ["key.keyboard.escape"], "newKeys": [], "chars": ""})

    write(tmp_path / "6.7", play)
    common = {1: {"forward", "sprint"}, 3: {"hotbar.8"}, 5: {"hotbar.1"}}
    assert pressed(opened(tmp_path)) == common | {2: {"attack", "use"}, 7: {"inventory"}}
    every = pressed(opened(tmp_path, keys="game"), NAMES["game"])
    assert every == common | {2: {"attack", "use", "pickItem"}, 6: {"ESC"}, 7: {"ESC"}}
    assert (len(NAMES["policy"]), len(NAMES["game"])) == (20, 23)


def test_a_turn_is_a_class_of_the_foveated_grid(tmp_path: Path) -> None:
    def turn(ticks: list[dict[str, Any]]) -> None:
        ticks[1]["mouse"].update(dx=4.0)  # 0.6 degrees to the right
        ticks[2]["mouse"].update(dy=-1000.0)  # far up
        ticks[3]["mouse"].update(dx=0.5)

    assert camera(opened(write(tmp_path / "6.7", turn)))[:4] == [NOOP, NOOP + 1, 0 * 11 + 5, NOOP]
    labels = source(tmp_path).action.components[0].labels
    assert labels[NOOP] == "down +0.00 right +0.00"
    assert len(labels) == 121


def test_the_bins_are_those_of_the_mu_law() -> None:
    # by hand: 10 * (11 ** (k / 5) - 1) / 10 for k = 0 to 5
    np.testing.assert_allclose(bin_degrees(np.arange(5, 11)), [0, 0.6154, 1.6095, 3.2153, 5.8094, 10], atol=1e-3)
    np.testing.assert_allclose(bin_degrees(np.arange(11)), -bin_degrees(np.arange(11))[::-1], atol=1e-12)
    assert camera_bins(bin_degrees(np.arange(11))).tolist() == list(range(11))
    assert camera_bins(np.array([-1e9, 1e9])).tolist() == [0, 10]


@pytest.mark.parametrize(("version", "scale"), [("5.7", 0.5), ("6.8", 2.0), ("6.13", 1.0)])
def test_in_a_window_the_mouse_is_scaled_by_version(tmp_path: Path, version: str, scale: float) -> None:
    def turn(ticks: list[dict[str, Any]]) -> None:
        ticks[1].update(isGuiOpen=True)
        for each in ticks[1:3]:
            each["mouse"]["dx"] = 20.0  # 3 degrees

    yaw = [NOOP + int(camera_bins(np.array(3.0 * factor))) - 5 for factor in (scale, 1.0)]
    write(tmp_path / version, turn)
    assert camera(opened(tmp_path))[1:3] == yaw
    write(tmp_path / "other" / "plain", turn)
    told = opened(tmp_path / "other", version=version)
    assert camera(told)[1:3] == yaw
    assert any("no version" in note for note in opened(tmp_path / "other").notes)


def test_attack_that_is_stuck_from_the_beginning_is_not_pressed(tmp_path: Path) -> None:
    def stuck(ticks: list[dict[str, Any]]) -> None:
        for each in ticks:
            each["mouse"]["buttons"] = [0]
        ticks[0]["mouse"]["newButtons"] = [0]
        ticks[9]["mouse"]["newButtons"] = [0, 1]

    recorded = opened(write(tmp_path / "6.7", stuck))
    assert pressed(recorded) == {number: {"attack"} for number in range(9, FRAMES)}
    assert any("stuck for 9 ticks" in note for note in recorded.notes)
    write(tmp_path / "6.7", lambda ticks: (stuck(ticks), ticks[9]["mouse"].update(newButtons=[])))
    assert pressed(opened(tmp_path)) == {}


def test_the_cursor_is_drawn_while_a_window_is_open(tmp_path: Path) -> None:
    def look(ticks: list[dict[str, Any]]) -> None:
        ticks[3].update(isGuiOpen=True)
        ticks[3]["mouse"].update(x=225.0, y=112.5)  # of 720: column 10, row 5 of 32

    frames = list(opened(write(tmp_path / "6.7", look)).frames.chosen(range(FRAMES)))
    assert [number for number, image in enumerate(frames) if image.std() > 0] == [3]
    rows, columns = np.nonzero((frames[3] != 103).any(axis=2))
    assert (rows.min(), columns.min()) == (5, 10)
    assert frames[3].max() == 255


@pytest.mark.parametrize(("x", "y"), [(-5, -5), (28, 30), (-SIZE, 0), (32, 0), (10**9, -(10**9)), (0, 0)])
def test_a_cursor_at_the_edge_is_cut_off(x: int, y: int) -> None:
    wide = draw_cursor(np.zeros((96, 96, 3), np.uint8), min(max(x, -32), 60) + 32, min(max(y, -32), 60) + 32)
    drawn = draw_cursor(np.zeros((32, 32, 3), np.uint8), x, y)
    np.testing.assert_array_equal(drawn, wide[32:64, 32:64])


def test_a_frame_too_many_is_not_known_and_a_tick_too_many_is_left_out(tmp_path: Path) -> None:
    recorded = opened(write(tmp_path / "6.7", frames=FRAMES + 2))
    assert recorded.unknown[0][0] == pytest.approx(FRAMES / RATE)
    assert any("24 ticks for 26 frames" in note for note in recorded.notes)
    fewer = opened(write(tmp_path / "6.7", frames=FRAMES - 2))
    assert len(camera(fewer)) == FRAMES - 2
    assert not fewer.unknown


def test_recordings_of_all_versions_are_found_and_a_lone_log_is_told(tmp_path: Path) -> None:
    for version in ("6.10", "6.9"):
        write(tmp_path / version)
    (tmp_path / "6.9" / "lone.jsonl").write_text("")
    found = source(tmp_path)
    assert [each.name for each in found.recordings] == [f"6.9/{NAME}.mp4", f"6.10/{NAME}.mp4"]
    assert [(each.file, each.reason) for each in found.defects] == [
        ("6.9/lone.jsonl", "there is no lone.mp4 beside it")
    ]
    assert VptImporter().detect(tmp_path / "6.10")
    assert source(tmp_path / "6.10" / f"{NAME}.mp4").recordings


def test_what_is_no_such_source_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no \.jsonl file, nor"):
        source(tmp_path)
    with pytest.raises(InputError, match="version"):
        source(write(tmp_path / "6.7"), version="new")
    other = tmp_path / "other"
    other.mkdir()
    (other / "log.jsonl").write_text('{"t": 1}\n')
    assert VptImporter().detect(other) is None
    assert VptImporter().detect(Path(__file__)) is None


def mouse(number: int, **values: Any) -> Change:
    return lambda ticks: ticks[number]["mouse"].update(values)


@pytest.mark.parametrize(
    ("change", "row", "reason"),
    [
        (mouse(4, dx=float("nan")), 5, "mouse.dx is NaN; expected a number"),
        (mouse(4, dy=1e12), 5, "mouse.dy is 1000000000000.0; expected a number from"),
        (mouse(4, buttons=[0, "x"]), 5, "mouse.buttons is a list of 2; expected whole numbers"),
        (mouse(4, newButtons=None), 5, "mouse.newButtons is null; expected a list"),
        (lambda ticks: ticks[4].pop("mouse"), 5, "mouse is missing; expected an object"),
        (lambda ticks: ticks[4].update(hotbar=9), 5, "hotbar is 9; expected a whole number from 0 to 8"),
        (lambda ticks: ticks[4].update(isGuiOpen="no"), 5, "isGuiOpen is 'no'"),
        (lambda ticks: ticks[4]["keyboard"].update(keys="w"), 5, "keyboard.keys is 'w'; expected a list"),
        (lambda ticks: ticks.__setitem__(4, [1]), 5, "a list of 1; expected an object"),
        (lambda ticks: ticks.clear(), None, "0 ticks for 24 frames"),
        (lambda ticks: ticks.extend(ticks), None, "48 ticks for 24 frames"),
    ],
)
def test_a_defect_is_named(tmp_path: Path, change: Change, row: int | None, reason: str) -> None:
    write(tmp_path / "6.7", change)
    with pytest.raises(RecordingError, match=reason) as told:
        opened(tmp_path)
    assert (told.value.file, told.value.row) == (f"6.7/{NAME}.jsonl", row)


def test_a_line_cut_short_and_a_broken_video_are_told(tmp_path: Path) -> None:
    log = write(tmp_path / "6.7") / f"{NAME}.jsonl"
    content = log.read_bytes()
    log.write_bytes(content[:-30])
    with pytest.raises(RecordingError, match="row 24: it is not JSON"):
        opened(tmp_path)
    log.write_bytes(content)
    video = log.with_suffix(".mp4")
    video.write_bytes(video.read_bytes()[:200])
    with pytest.raises(DataError, match="cannot be opened as video"):
        opened(tmp_path)


@given(st.data())
def test_any_value_anywhere_is_read_or_named(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    ticks = [tick(0), tick(1)]
    place, key = data.draw(
        st.sampled_from(
            [(each, key) for each in (ticks[1], ticks[1]["mouse"], ticks[1]["keyboard"]) for key in each],
        )
    )
    scalar = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
    place[key] = data.draw(scalar | st.lists(scalar, max_size=2) | st.dictionaries(st.text(max_size=2), scalar))
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in ticks))
    read = Ticks(0.5, "game")
    try:
        for line in read_lines(path, "any.jsonl"):
            read.add(line)
    except RecordingError as error:
        assert error.row == 2
    else:
        assert ((read.camera() >= 0) & (read.camera() < 121)).all()
        assert np.array(read.keys).shape == (2, 23)


def test_a_recording_becomes_an_episode(tmp_path: Path) -> None:
    def walk(ticks: list[dict[str, Any]]) -> None:
        for each in ticks[4:9]:
            each["keyboard"]["keys"] = ["key.keyboard.w"]
        ticks[5]["mouse"]["dx"] = 4.0

    write(tmp_path / "in" / "6.7", walk)
    write(tmp_path / "in" / "6.8")
    (episode, other), _ = imported(tmp_path / "in", tmp_path / "out", "vpt")
    assert not other.actions[:, 1:].any()
    assert (episode.num_frames, bool(episode.action_valid.all())) == (FRAMES, True)
    forward = 1 + NAMES["policy"].index("forward")
    assert np.flatnonzero(episode.actions[:, forward]).tolist() == list(range(4, 9))
    assert np.flatnonzero(episode.actions[:, 0] != NOOP).tolist() == [5]
    assert [int(frame[0, 0, 0]) for frame in episode.frames] == list(range(100, 100 + FRAMES))
