"""`eval agent`: several agents on the same seeded episodes of the real environment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ahriuwu_cli.core.files import write_json
from ahriuwu_cli.core.report import Report
from ahriuwu_cli.episodes.config import DataSection
from ahriuwu_cli.episodes.policies import Policy
from ahriuwu_cli.episodes.record import make_env
from ahriuwu_cli.episodes.runner import stream_episodes
from ahriuwu_cli.evaluation.config import EvalSection
from ahriuwu_cli.evaluation.pictures import side_by_side, write_gif
from ahriuwu_cli.evaluation.plots import plot_returns
from ahriuwu_cli.evaluation.returns import compare
from ahriuwu_cli.evaluation.statistics import Interval

MAX_ENVS = 128
"""Environments played side by side."""
PICTURE_PIXELS = 128
CLIP_STEPS = 400
"""Steps of an episode that are kept for its GIF: real games have episodes of tens of thousands."""
SEED_STREAM = 0x5EED
"""Keeps the seeds of evaluation apart from those of recording."""


def evaluation_seeds(seed: int, count: int, taken: set[int]) -> list[int]:
    """Distinct episode seeds, none of them in `taken` (the recorded ones)."""
    rng = np.random.default_rng([seed, SEED_STREAM])
    seeds: list[int] = []
    while len(seeds) < count:
        candidate = int(rng.integers(2**31 - 1))
        if candidate not in taken:
            seeds.append(candidate)
            taken = taken | {candidate}
    return seeds


@dataclass(frozen=True)
class Played:
    """What is kept of one episode: return, steps, its first frames (at most CLIP_STEPS + 1, H, W, 3), their rate."""

    total_reward: float
    num_steps: int
    clip: NDArray[np.uint8]
    fps: float


def evaluate_agents(
    players: Mapping[str, Policy],
    data: DataSection,
    out: Path,
    settings: EvalSection,
    *,
    seed: int,
    taken: set[int],
    fingerprints: Mapping[str, str] | None = None,
    on_agent: Callable[[str], None] | None = None,
) -> Report:
    """Play `settings.episodes` paired episodes with every player and compare returns.

    Writes, per agent, a GIF of its median episode, then returns.png and last agents.json into `out`.

    Args:
        players: policies by name, baselines first.
        data: environment and frame size.
        out: folder of the results.
        settings: the `[eval]` section.
        seed: of episodes, policies and resampling.
        taken: episode seeds not to use.
        fingerprints: of the checkpoints behind the players, noted in the results.
        on_agent: told the name before each player plays.
    """
    seeds = evaluation_seeds(seed, settings.episodes, taken)
    returns, lengths = {}, {}
    for name, policy in players.items():
        if on_agent is not None:
            on_agent(name)
        episodes = _play(policy, data, seeds, seed)
        returns[name] = np.array([episode.total_reward for episode in episodes])
        lengths[name] = np.array([episode.num_steps for episode in episodes])
        _write_median(out / f"{name}.gif", episodes)
    report, facts = compare(returns, list(players), settings.confidence, seed, lengths=lengths)
    facts["environment"] = {"env": data.env, "options": data.env_options, "seeds": seeds}
    facts["fingerprints"] = dict(fingerprints or {})
    intervals = {name: _interval(agent) for name, agent in facts["agents"].items()}
    plot_returns(out / "returns.png", returns, intervals, confidence=settings.confidence)
    write_json(out / "agents.json", facts)
    notes = [*report.notes, f"plot: {out / 'returns.png'}; median episode of each agent: {out / '*.gif'}"]
    return Report(report.title, report.columns, report.rows, facts, notes)


def _play(policy: Policy, data: DataSection, seeds: list[int], seed: int) -> list[Played]:
    """One episode per seed, in the order of the seeds; of each only what is needed stays in memory."""
    stream = stream_episodes(
        lambda: make_env(data),
        policy,
        seeds,
        policy_seed=seed,
        num_envs=MAX_ENVS,
        max_steps=data.max_episode_steps,
        task=data.task,
    )
    played: dict[int, Played] = {}
    for index, episode in stream:
        clip = episode.frames[: CLIP_STEPS + 1].copy()  # a slice would keep the whole episode alive
        fps = 1 / float(np.diff(episode.timestamps).mean())
        played[index] = Played(episode.total_reward, episode.num_steps, clip, fps)
    return [played[index] for index in range(len(seeds))]


def _interval(agent: dict[str, float | None]) -> Interval:
    """The agent's interval; ends that one episode cannot give become NaN."""
    mean, low, high = (agent[key] for key in ("mean", "low", "high"))
    return Interval(*(float("nan") if value is None else value for value in (mean, low, high)))


def _write_median(path: Path, episodes: list[Played]) -> None:
    """The episode with the median return as GIF."""
    episode = sorted(episodes, key=lambda played: played.total_reward)[len(episodes) // 2]
    scale = max(1, round(PICTURE_PIXELS / episode.clip.shape[1]))
    caption = f"{path.stem}: {episode.total_reward:g}"
    write_gif(path, side_by_side({caption: episode.clip[None]}, scale=scale), episode.fps)
