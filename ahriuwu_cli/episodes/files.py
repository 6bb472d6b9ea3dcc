"""The files of one episode: a safetensors file with tracks and raw frames, or one with tracks beside a video.

Shapes: n frames of a piece, H x W pixels.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from ahriuwu_cli.core import content, tensorfile
from ahriuwu_cli.core.errors import ArtifactError, DataError
from ahriuwu_cli.core.files import write_atomically
from ahriuwu_cli.core.loading import reading
from ahriuwu_cli.core.names import TENSOR_SUFFIX, VIDEO_SUFFIX
from ahriuwu_cli.core.specs import FrameSpec
from ahriuwu_cli.episodes.episode import FRAMES, RECORD_HINT, TRACKS, Tracks
from ahriuwu_cli.episodes.events import event_of
from ahriuwu_cli.episodes.manifest import EpisodeRecord, Storage, VideoFile
from ahriuwu_cli.episodes.reading import FrameReader, RawFrames, pieces
from ahriuwu_cli.episodes.video import VideoFrames, write_video

AGAIN = "make the episodes again"


def write_episode(
    folder: Path, episode_id: str, tracks: Tracks, frames: Iterable[np.ndarray], spec: FrameSpec, storage: Storage
) -> tuple[Path, VideoFile | None]:
    """Write an episode's files, each whole or not at all; the frames come in pieces (n, H, W, 3) uint8.

    Raises:
        DataError: other frames come than the tracks and the spec say.
        StorageError: it cannot be written.
    """
    path = folder / f"{episode_id}{TENSOR_SUFFIX}"
    checked = _Checked(episode_id, tracks.num_frames, spec, frames)
    if storage == "raw":
        _write_tensors(path, episode_id, tracks, checked, spec)
        return path, None
    video = folder / f"{episode_id}{VIDEO_SUFFIX}"
    write_atomically(video, lambda temporary: write_video(temporary, checked, spec.height, spec.width))
    _write_tensors(path, episode_id, tracks, None, spec)
    return path, VideoFile(file=video.name, sha256=content.hash_file(video))


def copy_episode(
    folder: Path,
    episode_id: str,
    tracks: Tracks,
    spec: FrameSpec,
    source: Path,
    record: EpisodeRecord,
    *,
    as_it_is: bool,
) -> tuple[Path, VideoFile | None]:
    """Write an episode's files with the frames, bit for bit, of one in another store's folder.

    Args:
        folder: of the store.
        episode_id: its place there.
        tracks: all but its frames.
        spec: of both stores.
        source: the other store's folder.
        record: what that store lists.
        as_it_is: the tracks are those of the other store, and the id too: files are copied.

    Raises:
        ArtifactError: a file of the other store is missing, or not the one that its manifest lists.
        StorageError: it cannot be written.
    """
    path = folder / f"{episode_id}{TENSOR_SUFFIX}"
    if as_it_is:
        _copy(content.require_content(source, record.file, record.sha256, again=AGAIN), path)
    elif record.video is None:
        return write_episode(folder, episode_id, tracks, pieces(open_frames(source, record, spec)), spec, "raw")
    else:
        _write_tensors(path, episode_id, tracks, None, spec)
    if record.video is None:
        return path, None
    video = folder / f"{episode_id}{VIDEO_SUFFIX}"
    _copy(content.require_content(source, record.video.file, record.video.sha256, again=AGAIN), video)
    return path, VideoFile(file=video.name, sha256=record.video.sha256)


def read_tracks(folder: Path, record: EpisodeRecord) -> Tracks:
    """Everything of an episode but its frames.

    Raises:
        ArtifactError: the file is missing, cut short, or not the one that the manifest lists.
    """
    path = content.require_content(folder, record.file, record.sha256, again=AGAIN)
    with tensorfile.open_tensors(path, "np") as handle:
        names = [name for name in handle.keys() if name != FRAMES]  # noqa: SIM118 (not a dict)
        missing = sorted(set(TRACKS) - set(names))
        if missing:
            raise ArtifactError(f"{path} lacks {', '.join(missing)}", hint=AGAIN)
        with reading(path):
            arrays = {name: handle.get_tensor(name) for name in names}
    return Tracks(
        **{name: arrays[name] for name in TRACKS},
        task=record.task,
        seed=record.seed,
        policy=record.policy,
        events={event: array for name, array in arrays.items() if (event := event_of(name)) is not None},
    )


def open_frames(folder: Path, record: EpisodeRecord, spec: FrameSpec) -> FrameReader:
    """The frames of an episode.

    Raises:
        ArtifactError: the file is missing, cut short, or not the one that the manifest lists.
    """
    count, video = record.num_steps + 1, record.video
    if video is None:
        return RawFrames(content.require_content(folder, record.file, record.sha256, again=AGAIN), count, spec)
    path = content.require_content(folder, video.file, video.sha256, again=AGAIN)
    try:
        return VideoFrames(path, num_frames=count)
    except DataError as error:
        raise ArtifactError(error.message, hint=AGAIN) from error


def _copy(source: Path, target: Path) -> None:
    write_atomically(target, lambda temporary: shutil.copyfile(source, temporary))


def _write_tensors(path: Path, episode_id: str, tracks: Tracks, frames: _Checked | None, spec: FrameSpec) -> None:
    arrays = {name: np.asarray(array) for name, array in tracks.arrays().items() if name != FRAMES}
    layout = {name: (array.dtype, array.shape) for name, array in arrays.items()}
    if frames is not None:
        layout[FRAMES] = (np.dtype(np.uint8), (tracks.num_frames, spec.height, spec.width, 3))

    def save(temporary: Path) -> None:
        with temporary.open("r+b") as stream:
            writer = tensorfile.TensorFileWriter(stream, layout, {"ahriuwu_episode": episode_id})
            for name, array in arrays.items():
                writer.put(name, 0, array)
            row = 0
            for piece in frames or ():
                writer.put(FRAMES, row, piece)
                row += len(piece)

    write_atomically(path, save)


class _Checked:
    """Pieces of frames, each looked at on its way to the disk, and at the end their number."""

    def __init__(self, episode_id: str, count: int, spec: FrameSpec, pieces: Iterable[np.ndarray]) -> None:
        self._name, self._count, self._pieces = f"episode {episode_id}", count, pieces
        self._shape = (spec.height, spec.width, 3)

    def __iter__(self) -> Iterator[np.ndarray]:
        seen = 0
        for piece in self._pieces:
            if piece.dtype != np.uint8 or piece.shape[1:] != self._shape:
                raise DataError(
                    f"{self._name}: frames are {piece.dtype} {piece.shape[1:]}; expected uint8 {self._shape}",
                    hint=RECORD_HINT,
                )
            seen += len(piece)
            if seen > self._count:
                break
            yield piece
        if seen != self._count:
            found = f"more than {self._count}" if seen > self._count else seen
            raise DataError(f"{self._name}: {found} frames came; expected {self._count}", hint=RECORD_HINT)
