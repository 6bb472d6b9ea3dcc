"""Kind `owamcap`: MCAP files of Open World Agents, written with the format's own library."""

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
from mcap.writer import Writer

from ahriuwu_cli.core.errors import DataError, InputError
from ahriuwu_cli.sources.imports.desktop_events import KINDS, DesktopEvents
from ahriuwu_cli.sources.imports.fields import Entry
from ahriuwu_cli.sources.imports.mcap_messages import Message, messages
from ahriuwu_cli.sources.imports.owamcap import OwamcapImporter
from ahriuwu_cli.sources.imports.protocol import Happenings, Recorded, RecordingError, Source, Switches

FRAMES, RATE, SIDE = 24, 25, 32
START = 1_751_017_792_000_000_000
SCHEMAS = {
    "window": "desktop/WindowInfo",
    "keyboard/state": "desktop/KeyboardState",
    "mouse/state": "desktop/MouseState",
    "screen": "desktop/ScreenCaptured",
    "mouse": "desktop/MouseEvent",
    "mouse/raw": "desktop/RawMouseEvent",
    "keyboard": "desktop/KeyboardEvent",
}
Said = tuple[float, str, Any]  # seconds from the beginning, topic, message
Change = Callable[[list[Said]], object]


def seen_at(frame: int) -> float:
    """Seconds after the beginning at which a frame was seen: as in the video, 0.3 s later, with some jitter."""
    return 0.3 + frame / RATE + (0.004 if frame % 2 else 0.0)


def screen(frame: int, name: str = "play.mkv") -> Said:
    stamp = round(frame / RATE * 1e9)
    return seen_at(frame), "screen", {
        "utc_ns": START,
        "source_shape": [1920, 1080],
        "shape": [SIDE, SIDE],
        "media_ref": {"uri": name, "pts_ns": stamp},
    }  # fmt: skip


def raw(time: float, x: int = 0, y: int = 0, flags: int = 0, data: int = 0) -> Said:
    return time, "mouse/raw", {
        "us_flags": 0,
        "last_x": x,
        "last_y": y,
        "button_flags": flags,
        "button_data": data,
        "timestamp": None,
    }  # fmt: skip


def key(time: float, what: str, code: int) -> Said:
    return time, "keyboard", {"event_type": what, "vk": code, "timestamp": None}


def play() -> list[Said]:
    """A held from before on, W down twice (once by repeating), moves, a left click, two notches of the wheel."""
    return [
        (0.0, "window", {"title": "a game", "rect": [0, 0, 1, 1], "hWnd": 1}),
        (0.0, "keyboard/state", {"pressed_keys": [0x41, 0x01], "timestamp": None}),
        (0.0, "mouse/state", {"x": 5, "y": 5, "buttons": ["right"], "timestamp": None}),
        *(screen(frame) for frame in range(FRAMES)),
        key(0.40, "press", 0x57),
        key(0.45, "press", 0x57),
        key(0.50, "release", 0x57),
        key(0.60, "release", 0x41),
        raw(0.41, 3, -2),
        raw(0.42, -7),
        raw(0.50, flags=0x0001),
        raw(0.55, flags=0x0002 | 0x0008),
        raw(0.70, flags=0x0400, data=240),
        raw(0.75, flags=0x0400, data=0x10000 - 120),
        (0.41, "mouse", {"event_type": "move", "x": 100, "y": 100}),
        (0.42, "mouse", {"event_type": "move", "x": 110, "y": 95}),
        (0.50, "mouse", {"event_type": "click", "x": 110, "y": 95, "button": "left", "pressed": True}),
        (0.55, "mouse", {"event_type": "click", "x": 110, "y": 95, "button": "left", "pressed": False}),
        (0.70, "mouse", {"event_type": "scroll", "x": 110, "y": 95, "dx": 0, "dy": -2}),
    ]


def write_mcap(path: Path, said: list[Said], *, encoding: str = "json", schemas: dict[str, str] | None = None) -> None:
    with path.open("wb") as file:
        writer = Writer(file, chunk_size=2048)
        writer.start(profile="owa", library="mcap-owa-support 0.5.1; mcap 1.3.0")
        channels = {}
        for topic, schema in (SCHEMAS if schemas is None else schemas).items():
            number = writer.register_schema(schema, "jsonschema", b"{}") if schema else 0
            channels[topic] = writer.register_channel(topic, encoding, number)
        for time, topic, content in said:
            stamp = START + round(time * 1e9)
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            writer.add_message(channels[topic], stamp, data, stamp)
        writer.finish()


def write(folder: Path, change: Change | None = None, frames: int = FRAMES, name: str = "play") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_play(folder / f"{name}.mkv", np.arange(frames), RATE)
    said = play()
    if change:
        change(said)
    write_mcap(folder / f"{name}.mcap", said)
    return folder


def source(folder: Path, **options: Any) -> Source:
    return OwamcapImporter().open_source(folder, options)


def opened(folder: Path, **options: Any) -> Recorded:
    found = source(folder, **options).recordings
    assert len(found) == 1
    return found[0].open()


def happened(recorded: Recorded, part: str) -> list[tuple[float, list[float]]]:
    track = recorded.actions[part]
    assert isinstance(track, Happenings)
    return [(round(time - START * 1e-9, 3), row) for time, row in zip(track.times, track.values.tolist(), strict=True)]


def switched(recorded: Recorded, part: str) -> list[tuple[bool, list[tuple[float, bool]]]]:
    track = recorded.actions[part]
    assert isinstance(track, Switches)
    return [
        (
            each.before,
            [(round(t - START * 1e-9, 3), bool(d)) for t, d in zip(each.times, each.down, strict=True)],
        )
        for each in track.switches
    ]


def test_frames_are_those_of_the_video_at_the_times_of_the_log(tmp_path: Path) -> None:
    recorded = opened(write(tmp_path / "s"))
    np.testing.assert_allclose(recorded.frames.times - START * 1e-9, [seen_at(n) for n in range(FRAMES)], atol=1e-6)
    assert [int(image[0, 0, 0]) for image in recorded.frames.chosen(range(FRAMES))] == list(range(FRAMES))
    assert not recorded.notes


def test_the_mouse_is_what_the_device_sent(tmp_path: Path) -> None:
    recorded = opened(write(tmp_path / "s"))
    assert happened(recorded, "mouse") == [(0.41, [3.0, -2.0]), (0.42, [-7.0, 0.0])]
    assert happened(recorded, "wheel") == [(0.7, [2.0]), (0.75, [-1.0])]
    buttons = switched(recorded, "buttons")
    assert buttons[:2] == [(False, [(0.5, True), (0.55, False)]), (True, [(0.55, False)])]
    assert not any(before or changes for before, changes in buttons[2:])


def test_keys_are_those_that_were_pressed_and_a_held_one_is_down_from_the_beginning(tmp_path: Path) -> None:
    write(tmp_path / "s")
    keys = source(tmp_path).action.components[-1]
    assert (keys.name, keys.labels) == ("keys", ("a", "w"))
    a, w = switched(opened(tmp_path), "keys")
    assert a == (True, [(0.6, False)])
    assert w == (False, [(0.4, True), (0.45, True), (0.5, False)])


def test_keys_may_be_chosen(tmp_path: Path) -> None:
    write(tmp_path / "s")
    assert source(tmp_path, keys=["W", "space"]).action.components[-1].labels == ("space", "w")
    space, w = switched(opened(tmp_path, keys=["W", "space"]), "keys")
    assert space == (False, [])
    assert len(w[1]) == 3
    with pytest.raises(InputError, match="no key 'jump'"):
        source(tmp_path, keys=["jump"])


def test_what_goes_up_first_was_down(tmp_path: Path) -> None:
    def unsaid(said: list[Said]) -> None:
        said[:] = [each for each in said if each[1] != "keyboard/state"]

    a, w = switched(opened(write(tmp_path / "s", unsaid)), "keys")
    assert (a[0], w[0]) == (True, False)


def test_without_raw_events_the_pointer_is_the_mouse(tmp_path: Path) -> None:
    def pointer(said: list[Said]) -> None:
        said[:] = [each for each in said if each[1] != "mouse/raw"]

    recorded = opened(write(tmp_path / "s", pointer))
    assert happened(recorded, "mouse") == [(0.42, [10.0, -5.0])]
    assert happened(recorded, "wheel") == [(0.7, [-2.0])]
    assert switched(recorded, "buttons")[0] == (False, [(0.5, True), (0.55, False)])
    assert any("pointer" in note for note in recorded.notes)


def test_a_screen_that_shows_the_frame_before_is_no_frame_of_its_own(tmp_path: Path) -> None:
    def again(said: list[Said]) -> None:
        said.append((seen_at(4) + 0.01, "screen", screen(4)[2]))

    recorded = opened(write(tmp_path / "s", again))
    assert len(recorded.frames.times) == FRAMES
    assert any("1 of 25 screens" in note for note in recorded.notes)


def test_older_files_name_path_and_pts_and_have_no_schema(tmp_path: Path) -> None:
    write(tmp_path / "s")
    old = [
        (time, topic, {"path": "play.mkv", "pts": content["media_ref"]["pts_ns"]} if topic == "screen" else content)
        for time, topic, content in play()
    ]
    write_mcap(tmp_path / "s" / "play.mcap", old, schemas=dict.fromkeys(SCHEMAS, ""))
    recorded = opened(tmp_path)
    assert len(recorded.frames.times) == FRAMES
    assert happened(recorded, "mouse") == [(0.41, [3.0, -2.0]), (0.42, [-7.0, 0.0])]


def test_recordings_beside_each_other_share_their_keys(tmp_path: Path) -> None:
    write(tmp_path / "b")
    write(tmp_path / "a", lambda said: said.append(key(0.7, "press", 0x20)))
    found = source(tmp_path)
    assert [each.name for each in found.recordings] == ["a/play.mcap", "b/play.mcap"]
    assert found.action.components[-1].labels == ("space", "a", "w")
    assert all(len(switched(each.open(), "keys")) == 3 for each in found.recordings)
    assert found.recordings[0].files == (tmp_path / "a" / "play.mcap", tmp_path / "a" / "play.mkv")
    assert OwamcapImporter().detect(tmp_path) == "MCAP files"
    assert len(source(tmp_path / "a" / "play.mcap").recordings) == 1


def test_what_is_no_such_source_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no \.mcap file"):
        source(tmp_path)
    (tmp_path / "x.mcap").write_bytes(b"no MCAP")
    assert OwamcapImporter().detect(tmp_path) is None
    with pytest.raises(InputError, match="unknown key key"):
        source(tmp_path, key=["w"])


def put(*said: Said) -> Change:
    return lambda there: there.extend(said)


def screens(**values: Any) -> Change:
    """Frame 5 is told of with other values; `uri` and `pts_ns` are those of its reference."""

    def change(said: list[Said]) -> None:
        at = next(place for place, each in enumerate(said) if each[0] == seen_at(5) and each[1] == "screen")
        content = json.loads(json.dumps(said[at][2]))
        content["media_ref"].update(values)
        said[at] = (said[at][0], "screen", {**content, **{k: v for k, v in values.items() if k == "media_ref"}})

    return change


@pytest.mark.parametrize(
    ("change", "row", "reason"),
    [
        (put(key(0.0, "push", 65)), 4, "event_type is 'push'; expected press or release"),
        (put(key(0.0, "press", 256)), 4, "vk is 256; expected a whole number from 0 to 255"),
        (put((0.0, "mouse/raw", {"last_x": 1.5, "last_y": 0})), 4, "last_x is 1.5"),
        (put((0.0, "mouse/raw", {"us_flags": 1, "last_x": 1, "last_y": 0})), 4, "sent places, not movements"),
        (put((0.0, "keyboard", b"{")), 4, "it is not JSON"),
        (put((0.0, "keyboard", [1])), 4, "a list of 1; expected an object"),
        (put((0.0, "mouse", {"event_type": "click", "x": 0, "y": 0, "button": "left"})), 4, "pressed is missing"),
        (screens(pts_ns=5_000_000_000), 18, "its frame is at 5.000 s of the video, which ends at 0.920 s"),
        (screens(pts_ns=-1), 18, "media_ref.pts_ns is -1"),
        (screens(uri="other.mkv"), 18, "its frame is in a second video, 'other.mkv'"),
        (screens(media_ref={"uri": "play.mkv"}), 18, "its frame is a picture"),
    ],
)
def test_a_defect_is_named(tmp_path: Path, change: Change, row: int, reason: str) -> None:
    write(tmp_path / "a", change)
    write(tmp_path / "b")
    bad, fine = source(tmp_path).recordings
    with pytest.raises(RecordingError, match=reason) as told:
        bad.open()
    assert (told.value.file, told.value.row) == ("a/play.mcap", row)
    assert len(fine.open().frames.times) == FRAMES


@pytest.mark.parametrize(
    "uri", ["../out.mkv", "/etc/passwd", "file:///etc/passwd", "https://x/y.mkv", "a/../../b.mkv", "link.mkv", ""]
)
def test_a_video_outside_is_not_opened(tmp_path: Path, uri: str) -> None:
    write(tmp_path / "in" / "a")
    write(tmp_path, name="out")
    (tmp_path / "in" / "a" / "link.mkv").symlink_to(tmp_path / "out.mkv")
    said = [screen(frame, uri) for frame in range(FRAMES)]
    write_mcap(tmp_path / "in" / "a" / "play.mcap", said)
    with pytest.raises(RecordingError, match=r"names '|no message says which frames"):
        opened(tmp_path / "in")


def test_a_file_without_screens_a_missing_video_and_a_damaged_one_are_told(tmp_path: Path) -> None:
    folder = write(tmp_path / "a")
    write_mcap(folder / "play.mcap", play()[:3])
    with pytest.raises(RecordingError, match="no message says which frames"):
        opened(tmp_path)
    write_mcap(folder / "play.mcap", play(), encoding="protobuf")
    with pytest.raises(RecordingError, match="is written as 'protobuf'"):
        opened(tmp_path)
    write_mcap(folder / "play.mcap", play())
    (folder / "play.mkv").unlink()
    with pytest.raises(DataError, match="cannot be opened as video"):
        opened(tmp_path)
    write(tmp_path / "a", frames=10)
    with pytest.raises(RecordingError, match="which ends at") as told:
        opened(tmp_path)
    assert told.value.row is not None


def test_a_file_cut_short_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "a") / "play.mcap"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(RecordingError, match="damaged or cut short"):
        opened(tmp_path)


@given(st.lists(st.tuples(st.integers(0, 6000), st.integers(0, 255)), min_size=1, max_size=4), st.integers(0, 6000))
def test_damaged_bytes_are_read_or_told(
    tmp_path_factory: pytest.TempPathFactory, flips: list[tuple[int, int]], cut: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.mcap"
    write_mcap(path, play())
    content = bytearray(path.read_bytes())
    for at, value in flips:
        content[at % len(content)] = value
    path.write_bytes(content[: len(content) - cut if cut < 200 else len(content)])
    try:
        for _ in messages(path, "any.mcap", {*KINDS, "ScreenCaptured"}):
            pass
    except RecordingError as error:
        str(error).encode()


SCALAR = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
FIELDS = ("event_type", "vk", "pressed_keys", "buttons", "x", "y", "dy", "button", "pressed", "us_flags", "last_x")
VALUES = SCALAR | st.lists(SCALAR, max_size=2) | st.sampled_from(["press", "click", "scroll", "left"])


@given(st.sampled_from(sorted(KINDS)), st.dictionaries(st.sampled_from((*FIELDS, "last_y", "button_flags")), VALUES))
def test_any_message_is_taken_or_named(kind: str, content: dict[str, Any]) -> None:
    events = DesktopEvents()
    try:
        events.add(Message(kind, 0.0, Entry(content, "any.mcap", 3)))
    except RecordingError as error:
        assert error.row == 3
    else:
        for track in events.tracks(sorted(events.keys.seen())).values():
            assert isinstance(track, Switches) or np.isfinite(track.values).all()


def test_a_recording_becomes_an_episode(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / "in" / name)
    (episode, _), report = imported(tmp_path / "in", tmp_path / "out", "owamcap")
    assert (episode.num_frames, bool(episode.action_valid.all())) == (FRAMES, True)
    assert report["frames"] == {"repeated": 0, "dropped": 0, "late": 0}
    mouse, wheel, left, a, w = (episode.actions[:, column] for column in (0, 2, 3, 8, 9))
    seen = np.array([seen_at(number) for number in range(FRAMES)])
    assert {step: float(mouse[step]) for step in np.flatnonzero(mouse)} == {2: -4.0}
    assert wheel.sum() == 1
    assert np.flatnonzero(left).tolist() == [4, 5, 6]  # from 0.46 to 0.584 s
    assert a[: int(np.searchsorted(seen, 0.6))].all()
    assert not a[int(np.searchsorted(seen, 0.6)) :].any()
    assert w.any()
    assert [int(frame[0, 0, 0]) for frame in episode.frames] == list(range(FRAMES))
