"""Kind `frames`: folders of pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from imported import imported
from PIL import Image

from ahriuwu_cli.core.errors import ConfigError, InputError
from ahriuwu_cli.episodes.config import DataSection, SourceSection
from ahriuwu_cli.episodes.store import EpisodeStore
from ahriuwu_cli.sources.imports.frames import read_picture
from ahriuwu_cli.sources.imports.mapping import UNLABELLED
from ahriuwu_cli.sources.imports.picture_folders import FramesImporter
from ahriuwu_cli.sources.imports.protocol import Recorded, RecordingError, Rows, Source
from ahriuwu_cli.sources.imports.transfer import import_source

FRAMES = 12
MAPPING = {
    "actions": [{"name": "keys", "type": "binary", "columns": ["left", "right"]}],
    "reward": {"column": "reward"},
}


def write(folder: Path, name: str = "shot{}.png", count: int = FRAMES, start: int = 1) -> Path:
    """Pictures whose names are not in the order of text: shot2 comes after shot10 there."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.fromarray(np.full((32, 32, 3), 10 * number, np.uint8)).save(folder / name.format(number + start))
    return folder


def write_table(path: Path, rows: int = FRAMES) -> None:
    lines = [f"{number % 2},{int(number == 3)},{0.5 * number}" for number in range(rows)]
    path.write_text("\n".join(["left,right,reward", *lines]) + "\n")


def source(folder: Path, **options: Any) -> Source:
    return FramesImporter().open_source(folder, {"fps": 5.0, **options})


def opened(folder: Path, **options: Any) -> Recorded:
    found = source(folder, **options).recordings
    assert len(found) == 1
    return found[0].open()


@pytest.mark.parametrize("name", ["shot{}.png", "{}.jpg", "a7_{:04d}_left.JPEG"])
def test_pictures_come_in_natural_order_at_the_rate_that_is_given(tmp_path: Path, name: str) -> None:
    recorded = opened(write(tmp_path / "play", name))
    np.testing.assert_allclose(recorded.frames.times, np.arange(FRAMES) / 5)
    shown = [round(float(image.mean()) / 10) for image in recorded.frames.chosen(range(FRAMES))]
    assert shown == list(range(FRAMES))
    assert source(tmp_path).fps == 5
    assert not recorded.actions
    assert not recorded.notes
    assert source(tmp_path).action == UNLABELLED


def test_a_side_car_beside_the_folder_labels_it(tmp_path: Path) -> None:
    write(tmp_path / "play")
    write_table(tmp_path / "play.csv")
    recorded = opened(tmp_path, mapping=MAPPING)
    track = recorded.actions["keys"]
    assert isinstance(track, Rows)
    assert track.values[:, 0].tolist() == [number % 2 for number in range(FRAMES)]
    assert np.flatnonzero(track.values[:, 1]).tolist() == [3]
    np.testing.assert_allclose(track.times, recorded.frames.times)
    assert source(tmp_path, mapping=MAPPING).recordings[0].files[-1] == tmp_path / "play.csv"
    assert any("no mapping" in note for note in source(tmp_path).notes)


def test_folders_without_side_cars_are_counted(tmp_path: Path) -> None:
    for name in ("p10", "p9"):
        write(tmp_path / name)
    write_table(tmp_path / "p9.csv")
    found = source(tmp_path, mapping=MAPPING)
    assert [each.name for each in found.recordings] == ["p9", "p10"]
    assert [bool(each.open().actions) for each in found.recordings] == [True, False]
    assert found.notes == ["1 of 2 folders have no side-car: their actions are not known"]
    assert FramesImporter().detect(tmp_path) == "2 folders of pictures"
    assert FramesImporter().detect(tmp_path / "p9") == "a folder of pictures"


def test_a_hole_in_the_numbers_is_told(tmp_path: Path) -> None:
    (write(tmp_path / "play") / "shot7.png").unlink()
    (note,) = opened(tmp_path).notes
    assert "shot6.png comes before shot8.png" in note
    write(tmp_path / "tens", "{}0.png")
    assert not opened(tmp_path / "tens").notes


def test_folders_of_the_prototype_are_its_own(tmp_path: Path) -> None:
    write(tmp_path / "v")
    (tmp_path / "v" / "features.json").write_text("{}")
    assert FramesImporter().detect(tmp_path) is None
    write(tmp_path / "match" / "frames")
    (tmp_path / "match" / "labels.json").write_text("{}")
    assert FramesImporter().detect(tmp_path / "match") is None


def test_what_is_no_such_source_is_told(tmp_path: Path) -> None:
    write(tmp_path / "one", count=1)
    assert FramesImporter().detect(tmp_path) is None
    assert FramesImporter().detect(Path(__file__)) is None
    with pytest.raises(InputError, match="has no folder of pictures"):
        source(tmp_path)
    write(tmp_path / "play")
    with pytest.raises(InputError, match="no times of their own"):
        FramesImporter().open_source(tmp_path, {})
    with pytest.raises(InputError, match="fps is 0"):
        source(tmp_path, fps=0.0)
    with pytest.raises(InputError, match="unknown key rate"):
        source(tmp_path, rate=3)
    with pytest.raises(ConfigError, match="mapping"):
        source(tmp_path, mapping={"actions": 3})


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no picture that can be read"),
        (b"GIF89a no picture", "no picture that can be read"),
        ("cut", "no picture that can be read"),
    ],
)
def test_a_broken_picture_is_named(tmp_path: Path, content: bytes | str, reason: str) -> None:
    path = write(tmp_path / "play") / "shot5.png"
    path.write_bytes(path.read_bytes()[:60] if content == "cut" else content)  # type: ignore[arg-type]
    with pytest.raises(RecordingError, match=reason) as told:
        list(opened(tmp_path).frames.chosen(range(FRAMES)))
    assert told.value.file == "shot5.png"


@pytest.mark.parametrize(
    ("content", "row", "reason"),
    [
        ("left,reward\n" + "0,0\n" * FRAMES, None, "no column 'right'"),
        ("left,right,reward\n" + "0,0,0\n" * 3 + "x,0,0\n" + "0,0,0\n" * 8, 5, "left is 'x'"),
        ("left,right,reward\n" + "0,0,0\n" * 5, None, "5 rows for 12 frames"),
    ],
)
def test_a_defect_of_the_side_car_is_named(tmp_path: Path, content: str, row: int | None, reason: str) -> None:
    write(tmp_path / "play")
    (tmp_path / "play.csv").write_text(content)
    with pytest.raises(RecordingError, match=reason) as told:
        opened(tmp_path, mapping=MAPPING)
    assert (told.value.file, told.value.row) == ("play.csv", row)


def test_a_folder_becomes_an_episode(tmp_path: Path) -> None:
    write(tmp_path / "in" / "a")
    write(tmp_path / "in" / "b", count=FRAMES - 2)
    (episode, _), _ = imported(tmp_path / "in", tmp_path / "out", "frames", fps=5.0)
    assert episode.num_frames == FRAMES
    assert not episode.action_valid.any()
    np.testing.assert_allclose(np.diff(episode.timestamps), 0.2)
    assert [round(float(frame.mean()) / 10) for frame in episode.frames] == list(range(FRAMES))


# ---------------------------------------------------------------- picture files of every kind

GREYS = np.linspace(0, 255, 48).reshape(6, 8).astype(np.uint8)
COLOURS = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
CLEAR = np.where(np.arange(8) < 4, 255, 0).astype(np.uint8) * np.ones((6, 1), np.uint8)
"""Alpha: the left half is seen, the right one is not."""


def on_black(colours: np.ndarray) -> np.ndarray:
    return np.where(CLEAR[:, :, None] == 255, colours, 0)


def palette() -> Image.Image:
    return Image.fromarray(COLOURS).quantize(48)


@pytest.mark.parametrize(
    ("picture", "options", "expected"),
    [
        (Image.fromarray(GREYS), {}, GREYS[:, :, None].repeat(3, 2)),
        (Image.fromarray(GREYS.astype(np.uint16) * 257), {}, GREYS[:, :, None].repeat(3, 2)),
        (Image.fromarray(GREYS > 99), {}, np.where(GREYS > 99, 255, 0)[:, :, None].repeat(3, 2)),
        (Image.fromarray(np.dstack([GREYS, CLEAR]), "LA"), {}, on_black(GREYS[:, :, None].repeat(3, 2))),
        (Image.fromarray(np.dstack([COLOURS, CLEAR])), {}, on_black(COLOURS)),
        (palette(), {}, np.asarray(palette().convert("RGB"))),
        (palette(), {"transparency": bytes(48)}, np.zeros((6, 8, 3))),
        (Image.fromarray(COLOURS), {"exif": 6}, np.rot90(COLOURS, -1)),
        (Image.fromarray(COLOURS), {"exif": 3}, COLOURS[::-1, ::-1]),
        (Image.fromarray(COLOURS), {"exif": 2}, COLOURS[:, ::-1]),
    ],
    ids=["grey", "16 bits", "1 bit", "grey and alpha", "rgba", "palette", "clear", "turned", "half", "mirrored"],
)
def test_a_picture_file_of_any_kind_becomes_rgb(
    tmp_path: Path, picture: Image.Image, options: dict[str, Any], expected: np.ndarray
) -> None:
    exif = Image.Exif()
    if "exif" in options:
        exif[0x0112] = options.pop("exif")  # orientation
    picture.save(tmp_path / "a.png", exif=exif, **options)
    found = read_picture(tmp_path / "a.png")
    assert (found.dtype, found.shape) == (np.uint8, expected.shape)
    np.testing.assert_array_equal(found, expected)


def test_a_jpeg_for_print_becomes_rgb(tmp_path: Path) -> None:
    plain = np.full((16, 16, 3), (200, 40, 90), np.uint8)
    Image.fromarray(plain).convert("CMYK").save(tmp_path / "a.jpg", quality=100)
    assert np.abs(read_picture(tmp_path / "a.jpg").astype(int) - plain).max() <= 6


def test_masks_and_fit_are_those_of_the_settings_and_in_the_store(tmp_path: Path) -> None:
    write(tmp_path / "in" / "a")
    data = DataSection(
        source=SourceSection(kind="frames", path=str(tmp_path / "in"), options={"fps": 5.0}),
        height=16, width=32, fit="pad", masks=[[0, 0, 4, 32]],
    )  # fmt: skip
    import_source(tmp_path / "out", data, seed=0)
    store = EpisodeStore.open(tmp_path / "out")
    settings = store.header.config["data"]
    assert (settings["fit"], settings["masks"]) == ("pad", [[0, 0, 4, 32]])
    last = store.read(store.episodes[-1].id).frames[-1]
    assert not last[:, :8].any()
    assert not last[:, 24:].any()
    assert not last[:2].any()
    assert last[2:, 8:24].min() > 0
    other = data.model_copy(update={"masks": []})
    assert import_source(tmp_path / "out", other, seed=0).data["import"]["present"] == 1
    with pytest.raises(InputError, match=r"has data\.fit pad; this import has cover"):
        import_source(tmp_path / "out", data.model_copy(update={"fit": "cover"}), seed=0)
