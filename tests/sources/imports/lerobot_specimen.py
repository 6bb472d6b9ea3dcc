"""Writes small LeRobot data sets, versions 2.1 and 3, as their published layout has them."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from ahriuwu_cli.episodes.video import RATE, write_video

FPS = RATE
TOP, WRIST = "observation.images.top", "observation.images.wrist"
NAMES = ["shoulder", "elbow", "gripper"]
TASKS = ["pick the cube", "wave"]
CHUNK = "chunk-{chunk_index:03d}/file-{file_index:03d}"
TEMPLATES = {
    3: (f"data/{CHUNK}.parquet", f"videos/{{video_key}}/{CHUNK}.mp4"),
    2: (
        "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    ),
}


@dataclass
class Specimen:
    """A data set to be written; what is in it can be changed before.

    Attributes:
        lengths: rows of each episode.
        files: for version 3, the file that each episode is in.
        in_rows: cameras whose pictures are in the rows.
    """

    version: int = 3
    lengths: tuple[int, ...] = (12, 9, 15)
    files: tuple[int, ...] = (0, 0, 1)
    cameras: dict[str, tuple[int, int]] = field(default_factory=lambda: {TOP: (32, 32)})
    in_rows: tuple[str, ...] = ()
    names: Any = field(default_factory=lambda: list(NAMES))
    rows: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for number, length in enumerate(self.lengths):
            self.rows.append(
                {
                    "action": self.actions(number),
                    "timestamp": (np.arange(length) / FPS).astype(np.float32),
                    "frame_index": np.arange(length),
                    "episode_index": np.full(length, number),
                    "index": np.arange(length) + sum(self.lengths[:number]),
                    "task_index": np.full(length, number % 2),
                    "next.reward": np.arange(length, dtype=np.float32) + 100 * number,
                    "next.done": np.arange(length) == length - 1,
                }
            )

    def actions(self, number: int) -> np.ndarray:
        """Of an episode (n, 3) float32."""
        length = self.lengths[number]
        rising = np.arange(length, dtype=np.float32)
        return np.stack([rising, -rising * (number + 1), np.full(length, 0.1, np.float32)], axis=1)

    def frames(self, number: int, camera: str) -> np.ndarray:
        """Of an episode (n, h, w, 3) uint8; no two are alike."""
        height, width = self.cameras[camera]
        noise = np.random.default_rng([number, list(self.cameras).index(camera)])
        return noise.integers(0, 256, (self.lengths[number], height, width, 3), np.uint8)

    @property
    def info(self) -> dict[str, Any]:
        """What meta/info.json says."""
        data, videos = TEMPLATES[self.version]
        features: dict[str, Any] = {
            key: {
                "dtype": "image" if key in self.in_rows else "video",
                "shape": [*size, 3],
                "names": ["height", "width", "channels"],
                "info": {"video.fps": float(FPS), "video.is_depth_map": False},
            }
            for key, size in self.cameras.items()
        }
        features["action"] = {"dtype": "float32", "shape": [3], "names": self.names}
        kinds = {"timestamp": "float32", "next.reward": "float32", "next.done": "bool"}
        for key in ("timestamp", "frame_index", "episode_index", "index", "task_index", "next.reward", "next.done"):
            features[key] = {"dtype": kinds.get(key, "int64"), "shape": [1], "names": None}
        return {
            "codebase_version": "v3.0" if self.version == 3 else "v2.1",
            "robot_type": "arm",
            "total_episodes": len(self.lengths),
            "total_frames": sum(self.lengths),
            "chunks_size": 1000,
            "fps": FPS,
            "splits": {"train": f"0:{len(self.lengths)}"},
            "data_path": data,
            "video_path": videos,
            "features": features,
        }

    def write(self, root: Path, **info: Any) -> Path:
        """Write all of it; `info` changes what meta/info.json says."""
        described = self.info | info
        (root / "meta").mkdir(parents=True)
        (root / "meta/info.json").write_text(json.dumps(described, indent=4))
        (self._write_3 if self.version == 3 else self._write_2)(root, described)
        return root

    def table(self, numbers: list[int]) -> pa.Table:
        """Rows of some episodes."""
        columns: dict[str, Any] = {}
        for key in self.rows[0]:
            values = np.concatenate([self.rows[number][key] for number in numbers])
            columns[key] = pa.array(list(values), pa.list_(pa.float32(), 3)) if key == "action" else pa.array(values)
        for camera in self.in_rows:
            pictures = [encoded(frame) for number in numbers for frame in self.frames(number, camera)]
            columns[camera] = pa.array(
                [{"bytes": data, "path": None} for data in pictures],
                pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
            )
        return pa.table(columns)

    def stats(self, numbers: list[int]) -> dict[str, Any]:
        """Lowest and highest action of some episodes."""
        actions = np.concatenate([self.rows[number]["action"] for number in numbers])
        return {"action": {"min": actions.min(0).tolist(), "max": actions.max(0).tolist(), "count": [len(actions)]}}

    def _filmed(self) -> list[str]:
        return [camera for camera in self.cameras if camera not in self.in_rows]

    def _write_2(self, root: Path, info: dict[str, Any]) -> None:
        lines, stats = [], []
        for number, length in enumerate(self.lengths):
            places = {"episode_chunk": 0, "episode_index": number}
            save(self.table([number]), root / info["data_path"].format(**places))
            for camera in self._filmed():
                film(root / info["video_path"].format(**places, video_key=camera), self.frames(number, camera))
            lines.append({"episode_index": number, "tasks": [TASKS[number % 2]], "length": length})
            stats.append({"episode_index": number, "stats": self.stats([number])})
        write_lines(root / "meta/episodes.jsonl", lines)
        write_lines(root / "meta/episodes_stats.jsonl", stats)
        write_lines(root / "meta/tasks.jsonl", [{"task_index": i, "task": task} for i, task in enumerate(TASKS)])

    def _write_3(self, root: Path, info: dict[str, Any]) -> None:
        entries: list[dict[str, Any]] = []
        for file in sorted(set(self.files)):
            numbers = [number for number, own in enumerate(self.files) if own == file]
            places = {"chunk_index": 0, "file_index": file}
            save(self.table(numbers), root / info["data_path"].format(**places))
            starts = np.cumsum([0, *(self.lengths[number] for number in numbers)]) / FPS
            for number, start, stop in zip(numbers, starts[:-1].tolist(), starts[1:].tolist(), strict=True):
                before = sum(self.lengths[:number])
                entry = {
                    "episode_index": number,
                    "tasks": [TASKS[number % 2]],
                    "length": self.lengths[number],
                    "data/chunk_index": 0,
                    "data/file_index": file,
                    "dataset_from_index": before,
                    "dataset_to_index": before + self.lengths[number],
                    "stats/action/min": self.stats([number])["action"]["min"],
                }
                for camera in self._filmed():
                    at = {"chunk_index": 0, "file_index": file, "from_timestamp": start, "to_timestamp": stop}
                    entry |= {f"videos/{camera}/{key}": value for key, value in at.items()}
                entries.append(entry)
            for camera in self._filmed():
                frames = np.concatenate([self.frames(number, camera) for number in numbers])
                film(root / info["video_path"].format(**places, video_key=camera), frames)
        save(pa.Table.from_pylist(entries), root / "meta/episodes/chunk-000/file-000.parquet")
        tasks = {"task_index": list(range(len(TASKS))), "__index_level_0__": TASKS}
        save(pa.table(tasks), root / "meta/tasks.parquet")
        (root / "meta/stats.json").write_text(json.dumps(self.stats(list(range(len(self.lengths))))))


def encoded(frame: np.ndarray) -> bytes:
    """A picture as the bytes of a PNG file."""
    data = io.BytesIO()
    Image.fromarray(frame).save(data, "PNG")
    return data.getvalue()


def save(table: pa.Table, path: Path) -> None:
    """Write a Parquet file of several row groups."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=8)


def film(path: Path, frames: np.ndarray) -> None:
    """Write a video without loss."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, [frames], *frames.shape[1:3])


def write_lines(path: Path, entries: list[dict[str, Any]]) -> None:
    """Write JSON lines."""
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
