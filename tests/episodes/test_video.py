"""Video files: frame i read at random is frame i read in order, whatever the file's groups of pictures look like."""

import struct
from contextlib import closing
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ahriuwu_cli.core.errors import DataError
from ahriuwu_cli.episodes.video import VideoFrames, frame_stamps, write_video

RNG = np.random.default_rng(0)


def numbered(count: int, height: int = 48, width: int = 64) -> np.ndarray:
    """Frames that differ from each other: each shows its number as a pattern of cells."""
    frames = np.full((count, height, width, 3), 40, np.uint8)
    for number in range(count):
        for bit in range(8):
            frames[number, :, bit * 8 : bit * 8 + 8] = 220 if number >> bit & 1 else 40
        frames[number, : height // 3] = RNG.integers(0, 255, 3)
    return frames


def encoded(path: Path, frames: np.ndarray, codec: str, stamps: list[int], options: dict[str, str], gop: int) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=30, options=options)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        stream.codec_context.gop_size = gop
        stream.codec_context.time_base = Fraction(1, 1000)
        for frame, stamp in zip(frames, stamps, strict=True):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts, picture.time_base = stamp, Fraction(1, 1000)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return path


KINDS = {
    "B-frames": ("libx264", {"bf": "3", "b-adapt": "0"}, "mp4"),
    "open groups": ("libx264", {"x264-params": "open-gop=1:bframes=3:b-adapt=0:keyint=12:min-keyint=12"}, "mkv"),
    "hierarchy": ("libx264", {"x264-params": "b-pyramid=normal:bframes=5:b-adapt=0:keyint=30"}, "mp4"),
    "hevc": ("libx265", {"x265-params": "log-level=none:open-gop=1:bframes=3:keyint=12:min-keyint=12"}, "mp4"),
    "one key frame": ("libx264", {"g": "1000"}, "mkv"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_random_reads_are_reads_in_order(tmp_path: Path, kind: str) -> None:
    codec, options, suffix = KINDS[kind]
    frames = numbered(90)
    stamps = np.cumsum(RNG.integers(20, 60, 90)).tolist()  # a rate that varies
    path = encoded(tmp_path / f"video.{suffix}", frames, codec, stamps, options, 12)
    found, unit = frame_stamps(path)
    assert np.allclose(np.diff(found) * float(unit), np.diff(stamps) / 1000, atol=2e-3)
    with closing(VideoFrames(path, found)) as reader:
        whole = reader.read(0, len(reader))
        assert [number_of(frame) for frame in whole] == list(range(90))
        for start in RNG.integers(0, 88, 40):
            stop = int(min(90, start + RNG.integers(1, 20)))
            assert np.array_equal(reader.read(int(start), stop), whole[start:stop])
        chosen = sorted(RNG.choice(90, 20, replace=False).tolist())
        assert all(np.array_equal(a, whole[n]) for n, a in zip(chosen, reader.chosen(chosen), strict=True))


def number_of(frame: np.ndarray) -> int:
    """The number that a frame of `numbered` shows."""
    return sum(int(frame[40, bit * 8 + 4].mean() > 128) << bit for bit in range(8))


@settings(max_examples=25, deadline=None)
@given(count=st.integers(1, 70), size=st.sampled_from([(8, 8), (64, 64), (35, 21), (16, 200)]), data=st.data())
def test_what_is_written_comes_back(tmp_path_factory: pytest.TempPathFactory, count: int, size: tuple, data) -> None:
    """Lossless up to 64x64; odd sizes and any cutting into pieces included."""
    path = tmp_path_factory.mktemp("video") / "made.mp4"
    frames = np.random.default_rng(count).integers(0, 256, (count, *size, 3), dtype=np.uint8)
    cut = data.draw(st.integers(0, count))
    pieces = [piece for piece in (frames[:cut], frames[cut:]) if len(piece)]
    assert write_video(path, pieces, *size) == count
    with closing(VideoFrames(path, num_frames=count)) as reader:
        for _ in range(4):
            start = data.draw(st.integers(0, count - 1))
            stop = data.draw(st.integers(start + 1, count))
            assert np.array_equal(reader.read(start, stop), frames[start:stop])


def test_larger_frames_keep_what_the_eye_sees(tmp_path: Path) -> None:
    frames = numbered(40, 96, 128)
    write_video(tmp_path / "made.mp4", [frames], 96, 128)
    with closing(VideoFrames(tmp_path / "made.mp4", num_frames=40)) as reader:
        error = (reader.read(0, 40).astype(float) - frames) ** 2
    assert 10 * np.log10(255**2 / error.mean()) > 40


def test_the_same_frames_make_the_same_file(tmp_path: Path) -> None:
    frames = numbered(40, 96, 128)
    for name in ("one.mp4", "two.mp4"):
        write_video(tmp_path / name, [frames], 96, 128)
    assert (tmp_path / "one.mp4").read_bytes() == (tmp_path / "two.mp4").read_bytes()


@pytest.mark.parametrize("kept", [0.9, 0.5, 0.1])
def test_a_file_that_was_cut_short(tmp_path: Path, kept: float) -> None:
    path = encoded(tmp_path / "video.mkv", numbered(90), "libx264", list(range(0, 2700, 30)), {}, 12)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    try:
        stamps, _ = frame_stamps(path)
        assert len(stamps) < 90
    except DataError as error:
        assert str(path) in error.message


def test_what_is_no_video(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("hello")
    for read in (frame_stamps, VideoFrames):
        with pytest.raises(DataError, match="cannot be opened as video"):
            read(tmp_path / "text.mp4")


def test_missing_frames_are_told(tmp_path: Path) -> None:
    """A file with fewer frames than the manifest lists."""
    write_video(tmp_path / "made.mp4", [numbered(20)], 48, 64)
    reader = VideoFrames(tmp_path / "made.mp4", num_frames=25)
    with pytest.raises(DataError, match="frame 20 of 25 is missing"):
        reader.read(10, 25)
    assert len(reader.read(10, 20)) == 10, "and the others are still read"


# ---------------------------------------------------------------- what recorders and phones write

ORIENTATIONS = {
    "as it is": ((1, 0, 0, 1), lambda picture: picture),
    "mirrored": ((-1, 0, 0, 1), lambda picture: picture[:, ::-1]),
    "half a turn": ((-1, 0, 0, -1), lambda picture: picture[::-1, ::-1]),
    "upside down": ((1, 0, 0, -1), lambda picture: picture[::-1]),
    "quarter turn to the right": ((0, 1, -1, 0), lambda picture: np.rot90(picture, -1)),
    "quarter turn to the left": ((0, -1, 1, 0), np.rot90),
    "transposed": ((0, 1, 1, 0), lambda picture: picture.transpose(1, 0, 2)),
    "transposed the other way": ((0, -1, -1, 0), lambda picture: np.rot90(picture, 2).transpose(1, 0, 2)),
}


def turned(path: Path, frames: np.ndarray, matrix: tuple[float, ...]) -> Path:
    """A lossless MP4 whose track header (ISO/IEC 14496-12) has the matrix a, b, c, d."""
    write_video(path, [frames], *frames.shape[1:3])
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 44
    a, b, c, d = (round(each * 0x10000) for each in matrix)
    content[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_a_video_is_shown_as_its_matrix_says(tmp_path: Path, name: str) -> None:
    matrix, shown = ORIENTATIONS[name]
    frames = RNG.integers(0, 256, (5, 16, 24, 3), dtype=np.uint8)
    path = turned(tmp_path / "video.mp4", frames, matrix)
    with closing(VideoFrames(path, frame_stamps(path)[0])) as reader:
        found = reader.read(1, 4)
    assert np.array_equal(found, np.stack([shown(frame) for frame in frames[1:4]]))


def test_a_video_at_an_angle_is_refused(tmp_path: Path) -> None:
    path = turned(tmp_path / "video.mp4", np.zeros((2, 16, 24, 3), np.uint8), (0.866, 0.5, -0.5, 0.866))
    with pytest.raises(DataError, match="angle of -30 degrees"):
        VideoFrames(path, frame_stamps(path)[0]).read(0, 1)


@pytest.mark.parametrize(
    ("codec", "pixels", "size", "error"),
    [
        ("libx265", "yuv420p10le", (48, 64), 8),
        ("libx264", "yuv422p10le", (48, 64), 8),
        ("ffv1", "gray", (35, 21), 1),
        ("ffv1", "gray16le", (35, 21), 1),
        ("ffv1", "bgra", (35, 21), 0),
        ("libx264rgb", "bgr24", (34, 22), 0),
        ("libx264", "yuv444p", (35, 21), 8),
    ],
)
def test_pixels_of_any_kind_become_rgb(
    tmp_path: Path, codec: str, pixels: str, size: tuple[int, int], error: int
) -> None:
    grey = "gray" in pixels
    frame = np.zeros((*size, 3), np.uint8)
    frame[: size[0] // 2] = (180, 180, 180) if grey else (200, 60, 30)
    frame[size[0] // 2 :] = (40, 40, 40) if grey else (20, 90, 220)
    path, options = tmp_path / "video.mkv", {"qp": "0"} if "264rgb" in codec else {"crf": "4"}
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=30, options=options if codec.startswith("lib") else {})
        stream.height, stream.width, stream.pix_fmt = *size, pixels
        for number in range(3):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format=pixels)
            picture.pts, picture.time_base = number, Fraction(1, 30)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    with closing(VideoFrames(path, frame_stamps(path)[0])) as reader:
        found = reader.read(0, 3)
    edge = slice(size[0] // 2 - 3, size[0] // 2 + 3)
    assert found.shape == (3, *size, 3)
    assert np.delete(np.abs(found.astype(int) - frame), edge, axis=1).max() <= error
