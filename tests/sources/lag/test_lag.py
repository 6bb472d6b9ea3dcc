"""The lag of a store: a shift that was put in is found, written into a config, and gone after the next import."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ahriuwu_cli.cli.main import run
from ahriuwu_cli.core.errors import AhriuwuError, ConfigError, DataError, InputError
from ahriuwu_cli.core.specs import ActionComponent, ActionSpec, FrameSpec
from ahriuwu_cli.episodes.config import DataSection, SourceSection
from ahriuwu_cli.episodes.episode import Episode
from ahriuwu_cli.episodes.store import EpisodeStore
from ahriuwu_cli.sources.imports.transfer import import_source
from ahriuwu_cli.sources.lag import measure as measuring
from ahriuwu_cli.sources.lag.applying import apply_lag, imported_lag
from ahriuwu_cli.sources.lag.measure import Effort, Lag, in_words, lag, measure
from ahriuwu_cli.sources.lag.parts import UNKNOWN, changed, parts_of
from ahriuwu_cli.sources.lag.probe import Scores
from ahriuwu_cli.sources.lag.stretches import SHIFTS, Amount, draw
from ahriuwu_cli.sources.lag.verdict import judge

FPS = 10.0
QUICK = Effort(Amount(pairs=2400, length=60), steps=60)
MOVE = ActionComponent(name="move", type="categorical", num_classes=3, labels=("stay", "left", "right"))
SPECS = {
    "move": MOVE,
    "keys": ActionComponent(name="keys", type="binary", dim=3, labels=("left", "right", "nothing")),
    "speed": ActionComponent(name="speed", type="continuous", low=-1.0, high=1.0),
}


def played(seed: int, steps: int, hold: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Steps to the left or right that are each held for a while, (T,) in -1, 0, 1, and the frames (T+1, 12, 12, 3)."""
    rng = np.random.default_rng(seed)
    moves = np.repeat(rng.integers(-1, 2, steps), rng.integers(1, 2 * hold, steps))[:steps]
    places = 30 + np.concatenate([[0], np.cumsum(moves)])
    frames = np.zeros((steps + 1, 12, 12, 3), np.uint8)
    frames[np.arange(steps + 1), 5:7, places % 12] = 220
    frames[:, 0] = rng.integers(0, 60, (steps + 1, 12, 3))
    return moves, frames


def noted(moves: np.ndarray, shift: int) -> tuple[np.ndarray, np.ndarray]:
    """What is noted where everything is noted `shift` steps late, and where it is known."""
    source = np.arange(len(moves)) - shift
    known = (source >= 0) & (source < len(moves))
    return np.where(known, moves[source.clip(0, len(moves) - 1)], 0), known


def as_rows(kind: str, moves: np.ndarray) -> np.ndarray:
    if kind == "move":
        return (moves % 3)[:, None].astype(np.float32)  # 0, 1 right, 2 left
    if kind == "keys":
        return np.stack([moves < 0, moves > 0, np.zeros(len(moves))], axis=1).astype(np.float32)
    return (0.7 * moves)[:, None].astype(np.float32)


def a_store(
    folder: Path, kind: str = "move", shift: int = 0, lengths: Sequence[int] = (100,) * 24, **changes: Any
) -> EpisodeStore:
    """Episodes of a dot that moves as it is told; with `of_another` it moves as somebody else is told."""
    spec = ActionSpec(components=(SPECS[kind],))
    store = EpisodeStore.create(folder, spec, FrameSpec(height=12, width=12, fps=FPS), "", {}, heldout_fraction=0.2)
    episodes = []
    for number, steps in enumerate(lengths):
        moves, frames = played(number, steps)
        told = played(number + 5000, steps)[0] if changes.get("of_another") else moves
        actions, known = noted(told, shift)
        known &= changes.get("known", True)
        rows = as_rows(kind, actions)
        rows[~known] = 0
        last = np.arange(steps) == steps - 1
        episodes.append(
            Episode(
                frames=frames,
                actions=rows,
                action_valid=known,
                rewards=np.zeros(steps, np.float32),
                terminals=last,
                truncations=np.zeros(steps, bool),
                timestamps=np.arange(steps + 1) / FPS,
                task="play",
                seed=number,
                policy="hand",
            )
        )
    store.append(episodes)
    return store


def measured(store: EpisodeStore) -> Lag:
    return measure(store, QUICK, 0, lambda _: None)


# ---------------------------------------------------------------- what is found


@pytest.mark.parametrize(("kind", "shift"), [("move", 0), ("move", 3), ("move", -2), ("keys", -1), ("speed", 2)])
def test_a_shift_that_was_put_in_is_found(tmp_path: Path, kind: str, shift: int) -> None:
    found = measured(a_store(tmp_path / "store", kind, shift))
    assert found.verdict.shift == shift, in_words(found)
    assert found.seconds == pytest.approx(-shift / FPS)
    by_shift = {each.shift: each for each in found.verdict.shifts}
    best = by_shift[shift]
    assert best.low > max(each.high for each in found.verdict.shifts if each is not best)
    assert best.accuracy > best.trivial + 0.1


def test_actions_without_effect_are_not_told(tmp_path: Path) -> None:
    found = measured(a_store(tmp_path / "store", of_another=True))
    assert found.verdict.shift is None
    assert "do not tell actions at any shift" in in_words(found)


def test_it_is_the_same_again_and_another_with_another_seed(tmp_path: Path) -> None:
    store = a_store(tmp_path / "store", lengths=[60] * 10)
    brief = Effort(Amount(pairs=400, length=30), steps=6)
    first, again, other = (measure(store, brief, seed, lambda _: None) for seed in (0, 0, 1))
    assert json.dumps(measuring.facts(first)) == json.dumps(measuring.facts(again))
    assert first.verdict.shifts != other.verdict.shifts


def test_few_long_episodes_are_told_by_their_stretches(tmp_path: Path) -> None:
    found = measured(a_store(tmp_path / "store", shift=1, lengths=[1200, 1200]))
    assert found.verdict.shift == 1
    assert not found.pairs.by_episode
    assert len(found.scores.loss) > 10


# ---------------------------------------------------------------- what it is measured on


def test_pairs_have_the_actions_of_their_steps(tmp_path: Path) -> None:
    """Of a dot that moves by what was noted at shift 2, the pair and the class at shift 2 agree; and no other."""
    store = a_store(tmp_path / "store", shift=2)
    pairs = draw(store, Amount(pairs=900, length=40), 0, lambda _: None)
    assert 900 <= len(pairs.first) < 900 + 40
    assert pairs.first.max() + 1 < len(pairs.frames)
    place = pairs.frames[:, 5, :, 0].argmax(axis=1)
    moved = (place[pairs.first + 1] - place[pairs.first] + 1) % 12 - 1  # -1, 0, 1
    for index, shift in enumerate(SHIFTS):
        classes = pairs.classes[:, index, 0]
        told = (classes != UNKNOWN) & pairs.edges[:, index, 0]
        agree = (classes[told] == moved[told] % 3).mean()
        assert (agree == 1) == (shift == 2)
    assert set(np.unique(pairs.fold)) == {-1, 0, 1}
    for unit in np.unique(pairs.unit):
        assert len(np.unique(pairs.fold[pairs.unit == unit])) == 1, "no episode is on both sides"


def test_large_frames_and_long_recordings_are_bounded(tmp_path: Path) -> None:
    spec = ActionSpec(components=(MOVE,))
    store = EpisodeStore.create(tmp_path / "s", spec, FrameSpec(height=48, width=100, fps=5.0), "", {})
    for number in range(2):
        tracks = a_store(tmp_path / str(number), lengths=[300]).tracks("000000")
        frames = np.random.default_rng(number).integers(0, 256, (301, 48, 100, 3), np.uint8)
        store.append([Episode(**(vars(tracks) | {"frames": frames}))])
    pairs = draw(store, Amount(pairs=300, length=50), 0, lambda _: None)
    assert pairs.frames.shape == (306, 15, 32, 3)


def test_what_an_action_consists_of(action_spec: ActionSpec) -> None:
    rng = np.random.default_rng(0)
    steps = 400
    aim = np.where(rng.random(steps) < 0.7, 0.0, rng.uniform(-1, 1, steps))
    rows = np.stack([rng.integers(0, 3, steps), np.zeros(steps), rng.integers(0, 2, steps), aim], axis=1)
    valid = np.ones(steps, bool)
    valid[:5] = False
    parts = {part.name: part for part in parts_of(action_spec, [rows.astype(np.float32)], [valid])}
    assert set(parts) == {"move", "keys 1", "aim"}, "a key that is never pressed tells nothing"
    classes = parts["aim"].encode(rows.astype(np.float32), valid)
    assert (classes[:5] == UNKNOWN).all()
    below, at, above = (np.unique(classes[5:][chosen[5:]]) for chosen in (aim < -0.5, aim == 0, aim > 0.5))
    assert len(at) == 1
    assert not set(below) & set(above)
    assert at[0] not in {*below, *above}
    assert changed(np.array([1, 1, 2, 2, UNKNOWN, 3])).tolist() == [False, True, True, False, False, False]


def test_many_choices_and_keys_are_bounded() -> None:
    many = ActionSpec(
        components=(
            ActionComponent(name="choice", type="categorical", num_classes=1000),
            ActionComponent(name="keys", type="binary", dim=100),
        )
    )
    rng = np.random.default_rng(0)
    choices = rng.geometric(0.02, (3000, 1)).clip(max=999)
    rows = np.concatenate([choices, rng.random((3000, 100)) < 0.05], axis=1).astype(np.float32)
    parts = parts_of(many, [rows], [np.ones(3000, bool)])
    assert len(parts) == 32
    assert max(part.num_classes for part in parts) == 25


# ---------------------------------------------------------------- the verdict


def scores_of(explained: np.ndarray) -> Scores:
    """Units with these explained shares at each shift, (U, S)."""
    ones = np.ones((*explained.shape, 1))
    loss = 1 - explained[..., None]
    return Scores(ones, loss, ones, ones, ones)


def test_the_best_must_be_better_than_nothing_and_than_the_others() -> None:
    rng = np.random.default_rng(0)
    nothing = rng.normal(-0.05, 0.02, (40, len(SHIFTS)))
    assert judge(scores_of(nothing), 0).shift is None
    one = nothing.copy()
    one[:, 13] += 0.4
    assert judge(scores_of(one), 0).shift == 3
    two = one.copy()
    two[:, 14] = one[:, 13] + rng.normal(0, 0.02, 40)
    told = judge(scores_of(two), 0)
    assert told.shift is None
    assert "+3" in told.reason
    assert "+4" in told.reason
    assert judge(scores_of(one[:5]), 0).shift is None, "five units are too few"
    little = nothing.copy()
    little[:, 13] = 0.01 + rng.normal(0, 0.001, 40)
    assert judge(scores_of(little), 0).shift is None, "sure, but next to nothing"
    half = one.copy()
    half[:20, 13] = -0.5
    assert judge(scores_of(half), 0).shift is None, "half of the episodes say something else"


def test_shifts_of_which_nothing_is_known_are_left_out() -> None:
    one = np.full((10, len(SHIFTS)), 0.01)
    one[:, 10] = 0.5
    scores = scores_of(one)
    scores.trivial_loss[:, :4] = scores.loss[:, :4] = scores.weight[:, :4] = 0
    told = judge(scores, 0)
    assert told.shift == 0
    assert math.isnan(told.shifts[0].explained)


# ---------------------------------------------------------------- there and back


def write_replay(folder: Path, shift: int, count: int = 24, steps: int = 100) -> None:
    """NPZ files of a replay buffer, in which every action is noted `shift` steps late."""
    folder.mkdir()
    for number in range(count):
        moves, frames = played(number, steps)
        actions, _ = noted(moves, shift)
        rows = np.arange(steps + 1)
        np.savez_compressed(
            folder / f"2024010{number // 10}T00000{number % 10}-{number}-{steps + 1}.npz",
            image=np.ascontiguousarray(frames),
            action=np.eye(3, dtype=np.float32)[np.append(actions, 0) % 3],
            reward=np.zeros(steps + 1, np.float32),
            is_first=rows == 0,
            is_last=rows == steps,
            is_terminal=rows == steps,
        )


def imported(source: Path, folder: Path, lag: float, *, check: bool = False) -> dict[str, Any]:
    settings = SourceSection(path=str(source), kind="npz", options={"action": "chosen"}, lag=lag, check_lag=check)
    data = DataSection(env="", height=12, width=12, fps=15.0, heldout_fraction=0.2, source=settings)
    report = import_source(folder, data, 0)
    return report.data | {"notes": report.notes}


@pytest.mark.parametrize("shift", [3, -2])
def test_there_and_back(tmp_path: Path, shift: int) -> None:
    """Put in by the source, measured, applied, imported anew: nothing is left."""
    write_replay(tmp_path / "source", shift)
    (tmp_path / "run.toml").write_text("# mine\n[data.source]\nlag = 0.0 # seconds\n")
    imported(tmp_path / "source", tmp_path / "first", 0.0)
    store = EpisodeStore.open(tmp_path / "first")
    found = measured(store)
    assert found.verdict.shift == shift
    assert found.settable is not None
    apply_lag(store, tmp_path / "run.toml", found.settable)
    text = (tmp_path / "run.toml").read_text()
    assert text == f"# mine\n[data.source]\nlag = {found.seconds} # seconds\n"

    imported(tmp_path / "source", tmp_path / "second", found.settable)
    store = EpisodeStore.open(tmp_path / "second")
    assert imported_lag(store) == found.settable
    again = measured(store)
    assert again.verdict.shift == 0
    assert again.settable == found.settable, "what is right by the second store is what it was imported with"
    with pytest.raises(InputError, match=r"data\.source\.lag"):
        imported(tmp_path / "source", tmp_path / "first", found.settable)


def test_an_import_says_so(tmp_path: Path) -> None:
    write_replay(tmp_path / "source", 2, count=30)
    said = imported(tmp_path / "source", tmp_path / "store", 0.0, check=True)
    assert said["lag"]["shift"] == 2
    assert any(note.startswith("warning: data.source.lag is 0, and -0.133333 would be right") for note in said["notes"])
    again = imported(tmp_path / "source", tmp_path / "store", 0.0, check=True)
    assert "lag" not in again, "nothing new, nothing to look at"


def test_an_import_too_small_to_tell_is_an_import_all_the_same(tmp_path: Path) -> None:
    write_replay(tmp_path / "source", 0, count=2, steps=9)
    said = imported(tmp_path / "source", tmp_path / "store", 0.0, check=True)
    assert said["lag"] is None
    assert any("action lag was not looked at" in note for note in said["notes"])


# ---------------------------------------------------------------- the command


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "FULL", Effort(Amount(pairs=600, length=60), steps=40))


def test_the_command_shows_and_writes(tmp_path: Path, quick: None, capfd: pytest.CaptureFixture[str]) -> None:
    write_replay(tmp_path / "source", -2)
    imported(tmp_path / "source", tmp_path / "store", 0.0)
    config = tmp_path / "run.toml"
    config.write_text("[data]\r\nfps = 15.0\r\n", newline="")
    png = tmp_path / "lag.png"
    capfd.readouterr()
    assert run(["data", "lag", str(tmp_path / "store"), "--apply", "-c", str(config), "--png", str(png)]) == 0
    out = capfd.readouterr().out
    assert "best shift: -2, actions are noted 2 steps (0.133 s) before they are taken" in out
    assert f"next: `ahriuwu data import npz --config {config} --out DIR`" in out
    assert png.read_bytes().startswith(b"\x89PNG")
    assert config.read_bytes().endswith(b"\r\n[data.source]\r\nlag = 0.133333\r\n")
    assert run(["data", "lag", str(tmp_path / "store"), "--json"]) == 0
    said = json.loads(capfd.readouterr().out)
    assert (said["shift"], said["lag"], said["applied"]) == (-2, 0.133333, None)
    assert [each["shift"] for each in said["shifts"]] == list(range(-10, 11))
    assert said["parts"][0]["name"] == "action"


def test_nothing_is_written_where_it_cannot_be_told(
    tmp_path: Path, quick: None, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "require_changeable", lambda *_: None)
    a_store(tmp_path / "store", of_another=True)
    config = tmp_path / "run.toml"
    config.write_text("[data.source]\nlag = 0.5\n")
    assert run(["data", "lag", str(tmp_path / "store"), "--apply", "-c", str(config)]) == 3
    assert "cannot tell" in capfd.readouterr().out
    assert config.read_text() == "[data.source]\nlag = 0.5\n"


@pytest.mark.parametrize(
    ("lengths", "known", "says"),
    [
        ([100], True, "1 of 1 episodes have 22 steps or more"),
        ([100, 8, 9], True, "1 of 3 episodes have 22 steps or more"),
        ([9] * 30, True, "the longest of 30 episodes has 9 steps; expected some with 22 or more"),
        ([100] * 4, False, "no step has a known action"),
        ([40] * 3, True, "3 episodes are 3 stretches of at most 60 steps; expected 6 or more"),
        ([], True, "the longest of 0 episodes has 0 steps"),
    ],
)
def test_too_little_is_said(tmp_path: Path, lengths: list[int], known: bool, says: str) -> None:
    store = a_store(tmp_path / "store", lengths=lengths, known=known)
    with pytest.raises(DataError, match=says):
        measured(store)


def test_actions_that_never_change_are_said(tmp_path: Path) -> None:
    store = a_store(tmp_path / "store", shift=500)  # nothing but unknown
    with pytest.raises(DataError, match="no step has a known action"):
        measured(store)
    spec = ActionSpec(components=(SPECS["keys"],))
    still = EpisodeStore.create(tmp_path / "still", spec, store.frame_spec, "", {})
    for record in store.episodes[:3]:
        episode = store.read(record.id)
        rows = np.zeros((episode.num_steps, 3), np.float32)
        still.append([Episode(**(vars(episode) | {"actions": rows, "action_valid": np.ones(len(rows), bool)}))])
    with pytest.raises(DataError, match="no action changes often enough"):
        measured(still)


@pytest.mark.parametrize(
    ("arguments", "kind", "says"),
    [
        ({"folder": "nowhere"}, AhriuwuError, "nowhere"),
        ({"png": "a.jpg"}, InputError, "ends in .png"),
        ({"config": "nowhere.toml"}, InputError, "does not exist"),
        ({"config": "broken.toml"}, ConfigError, "is not TOML"),
        ({"config": "inline.toml"}, ConfigError, "cannot be set"),
        ({"folder": "recorded", "config": "inline.toml"}, InputError, "was not imported"),
    ],
)
def test_what_cannot_be_done_is_said_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, str], kind: type[AhriuwuError], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(measuring, "measure", lambda *_: pytest.fail("it was measured"))
    write_replay(tmp_path / "source", 0, count=2, steps=30)
    imported(tmp_path / "source", tmp_path / "store", 0.0)
    a_store(tmp_path / "recorded", lengths=[30, 30])
    Path("broken.toml").write_text("[data\n")
    Path("inline.toml").write_text("data = { source = { lag = 0.0 } }\n")
    given = {name: Path(value) for name, value in arguments.items()}
    with pytest.raises(kind, match=says):
        lag(given.get("folder", Path("store")), given.get("config"), given.get("png"), 0)
