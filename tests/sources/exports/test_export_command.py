"""`ahriuwu export`: all or nothing, whatever is in the way; only pieces of frames are in memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sources.exports.round_trip import episode, make_store
from typer.testing import CliRunner

from ahriuwu_cli.cli.main import app, run
from ahriuwu_cli.core.errors import DataError, InputError
from ahriuwu_cli.core.specs import ActionComponent, ActionSpec
from ahriuwu_cli.episodes.reading import PIECE
from ahriuwu_cli.episodes.store import EpisodeStore
from ahriuwu_cli.sources.exports.export import export_store
from ahriuwu_cli.sources.exports.registry import FORMATS

ALL = pytest.mark.parametrize("name", FORMATS.names())


@pytest.fixture
def store(tmp_path: Path) -> EpisodeStore:
    return make_store(tmp_path / "store", [episode(number, 150) for number in range(2)])


@ALL
def test_the_command(name: str, store: EpisodeStore, tmp_path: Path) -> None:
    found = CliRunner().invoke(app, ["export", str(store.folder), "--to", name, str(tmp_path / "out"), "--json"])
    said = json.loads(found.stdout)
    assert (said["episodes"], said["format"], said["fingerprint"]) == (2, name, store.fingerprint)
    assert said["unlabelled"] > 0
    assert said["import"].startswith(f"ahriuwu data import {name} ")


def test_an_unknown_format_is_told_which_there_are(store: EpisodeStore, tmp_path: Path, capfd: Any) -> None:
    assert run(["export", str(store.folder), "--to", "rosbag", str(tmp_path / "out")]) == 2
    assert "lerobot, minari, video" in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_with_something_in_it_is_refused(store: EpisodeStore, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for place in ("out", "file"):
        with pytest.raises(InputError, match="not an empty folder"):
            export_store(store.folder, "video", tmp_path / place)
    assert (tmp_path / "out/mine").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    export_store(store.folder, "video", tmp_path / "empty")
    assert (tmp_path / "empty/map.toml").is_file()


def test_an_empty_store_is_refused(tmp_path: Path, store: EpisodeStore) -> None:
    empty = EpisodeStore.create(tmp_path / "none", store.action_spec, store.frame_spec, "", {})
    with pytest.raises(InputError, match="no episodes"):
        export_store(empty.folder, "video", tmp_path / "out")


class Breaking:
    """Frames of which the second piece cannot be read; tells how many are asked for at once."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error, self.most = error, 0

    def __len__(self) -> int:
        return 151

    def read(self, start: int, stop: int) -> np.ndarray:
        self.most = max(self.most, stop - start)
        if start and self.error is not None:
            raise self.error
        return np.zeros((stop - start, 16, 24, 3), np.uint8)


@ALL
@pytest.mark.parametrize("error", [DataError("gone", hint="restore it"), KeyboardInterrupt(), OSError(28, "full")])
def test_what_breaks_off_leaves_nothing(
    name: str, error: BaseException, store: EpisodeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EpisodeStore, "frames", lambda *_: Breaking(error))
    before = set(tmp_path.iterdir())
    assert run(["export", str(store.folder), "--to", name, str(tmp_path / "out")]) != 0
    assert set(tmp_path.iterdir()) == before


@ALL
def test_frames_are_read_in_pieces(
    name: str, store: EpisodeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = Breaking()
    monkeypatch.setattr(EpisodeStore, "frames", lambda *_: reader)
    monkeypatch.setattr(EpisodeStore, "read", None)
    export_store(store.folder, name, tmp_path / "out")
    assert 0 < reader.most <= PIECE


def test_what_no_format_holds_is_said(tmp_path: Path) -> None:
    last = np.arange(9) == 8
    both = {"terminals": last, "truncations": last}
    store = make_store(tmp_path / "store", [episode(0, 9, policy="a", **both), episode(1, 9, policy="b")])
    said = export_store(store.folder, "video", tmp_path / "out").data["losses"]
    assert said[0] == "who played is not in it: a, b"
    assert "episode 000000 ended both ways or neither" in said[1]
    alone = make_store(tmp_path / "alone", [episode(0, 9)])
    assert "one episode" in export_store(alone.folder, "video", tmp_path / "out1").data["losses"][0]


def test_labels_that_a_table_cannot_tell_apart(tmp_path: Path) -> None:
    part = ActionComponent(name="move", type="categorical", num_classes=2, labels=("up", "UP"), aggregate="mode")
    spec = ActionSpec(components=(part,))
    store = make_store(tmp_path / "store", [episode(number, 9, spec=spec) for number in range(2)], spec)
    assert "move" in export_store(store.folder, "video", tmp_path / "out").data["losses"][0]
