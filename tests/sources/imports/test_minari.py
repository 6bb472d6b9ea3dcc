"""Minari data sets in HDF5: what is read is what was written, and what is wrong is named with its file and row."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ahriuwu_cli.core.errors import DataError, InputError
from ahriuwu_cli.episodes.config import DataSection, SourceSection
from ahriuwu_cli.episodes.store import EpisodeStore
from ahriuwu_cli.sources.imports.minari import MinariImporter
from ahriuwu_cli.sources.imports.protocol import Happenings, Recorded, RecordingError, Rows, Source
from ahriuwu_cli.sources.imports.transfer import import_source

STEPS = (6, 9)
MAIN = "data/main_data.hdf5"
BOX: dict[str, Any] = {"type": "Box", "dtype": "float32", "shape": [2], "low": [-1.0, -1.0], "high": [1.0, 1.0]}
DISCRETE = {"type": "Discrete", "dtype": "int64", "start": 3, "n": 5}
NESTED = {
    "type": "Dict",
    "subspaces": {
        "grip": BOX,
        "keys": {"type": "MultiBinary", "n": 3},
        "pair": {"type": "Tuple", "subspaces": [DISCRETE, {"type": "MultiDiscrete", "nvec": [2, 4], "start": [0, 1]}]},
    },
}


def picture_space(*shape: int) -> dict[str, Any]:
    low, high = np.zeros(shape, int), np.full(shape, 255)
    return {"type": "Box", "dtype": "uint8", "shape": list(shape), "low": low.tolist(), "high": high.tolist()}


def painted(steps: int, *shape: int) -> np.ndarray:
    """Smooth, so that JPEG keeps it; no two are alike."""
    rising = np.linspace(0, 160, int(np.prod(shape[:2]))).reshape(shape[:2])
    levels = rising[None] + 8 * np.arange(steps + 1)[:, None, None]
    return np.broadcast_to(levels[..., None], (steps + 1, *shape)).astype(np.uint8)


def jpeg(frame: np.ndarray) -> np.ndarray:
    data = io.BytesIO()
    Image.fromarray(frame).save(data, "JPEG", quality=95)
    return np.frombuffer(data.getvalue(), np.uint8)


def pad(files: list[np.ndarray]) -> np.ndarray:
    """Files of one length, as they come by chance: (n, L) bytes."""
    longest = max(map(len, files))
    return np.stack([np.concatenate([file, np.zeros(longest - len(file), np.uint8)]) for file in files])


def write(root: Path, action: dict[str, Any], actions: Callable[[int], Any], *, kept: str = "array") -> Path:
    """A data set with pictures of 32x40; `kept`: array, vlen (JPEG files) or even (of one length)."""
    (root / "data").mkdir(parents=True)
    facts = {
        "total_episodes": len(STEPS),
        "total_steps": sum(STEPS),
        "data_format": "hdf5",
        "observation_space": json.dumps(picture_space(32, 40, 3)),
        "action_space": json.dumps(action),
        "minari_version": "0.5.4",
    }
    (root / "data/metadata.json").write_text(json.dumps(facts))
    with h5py.File(root / MAIN, "w", track_order=True) as file:
        for number, steps in enumerate(STEPS):
            group = file.create_group(f"episode_{number}")
            frames = painted(steps, 32, 40, 3)
            if kept == "array":
                group["observations"] = frames
            elif kept == "even":
                group["observations"] = pad([jpeg(frame) for frame in frames])
            else:
                array = group.create_dataset("observations", (steps + 1,), h5py.vlen_dtype(np.uint8))
                for row, frame in enumerate(frames):
                    array[row] = jpeg(frame)
            put(group, "actions", actions(steps))
            group["rewards"] = np.arange(steps, dtype=np.float64) - 2
            group["terminations"] = (np.arange(steps) == steps - 1) & (number == 0)
            group["truncations"] = (np.arange(steps) == steps - 1) & (number == 1)
    return root


def put(group: Any, name: str, values: Any) -> None:
    if isinstance(values, dict | tuple):
        inner = group.create_group(name)
        items = values.items() if isinstance(values, dict) else ((f"_index_{i}", v) for i, v in enumerate(values))
        for key, value in items:
            put(inner, key, value)
    else:
        group[name] = values


def discrete(steps: int) -> np.ndarray:
    return np.arange(steps) % 5 + 3


def opened(root: Path, **options: Any) -> Source:
    return MinariImporter().open_source(root, options)


def shown(recorded: Recorded) -> np.ndarray:
    return np.stack(list(recorded.frames.chosen(range(len(recorded.frames.times)))))


def values(recorded: Recorded, name: str) -> np.ndarray:
    track = recorded.actions[name]
    assert isinstance(track, Rows)
    return track.values


# ---------------------------------------------------------------- what is read


@pytest.mark.parametrize("kept", ["array", "vlen", "even"])
def test_all_that_was_written_is_read(kept: str, tmp_path: Path) -> None:
    root = write(tmp_path / "set", DISCRETE, discrete, kept=kept)
    source = opened(root, fps=20)
    (part,) = source.action.components
    assert (part.name, part.type, part.num_classes, part.aggregate) == ("action", "categorical", 5, "mode")
    assert source.fps == 20 and [found.part for found in source.recordings] == ["episode_0", "episode_1"]
    for number, (found, steps) in enumerate(zip(source.recordings, STEPS, strict=True)):
        recorded = found.open()
        np.testing.assert_allclose(recorded.frames.times, np.arange(steps + 1) / 20)
        frames = painted(steps, 32, 40, 3)
        np.testing.assert_allclose(shown(recorded), frames, atol=0 if kept == "array" else 4)
        track = recorded.actions["action"]
        assert isinstance(track, Rows) and isinstance(recorded.reward, Happenings)
        np.testing.assert_array_equal(track.values[:, 0], np.arange(steps) % 5)
        np.testing.assert_array_equal(track.times, recorded.frames.times[:-1])
        np.testing.assert_array_equal(recorded.reward.values[:, 0], np.arange(steps) - 2)
        np.testing.assert_array_equal(recorded.reward.times, recorded.frames.times[1:])
        assert recorded.terminal is (number == 0)
        recorded.frames.close()


def test_nested_actions(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    grip = random.uniform(-1, 1, (9, 2)).astype(np.float32)
    keys = random.integers(0, 2, (9, 3), np.int8)
    pair = (random.integers(3, 8, 9), np.stack([random.integers(0, 2, 9), random.integers(1, 5, 9)], axis=1))

    def actions(steps: int) -> dict[str, Any]:
        return {"grip": grip[:steps], "keys": keys[:steps], "pair": tuple(each[:steps] for each in pair)}

    source = opened(write(tmp_path / "set", NESTED, actions), aggregate="sum")
    rules = {part.name: (part.type, part.dim, part.aggregate) for part in source.action.components}
    assert rules == {
        "grip": ("continuous", 2, "sum"),
        "keys": ("binary", 3, "any"),
        "pair/0": ("categorical", 1, "mode"),
        "pair/1/0": ("categorical", 1, "mode"),
        "pair/1/1": ("categorical", 1, "mode"),
    }
    recorded = source.recordings[1].open()
    np.testing.assert_array_equal(values(recorded, "grip"), grip)
    np.testing.assert_array_equal(values(recorded, "keys"), keys)
    np.testing.assert_array_equal(values(recorded, "pair/0")[:, 0], pair[0] - 3)
    np.testing.assert_array_equal(values(recorded, "pair/1/1")[:, 0], pair[1][:, 1] - 1)


def test_pictures_among_other_observations(tmp_path: Path) -> None:
    root = write(tmp_path / "set", DISCRETE, discrete)
    space = {
        "type": "Dict",
        "subspaces": {
            "eye": picture_space(1, 24, 32),
            "map": picture_space(16, 16),
            "body": BOX,
            "say": {"type": "Text"},
        },
    }
    facts = json.loads((root / "data/metadata.json").read_text())
    (root / "data/metadata.json").write_text(json.dumps(facts | {"observation_space": json.dumps(space)}))
    with h5py.File(root / MAIN, "a") as file:
        for number, steps in enumerate(STEPS):
            del file[f"episode_{number}/observations"]
            eye = np.moveaxis(painted(steps, 24, 32, 1), -1, 1)
            put(file[f"episode_{number}"], "observations", {"eye": eye, "map": painted(steps, 16, 16, 1)[..., 0]})
    with pytest.raises(InputError, match="2 cameras: eye, map"):
        opened(root)
    recorded = opened(root, cameras="eye").recordings[0].open()
    np.testing.assert_array_equal(shown(recorded), painted(6, 24, 32, 1)[..., 0])
    both = shown(opened(root, cameras="all").recordings[0].open())
    assert both.shape == (7, 24, 64, 3)
    np.testing.assert_array_equal(both[:, :16, 32:48], np.repeat(painted(6, 16, 16, 1), 3, axis=-1))


def test_spaces_in_the_attributes_of_the_file(tmp_path: Path) -> None:
    root = write(tmp_path / "set", DISCRETE, discrete)
    facts = json.loads((root / "data/metadata.json").read_text())
    (root / "data/metadata.json").unlink()
    with pytest.raises(InputError, match="action_space is missing"):
        opened(root)
    with h5py.File(root / MAIN, "a") as file:
        file.attrs.update({key: facts[key] for key in ("action_space", "observation_space")})
    assert len(shown(opened(root).recordings[1].open())) == 10


def test_bounds_of_a_space_without(tmp_path: Path) -> None:
    endless = BOX | {"low": [-np.inf, -np.inf], "high": [np.inf, np.inf]}
    root = write(tmp_path / "set", endless, lambda steps: np.full((steps, 2), 0.5, np.float32))
    with pytest.raises(InputError) as failure:
        opened(root)
    assert "data.source.options.bounds" in failure.value.hint
    (part,) = opened(root, bounds={"action": [-2, 2]}).action.components
    assert (part.low, part.high, part.aggregate) == (-2, 2, "mean")


def test_it_is_seen_what_it_is(tmp_path: Path) -> None:
    root = write(tmp_path / "set", DISCRETE, discrete)
    assert MinariImporter().detect(root) and MinariImporter().detect(root / "data")
    assert opened(root / "data").recordings[0].name == "main_data.hdf5, episode_0"
    (root / MAIN).write_bytes(b"no HDF5")
    assert MinariImporter().detect(root) is None
    with pytest.raises(InputError, match="has no data/main_data"):
        opened(root)


def test_it_becomes_episodes(tmp_path: Path) -> None:
    root = write(tmp_path / "set", DISCRETE, discrete)
    source = SourceSection(path=str(root), options={"fps": 30.0})
    said = import_source(tmp_path / "store", DataSection(source=source, height=32, width=40), 0).data["import"]
    assert (said["imported"], said["episodes"], said["defects"]) == (2, 2, [])
    store = EpisodeStore.open(tmp_path / "store")
    assert store.frame_spec.fps == 30
    for number, (record, steps) in enumerate(zip(store.episodes, STEPS, strict=True)):
        episode = store.read(record.id)
        np.testing.assert_array_equal(episode.frames, painted(steps, 32, 40, 3))
        np.testing.assert_array_equal(episode.actions[:, 0], np.arange(steps) % 5)
        np.testing.assert_array_equal(episode.rewards, np.arange(steps) - 2)
        assert episode.terminals[-1] == (number == 0)


# ---------------------------------------------------------------- defects


def _change(path: str, values: Any) -> Callable[[Any], None]:
    def change(file: Any) -> None:
        if path in file:
            del file[path]
        if values is not None:
            file[path] = values

    return change


def _set(path: str, row: int, value: Any) -> Callable[[Any], None]:
    def change(file: Any) -> None:
        file[path][row] = value

    return change


def _elsewhere(file: Any) -> None:
    del file["episode_0/actions"]
    file["episode_0/actions"] = h5py.ExternalLink("../../other.hdf5", "/actions")


def _outside(file: Any) -> None:
    del file["episode_0/rewards"]
    file["episode_0"].create_dataset("rewards", (6,), "f8", external=[("/etc/passwd", 0, 48)])


def _loop(file: Any) -> None:
    del file["episode_0/rewards"]
    file["episode_0/rewards"] = h5py.SoftLink("/episode_0/rewards")


def _huge(file: Any) -> None:
    del file["episode_0/rewards"]
    file["episode_0"].create_dataset("rewards", (1 << 40,), "f8", chunks=(64,))


@pytest.mark.parametrize(
    ("spoil", "row", "reason"),
    [
        (_change("episode_0/actions", None), None, "there is no episode_0/actions"),
        (_change("episode_0/actions", np.arange(4)), None, "episode_0/actions has 4 rows; expected 6"),
        (_change("episode_0/actions", np.zeros((6, 2))), None, "has the shape (6, 2)"),
        (_change("episode_0/actions", np.array([b"left"] * 6)), None, "expected numbers"),
        (_change("episode_0/observations", painted(5, 32, 40, 3)), None, "has 6 rows; expected 7"),
        (_change("episode_0/observations", painted(6, 32, 32, 3)), None, "of shape (32, 32, 3); its space says"),
        (_change("episode_0/observations", painted(6, 32, 40, 3) / 255), None, "is float64"),
        (_change("episode_0/observations", np.zeros((7, 90), np.uint8)), 0, "no picture that can be read"),
        (_set("episode_0/rewards", 3, np.nan), 3, "episode_0/rewards is nan"),
        (_set("episode_0/terminations", 2, True), 2, "is true, and the episode of 6 steps goes on"),
        (_change("episode_0/truncations", np.zeros(5, bool)), None, "has 5 rows; expected 6"),
        (_change("episode_0/rewards", np.zeros((6, 2))), None, "expected one number a step"),
        (_change("episode_0/infos/action_valid", np.ones(6, bool)), None, "action_valid has 6 rows; expected 7"),
        (_change("episode_0/infos/events/hit", np.full(7, np.nan)), 0, "infos/events/hit is nan"),
        (_elsewhere, None, "is a link to other.hdf5, which is not in the folder"),
        (_outside, None, "has its values in other files"),
        (_loop, None, "cannot be read"),
        (_huge, None, "expected at most"),
    ],
)
def test_defects(spoil: Callable[[Any], None], row: int | None, reason: str, tmp_path: Path) -> None:
    root = write(tmp_path / "set", DISCRETE, discrete)
    with h5py.File(tmp_path / "other.hdf5", "w") as other:
        other["actions"] = discrete(6)
    with h5py.File(root / MAIN, "a") as file:
        spoil(file)
    source = opened(root)
    with pytest.raises(RecordingError) as failure:
        shown(source.recordings[0].open())
    assert (failure.value.file, failure.value.row) == (MAIN, row)
    assert reason in failure.value.reason and str(tmp_path) not in str(failure.value)
    np.testing.assert_array_equal(shown(source.recordings[1].open()), painted(9, 32, 40, 3))


def test_a_link_within_the_source_is_followed(tmp_path: Path) -> None:
    root = write(tmp_path / "set", DISCRETE, discrete)
    with h5py.File(root / "data/additional_data_0.hdf5", "w") as other, h5py.File(root / MAIN, "a") as file:
        file.copy("episode_1", other)
        del file["episode_1"]
        file["episode_1"] = h5py.ExternalLink("additional_data_0.hdf5", "/episode_1")
    np.testing.assert_array_equal(shown(opened(root).recordings[1].open()), painted(9, 32, 40, 3))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data_format": "arrow"}, "data_format is \"?'?arrow"),
        ({"action_space": None}, "action_space is null; expected a space"),
        ({"action_space": "{"}, "it is not JSON"),
        ({"action_space": json.dumps({"type": "Text"})}, "cannot be used"),
        ({"action_space": json.dumps(BOX | {"low": [[1], [2, 3]]})}, "a Box that makes no sense"),
        ({"action_space": json.dumps(BOX | {"shape": [1 << 20, 1 << 20]})}, "shape"),
        ({"action_space": json.dumps({"type": "Discrete", "n": 1})}, "cannot be used"),
        ({"observation_space": json.dumps(BOX)}, "no part of the observations is a picture"),
    ],
)
def test_a_description_that_makes_no_sense(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    root = write(tmp_path / "set", DISCRETE, discrete)
    facts = json.loads((root / "data/metadata.json").read_text())
    (root / "data/metadata.json").write_text(json.dumps(facts | change))
    with pytest.raises(InputError, match=message):
        opened(root)


# ---------------------------------------------------------------- any bytes


def everything(root: Path) -> None:
    try:
        source = opened(root)
    except InputError:
        return
    for found in source.recordings:
        try:
            recorded = found.open()
            for _ in recorded.frames.chosen(range(len(recorded.frames.times))):
                pass
        except DataError:
            continue


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
spaces = st.recursive(
    st.fixed_dictionaries(
        {"type": st.sampled_from(["Box", "Discrete", "MultiDiscrete", "MultiBinary", "Dict", "Tuple", "Text"])},
        optional=dict.fromkeys(("n", "nvec", "start", "shape", "low", "high", "dtype", "subspaces"), anything),
    ),
    lambda inner: st.one_of(
        st.builds(lambda each: {"type": "Dict", "subspaces": each}, st.dictionaries(st.text(max_size=4), inner)),
        st.builds(lambda each: {"type": "Tuple", "subspaces": each}, st.lists(inner, max_size=3)),
    ),
    max_leaves=4,
)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("any") / "set", DISCRETE, discrete)


@settings(max_examples=120)
@given(
    key=st.sampled_from(["action_space", "observation_space", "data_format"]),
    value=anything | spaces.map(json.dumps) | st.text(),
    content=st.none() | st.binary(max_size=60),
)
def test_any_metadata_is_refused_or_read(small: Path, key: str, value: Any, content: bytes | None) -> None:
    path = small / "data/metadata.json"
    whole = path.read_bytes()
    try:
        path.write_bytes(json.dumps(json.loads(whole) | {key: value}).encode() if content is None else content)
        everything(small)
    finally:
        path.write_bytes(whole)


@settings(max_examples=40)
@given(share=st.floats(0, 1))
def test_a_file_that_is_cut_short(small: Path, share: float) -> None:
    path = small / MAIN
    whole = path.read_bytes()
    try:
        path.write_bytes(whole[: int(len(whole) * share)])
        everything(small)
    finally:
        path.write_bytes(whole)
