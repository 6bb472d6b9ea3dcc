"""`export --to video`: what was written comes back by `data import video`, and what does not is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sources.exports.round_trip import episode, imported, make_store, require_equal

from ahriuwu_cli.core.specs import ActionComponent, ActionSpec
from ahriuwu_cli.sources.exports.export import export_store


def test_everything_comes_back(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", [episode(number, 5 + 40 * number) for number in range(4)])
    report = export_store(store.folder, "video", tmp_path / "out")
    assert report.data["losses"] == []
    back = imported(report.data["import"], tmp_path / "back")
    require_equal(store, back)
    assert back.action_spec == store.action_spec
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "map.toml", *(f"{number:06d}.{suffix}" for number in range(4) for suffix in ("mp4", "csv"))
    }  # fmt: skip


def test_uneven_times_come_back_as_they_are(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    times = 7 + np.arange(31) / 15 + rng.uniform(-0.02, 0.02, 31)
    times[20:] += 3
    store = make_store(tmp_path / "store", [episode(number, 30, timestamps=times) for number in range(2)])
    report = export_store(store.folder, "video", tmp_path / "out")
    said = " ".join(report.data["losses"])
    assert "microseconds" in said
    assert "did not in 2 episodes" in said
    assert "leaves some out or keeps some twice" in said, "the pause of three seconds is filled"
    assert "data.source.gap=3" in report.data["import"]


def test_times_that_are_a_little_off_come_back(tmp_path: Path) -> None:
    times = np.arange(31) / 15 + np.random.default_rng(1).uniform(0, 0.02, 31)
    times -= times[0]
    store = make_store(tmp_path / "store", [episode(number, 30, timestamps=times) for number in range(2)])
    report = export_store(store.folder, "video", tmp_path / "out")
    assert len(report.data["losses"]) == 1
    require_equal(store, imported(report.data["import"], tmp_path / "back"), times=1e-6)


@pytest.mark.parametrize("fps", [0.5, 12.5, 29.97, 240.0])
def test_rates(fps: float, tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", [episode(number, 20, fps=fps) for number in range(2)], fps=fps)
    report = export_store(store.folder, "video", tmp_path / "out")
    assert report.data["losses"] == []
    require_equal(store, imported(report.data["import"], tmp_path / "back"))


names = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=12)


@given(st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_names(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("names")
    parts = [
        ActionComponent(
            name=name, type="categorical", num_classes=3, aggregate="mode",
            labels=tuple(data.draw(st.lists(names, min_size=3, max_size=3))),
        )
        for name in data.draw(st.lists(names, min_size=1, max_size=3, unique=True))
    ]  # fmt: skip
    spec = ActionSpec(components=tuple(parts))
    task = data.draw(names)
    store = make_store(folder / "s", [episode(i, 4, spec=spec, size=(8, 8), task=task) for i in range(2)], spec)
    report = export_store(store.folder, "video", folder / "out")
    back = imported(report.data["import"], folder / "back")
    require_equal(store, back)
    if not report.data["losses"]:
        assert back.action_spec == spec
