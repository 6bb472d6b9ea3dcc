"""`eval agent`: several agents on the same seeded episodes of the real environment."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

import ahriuwu_cli
from ahriuwu_cli.core.errors import AhriuwuError, PlayError
from ahriuwu_cli.core.files import TEMPORARY_SUFFIX, remove_leftovers, write_json
from ahriuwu_cli.core.report import Report
from ahriuwu_cli.episodes.config import GAME_KEYS, DataSection
from ahriuwu_cli.evaluation.behaviour import describe
from ahriuwu_cli.evaluation.clips import Highlights, write_videos
from ahriuwu_cli.evaluation.config import EvalSection
from ahriuwu_cli.evaluation.played import Played
from ahriuwu_cli.evaluation.plots import plot_actions, plot_returns
from ahriuwu_cli.evaluation.returns import compare
from ahriuwu_cli.evaluation.seal import sealed
from ahriuwu_cli.evaluation.statistics import Interval
from ahriuwu_cli.games.environment import make_env
from ahriuwu_cli.games.policies import Policy
from ahriuwu_cli.games.runner import stream_episodes
from ahriuwu_cli.games.seeds import Stream, fresh_seeds

MAX_ENVS = 128
"""Environments played side by side."""
EPISODE_BYTES = 1 << 30
"""Frames of all running episodes together; fewer environments play side by side where they would need more."""
UNKNOWN_STEPS = 2000
"""Length assumed of an episode where `data.max_episode_steps` leaves it to the environment."""


def evaluate_agents(
    players: Mapping[str, Policy],
    data: DataSection,
    out: Path,
    settings: EvalSection,
    *,
    seed: int,
    taken: set[int],
    stream: Stream = Stream.TUNING,
    fingerprints: Mapping[str, str] | None = None,
    machine: Mapping[str, Any] | None = None,
    seeded: bool = True,
    overwrite: bool = False,
    tell: Callable[[str], None] | None = None,
) -> Report:
    """Play `settings.episodes` paired episodes with every player and compare returns and actions.

    Writes, per agent, a GIF of its median episode and MP4s of its best and worst, then returns.png, actions.png
    and last agents.json, sealed, into `out`. Memory holds the frames of the running episodes (see `side_by_side_envs`)
    and one clip; the clips that may still be shown wait in a folder inside `out` (see `Highlights`).

    What each agent has played lies in `out`/played meanwhile and after. Episodes of the same agent, game, seeds and
    settings are not played again. An agent that fails does not stop the others: it is in the facts' `failed`, see
    `require_all_played`.

    Args:
        players: policies by name, baselines first.
        data: environment and frame size.
        out: folder of the results.
        settings: the `[eval]` section.
        seed: of episodes, policies and resampling.
        taken: episode seeds not to use.
        stream: where the episode seeds come from.
        fingerprints: of the checkpoints behind the players, noted in the results.
        machine: device and precision the players run with; others may choose other actions.
        seeded: the environment obeys its seed, so that episodes of one seed are pairs.
        overwrite: play again what was played before.
        tell: told in one line what begins, what was there, and what failed.

    Raises:
        Exception: what the first agent met, when none has played all of its episodes.
    """
    seeds = fresh_seeds(seed, stream, settings.episodes, taken)
    known, tell = fingerprints or {}, tell or (lambda line: None)
    done: dict[str, Played] = {}
    failed: dict[str, dict[str, Any]] = {}
    first: Exception | None = None
    remove_leftovers(out / "played")
    for name, policy in players.items():
        question = {
            "version": ahriuwu_cli.__version__,
            "agent": known.get(name, policy.name),
            "game": data.model_dump(mode="json", include={*GAME_KEYS, "task"}),
            "machine": dict(machine or {}) if name in known else {},
            "temperature": settings.temperature if name in known else None,
            "seed": seed,
            "seeds": seeds,
        }
        played = _open(out / "played" / f"{name}.json", question, data, overwrite=overwrite)
        tell(_announcement(name, played, settings.episodes))
        try:
            _play(name, policy, data, seeds, seed, out, played)
            done[name] = played
        except Exception as error:  # whatever ends one agent is no reason to lose the others
            first = first or error
            failed[name] = {"error": _one_line(error), "episodes": settings.episodes - len(played.missing)}
            tell(f"{name} failed after {failed[name]['episodes']} of {settings.episodes} episodes: {_one_line(error)}")
    if not done:
        assert first is not None
        raise first
    return _report(done, failed, data, out, settings, seed=seed, seeds=seeds, stream=stream, known=known, seeded=seeded)


def require_all_played(report: Report) -> None:
    """Raise PlayError when an agent of the report failed."""
    failed = report.data.get("failed", {})
    if failed:
        what = "; ".join(f"{name}: {facts['error']}" for name, facts in failed.items())
        raise PlayError(
            f"{len(failed)} of {len(failed) + len(report.data['agents'])} agents could not play all episodes: {what}",
            hint="what they had played is kept; mend the cause and run the same command again to play the rest",
        )


def _report(
    done: Mapping[str, Played],
    failed: Mapping[str, Any],
    data: DataSection,
    out: Path,
    settings: EvalSection,
    *,
    seed: int,
    seeds: list[int],
    stream: Stream,
    known: Mapping[str, str],
    seeded: bool,
) -> Report:
    """Compare what was played; writes the plots and agents.json."""
    returns = {name: played.returns() for name, played in done.items()}
    lengths = {name: played.lengths() for name, played in done.items()}
    actions = {name: played.actions() for name, played in done.items()}
    report, facts = compare(returns, list(done), settings.confidence, seed, lengths=lengths, paired=seeded)
    facts["actions"] = actions
    facts["environment"] = {
        "env": data.env,
        "options": data.env_options,
        "seeds": seeds,
        "stream": stream.name.lower(),
        "seeded": seeded,
    }
    facts["fingerprints"] = {name: known[name] for name in done if name in known}
    facts["task"] = data.task
    facts["temperature"] = settings.temperature
    facts["failed"] = dict(failed)
    facts["cpu_minutes"] = {name: played.cpu_seconds / 60 for name, played in done.items()}
    facts = sealed(facts)
    intervals = {name: _interval(agent) for name, agent in facts["agents"].items()}
    plot_returns(out / "returns.png", returns, intervals, confidence=settings.confidence)
    plot_actions(out / "actions.png", actions)
    write_json(out / "agents.json", facts)
    partly = [name for name, played in done.items() if played.before and len(played.before) < settings.episodes]
    notes = [
        *report.notes,
        *(describe(name, tally) for name, tally in actions.items()),
        f"learned agents choose at temperature {settings.temperature:g}",
        *([f"videos of {', '.join(partly)} show episodes of this call only"] if partly else []),
        f"plots: {out / 'returns.png'}, {out / 'actions.png'}; median episode of each agent: {out / '*.gif'}, "
        f"best and worst: {out / '*.mp4'}",
    ]
    return Report(report.title, report.columns, report.rows, facts, notes)


def _open(path: Path, question: Mapping[str, Any], data: DataSection, *, overwrite: bool) -> Played:
    if overwrite:
        path.unlink(missing_ok=True)
    probe = make_env(data)
    spec = probe.action_spec
    probe.close()
    return Played(path, question, len(question["seeds"]), spec)


def _announcement(name: str, played: Played, episodes: int) -> str:
    if not played.before:
        return f"playing {episodes} episodes: {name}"
    if not played.missing:
        return f"{name}: all {episodes} episodes were played before with these settings; --overwrite plays them again"
    return f"{name}: {len(played.before)} of {episodes} episodes were played before; playing the others"


def _one_line(error: Exception) -> str:
    text = error.message if isinstance(error, AhriuwuError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())


def side_by_side_envs(data: DataSection) -> int:
    """How many environments play at once: MAX_ENVS, or as many as keep their frames within EPISODE_BYTES."""
    steps = data.max_episode_steps or UNKNOWN_STEPS
    return int(np.clip(EPISODE_BYTES // ((steps + 1) * data.height * data.width * 3), 1, MAX_ENVS))


def _play(name: str, policy: Policy, data: DataSection, seeds: list[int], seed: int, out: Path, played: Played) -> None:
    """Play the missing episodes into `played`, and make videos of them."""
    missing = played.missing
    if not missing:
        return
    stream = stream_episodes(
        lambda: make_env(data),
        policy,
        [seeds[index] for index in missing],
        policy_seed=seed,
        num_envs=side_by_side_envs(data),
        max_steps=data.step_limit,
        task=data.task,
    )
    out.mkdir(parents=True, exist_ok=True)
    before, started = played.cpu_seconds, time.process_time()
    folder = tempfile.TemporaryDirectory(prefix=".clips.", suffix=TEMPORARY_SUFFIX, dir=out)
    with folder as clips, closing(stream):
        highlights = Highlights(Path(clips), len(missing))
        try:
            for place, episode in stream:
                played.cpu_seconds = before + time.process_time() - started
                played.add(missing[place], episode)
                highlights.add(place, episode)
        finally:
            played.save()
        write_videos(out, name, highlights)


def _interval(agent: dict[str, float | None]) -> Interval:
    """The agent's interval; ends that one episode cannot give become NaN."""
    mean, low, high = (agent[key] for key in ("mean", "low", "high"))
    return Interval(*(float("nan") if value is None else value for value in (mean, low, high)))
