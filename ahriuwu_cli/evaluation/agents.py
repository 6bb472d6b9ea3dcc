"""`eval agent`: several agents on the same seeded episodes of the real environment."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from ahriuwu_cli.core.files import TEMPORARY_SUFFIX, write_json
from ahriuwu_cli.core.report import Report
from ahriuwu_cli.episodes.config import DataSection
from ahriuwu_cli.evaluation.behaviour import ActionTally, describe
from ahriuwu_cli.evaluation.clips import Highlights, write_videos
from ahriuwu_cli.evaluation.config import EvalSection
from ahriuwu_cli.evaluation.plots import plot_actions, plot_returns
from ahriuwu_cli.evaluation.returns import compare
from ahriuwu_cli.evaluation.statistics import Interval
from ahriuwu_cli.games.environment import make_env
from ahriuwu_cli.games.policies import Policy
from ahriuwu_cli.games.runner import stream_episodes
from ahriuwu_cli.games.seeds import fresh_seeds

MAX_ENVS = 128
"""Environments played side by side."""
EPISODE_BYTES = 1 << 30
"""Frames of all running episodes together; fewer environments play side by side where they would need more."""
UNKNOWN_STEPS = 2000
"""Length assumed of an episode where `data.max_episode_steps` leaves it to the environment."""
SEED_STREAM = 0x5EED
"""Keeps the seeds of evaluation apart from those of recording."""


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
    """Play `settings.episodes` paired episodes with every player and compare returns and actions.

    Writes, per agent, a GIF of its median episode and MP4s of its best and worst, then returns.png, actions.png
    and last agents.json into `out`. Memory holds the frames of the running episodes (see `side_by_side_envs`)
    and one clip; the clips that may still be shown wait in a folder inside `out` (see `Highlights`).

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
    seeds = fresh_seeds(seed, SEED_STREAM, settings.episodes, taken)
    returns, lengths, actions = {}, {}, {}
    for name, policy in players.items():
        if on_agent is not None:
            on_agent(name)
        returns[name], lengths[name], actions[name] = _play(name, policy, data, seeds, seed, out)
    report, facts = compare(returns, list(players), settings.confidence, seed, lengths=lengths)
    facts["actions"] = actions
    facts["environment"] = {"env": data.env, "options": data.env_options, "seeds": seeds}
    facts["fingerprints"] = dict(fingerprints or {})
    facts["task"] = data.task
    facts["temperature"] = settings.temperature
    intervals = {name: _interval(agent) for name, agent in facts["agents"].items()}
    plot_returns(out / "returns.png", returns, intervals, confidence=settings.confidence)
    plot_actions(out / "actions.png", actions)
    write_json(out / "agents.json", facts)
    notes = [
        *report.notes,
        *(describe(name, tally) for name, tally in actions.items()),
        f"learned agents choose at temperature {settings.temperature:g}",
        f"plots: {out / 'returns.png'}, {out / 'actions.png'}; median episode of each agent: {out / '*.gif'}, "
        f"best and worst: {out / '*.mp4'}",
    ]
    return Report(report.title, report.columns, report.rows, facts, notes)


def side_by_side_envs(data: DataSection) -> int:
    """How many environments play at once: MAX_ENVS, or as many as keep their frames within EPISODE_BYTES."""
    steps = data.max_episode_steps or UNKNOWN_STEPS
    return int(np.clip(EPISODE_BYTES // ((steps + 1) * data.height * data.width * 3), 1, MAX_ENVS))


def _play(
    name: str, policy: Policy, data: DataSection, seeds: list[int], seed: int, out: Path
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """One episode per seed: returns (N,) and lengths (N,) in the order of the seeds, facts on actions; videos."""
    probe = make_env(data)
    tally = ActionTally(probe.action_spec)
    probe.close()
    stream = stream_episodes(
        lambda: make_env(data),
        policy,
        seeds,
        policy_seed=seed,
        num_envs=side_by_side_envs(data),
        max_steps=data.max_episode_steps,
        task=data.task,
    )
    returns, lengths = np.zeros(len(seeds)), np.zeros(len(seeds), np.int64)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".clips.", suffix=TEMPORARY_SUFFIX, dir=out) as clips, closing(stream):
        highlights = Highlights(Path(clips), len(seeds))
        for index, episode in stream:
            returns[index], lengths[index] = episode.total_reward, episode.num_steps
            tally.add(episode.actions)
            highlights.add(index, episode)
        write_videos(out, name, highlights)
    return returns, lengths, tally.facts()


def _interval(agent: dict[str, float | None]) -> Interval:
    """The agent's interval; ends that one episode cannot give become NaN."""
    mean, low, high = (agent[key] for key in ("mean", "low", "high"))
    return Interval(*(float("nan") if value is None else value for value in (mean, low, high)))
