"""NPZ files of replay buffers: whose action a row's action is, chunks that follow on each other, what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ahriuwu_cli.core.errors import DataError, InputError
from ahriuwu_cli.episodes.config import DataSection, SourceSection
from ahriuwu_cli.episodes.store import EpisodeStore
from ahriuwu_cli.sources.imports.npz import NpzImporter
from ahriuwu_cli.sources.imports.npz_chunks import stretches
from ahriuwu_cli.sources.imports.protocol import Happenings, Recorded, RecordingError, Rows, Source
from ahriuwu_cli.sources.imports.transfer import import_source

NOBODY = "0" * 22
Arrays = dict[str, np.ndarray]


def episode(number: int, length: int, *, ends: bool = True) -> Arrays:
    """Rows of an episode as DreamerV3 has them, with one-hot actions chosen on seeing each frame."""
    random = np.random.default_rng(number)
    rows = np.arange(length)
    return {
        "image": random.integers(0, 256, (length, 16, 16, 3), np.uint8),
        "action": np.eye(4, dtype=np.float32)[(rows + number) % 4],
        "reward": np.where(rows == 0, 0, rows + 10 * number).astype(np.float32),
        "is_first": rows == 0,
        "is_last": rows == length - 1,
        "is_terminal": (rows == length - 1) & ends,
    }


def led(arrays: Arrays) -> Arrays:
    """The same as DreamerV2 has it: each action a row later, zeros in the first."""
    actions = arrays["action"]
    return arrays | {"action": np.concatenate([np.zeros_like(actions[:1]), actions[:-1]])}


def joined(pieces: Sequence[Arrays]) -> Arrays:
    return {key: np.concatenate([piece[key] for piece in pieces]) for key in pieces[0]}


def write_chunks(root: Path, rows: Arrays, size: int, ids: Sequence[str]) -> list[Path]:
    """A stream in chunks of `size` rows that follow on each other; the last is only partly filled."""
    root.mkdir(exist_ok=True)
    names, total = [], len(rows["action"])
    for number, start in enumerate(range(0, total, size)):
        stop = min(start + size, total)
        after = ids[number + 1] if stop < total else NOBODY
        chunk = {}
        for key, values in rows.items():
            chunk[key] = np.full((size, *values.shape[1:]), 99, values.dtype)  # what was never filled
            chunk[key][: stop - start] = values[start:stop]
        names.append(root / f"20240101T00000{number}F000000-{ids[number]}-{after}-{stop - start}.npz")
        np.savez_compressed(names[-1], **chunk)
    return names


def opened(root: Path, **options: Any) -> Source:
    return NpzImporter().open_source(root, options)


def shown(recorded: Recorded) -> np.ndarray:
    return np.stack(list(recorded.frames.chosen(range(len(recorded.frames.times)))))


def track(recorded: Recorded) -> Rows:
    found = recorded.actions["action"]
    assert isinstance(found, Rows)
    return found


def chosen_at(recorded: Recorded) -> dict[float, float]:
    """The action that was chosen at each time, where it is known."""
    rows = track(recorded)
    known = np.ones(len(rows.times), bool) if rows.valid is None else rows.valid
    return dict(zip(rows.times[known].tolist(), rows.values[known, 0].tolist(), strict=True))


# ---------------------------------------------------------------- what is read


@pytest.mark.parametrize("alignment", ["led", "chosen"])
def test_one_file_an_episode(alignment: str, tmp_path: Path) -> None:
    episodes = [episode(1, 7), episode(2, 12, ends=False)]
    for number, arrays in enumerate(episodes):
        written = led(arrays) if alignment == "led" else arrays
        np.savez_compressed(tmp_path / f"2021010{number}T000000-abcdef-{len(arrays['action']) - 1}.npz", **written)
    source = opened(tmp_path, fps=10, **({} if alignment == "led" else {"action": "chosen"}))
    assert (alignment == "led") is ("led to its frame" in source.notes[0])
    (part,) = source.action.components
    assert (part.type, part.num_classes, part.aggregate) == ("categorical", 4, "mode")
    assert len(source.recordings) == 2 and not source.defects
    for number, (found, arrays) in enumerate(zip(source.recordings, episodes, strict=True)):
        recorded = found.open()
        times = recorded.frames.times
        np.testing.assert_allclose(times, np.arange(len(arrays["action"])) / 10)
        np.testing.assert_array_equal(shown(recorded), arrays["image"])
        wanted = dict(zip(times.tolist(), arrays["action"].argmax(axis=1).tolist(), strict=True))
        if alignment == "led":
            del wanted[times[-1]]  # nobody wrote it down
        assert chosen_at(recorded) == wanted
        assert isinstance(recorded.reward, Happenings)
        np.testing.assert_array_equal(recorded.reward.values[:, 0], arrays["reward"])
        np.testing.assert_array_equal(recorded.reward.times, times)
        assert recorded.terminal is (number == 0)


def test_chunks_follow_on_each_other(tmp_path: Path) -> None:
    episodes = [episode(1, 9), episode(2, 5), episode(3, 20), episode(4, 3)]
    write_chunks(tmp_path, joined(episodes), 8, ["zz", "aa", "mm", "bb", "cc"])
    source = opened(tmp_path, action="chosen")
    assert [len(found.files) for found in source.recordings] == [2, 1, 4, 1]
    assert source.recordings[0].name.endswith("rows 0 to 0") and " to 2024" in source.recordings[0].name
    for found, arrays in zip(source.recordings, episodes, strict=True):
        recorded = found.open()
        np.testing.assert_array_equal(shown(recorded), arrays["image"])
        np.testing.assert_array_equal(track(recorded).values[:, 0], arrays["action"].argmax(axis=1))
        some = [1, 2]
        for frame, wanted in zip(recorded.frames.chosen(some), arrays["image"][some], strict=True):
            np.testing.assert_array_equal(frame, wanted)


def test_a_chunk_that_was_saved_twice_counts_once(tmp_path: Path) -> None:
    rows = episode(1, 8)
    (short,) = write_chunks(tmp_path, {key: values[:5] for key, values in rows.items()}, 8, ["aa"])
    short.rename(tmp_path / short.name.replace("T00", "T99"))
    write_chunks(tmp_path, rows, 8, ["aa"])
    assert len(list(tmp_path.iterdir())) == 2
    (found,) = opened(tmp_path, action="chosen").recordings
    np.testing.assert_array_equal(shown(found.open()), rows["image"])


def test_a_stream_that_begins_within_an_episode(tmp_path: Path) -> None:
    rows = joined([episode(1, 6), episode(2, 9)])
    write_chunks(tmp_path, {key: values[2:] for key, values in rows.items()}, 99, ["aa"])
    recorded = [found.open() for found in opened(tmp_path, action="chosen").recordings]
    np.testing.assert_array_equal(shown(recorded[0]), rows["image"][2:6])
    np.testing.assert_array_equal(shown(recorded[1]), rows["image"][6:])


def test_dreamer_v1_has_neither_firsts_nor_ends(tmp_path: Path) -> None:
    arrays = led(episode(1, 6))
    kept = {key: arrays[key] for key in ("image", "action", "reward")}
    np.savez(tmp_path / "a.npz", **kept, discount=np.array([1, 1, 1, 1, 1, 0], np.float32))
    np.savez(tmp_path / "b.npz", **kept, discount=np.ones(6, np.float32))
    assert [found.open().terminal for found in opened(tmp_path).recordings] == [True, False]
    assert [found.name for found in opened(tmp_path / "a.npz").recordings] == ["a.npz, rows 0 to 5"]


@pytest.mark.parametrize(
    ("actions", "kind"),
    [
        (np.array([0, 2, 1, 3, 0, 1], np.int32), ("categorical", 1, 4, "mode")),
        (np.array([[0], [2], [1], [3], [0], [1]], np.int64), ("categorical", 1, 4, "mode")),
        (np.array([[0, 0], [1, 1], [0, 1], [1, 0], [1, 1], [0, 0]], bool), ("binary", 2, None, "any")),
        (np.linspace(-0.5, 0.3, 12).reshape(6, 2).astype(np.float32), ("continuous", 2, (-1, 1), "mean")),
        (np.linspace(-4, 2, 12).reshape(6, 2), ("continuous", 2, (-4, 2), "mean")),
    ],
)
def test_what_actions_are(actions: np.ndarray, kind: tuple[Any, ...], tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **episode(1, 6) | {"action": actions})
    source = opened(tmp_path, action="chosen")
    (part,) = source.action.components
    range_of = part.num_classes if part.low is None else (part.low, part.high)
    assert (part.type, part.dim, range_of, part.aggregate) == kind
    found = track(source.recordings[0].open()).values
    np.testing.assert_array_equal(found, actions.reshape(6, -1).astype(np.float32))


def test_choices_that_nobody_made(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **episode(1, 6) | {"action": np.array([0, 2, 1, 3, 0, 1])})
    assert opened(tmp_path, action="chosen", num_actions=18).action.components[0].num_classes == 18
    with pytest.raises(InputError, match="action goes from 0 to 3; expected choices from 0 to 2"):
        opened(tmp_path, action="chosen", num_actions=3)


def test_a_row_of_zeros_chooses_nothing(tmp_path: Path) -> None:
    arrays = led(episode(1, 8))
    arrays["action"][3] = 0
    np.savez(tmp_path / "a.npz", **arrays)
    recorded = opened(tmp_path, fps=1).recordings[0].open()
    assert sorted(chosen_at(recorded)) == [0, 1, 3, 4, 5, 6]


def test_several_pictures(tmp_path: Path) -> None:
    arrays = episode(1, 6)
    arrays["depth"] = arrays["image"][:, :, :, :1]
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(InputError, match="2 cameras: image, depth"):
        opened(tmp_path, action="chosen")
    (found,) = opened(tmp_path, action="chosen", cameras="depth").recordings
    np.testing.assert_array_equal(shown(found.open()), arrays["image"][..., 0])


def test_colours_of_opencv_are_put_in_order(tmp_path: Path) -> None:
    arrays = led(episode(0, 6))
    np.savez(tmp_path / "a-6.npz", **arrays)
    [found] = opened(tmp_path, colours="bgr").recordings
    np.testing.assert_array_equal(shown(found.open()), arrays["image"][..., ::-1])


@pytest.mark.parametrize("alignment", ["led", "chosen"])
def test_both_alignments_become_the_same_episodes(alignment: str, tmp_path: Path) -> None:
    episodes = [episode(1, 9), episode(2, 5, ends=False)]
    written = [led(arrays) if alignment == "led" else arrays for arrays in episodes]
    (tmp_path / "replay").mkdir()
    write_chunks(tmp_path / "replay", joined(written), 8, ["aa", "bb"])
    options = {} if alignment == "led" else {"action": "chosen"}
    source = SourceSection(path=str(tmp_path / "replay"), options=options)
    said = import_source(tmp_path / "store", DataSection(source=source, height=16, width=16), 0).data["import"]
    assert (said["imported"], said["episodes"], said["defects"]) == (2, 2, [])
    store = EpisodeStore.open(tmp_path / "store")
    for number, (record, arrays) in enumerate(zip(store.episodes, episodes, strict=True)):
        stored = store.read(record.id)
        np.testing.assert_array_equal(stored.frames, arrays["image"])
        np.testing.assert_array_equal(stored.actions[:, 0], arrays["action"].argmax(axis=1)[:-1])
        np.testing.assert_array_equal(stored.rewards, arrays["reward"][1:])
        assert stored.action_valid.all() and stored.terminals[-1] == (number == 0)


# ---------------------------------------------------------------- whose action it is


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (episode(2, 5), "the first action is zero in 1 of 2 episodes"),
        (led(episode(2, 5)) | {"action": np.array([0, 1, 2, 3, 1])}, "columns"),
    ],
)
def test_firsts_that_disagree(second: Arrays, message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **led(episode(1, 6)))
    np.savez(tmp_path / "b.npz", **second)
    with pytest.raises(InputError, match=message):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (np.zeros((6, 3), np.float32), "all actions are zero"),
        (np.array([0, 1, 2, 3, 2, 1]), "numbers of choices, of which 0 is one"),
        (np.eye(4)[[2, 1, 0, 3, 2, 1]], "zero in 0 of 1 episodes"),
    ],
)
def test_it_is_asked_for_where_it_cannot_be_told(actions: np.ndarray, message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **episode(1, 6) | {"action": actions})
    with pytest.raises(InputError, match=message) as failure:
        opened(tmp_path)
    assert "data.source.options.action" in failure.value.hint
    given = {given: opened(tmp_path, action=given).recordings[0].open() for given in ("led", "chosen")}
    np.testing.assert_array_equal(track(given["led"]).values, track(given["chosen"]).values[1:])
    np.testing.assert_array_equal(track(given["led"]).times, track(given["chosen"]).times[:-1])


def test_a_chunk_that_begins_within_an_episode_says_nothing_of_firsts(tmp_path: Path) -> None:
    rows = joined([led(episode(1, 6)), led(episode(2, 9))])
    write_chunks(tmp_path, {key: values[2:] for key, values in rows.items()}, 5, ["aa", "bb", "cc"])
    assert "led to its frame" in opened(tmp_path).notes[0]


# ---------------------------------------------------------------- defects


def _with(**changes: Any) -> Callable[[Arrays], Arrays]:
    return lambda arrays: arrays | changes


def _at(key: str, row: int, value: Any) -> Callable[[Arrays], Arrays]:
    def change(arrays: Arrays) -> Arrays:
        values = arrays[key].copy()
        values[row] = value
        return arrays | {key: values}

    return change


@pytest.mark.parametrize(
    ("change", "row", "reason"),
    [
        (_at("reward", 3, np.nan), 3, "reward is nan"),
        (_at("is_last", 2, True), 2, "is_last says that the episode ends, and it goes on"),
        (_at("is_terminal", 1, True), 1, "is_terminal says"),
        (_at("action", 4, np.inf), 4, "expected numbers"),
        (_with(reward=np.zeros(5)), None, "array reward has the shape (5,); expected 6 rows"),
        (_with(reward=np.zeros((6, 2))), None, "expected a number a row"),
        (_with(image=np.zeros((7, 16, 16, 3), np.uint8)), None, "expected 6 rows"),
        (_with(image=np.zeros((6, 16, 16, 3))), None, "is float64"),
        (lambda arrays: {key: arrays[key] for key in arrays if key != "reward"}, None, "no array reward"),
        (_with(action=np.array([None] * 6)), None, "cannot be read"),
    ],
)
def test_defects(change: Callable[[Arrays], Arrays], row: int | None, reason: str, tmp_path: Path) -> None:
    good = episode(1, 9)
    np.savez(tmp_path / "a.npz", **good)
    np.savez(tmp_path / "b.npz", **change(episode(2, 6)))
    source = opened(tmp_path, action="chosen")
    with pytest.raises(RecordingError) as failure:
        shown(source.recordings[1].open())
    assert (failure.value.file, failure.value.row) == ("b.npz", row)
    assert reason in failure.value.reason
    np.testing.assert_array_equal(shown(source.recordings[0].open()), good["image"])


def test_rows_of_later_files_are_counted_in_them(tmp_path: Path) -> None:
    rows = episode(1, 20)
    rows["reward"][13] = np.inf
    names = write_chunks(tmp_path, rows, 8, ["aa", "bb", "cc"])
    with pytest.raises(RecordingError, match="reward is inf") as failure:
        opened(tmp_path, action="chosen").recordings[0].open()
    assert (failure.value.file, failure.value.row) == (names[1].name, 5)


def test_an_end_in_a_later_file_is_counted_in_it(tmp_path: Path) -> None:
    rows = episode(1, 20)
    rows["is_last"][13] = True
    names = write_chunks(tmp_path, rows, 8, ["aa", "bb", "cc"])
    with pytest.raises(RecordingError, match="is_last says") as failure:
        opened(tmp_path, action="chosen").recordings[0].open()
    assert (failure.value.file, failure.value.row) == (names[1].name, 5)


@pytest.mark.parametrize(
    ("content", "reason"), [(b"", "no NPZ file"), (b"PK\x03\x04 and no more", "no NPZ file"), (None, "its name says 8")]
)
def test_a_chunk_that_cannot_be_read_is_a_gap(content: bytes | None, reason: str, tmp_path: Path) -> None:
    rows = episode(1, 24)
    names = write_chunks(tmp_path, rows, 8, ["aa", "bb", "cc"])
    if content is None:
        np.savez(names[1], **{key: values[:5] for key, values in rows.items()})
    else:
        names[1].write_bytes(content)
    source = opened(tmp_path, action="chosen")
    assert [(defect.file, reason in defect.reason) for defect in source.defects] == [(names[1].name, True)]
    first, last = (found.open() for found in source.recordings)
    np.testing.assert_array_equal(shown(first), rows["image"][:8])
    np.testing.assert_array_equal(shown(last), rows["image"][16:])
    assert not first.terminal and last.terminal


def test_ids_that_make_no_chain(tmp_path: Path) -> None:
    rows = episode(1, 6)
    for own, after in (("aa", "bb"), ("bb", "aa"), ("cc", "dd"), ("dd", NOBODY), ("ee", "dd"), ("ff", "ff")):
        np.savez(tmp_path / f"1T1-{own}-{after}-6.npz", **rows)
    source = opened(tmp_path, action="chosen")
    assert sorted((defect.file[4:9], defect.reason.split()[0]) for defect in source.defects) == [
        ("aa-bb", "follows"),
        ("bb-aa", "follows"),
        ("ee-dd", "is"),
    ]
    assert len(source.recordings) == 4  # cc, dd, ee and ff, each an episode


def test_it_is_seen_what_it_is(tmp_path: Path) -> None:
    assert NpzImporter().detect(tmp_path) is None
    with pytest.raises(InputError, match=r"no \.npz files"):
        opened(tmp_path)
    np.savez(tmp_path / "a.npz", weights=np.zeros(3))
    assert NpzImporter().detect(tmp_path) is None
    np.savez(tmp_path / "a.npz", **episode(1, 5))
    assert NpzImporter().detect(tmp_path) and NpzImporter().detect(tmp_path / "a.npz")


def test_a_link_out_of_the_source(tmp_path: Path) -> None:
    np.savez(tmp_path / "secret.npz", **episode(1, 5))
    inner = tmp_path / "set"
    inner.mkdir()
    np.savez(inner / "a.npz", **episode(1, 5))
    (inner / "b.npz").symlink_to(tmp_path / "secret.npz")
    source = opened(inner, action="chosen")
    assert len(source.recordings) == 1 and "out of the folder" in source.defects[0].reason


# ---------------------------------------------------------------- any bytes


@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    size=st.integers(1, 12),
    skipped=st.integers(0, 5),
)
@settings(max_examples=40)
def test_chunks_of_any_size_give_the_same_episodes(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], size: int, skipped: int
) -> None:
    root = tmp_path_factory.mktemp("chunks")
    rows = joined([{"action": np.full(n, i), "is_first": np.arange(n) == 0} for i, n in enumerate(lengths)])
    rows = {key: values[skipped:] for key, values in rows.items()}
    if not len(rows["action"]):
        return
    write_chunks(root, rows, size, [f"id{number}" for number in range(99)])
    defects: list[RecordingError] = []
    found = list(stretches(root, [path.name for path in sorted(root.iterdir())], defects))
    assert not defects
    said = [np.concatenate([part.array(part.archive(), "action") for part in each.parts]) for each in found]
    firsts = np.flatnonzero(rows["is_first"])
    wanted = [each for each in np.split(rows["action"], firsts) if len(each)]
    assert [each.tolist() for each in said] == [each.tolist() for each in wanted]
    assert [each.whole for each in found] == [False] * (not rows["is_first"][0]) + [True] * len(firsts)


@settings(max_examples=80)
@given(data=st.data())
def test_any_file_is_refused_or_read(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    root = tmp_path_factory.mktemp("any")
    np.savez(root / "a.npz", **episode(1, 4))
    arrays = episode(2, 4)
    key = data.draw(st.sampled_from(sorted(arrays)))
    shape = data.draw(st.lists(st.integers(0, 5), max_size=4))
    kind = data.draw(st.sampled_from(["f4", "i8", "u1", "?", "U3", "c8", "M8[s]"]))
    np.savez(root / "b.npz", **arrays | {key: np.zeros(shape, kind)})
    spoilt = bytearray((root / "b.npz").read_bytes())
    for _ in range(data.draw(st.integers(0, 3))):
        spoilt[data.draw(st.integers(0, len(spoilt) - 1))] = data.draw(st.integers(0, 255))
    (root / "b.npz").write_bytes(spoilt[: data.draw(st.integers(1, len(spoilt)))])
    try:
        source = opened(root, action="chosen")
    except InputError:
        return
    for found in source.recordings:
        try:
            recorded = found.open()
            for _ in recorded.frames.chosen(range(len(recorded.frames.times))):
                pass
        except DataError:
            continue
