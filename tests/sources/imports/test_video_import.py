"""`data import video`: videos with side-cars become episodes; defects are named and left out; nothing comes twice."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ahriuwu_cli.cli.main import run
from ahriuwu_cli.core.errors import AhriuwuError, DataError, InputError
from ahriuwu_cli.episodes.config import DataSection, SourceSection
from ahriuwu_cli.episodes.store import EpisodeStore
from ahriuwu_cli.sources.imports.table import READERS, read_table
from ahriuwu_cli.sources.imports.transfer import import_source

FPS = 20
MAP = """
[time]
column = "time"
[[actions]]
name = "move"
type = "categorical"
columns = ["move"]
labels = ["left", "stay", "right"]
[reward]
column = "reward"
[events.jump]
column = "jump"
"""


def write_video(path: Path, count: int, times: np.ndarray | None = None) -> None:
    """Frames that tell their number: a bar for each bit."""
    times = np.arange(count) / FPS if times is None else times
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "8"})
        stream.height = stream.width = 64
        stream.pix_fmt, stream.codec_context.time_base = "yuv420p", Fraction(1, 1000)
        for number in range(count):
            frame = np.full((64, 64, 3), 30, np.uint8)
            for bit in range(8):
                frame[:, bit * 8 : bit * 8 + 8] = 220 if number >> bit & 1 else 30
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts, picture.time_base = round(float(times[number]) * 1000), Fraction(1, 1000)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def numbers(frames: np.ndarray) -> list[int]:
    """What frames of `write_video` tell."""
    width = frames.shape[2] // 8
    return [sum(int(f[:, bit * width : (bit + 1) * width].mean() > 120) << bit for bit in range(8)) for f in frames]


def rows_of(count: int, seed: int) -> list[list[object]]:
    rng = np.random.default_rng(seed)
    return [
        [round(t / FPS, 4), ["left", "stay", "right"][rng.integers(3)], round(float(rng.normal()), 3), int(t % 7 == 0)]
        for t in range(count)
    ]


def write_csv(path: Path, rows: list[list[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["time", "move", "reward", "jump"], *rows])


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    for number in range(3):
        write_video(folder / f"play{number}.mp4", 50 + number)
        write_csv(folder / f"play{number}.csv", rows_of(50 + number, number))
    return folder


@pytest.fixture
def source(original: Path, tmp_path: Path) -> Path:
    shutil.copytree(original, tmp_path / "source")
    (tmp_path / "map.toml").write_text(MAP)
    return tmp_path / "source"


def asked(source: Path, **changes: object) -> DataSection:
    named = {"path": str(source), "kind": "video", "mapping": str(source.parent / "map.toml")}
    inner = {key.removeprefix("source_"): changes.pop(key) for key in list(changes) if key.startswith("source_")}
    return DataSection(source=SourceSection(**(named | inner)), height=32, width=32, **changes)  # type: ignore[arg-type]


def imported(source: Path, **changes: object) -> tuple[EpisodeStore, dict]:
    report = import_source(source.parent / "store", asked(source, **changes), 0)
    return EpisodeStore.open(source.parent / "store"), report.data["import"]


def test_everything_comes_through(source: Path) -> None:
    store, said = imported(source)
    assert (said["episodes"], said["imported"], said["defects"]) == (3, 3, [])
    assert store.env == ""
    assert store.frame_spec.fps == FPS
    for number, record in enumerate(store.episodes):
        rows, episode = rows_of(50 + number, number), store.read(record.id)
        assert numbers(episode.frames) == list(range(50 + number))
        assert episode.timestamps == pytest.approx([row[0] for row in rows], abs=1e-3)
        assert episode.actions[:, 0].tolist() == [["left", "stay", "right"].index(row[1]) for row in rows[:-1]]
        assert episode.action_valid.all()
        assert episode.rewards == pytest.approx([row[2] for row in rows[:-1]])
        assert episode.events["jump"].tolist() == [row[3] for row in rows[:-1]]
        assert episode.truncations[-1]
        assert not episode.terminals.any()
        assert record.origin is not None
        assert record.origin.name == f"play{number}.mp4"
    assert {record.split for record in store.episodes} == {"train", "heldout"}


def test_rows_say_what_is_known_and_what_the_task_is(source: Path) -> None:
    (source.parent / "map.toml").write_text('known = "jump"\ntask = "move"\n' + MAP)
    store, _ = imported(source)
    for number, record in enumerate(store.episodes):
        rows, tracks = rows_of(50 + number, number), store.tracks(record.id)
        assert tracks.action_valid.tolist() == [row[3] == 1 for row in rows[:-1]]
        assert not tracks.actions[~tracks.action_valid].any()
        assert tracks.task == rows[0][1]
    (source.parent / "map.toml").write_text('known = "jump"\n[log]\nkind = "move"\n' + MAP)
    with pytest.raises(AhriuwuError, match="a log has none"):
        imported(source)


def test_importing_twice_adds_nothing(source: Path) -> None:
    store, _ = imported(source)
    again, said = imported(source)
    assert again.fingerprint == store.fingerprint
    assert (said["episodes"], said["present"]) == (0, 3)
    (source / "renamed.mp4").write_bytes((source / "play1.mp4").read_bytes())
    (source / "renamed.csv").write_bytes((source / "play1.csv").read_bytes())
    assert imported(source)[1]["present"] == 4, "the same bytes under another name are the same recording"


def test_no_path_of_this_machine_is_in_the_store(source: Path) -> None:
    imported(source)
    assert str(source.parent) not in (source.parent / "store" / "manifest.json").read_text()


def test_a_slower_run_aggregates(source: Path) -> None:
    rows = rows_of(51, 1)
    store, _ = imported(source, fps=10.0)
    episode = store.read("000001")
    assert numbers(episode.frames) == list(range(0, 51, 2))
    assert episode.rewards == pytest.approx([rows[i][2] + rows[i + 1][2] for i in range(0, 50, 2)], abs=1e-5)
    jumps = [rows[i][3] + rows[i + 1][3] for i in range(0, 50, 2)]
    assert episode.events["jump"].tolist() == jumps


def test_a_gap_splits_and_both_halves_stay_on_one_side(source: Path) -> None:
    times = np.arange(60) / FPS + 3.0 * (np.arange(60) >= 25)
    write_video(source / "play3.mkv", 60, times)
    store, said = imported(source)
    halves = [record for record in store.episodes if record.origin and record.origin.name == "play3.mkv"]
    assert [record.num_steps for record in halves] == [24, 34]
    assert len({record.split for record in halves}) == 1
    assert len({record.recording for record in halves}) == 1
    assert said["episodes"] == 5
    assert numbers(store.read(halves[1].id).frames) == list(range(25, 60))
    assert not store.tracks(halves[0].id).action_valid.any(), "without a side-car nothing is known"


def test_one_recording_alone_has_both_splits(source: Path) -> None:
    for number in (1, 2):
        (source / f"play{number}.mp4").unlink()
    store, _ = imported(source, heldout_fraction=0.25)
    assert {record.split for record in store.episodes} == {"train", "heldout"}
    frames = [n for record in store.episodes for n in numbers(store.read(record.id).frames)]
    assert frames == list(range(50))
    held = sum(record.num_steps + 1 for record in store.episodes if record.split == "heldout")
    assert held == pytest.approx(12.5, abs=1)


def test_a_log_of_keys_and_mouse(source: Path) -> None:
    (source.parent / "map.toml").write_text(
        """
        suffix = ".log.jsonl"
        [time]
        column = "t"
        unit = "ms"
        offset = -1.0
        [log]
        kind = "what"
        key = "key"
        down = ["down"]
        up = ["up"]
        [[actions]]
        name = "keys"
        type = "binary"
        keys = ["W", "Space"]
        [[actions]]
        name = "mouse"
        type = "continuous"
        columns = ["dx", "dy"]
        of = ["move"]
        low = -100
        high = 100
        aggregate = "sum"
        [reward]
        of = ["score"]
        """
    )
    entries: list[dict[str, object]] = [
        {"t": 900, "what": "up", "key": "Space"},  # it was down from the beginning
        {"t": 1100, "what": "down", "key": "W"},
        {"t": 1110, "what": "up", "key": "W"},  # shorter than a step
        {"t": 1160, "what": "move", "dx": 3, "dy": -1},
        {"t": 1170, "what": "move", "dx": 4, "dy": 0},
        {"t": 1200, "what": "score"},
        {"t": 1300, "what": "down", "key": "Space"},
        {"t": 1310, "what": "move", "dx": 500, "dy": 0},
    ]
    (source / "play0.log.jsonl").write_text("\n".join(json.dumps(entry) for entry in entries))
    for number in (1, 2):
        (source / f"play{number}.mp4").unlink()
    write_video(source / "other.mp4", 30)
    store, said = imported(source)
    record = next(r for r in store.episodes if r.origin and r.origin.name == "play0.mp4")
    tracks = store.tracks(record.id)
    assert tracks.actions[:8, 0].tolist() == [0, 0, 1, 0, 0, 0, 0, 0]
    assert tracks.actions[:8, 1].tolist() == [0, 0, 0, 0, 0, 0, 1, 1]
    assert tracks.actions[3].tolist()[2:] == [7, -1]
    assert tracks.actions[6].tolist()[2:] == [100, 0]
    assert said["clipped"] == 1
    assert np.flatnonzero(tracks.rewards).tolist() == [3]


# ---------------------------------------------------------------- defects


def edited(change: Callable[[list[list[object]]], None]) -> Callable[[Path], None]:
    def write(source: Path) -> None:
        rows = rows_of(51, 1)
        change(rows)
        write_csv(source / "play1.csv", rows)

    return write


def text(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda source: (source / name).write_bytes(content)


def cut(name: str, share: float) -> Callable[[Path], None]:
    def write(source: Path) -> None:
        content = (source / name).read_bytes()
        (source / name).write_bytes(content[: int(len(content) * share)])

    return write


def put(row: int, column: int, value: object) -> Callable[[Path], None]:
    return edited(lambda rows: rows[row].__setitem__(column, value))


DEFECTS: dict[str, tuple[Callable[[Path], None], str, int | None, str]] = {
    "a word that is no class": (put(7, 1, "up"), "play1.csv", 9, "move is 'up'"),
    "a class beyond the last": (put(7, 1, 3), "play1.csv", 9, "expected a whole number in 0..2"),
    "half a class": (put(7, 1, 0.5), "play1.csv", 9, "is 0.5"),
    "a reward that is no number": (put(3, 2, "nan"), "play1.csv", 5, "reward is 'nan'"),
    "a reward beyond all": (put(3, 2, "1e999"), "play1.csv", 5, "expected a number"),
    "a clock that goes back": (put(9, 0, 0.01), "play1.csv", 11, "goes back"),
    "one time twice": (put(9, 0, 0.4), "play1.csv", 11, "time of the row before"),
    "a value too few": (edited(lambda rows: rows[4].pop()), "play1.csv", 6, "3 values; expected 4"),
    "a quote without end": (text("play1.csv", b'time,move,reward,jump\n0,"left,0,0\n'), "play1.csv", 2, "no CSV"),
    "no UTF-8": (text("play1.csv", b"time,move,reward,jump\n0,l\xff,0,0\n"), "play1.csv", 2, "no UTF-8"),
    "a NUL": (text("play1.csv", b"time,move,reward,jump\n0,le\0ft,0,0\n"), "play1.csv", 2, "NUL"),
    "columns of one name": (text("play1.csv", b"time,time\n0,0\n"), "play1.csv", 1, "names that differ"),
    "a column missing": (text("play1.csv", b"time,move\n0,left\n"), "play1.csv", None, "no column 'reward'"),
    "an empty side-car": (text("play1.csv", b""), "play1.csv", 1, "expected names"),
    "a video cut short": (cut("play1.mp4", 0.5), "play1.mp4", None, "cannot be opened"),
    "a video of nothing": (text("play1.mp4", b""), "play1.mp4", None, "cannot be opened"),
    "text for a video": (text("play1.mp4", b"hello"), "play1.mp4", None, "cannot be opened"),
}


@pytest.mark.parametrize("name", DEFECTS)
def test_a_defect_is_named_and_the_others_are_imported(source: Path, name: str) -> None:
    damage, file, row, reason = DEFECTS[name]
    damage(source)
    store, said = imported(source)
    assert [record.origin.name for record in store.episodes if record.origin] == ["play0.mp4", "play2.mp4"]
    [defect] = said["defects"]
    assert Path(defect["file"]).name == file
    assert defect["row"] == row
    assert reason in defect["reason"]
    shutil.copy(source / "play0.mp4", source / "play1.mp4")
    write_csv(source / "play1.csv", rows_of(51, 1))
    assert imported(source)[1]["imported"] == 1, "mended, it is imported"


def test_frames_that_cannot_be_decoded_are_a_defect(source: Path) -> None:
    content = bytearray((source / "play1.mp4").read_bytes())
    start = content.index(b"mdat") + 40
    content[start : start + 1500] = os.urandom(1500)
    (source / "play1.mp4").write_bytes(content)
    store, said = imported(source)
    assert [record.origin.name for record in store.episodes if record.origin] == ["play0.mp4", "play2.mp4"]
    assert said["defects"][0]["recording"] == "play1.mp4"
    assert not list((source.parent / "store").glob("*tmp*"))


def test_a_name_that_is_no_text(source: Path) -> None:
    try:
        (source / os.fsdecode(b"play\xff.mp4")).write_bytes((source / "play0.mp4").read_bytes() + b"\0")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    _, said = imported(source)
    assert [defect["reason"] for defect in said["defects"]] == ["its name is no UTF-8"]


def test_nothing_that_can_be_imported(source: Path, tmp_path: Path) -> None:
    for path in source.glob("*.mp4"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"none of 3 recordings could be imported; .*play0\.mp4"):
        imported(source)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="has no video recording"):
        import_source(tmp_path / "store", asked(source, source_path=str(tmp_path / "empty")), 0)
    with pytest.raises(InputError, match="of no kind that is known"):
        import_source(tmp_path / "store", asked(source, source_path=str(tmp_path / "empty"), source_kind="auto"), 0)
    assert not (tmp_path / "store").exists()


def test_another_mapping_does_not_fit(source: Path) -> None:
    imported(source)
    (source.parent / "map.toml").write_text(MAP.replace('"left", "stay"', '"west", "stay"'))
    with pytest.raises(InputError, match="has actions"):
        imported(source)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=300), suffix=st.sampled_from(sorted(READERS)))
def test_any_bytes_are_a_table_or_a_defect(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"side{suffix}"
    path.write_bytes(content)
    try:
        table = read_table(path)
    except AhriuwuError as error:
        assert "side" in error.message
    else:
        assert all(len(values) == len(table) for values in table.columns.values())


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lines=st.lists(
        st.one_of(
            st.text(max_size=40),
            st.recursive(
                st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
                lambda inner: st.one_of(
                    st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)
                ),
                max_leaves=8,
            ).map(json.dumps),
        ),
        max_size=6,
    )
)
def test_any_lines_are_a_table_or_a_defect(tmp_path: Path, lines: list[str]) -> None:
    path = tmp_path / "side.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8", errors="replace")
    try:
        table = read_table(path)
        for name in table.columns:
            table.floats(name)
    except DataError as error:
        assert "side.jsonl" in error.message


# ---------------------------------------------------------------- commands


def test_the_command(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["data", "import", "auto", str(source), "--map", str(tmp_path / "map.toml"), "--size", "32x32"]
    assert run([*arguments, "--out", str(tmp_path / "store"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["import"]["episodes"] == 3
    (source / "bad.mp4").write_bytes(b"no video")
    assert run([*arguments, "--out", str(tmp_path / "store")]) == 3
    assert "left out: " in capsys.readouterr().out


@pytest.mark.parametrize("seed", range(2))
def test_killed_at_any_moment_it_goes_on(source: Path, tmp_path: Path, seed: int) -> None:
    for number in range(3, 9):
        write_video(source / f"play{number}.mp4", 40 + number)
    arguments = [sys.executable, "-m", "ahriuwu_cli", "data", "import", "video", str(source), "--map"]
    arguments += [str(tmp_path / "map.toml"), "--size", "64x64", "--out"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    whole = subprocess.run([*arguments, str(tmp_path / "whole")], env=environment, capture_output=True, check=False)
    assert whole.returncode == 0, whole.stderr
    process = subprocess.Popen([*arguments, str(tmp_path / "store")], env=environment, stdout=subprocess.DEVNULL)
    rng = np.random.default_rng(seed)
    while process.poll() is None and len(list((tmp_path / "store").glob("*.safetensors"))) < 1 + 3 * seed:
        time.sleep(0.002)
    time.sleep(float(rng.uniform(0, 0.05)))
    process.send_signal(signal.SIGKILL)
    process.wait()
    again = subprocess.run([*arguments, str(tmp_path / "store")], env=environment, capture_output=True, check=False)
    assert again.returncode == 0, again.stderr
    stores = [EpisodeStore.open(tmp_path / name) for name in ("whole", "store")]
    assert stores[0].fingerprint == stores[1].fingerprint
