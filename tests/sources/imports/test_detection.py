"""Every kind is known by what its recordings look like, and by no other one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from imported import write_play
from PIL import Image

from ahriuwu_cli.core.errors import InputError
from ahriuwu_cli.sources.imports.registry import KINDS, detected, importer


def pictures(folder: Path, name: str = "{:06d}.png") -> None:
    folder.mkdir(parents=True)
    for number in range(3):
        Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(folder / name.format(number))


def video(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_play(path, np.arange(3), 20)


def prototype(source: Path) -> None:
    pictures(source / "v" / "frames", "frame_{:06d}.jpg")
    (source / "v" / "features.json").write_text("{}")


def match(source: Path) -> None:
    pictures(source / "NA1_1" / "frames")
    (source / "NA1_1" / "labels.json").write_text("{}")


def vpt(source: Path) -> None:
    video(source / "6.7" / "a.mp4")
    line = {"mouse": {}, "keyboard": {}, "isGuiOpen": False}
    (source / "6.7" / "a.jsonl").write_text(json.dumps(line) + "\n")


def minerl(source: Path) -> None:
    video(source / "MineRLTreechop-v0" / "a" / "recording.mp4")
    np.savez(source / "MineRLTreechop-v0" / "a" / "rendered.npz", reward=np.zeros(2))


def owamcap(source: Path) -> None:
    video(source / "a.mkv")
    (source / "a.mcap").write_bytes(b"\x89MCAP0\r\n")


def owl(source: Path) -> None:
    video(source / "1767633347" / "recording.mp4")
    (source / "1767633347" / "inputs.csv").write_text('timestamp,event_type,event_args\r\n1.5,START,"{}"\r\n')


def latents(source: Path) -> None:
    np.savez(source / "v.npz", latents=np.zeros((2, 4, 16, 16), np.float16), frame_indices=np.arange(2))


def checkpoint(source: Path) -> None:
    torch.save({"model_state_dict": {"a": torch.zeros(2)}}, source / "best.pt")


LOOKS: list[tuple[str, Callable[[Path], None]]] = [
    ("prototype", prototype),
    ("prototype", match),
    ("vpt", vpt),
    ("minerl", minerl),
    ("owamcap", owamcap),
    ("owl", owl),
    ("prototype-latents", latents),
    ("prototype-checkpoint", checkpoint),
    ("frames", lambda source: pictures(source / "play")),
    ("video", lambda source: video(source / "play.mp4")),
]


@pytest.mark.parametrize(("kind", "make"), LOOKS)
def test_a_kind_is_known_by_its_looks(tmp_path: Path, kind: str, make: Callable[[Path], None]) -> None:
    make(tmp_path)
    found, seen = detected(tmp_path)
    assert (found.KIND, bool(seen)) == (kind, True)


@pytest.mark.parametrize("kind", KINDS.names())
def test_no_kind_knows_an_empty_folder_or_odd_names(tmp_path: Path, kind: str) -> None:
    assert kind == importer(kind).KIND
    assert importer(kind).detect(tmp_path) is None
    for name in (
        "rendered.npz",
        "features.json",
        "a.mcap",
        "b.jsonl",
        "inputs.csv",
        "c.npz",
        "d.pt",
        "e.png",
        "f.parquet",
    ):
        (tmp_path / name).mkdir()
    (tmp_path / "g.mcap").write_bytes(b"\xff" * 20)
    (tmp_path / "h.pt").write_bytes(b"")
    (tmp_path / "i.npz").write_bytes(b"PK")
    (tmp_path / "j.jsonl").write_bytes(b"\xff\n")
    assert importer(kind).detect(tmp_path) is None


def test_two_kinds_at_once_are_told_apart_by_the_user(tmp_path: Path) -> None:
    vpt(tmp_path)
    checkpoint(tmp_path)
    with pytest.raises(InputError, match="may be of several kinds"):
        detected(tmp_path)
