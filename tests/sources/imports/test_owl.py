"""Kind `owl`: folders as OWL Control writes them, by old and by new recorders."""

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
from ahriuwu_cli.sources.imports.owl import OwlImporter
from ahriuwu_cli.sources.imports.owl_inputs import ARGUMENTS, MARKS, Inputs
from ahriuwu_cli.sources.imports.protocol import Happenings, Recorded, RecordingError, Source, Switches

FRAMES, RATE = 30, 60
BEGUN = 1_767_633_347.708028
"""Of the video, seconds since 1970."""
BLACK = 6
"""Frames before the game was hooked."""
Row = tuple[float, str, Any]  # seconds from the video's beginning, type, arguments
Change = Callable[[list[Row]], object]


def play() -> list[Row]:
    """A and the left button held from before on, W repeated, moves, a right click, the wheel, E and a gamepad."""
    held = {"inputs": {"keyboard": [65, 116], "mouse": [1]}}
    return [
        (-0.12, "START", held),
        (0.0, "VIDEO_START", []),
        (0.001, "KEYBOARD", [116, False]),
        (0.05, "MOUSE_MOVE", [50, 50]),
        (BLACK / RATE, "HOOK_START", []),
        (0.21, "KEYBOARD", [87, True]),
        (0.22, "KEYBOARD", [87, True]),
        (0.30, "KEYBOARD", [87, False]),
        (0.35, "KEYBOARD", [65, False]),
        (0.21, "MOUSE_MOVE", [3, -2]),
        (0.212, "MOUSE_MOVE", [-7, 0]),
        (0.25, "MOUSE_BUTTON", [2, True]),
        (0.26, "MOUSE_BUTTON", [2, False]),
        (0.28, "MOUSE_BUTTON", [1, False]),
        (0.31, "SCROLL", [240]),
        (0.33, "SCROLL", [-120]),
        (0.40, "KEYBOARD", [69, True]),
        (0.41, "KEYBOARD", [69, False]),
        (0.42, "GAMEPAD_AXIS", [1, 0.5, "XInput:0"]),
        (0.43, "UNFOCUS", []),
        (0.45, "VIDEO_END", []),
        (0.46, "END", held),
    ]


def text(rows: list[Row], *, doubled: bool) -> str:
    """The side-car; quotes in the arguments doubled as new recorders do, or not, as old ones."""
    lines = ["timestamp,event_type,event_args"]
    for time, kind, arguments in rows:
        said = arguments if isinstance(arguments, str) else json.dumps(arguments, separators=(",", ":"))
        said = said.replace('"', '""') if doubled else said
        lines.append(f'{BEGUN + time!r},{kind},"{said}"')
    return "\n".join(lines) + "\n"


def write(
    folder: Path, change: Change | None = None, *, doubled: bool = False, frames: int = FRAMES, video: str = "recording"
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_play(folder / f"{video}.mp4", np.arange(frames), RATE)
    rows = play()
    if change:
        change(rows)
    (folder / "inputs.csv").write_text(text(rows, doubled=doubled))
    (folder / "metadata.json").write_text(json.dumps({"game_exe": "quake.exe", "duration": 0.5}))
    return folder


def source(folder: Path, **options: Any) -> Source:
    return OwlImporter().open_source(folder, options)


def opened(folder: Path, **options: Any) -> Recorded:
    found = source(folder, **options)
    assert (len(found.recordings), list(found.defects)) == (1, [])
    return found.recordings[0].open()


def happened(recorded: Recorded, part: str) -> list[tuple[float, list[float]]]:
    track = recorded.actions[part]
    assert isinstance(track, Happenings)
    return [(round(time, 4), row) for time, row in zip(track.times.tolist(), track.values.tolist(), strict=True)]


def switched(recorded: Recorded, part: str) -> list[tuple[bool, list[tuple[float, bool]]]]:
    track = recorded.actions[part]
    assert isinstance(track, Switches)
    return [
        (each.before, [(round(t, 4), bool(d)) for t, d in zip(each.times.tolist(), each.down, strict=True)])
        for each in track.switches
    ]


@pytest.mark.parametrize("doubled", [False, True])
def test_frames_begin_where_the_game_is_seen_on_the_clock_of_the_video(tmp_path: Path, *, doubled: bool) -> None:
    recorded = opened(write(tmp_path / "s", doubled=doubled, video="2026-01-05 17-15-47"))
    np.testing.assert_allclose(recorded.frames.times, np.arange(BLACK, FRAMES) / RATE, atol=1e-6)
    count = len(recorded.frames.times)
    assert [int(image[0, 0, 0]) for image in recorded.frames.chosen(range(count))] == list(range(BLACK, FRAMES))
    assert any("6 frames before HOOK_START are left out" in note for note in recorded.notes)
    np.testing.assert_allclose(recorded.unknown, [(-np.inf, -0.12), (0.46, np.inf)], atol=1e-6)


@pytest.mark.parametrize("doubled", [False, True])
def test_what_was_done(tmp_path: Path, *, doubled: bool) -> None:
    write(tmp_path / "s", doubled=doubled)
    parts = source(tmp_path).action.components
    assert [part.name for part in parts] == ["mouse", "wheel", "buttons", "keys"]
    labels = parts[3].labels
    assert set(labels) == {"w", "a", "s", "d", "space", "shift", "ctrl"}
    recorded = opened(tmp_path)
    assert happened(recorded, "mouse") == [(0.05, [50, 50]), (0.21, [3, -2]), (0.212, [-7, 0])]
    assert happened(recorded, "wheel") == [(0.31, [2.0]), (0.33, [-1.0])]
    left, right, middle, *_ = switched(recorded, "buttons")
    assert (left, right) == ((True, [(0.28, False)]), (False, [(0.25, True), (0.26, False)]))
    assert middle == (False, [])
    keys = dict(zip(labels, switched(recorded, "keys"), strict=True))
    assert keys["a"] == (True, [(0.35, False)])
    assert keys["w"] == (False, [(0.21, True), (0.22, True), (0.3, False)])
    assert keys["space"] == (False, [])
    assert any("pressed: e, f5" in note for note in recorded.notes)
    assert any("1 events of a gamepad" in note for note in recorded.notes)


def test_keys_may_be_chosen_or_left_out(tmp_path: Path) -> None:
    write(tmp_path / "s")
    assert source(tmp_path, keys=["E"]).action.components[-1].labels == ("e",)
    assert switched(opened(tmp_path, keys=["E"]), "keys") == [(False, [(0.4, True), (0.41, False)])]
    assert "keys" not in opened(tmp_path, keys=[]).actions
    with pytest.raises(InputError, match="no key 'jump'"):
        source(tmp_path, keys=["jump"])


def test_rows_out_of_order_are_taken_by_their_times(tmp_path: Path) -> None:
    straight = opened(write(tmp_path / "a" / "s"))
    crooked = opened(write(tmp_path / "b" / "s", lambda rows: rows.reverse()))
    for part in ("mouse", "wheel"):
        assert happened(straight, part) == happened(crooked, part)
    for part in ("buttons", "keys"):
        assert switched(straight, part) == switched(crooked, part)


def without(*kinds: str) -> Change:
    return lambda rows: rows.__setitem__(slice(None), [row for row in rows if row[1] not in kinds])


def test_marks_that_are_missing_are_told(tmp_path: Path) -> None:
    recorded = opened(write(tmp_path / "s", without("HOOK_START", "END", "VIDEO_END")))
    assert len(recorded.frames.times) == FRAMES
    assert recorded.unknown[1][0] == pytest.approx(0.43, abs=1e-6)
    assert any("no HOOK_START" in note for note in recorded.notes)
    assert any("no END" in note for note in recorded.notes)
    unsaid = opened(write(tmp_path / "s", without("START")))
    assert switched(unsaid, "buttons")[0] == (True, [(0.28, False)])  # what goes up first was down
    long = opened(write(tmp_path / "s", lambda rows: rows.append((9.0, "VIDEO_END", [])) or rows.pop(-3)))
    assert any("the video lasts 0.5 s, by VIDEO_START and VIDEO_END 9.0 s" in note for note in long.notes)


def test_older_recorders_know_no_beginning_of_the_video(tmp_path: Path) -> None:
    def old(rows: list[Row]) -> None:
        without("VIDEO_START", "HOOK_START", "VIDEO_END")(rows)
        rows[0] = (-0.12, "START", [])

    write(tmp_path / "s", old)
    with pytest.raises(RecordingError, match="there is no VIDEO_START") as told:
        opened(tmp_path)
    assert "zero=START" in told.value.hint
    recorded = opened(tmp_path, zero="START")
    assert happened(recorded, "wheel") == [(0.43, [2.0]), (0.45, [-1.0])]
    assert switched(recorded, "buttons")[0][0] is True


def test_the_game_may_name_the_task(tmp_path: Path) -> None:
    write(tmp_path / "s")
    assert opened(tmp_path).task is None
    assert opened(tmp_path, task_by_game=True).task == "quake.exe"
    (tmp_path / "s" / "metadata.json").write_text("{}")
    with pytest.raises(RecordingError, match="game_exe is missing"):
        opened(tmp_path, task_by_game=True)


@pytest.mark.parametrize(("file", "who"), [(".invalid", "the recorder"), (".server_invalid", "its server")])
def test_what_was_rejected_is_told_and_left_out(tmp_path: Path, file: str, who: str) -> None:
    write(tmp_path / "a")
    write(tmp_path / "b")
    (tmp_path / "a" / file).write_text("Video too short\nno \N{SNOWMAN}")
    found = source(tmp_path)
    assert [each.name for each in found.recordings] == ["b"]
    assert [(each.file, each.reason) for each in found.defects] == [
        (f"a/{file}", f"{who} rejected it: Video too short no \\u2603")
    ]
    assert len(source(tmp_path, rejected=True).recordings) == 2


def test_folders_in_folders_and_one_alone_are_found(tmp_path: Path) -> None:
    write(tmp_path / "day" / "1767633347")
    assert [each.name for each in source(tmp_path).recordings] == ["day/1767633347"]
    alone = source(tmp_path / "day" / "1767633347").recordings
    assert [(each.name, len(each.files)) for each in alone] == [("1767633347", 2)]
    assert OwlImporter().detect(tmp_path) == "inputs.csv of OWL Control"


def test_what_is_no_such_source_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no inputs\.csv"):
        source(tmp_path)
    with pytest.raises(InputError, match="zero"):
        source(write(tmp_path / "s"), zero="END")
    (tmp_path / "s" / "inputs.csv").write_text("time,key\n0,a\n")
    assert OwlImporter().detect(tmp_path) is None


def put(kind: str, arguments: Any) -> Change:
    return lambda rows: rows.__setitem__(3, (0.05, kind, arguments))


@pytest.mark.parametrize(
    ("change", "row", "reason"),
    [
        (put("KEYBOARD", [65]), 5, r"KEYBOARD has '\[65\]'; expected \[keycode, pressed\]"),
        (put("KEYBOARD", ["w", True]), 5, "keycode is 'w'; expected a whole number"),
        (put("KEYBOARD", [65, "down"]), 5, "pressed is 'down'; expected true or false"),
        (put("MOUSE_MOVE", [0.5, 1]), 5, "dx is 0.5"),
        (put("MOUSE_MOVE", {"dx": 1, "dy": 1}), 5, "MOUSE_MOVE has"),
        (put("MOUSE_MOVE", [1, 1 << 40]), 5, "dy is 1099511627776"),
        (put("MOUSE_BUTTON", [-1, True]), 5, "button is -1"),
        (put("SCROLL", [1 << 20]), 5, "amount is 1048576"),
        (put("SCROLL", "[120"), 5, "it is not JSON"),
        (put("SCROLL", "[" * 200 + "]" * 200), 5, "nested more than|nested too deeply"),
        (lambda rows: rows.__setitem__(3, (float("nan"), "SCROLL", [120])), 5, "its time is 'nan'"),
        (lambda rows: rows.__setitem__(0, (-0.1, "START", {"inputs": {"keyboard": "w", "mouse": []}})), 2, "keyboard"),
        (lambda rows: rows.__setitem__(4, (9.0, "HOOK_START", [])), None, "HOOK_START is 8.5 s after the last frame"),
    ],
)
def test_a_defect_is_named(tmp_path: Path, change: Change, row: int | None, reason: str) -> None:
    write(tmp_path / "a", change)
    write(tmp_path / "b")
    bad, fine = source(tmp_path).recordings
    with pytest.raises(RecordingError, match=reason) as told:
        bad.open()
    assert (told.value.file, told.value.row) == ("a/inputs.csv", row)
    assert len(fine.open().frames.times) == FRAMES - BLACK


@pytest.mark.parametrize(
    ("content", "row", "reason"),
    [
        (b"", None, "it is empty"),
        (b"time,key\n", 1, "it begins with 'time,key'"),
        (b"timestamp,event_type,event_args\n1767633347.5,KEYB", 2, "2 of 3 values; it may be cut short"),
        (b"timestamp,event_type,event_args\nnow,START,[]\n", 2, "its time is 'now'"),
        (b"timestamp,event_type,event_args\n\xff,START,[]\n", 2, "not UTF-8"),
        (b"timestamp,event_type,event_args\n" + b"9" * (1 << 23), 2, "a line of more than"),
    ],
)
def test_a_damaged_side_car_is_named(tmp_path: Path, content: bytes, row: int | None, reason: str) -> None:
    (write(tmp_path / "s") / "inputs.csv").write_bytes(content)
    with pytest.raises(RecordingError, match=reason) as told:
        opened(tmp_path)
    assert (told.value.file, told.value.row) == ("s/inputs.csv", row)


def test_a_missing_video_two_and_a_damaged_one_are_told(tmp_path: Path) -> None:
    folder = write(tmp_path / "s", video="one")
    (folder / "one.mp4").write_bytes((folder / "one.mp4").read_bytes()[:200])
    with pytest.raises(DataError, match="cannot be opened as video"):
        opened(tmp_path)
    write(folder, video="two")
    assert [each.reason for each in source(tmp_path).defects] == ["2 .mp4 files; expected one"]
    for name in ("one.mp4", "two.mp4"):
        (folder / name).unlink()
    assert [(each.file, each.reason) for each in source(tmp_path).defects] == [("s", "0 .mp4 files; expected one")]


SCALAR = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
ANY = SCALAR | st.lists(SCALAR, max_size=3) | st.dictionaries(st.sampled_from(["inputs", "keyboard", "mouse"]), SCALAR)
LINE = st.tuples(st.floats(), st.sampled_from([*ARGUMENTS, *MARKS, "UNKNOWN"]), ANY).map(
    lambda row: f'{row[0]},{row[1]},"{json.dumps(row[2])}"'
)


@given(st.lists(LINE | st.text(max_size=20), max_size=4).map("\n".join), st.binary(max_size=20))
def test_any_side_car_is_read_or_named(tmp_path_factory: pytest.TempPathFactory, lines: str, tail: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(b"timestamp,event_type,event_args\n" + lines.encode("utf-8", "surrogatepass") + tail)
    try:
        inputs = Inputs.read(path, "any.csv")
    except RecordingError as error:
        assert error.row is not None
        str(error).encode()
    else:
        for track in inputs.tracks([65], 0.0).values():
            assert isinstance(track, Switches) or np.isfinite(track.values).all()


def test_a_recording_becomes_an_episode(tmp_path: Path) -> None:
    def far(rows: list[Row]) -> None:
        rows += [(0.44, "MOUSE_MOVE", [900, 0]), (0.441, "MOUSE_MOVE", [900, 0])]

    write(tmp_path / "in" / "a", far)
    write(tmp_path / "in" / "b")
    write(tmp_path / "in" / "c", put("KEYBOARD", [65]))
    (episode, _), report = imported(tmp_path / "in", tmp_path / "out", "owl")
    assert episode.num_frames == FRAMES - BLACK
    assert [int(frame[0, 0, 0]) for frame in episode.frames] == list(range(BLACK, FRAMES))
    assert report["frames"] == {"repeated": 0, "dropped": 0, "late": 0}
    assert (report["clipped"], [(each["file"], each["row"]) for each in report["defects"]]) == (
        1,
        [("c/inputs.csv", 5)],
    )
    shown = np.arange(BLACK, FRAMES) / RATE
    right, down, wheel, left = (episode.actions[:, column] for column in range(4))
    assert {int(step): float(right[step]) for step in np.flatnonzero(right)} == {6: -4.0, 20: 1000.0}  # 0.2, 0.433 s
    assert np.flatnonzero(down).tolist() == [6]
    assert wheel.sum() == 1
    assert np.flatnonzero(left).tolist() == np.flatnonzero(shown < 0.28).tolist()
    labels = source(tmp_path / "in").action.components[3].labels
    w, a = (episode.actions[:, 8 + labels.index(key)] for key in ("w", "a"))
    assert np.flatnonzero(w).tolist() == list(range(6, 12))  # 0.21 to 0.3 s, at which it goes up
    assert np.flatnonzero(a).tolist() == np.flatnonzero(shown < 0.35).tolist()
    known = shown[1:] <= 0.46  # END
    np.testing.assert_array_equal(episode.action_valid, known)
