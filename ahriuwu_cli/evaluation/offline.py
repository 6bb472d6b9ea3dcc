"""`eval offline`: agents judged without a game, by what was done in held-out recordings and by what they dream up.

Shapes: E episodes, M contexts, C context latents, H imagined ones, A action width.

Two questions, one table. How likely does an agent find the actions of held-out play? And what return does it come to
in a dream, from the same held-out contexts, with the same noise for all? Decision: all act in one world, that of the
cloned agent, whose reward head pays them: the dream takes the place of the game. An agent of another world looks at the
dreamed latents with its own network, as it would at a game's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ahriuwu_cli.agent.checkpoint import is_from_scratch
from ahriuwu_cli.agent.heldout import FITTED_WINDOWS, ConstantGuess
from ahriuwu_cli.core.device import Runtime
from ahriuwu_cli.core.errors import ArtifactError, InputError
from ahriuwu_cli.core.files import write_json
from ahriuwu_cli.core.lineage import require_parent
from ahriuwu_cli.core.lock import exclusive
from ahriuwu_cli.core.report import Report
from ahriuwu_cli.core.training.heldout import HELDOUT_SEED
from ahriuwu_cli.evaluation.acting import Actor, Guess, Reader, load_reader
from ahriuwu_cli.evaluation.config import EvalSection
from ahriuwu_cli.evaluation.dreaming import DreamSource, require_dreamable
from ahriuwu_cli.evaluation.imagined import Scene, imagined_returns
from ahriuwu_cli.evaluation.likelihood import Likelihood, likelihood
from ahriuwu_cli.evaluation.seal import sealed
from ahriuwu_cli.evaluation.statistics import Interval, ratio_of_means
from ahriuwu_cli.latents.windows import LatentWindows

UNIFORM, FREQUENCIES, RECORDED = "uniform", "frequencies", "recorded play"
CLONED = "bc"
"""The agent that others are compared with, and whose world all dream in."""
WORLDS = (CLONED, "imagination")
"""Agents whose world may serve, the first that is there."""


def evaluate_offline(
    agents: Mapping[str, Path], packed: Path, out: Path, settings: EvalSection, runtime: Runtime, *, seed: int
) -> Report:
    """Judge agents on held-out recordings; writes offline.json, sealed, into `out`.

    Args:
        agents: agent and imagination files by name: `scratch`, `bc`, `imagination`, as far as they are there.
        packed: the packed latents they learned from.
        out: folder of the results.
        settings: contexts, their length, horizon, Euler steps, temperature and level of the intervals.
        runtime: device and precision.
        seed: of contexts, noise, choices and resampling.

    Raises:
        InputError: no agent is there.
        ConfigError: the context is longer than the model's, or a step count is above its k_max.
        DataError: held-out episodes are too short.
        ArtifactError: an agent is of other latents, or of other tasks than the others.
    """
    if not agents:
        raise InputError("no agent is there to be judged", hint="make one with `ahriuwu agent finetune`")
    readers = {name: load_reader(path, runtime) for name, path in agents.items()}
    first = next(iter(readers.values()))
    heldout = LatentWindows(packed, "heldout", first.agent.tasks, first.agent.relevance)
    train = LatentWindows(packed, "train", first.agent.tasks, first.agent.relevance)
    for name, path in agents.items():
        _require_same(path, readers[name], first, packed, heldout)
    actors: dict[str, Actor] = {
        UNIFORM: Guess(first.choices, torch.zeros(first.choices.num_logits)),
        FREQUENCIES: Guess(first.choices, _frequencies(first, train)),
        **readers,
    }
    length = first.agent.sampler.context_length
    liked = {name: likelihood(actor, heldout, length, runtime, seed=seed, name=name) for name, actor in actors.items()}
    world = next((name for name in WORLDS if name in readers and not is_from_scratch(readers[name].agent.header)), None)
    returns: dict[str, NDArray[np.float64]] = {}
    scene = None
    if world is not None:
        reader = readers[world]
        source = DreamSource(reader.agent.model.world, reader.agent.sampler, reader.agent.header)
        require_dreamable(source, settings, agents[world])
        scene = Scene.draw(reader, heldout, settings, seed, uses_ends=bool(train.sampler.ended))
        returns = {name: imagined_returns(scene, actor, runtime) for name, actor in actors.items()}
        if scene.is_known:
            returns[RECORDED] = imagined_returns(scene, None, runtime)
    judged = _Judged(liked, returns, scene, world, settings, seed)
    with exclusive(out):
        return _report(judged, readers, heldout, out)


def _require_same(path: Path, reader: Reader, first: Reader, packed: Path, windows: LatentWindows) -> None:
    require_parent(path, reader.agent.header, packed, windows.header)
    if reader.agent.tasks != first.agent.tasks:
        raise ArtifactError(
            f"{path} has the tasks {', '.join(reader.agent.tasks)}; the agent before it {', '.join(first.agent.tasks)}",
            hint="judge agents of the same [agent] tasks together: make the older one again",
        )


def _frequencies(reader: Reader, train: LatentWindows) -> Tensor:
    """Logits (K,) of how often each action was taken in training windows."""
    guess = ConstantGuess(reader.choices, reader.agent.model.twohot)
    places = train.sampler.draw(np.random.default_rng(HELDOUT_SEED), FITTED_WINDOWS, 2)
    guess.see(train.read(places, 2, 1), imitated=True)
    return guess.action


# ---------------------------------------------------------------- the table


@dataclass(frozen=True)
class _Judged:
    """All that was found, by name of the actor."""

    liked: Mapping[str, Likelihood]
    returns: Mapping[str, NDArray[np.float64]]
    scene: Scene | None
    world: str | None
    settings: EvalSection
    seed: int

    def nats(self, name: str) -> Interval | None:
        """-ln p per step with its interval over episodes; None where no action is known."""
        liked = self.liked.get(name)
        if liked is None or not liked.steps.any():
            return None
        return self._per(liked.nats, liked.steps)

    def share(self, name: str, what: str, of: str) -> float | None:
        """A share of one count in another; None where that is zero."""
        liked = self.liked.get(name)
        total = 0.0 if liked is None else float(getattr(liked, of).sum())
        return float(getattr(liked, what).sum()) / total if total else None

    def returned(self, name: str) -> Interval | None:
        """Imagined return with its interval over episodes."""
        return self._per_context(self.returns[name]) if name in self.returns else None

    def gained(self, name: str) -> Interval | None:
        """Imagined return less that of the cloned agent, from the same contexts and noise."""
        if name == CLONED or name not in self.returns or CLONED not in self.returns:
            return None
        return self._per_context(self.returns[name] - self.returns[CLONED])

    def _per_context(self, values: NDArray[np.float64]) -> Interval:
        assert self.scene is not None
        _, index = np.unique(self.scene.episodes, return_inverse=True)
        return self._per(np.bincount(index, values).astype(np.float64), np.bincount(index).astype(np.float64))

    def _per(self, sums: NDArray[np.float64], counts: NDArray[np.float64]) -> Interval:
        some = counts > 0
        return ratio_of_means(sums[some], counts[some], self.seed, confidence=self.settings.confidence)


def _report(judged: _Judged, readers: Mapping[str, Reader], windows: LatentWindows, out: Path) -> Report:
    names = [*judged.liked, *([RECORDED] if RECORDED in judged.returns else [])]
    level = f"{100 * judged.settings.confidence:g} %"
    rows = [
        (
            name,
            *_cells(judged.nats(name), "{:.3f}"),
            _cell(_accuracy(judged, name), "{:.3f}"),
            *_cells(judged.returned(name), "{:.2f}"),
            *_cells(judged.gained(name), "{:+.2f}"),
        )
        for name in names
    ]
    some = judged.liked[UNIFORM]
    facts: dict[str, Any] = {
        "confidence": judged.settings.confidence,
        "seed": judged.seed,
        "heldout_episodes": [episode.id for episode in windows.episodes],
        "steps": int(some.steps.sum()),
        "changes": int(some.changes.sum()),
        "agents": {name: _facts(judged, name) for name in names},
        "fingerprints": {name: reader.agent.header.fingerprint for name, reader in readers.items()},
        "dream": None if judged.scene is None else judged.scene.facts | {"world": judged.world},
    }
    facts = sealed(facts)
    write_json(out / "offline.json", facts)
    columns = ("agent", "-ln p", level, "right at changes", "imagined return", level, f"minus {CLONED}", level)
    return Report("agents without a game", columns, rows, facts, _notes(judged, windows, out))


def _accuracy(judged: _Judged, name: str) -> float | None:
    """How often the likeliest action is right where it changes; of a uniform guess, which has none, by chance."""
    share = judged.share(name, "right_at_changes", "changes")
    nats = judged.nats(name)
    return float(np.exp(-nats.mean)) if name == UNIFORM and share is not None and nats is not None else share


def _facts(judged: _Judged, name: str) -> dict[str, Any]:
    return {
        "nats_per_step": _dump(judged.nats(name)),
        "right": judged.share(name, "right", "steps"),
        "right_at_changes": _accuracy(judged, name),
        "imagined_return": _dump(judged.returned(name)),
        "minus_cloned": _dump(judged.gained(name)),
    }


def _notes(judged: _Judged, windows: LatentWindows, out: Path) -> list[str]:
    liked, settings = judged.liked[UNIFORM], judged.settings
    episodes = int((liked.steps > 0).sum())
    notes = [
        f"-ln p of the action taken, in nats a step: {int(liked.steps.sum()):,} steps of {episodes} held-out episodes; "
        f"right: the likeliest action is the one taken, at the {int(liked.changes.sum()):,} steps where it changes"
    ]
    if not episodes:
        notes = ["no action of the held-out episodes is known: there is nothing to compare choices with"]
    scene = judged.scene
    if scene is None:
        notes.append("no agent has a world model: nothing is dreamed (`ahriuwu agent finetune`)")
    else:
        notes.append(
            f"imagined return: sum of rewards over {settings.horizon} latents that the world and reward head of "
            f"{judged.world} dream, from {settings.contexts} contexts of {len(np.unique(scene.episodes))} held-out "
            "episodes, the same noise for all; it is what the agents were trained to raise, and no game's return"
        )
        if scene.recorded_return is not None:
            notes.append(f"in the recordings, the same contexts came to {scene.recorded_return:.2f}")
    notes.append(f"intervals are over held-out episodes; results: {out / 'offline.json'}")
    return notes


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None or not np.isfinite(value) else form.format(value)


def _cells(interval: Interval | None, form: str) -> tuple[str, str]:
    if interval is None:
        return "-", "-"
    ends = [_cell(end, form) for end in (interval.low, interval.high)]
    return _cell(interval.mean, form), "-" if "-" in ends else f"{ends[0]} to {ends[1]}"


def _dump(interval: Interval | None) -> dict[str, float | None] | None:
    if interval is None:
        return None
    return {name: value if np.isfinite(value) else None for name, value in interval._asdict().items()}
