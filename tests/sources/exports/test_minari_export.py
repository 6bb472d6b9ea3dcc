"""`export --to minari`: an HDF5 file that comes back whole, and that says what it is as Minari does."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from sources.exports.round_trip import SPEC, episode, imported, make_store, require_equal

from ahriuwu_cli.core.errors import InputError
from ahriuwu_cli.core.specs import ActionComponent, ActionSpec
from ahriuwu_cli.sources.exports.export import export_store

LABELS = "names of the choices of keys, move"


def test_everything_comes_back(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", [episode(number, 5 + 40 * number) for number in range(4)])
    report = export_store(store.folder, "minari", tmp_path / "out")
    assert report.data["losses"] == [LABELS]
    back = imported(report.data["import"], tmp_path / "back")
    require_equal(store, back)
    nameless = [part.model_copy(update={"labels": ()}) for part in SPEC.components]
    assert list(back.action_spec.components) == nameless


def test_what_is_in_the_file(tmp_path: Path) -> None:
    """Read with h5py alone, by the layout."""
    episodes = [episode(number, 6) for number in range(2)]
    store = make_store(tmp_path / "store", episodes)
    export_store(store.folder, "minari", tmp_path / "out")
    facts = json.loads((tmp_path / "out/data/metadata.json").read_text())
    assert (facts["total_episodes"], facts["total_steps"], facts["jpeg_encoding"]) == (2, 12, False)
    assert set(json.loads(facts["action_space"])["subspaces"]) == {"aim", "keys", "move"}
    with h5py.File(tmp_path / "out/data/main_data.hdf5") as file:
        for number, each in enumerate(episodes):
            group = file[f"episode_{number}"]
            np.testing.assert_array_equal(group["observations"], each.frames)
            np.testing.assert_array_equal(group["actions/aim"], each.actions[:, :2])
            np.testing.assert_array_equal(group["actions/move"], each.actions[:, 4])
            np.testing.assert_array_equal(group["rewards"], each.rewards)
            np.testing.assert_array_equal(group["terminations"], each.terminals)
            np.testing.assert_array_equal(group["infos/action_valid"][1:], each.action_valid)
            np.testing.assert_array_equal(group["infos/events/score"][1:], each.event("score"))


@pytest.mark.parametrize("names", [("action",), ("turn",), ("arm/left", "arm/right/2", "b"), ("z", "a")])
def test_nested_and_plain_actions(names: tuple[str, ...], tmp_path: Path) -> None:
    parts = [
        ActionComponent(name=name, type="categorical", num_classes=number + 2, aggregate="mode")
        for number, name in enumerate(names)
    ]
    spec = ActionSpec(components=tuple(parts))
    store = make_store(tmp_path / "store", [episode(number, 9, spec=spec) for number in range(2)], spec)
    report = export_store(store.folder, "minari", tmp_path / "out")
    back = imported(report.data["import"], tmp_path / "back")
    require_equal(store, back)
    assert sorted(part.name for part in back.action_spec.components) == sorted(names)


def test_names_that_hdf5_cannot_hold_are_refused(tmp_path: Path) -> None:
    for names in (("a", "a/b"), ("x~1y",), (".",)):
        spec = ActionSpec(components=tuple(ActionComponent(name=name, type="binary") for name in names))
        store = make_store(tmp_path / "".join(map(str, map(ord, names[0]))), [episode(0, 3, spec=spec)], spec)
        with pytest.raises(InputError, match="Minari cannot hold"):
            export_store(store.folder, "minari", tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_uneven_times_are_said_to_be_lost(tmp_path: Path) -> None:
    times = np.arange(10) / 15 + np.linspace(0, 0.01, 10) ** 2
    times[3:] += 0.01
    store = make_store(tmp_path / "store", [episode(number, 9, timestamps=times) for number in range(2)])
    report = export_store(store.folder, "minari", tmp_path / "out")
    assert report.data["losses"] == ["times: frames come back 0.06667 seconds apart", LABELS]
    require_equal(store, imported(report.data["import"], tmp_path / "back"), times=0.02)
