"""A made-up game whose recordings can be written as people keep theirs: a hero walks where the labels say.

Shapes: N frames of a recording, S pixels of a side, K = 8 keys.

The hero goes to a coin, rests now and then, and sometimes goes anywhere. A coin is worth GOLD; the hero loses health
all the time, and a key heals it. The picture has what games have: a health bar and a score in the corners, a ring
around the hero where Q was pressed, and ground that does not move.
"""

from __future__ import annotations

import csv
import json
import math
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

FPS = 20
STILL = 18
KEYS = ("Q", "W", "E", "R", "D", "F", "item", "B")
GOLD = 20.0
SPEED = 0.045
"""Of the picture's side, in a frame."""
REACH = 0.12
"""Distance at which a coin is taken."""
ARROWS = {"right": (1, 0), "up": (0, 1), "left": (-1, 0), "down": (0, -1)}


@dataclass(frozen=True)
class Walk:
    """One recording.

    Attributes:
        hero: (N, 2) where the hero is, right and up, in [0, 1].
        coin: (N, 2) where the coin is.
        sector: (N,) where it goes on seeing each frame: 20 degrees each from East on, or STILL.
        keys: (N, K) bool, pressed on seeing each frame.
        gained: (N,) gold that came with each frame.
        health: (N,) in (0, 1], as each frame shows it.
    """

    hero: np.ndarray
    coin: np.ndarray
    sector: np.ndarray
    keys: np.ndarray
    gained: np.ndarray
    health: np.ndarray

    def __len__(self) -> int:
        return len(self.sector)

    @property
    def gold(self) -> np.ndarray:
        """(N,) gold that was ever gained, as read at each frame."""
        return 500 + np.cumsum(self.gained)


def walk(num_frames: int, seed: int, *, sectors: int = STILL) -> Walk:
    """A recording of so many frames; the hero turns in `sectors` directions (8 for the arrow keys)."""
    rng = np.random.default_rng(seed)
    hero, coin, health = rng.uniform(0.2, 0.8, 2), rng.uniform(0.15, 0.85, 2), 1.0
    rows: list[tuple[Any, ...]] = []
    gained, plan, left = 0.0, STILL, 0
    for _ in range(num_frames):
        if not left:  # decide anew, for a few frames
            right, up = coin - hero
            towards = math.degrees(math.atan2(up, right)) % 360
            plan = STILL if rng.random() < 0.1 else int(towards / (360 / sectors)) % sectors
            plan = int(rng.integers(sectors)) if rng.random() < 0.2 else plan
            left = int(rng.integers(2, 7))
        left -= 1
        keys = np.zeros(len(KEYS), bool)
        keys[0] = health < 0.5 and rng.random() < 0.5
        keys[1:] = rng.random(len(KEYS) - 1) < 0.02
        rows.append((hero, coin, plan, keys, gained, health))
        hero, gained, health = _moved(hero, plan, sectors), 0.0, max(0.1, health - 0.01)
        health = 1.0 if keys[0] else health
        if np.hypot(*(coin - hero)) < REACH:
            coin, gained = rng.uniform(0.15, 0.85, 2), GOLD
    return Walk(*(np.array(column) for column in zip(*rows, strict=True)))


def _moved(hero: np.ndarray, plan: int, sectors: int) -> np.ndarray:
    if plan == STILL:
        return hero
    angle = math.radians((plan + (0.5 if sectors == STILL else 0)) * 360 / sectors)
    moved: np.ndarray = np.clip(hero + SPEED * np.array([math.cos(angle), math.sin(angle)]), 0.1, 0.9)
    return moved


def draw(played: Walk, number: int, side: int) -> np.ndarray:
    """What frame `number` shows: (S, S, 3) uint8."""
    x, y = np.meshgrid((np.arange(side) + 0.5) / side, 1 - (np.arange(side) + 0.5) / side)
    picture = np.stack([30 + 25 * x, 60 + 30 * y, np.full_like(x, 40)], axis=-1)
    for place, radius, colour in (
        (played.coin[number], 0.06, (230, 200, 40)),
        (played.hero[number], 0.1, (60, 90, 240)),
    ):
        picture[np.hypot(x - place[0], y - place[1]) < radius] = colour
    if number and played.keys[number - 1, 0]:
        away = np.hypot(x - played.hero[number, 0], y - played.hero[number, 1])
        picture[(away > 0.12) & (away < 0.16)] = 255
    bar = y > 0.94
    picture[bar & (x < 0.45 * played.health[number])] = (40, 220, 60)
    picture[bar & (x > 0.55) & (x < 0.55 + 0.45 * (played.gold[number] % 200) / 200)] = (250, 250, 250)
    return picture.astype(np.uint8)


# ---------------------------------------------------------------- the first prototype's folders


def write_features(folder: Path, played: Walk, side: int) -> None:
    """`frames/frame_000000.jpg` ... and `features.json`, which says of a frame what changed from the one before."""
    _write_pictures(folder / "frames", "frame_{:06d}.jpg", played, side)
    rows = []
    for number in range(len(played)):
        before = max(0, number - 1)
        dx, dy = (played.hero[number] - played.hero[before]) * 1080
        went, keys = (STILL, np.zeros(len(KEYS), bool)) if not number else (played.sector[before], played.keys[before])
        if went != STILL:  # against a wall it is seen to stand, though told to go; the label is what was told
            dx, dy = 40 * math.cos(math.radians(20 * went + 10)), 40 * math.sin(math.radians(20 * went + 10))
        names = (
            "ability_q",
            "ability_w",
            "ability_e",
            "ability_r",
            "summoner_d",
            "summoner_f",
            "item_used",
            "recall_b",
        )
        rows.append(
            {
                "frame_idx": number,
                "timestamp_ms": 1000.0 * number / FPS,
                "movement_dx": float(dx) if went != STILL else 0.0,
                "movement_dy": -float(dy) if went != STILL else 0.0,
                "movement_slice": int(went % STILL),
                "movement_confidence": 0.9,
                **{name: bool(pressed) for name, pressed in zip(names, keys, strict=True)},
                "gold_gained": int(played.gained[number]),
                "health_bar_x": float(played.hero[number, 0] * 1920),
                "health_bar_y": float((1 - played.hero[number, 1]) * 1080),
            }
        )
    head = {
        "video_id": folder.name, "source_resolution": "1920x1080", "source_fps": 60.0, "output_fps": FPS,
        "output_resolution": f"{side}x{side}", "team_side": "blue", "num_frames": len(played),
    }  # fmt: skip
    (folder / "features.json").write_text(json.dumps(head | {"frames": rows}))


def write_match(folder: Path, played: Walk, side: int) -> None:
    """`frames/000000.png` ..., `labels.json` (where the hero goes after each frame) and `clicks.json` (its casts)."""
    _write_pictures(folder / "frames", "{:06d}.png", played, side)
    start, rows, casts = 80.0, [], []
    for number in range(len(played)):
        time, went = start + number / FPS, int(played.sector[number])
        here = (played.hero[number] * 10000).tolist()
        angle = math.radians(20 * went + 10)
        heading = [here[0] + 300 * math.cos(angle), here[1] + 300 * math.sin(angle)]
        stats = {
            "hp": 600 * float(played.health[number]), "hp_max": 600, "gold": 9.9e8,
            "gold_total": float(played.gold[number]), "level": 1,
        }  # fmt: skip
        label = {
            "champion_world": here,
            "champion_stats": stats,
            "action": {"type": "idle", "spell": None, "screen": None},
            "cursor": {"world": heading, "screen": [0, 0]},
            "movement": None if went == STILL else {"heading_world": heading, "heading_screen": [0, 0], "speed": 300.0},
        }
        rows.append({"frame": number, "gt": round(time, 3), "label": label})
        for key in np.flatnonzero(played.keys[number]):
            slot, spell = (None, "recall") if KEYS[key] == "B" else (KEYS[key], f"Hero{KEYS[key]}")
            casts.append({"game_t": round(time + 0.01, 3), "slot": slot, "spell_name": spell})
    head = {"match_id": folder.name, "champion": "Garen", "team": "blue", "fps": FPS, "total_frames": len(played)}
    (folder / "labels.json").write_text(json.dumps(head | {"frames": rows}))
    (folder / "clicks.json").write_text(json.dumps({"clicks": [], "casts": casts}))


def _write_pictures(folder: Path, name: str, played: Walk, side: int) -> None:
    folder.mkdir(parents=True)
    for number in range(len(played)):
        Image.fromarray(draw(played, number, side)).save(folder / name.format(number), quality=95)


# ---------------------------------------------------------------- videos with side-cars


def write_video(path: Path, played: Walk, side: int) -> None:
    """An MP4 of the recording, as a screen recorder would make it."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "12", "preset": "veryfast"})
        stream.height = stream.width = side
        stream.pix_fmt = "yuv420p"
        for number in range(len(played)):
            picture = av.VideoFrame.from_ndarray(draw(played, number, side), format="rgb24")
            picture.pts, picture.time_base = number, Fraction(1, FPS)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def write_rows(path: Path, played: Walk) -> None:
    """A CSV with a row for each frame: where the hero goes, what is pressed on seeing it, gold in that step."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["movement", *(key.lower() for key in KEYS), "gold"])
        for number in range(len(played)):
            gold = played.gained[number + 1] if number + 1 < len(played) else 0
            went = "still" if played.sector[number] == STILL else int(played.sector[number])
            table.writerow([went, *played.keys[number].astype(int), int(gold)])


def write_log(path: Path, played: Walk, seconds: float = 0.0) -> None:
    """A CSV of arrow keys and the space bar that go down and up, and of coins, on a clock `seconds` ahead."""
    held: set[str] = set()
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["time", "event", "key", "amount"])
        for number in range(len(played)):
            time = seconds + number / FPS
            if played.gained[number]:
                table.writerow([f"{time - 0.02:.4f}", "coin", "", int(played.gained[number])])
            now = _arrows(int(played.sector[number])) | ({"space"} if played.keys[number, 0] else set())
            for key in sorted(held ^ now):
                table.writerow([f"{time + 0.001:.4f}", "down" if key in now else "up", key, ""])
            held = now


# ---------------------------------------------------------------- Minecraft


def write_vpt(path: Path, played: Walk, side: int) -> None:
    """A contractor's recording: an MP4 and, beside it, a JSON line for each tick, with W, A, S, D and the mouse."""
    write_video(path, played, side)
    keys = {"up": "w", "left": "a", "down": "s", "right": "d"}
    with path.with_suffix(".jsonl").open("w", encoding="utf-8") as file:
        for number in range(len(played)):
            held = [f"key.keyboard.{keys[arrow]}" for arrow in sorted(_arrows(int(played.sector[number])))]
            mouse = {"x": 640.0, "y": 360.0, "dx": 0.0, "dy": 0.0, "dwheel": 0.0}
            mouse |= {"buttons": [0] if played.keys[number, 0] else [], "newButtons": []}
            tick = {
                "mouse": mouse, "keyboard": {"keys": held, "newKeys": [], "chars": ""}, "isGuiOpen": False, "hotbar": 0,
                "yaw": 0.0, "pitch": 0.0, "tick": number, "milli": 50 * number, "inventory": [], "stats": {},
            }  # fmt: skip
            file.write(json.dumps(tick) + "\n")


def write_minerl(folder: Path, played: Walk, side: int) -> None:
    """A recording of MineRL v0: `recording.mp4`, `rendered.npz` with keys, camera and rewards, `metadata.json`."""
    folder.mkdir(parents=True)
    write_video(folder / "recording.mp4", played, side)
    held = [_arrows(int(plan)) for plan in played.sector[:-1]]
    names = {"forward": "up", "left": "left", "back": "down", "right": "right"}
    found = {f"action${key}": np.array([arrow in each for each in held], np.int64) for key, arrow in names.items()}
    found["action$attack"] = played.keys[:-1, 0].astype(np.int64)
    found["action$camera"] = np.zeros((len(held), 2), np.float32)
    np.savez_compressed(folder / "rendered.npz", reward=played.gained[1:].astype(np.float32), **found)  # type: ignore[arg-type]
    about = {"success": True, "duration_ms": 50 * len(held), "duration_steps": len(held)}
    (folder / "metadata.json").write_text(json.dumps(about | {"total_reward": float(played.gained.sum())}))


def _arrows(plan: int) -> set[str]:
    """The arrow keys that are held to go in one of eight directions."""
    if plan == STILL:
        return set()
    right, up = (round(value) for value in (math.cos(plan * math.pi / 4), math.sin(plan * math.pi / 4)))
    return {name for name, (x, y) in ARROWS.items() if (x and x == right) or (y and y == up)}
