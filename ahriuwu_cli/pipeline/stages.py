"""One function per command: resolve the device, check what can be checked, run the stage, report."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ahriuwu_cli.agent import scratch as scratch_training
from ahriuwu_cli.agent import train as agent_training
from ahriuwu_cli.core.artifact import Kind, read_header
from ahriuwu_cli.core.device import Runtime, apply_threads, resolve_runtime
from ahriuwu_cli.core.lock import exclusive
from ahriuwu_cli.core.progress import counted
from ahriuwu_cli.core.report import Report
from ahriuwu_cli.core.training.budget import Budget
from ahriuwu_cli.core.training.loop import TrainResult
from ahriuwu_cli.dynamics import train as dynamics_training
from ahriuwu_cli.episodes.config import DataSection
from ahriuwu_cli.episodes.store import EpisodeStore
from ahriuwu_cli.evaluation.agents import evaluate_agents
from ahriuwu_cli.evaluation.offline import evaluate_offline as judge_offline
from ahriuwu_cli.evaluation.rollout import evaluate_rollout as judge_dream
from ahriuwu_cli.games.environment import make_env
from ahriuwu_cli.games.obedience import DISOBEDIENT, obeys_seed
from ahriuwu_cli.games.policies import Policy
from ahriuwu_cli.games.seeds import Stream, fresh_seeds
from ahriuwu_cli.imagination import train as imagination_training
from ahriuwu_cli.imagination.check import RealGame
from ahriuwu_cli.latents import build, pack
from ahriuwu_cli.pipeline.chain import require_chain
from ahriuwu_cli.pipeline.config import Run
from ahriuwu_cli.pipeline.players import (
    NO_GAME_HINT,
    Player,
    checkpoint_player,
    game_notes,
    is_checkpoint,
    named_players,
    played_environment,
)
from ahriuwu_cli.sources import record as recording
from ahriuwu_cli.sources import summary
from ahriuwu_cli.tokenizer import train as tokenizer_training
from ahriuwu_cli.tokenizer.checkpoint import load_tokenizer

SHOWN_METRICS = {
    "tokenizer": ("psnr",),
    "dynamics": ("flow", "bootstrap"),
    "agent": ("policy_loss", "policy_accuracy", "repeat_last_accuracy", "reward_where_some", "reward_where_none",
              "continue_where_ended", "continue_where_not"),
    "imagination": ("imagined_return", "positive_share", "kl_to_prior", "entropy", "value_error", "outside"),
}  # fmt: skip

ENDS = {
    "progress": ", ended for want of progress (train.patience)",
    "minutes": ", ended when its share of run.minutes was used up",
}
"""What to say beside the number of steps, by what ended a training."""


def _runtime(run: Run) -> Runtime:
    """Device, precision and threads of a run, before anything else is touched."""
    apply_threads(run.config.run)
    return resolve_runtime(run.config.run)


# ---------------------------------------------------------------- episodes


def record(run: Run, *, append: bool, name: str = "") -> Report:
    """Record episodes into the run's store; `name` is what a checkpoint that plays is called there."""
    data = run.config.data
    policy: Policy | None = None
    if is_checkpoint(data.policy):
        policy = _recording_agent(run, name)
    with counted("record", data.episodes, "episodes") as show:
        return recording.record(
            run.episodes,
            data,
            run.config.run.seed,
            policy=policy,
            append=append,
            progress=lambda ended, steps: show(ended, f"{steps:,} steps"),
        )


def import_recordings(run: Run) -> Report:
    """Import recordings into the run's store."""
    from ahriuwu_cli.sources.imports import transfer

    with counted("import", 0, "recordings") as show:
        return transfer.import_source(run.episodes, run.config.data, run.config.run.seed, progress=show)


def _recording_agent(run: Run, name: str) -> Policy:
    """The checkpoint that `data.policy` names, checked against the environment it is to play."""
    runtime = _runtime(run)
    env = make_env(run.config.data)
    action, frame = env.action_spec, env.frame_spec
    env.close()
    return checkpoint_player(run, Path(run.config.data.policy), runtime, action, frame, name).policy


def split(run: Run) -> Report:
    """Divide the run's episodes anew."""
    return summary.split(run.episodes, run.config.data.heldout_fraction, run.config.run.seed)


# ---------------------------------------------------------------- training


def train_tokenizer(run: Run, *, resume: bool = False, overwrite: bool = False) -> Report:
    """Train the tokenizer on the run's episodes."""
    train = partial(tokenizer_training.train_tokenizer, run.config.tokenizer, run.episodes)
    return _train(run, "tokenizer", train, run.tokenizer, resume=resume, overwrite=overwrite)


def build_latents(run: Run) -> Report:
    """Encode the run's episodes."""
    runtime = _runtime(run)
    require_chain(run, run.tokenizer, "tokenizer")
    return build.build_latents(run.episodes, run.tokenizer, run.latents, run.config.latents, runtime)


def pack_latents(run: Run) -> Report:
    """Pack the run's latents."""
    require_chain(run, run.latents, "latents")
    return pack.pack_latents(run.episodes, run.latents, run.packed, run.config.latents)


def train_dynamics(run: Run, *, resume: bool = False, overwrite: bool = False) -> Report:
    """Train the dynamics on the run's packed latents."""
    train = partial(dynamics_training.train_dynamics, run.config.dynamics, run.packed)
    return _train(run, "dynamics", train, run.dynamics, "packed", resume=resume, overwrite=overwrite)


def finetune_agent(run: Run, *, resume: bool = False, overwrite: bool = False) -> Report:
    """Finetune the agent on the run's dynamics."""
    train = partial(agent_training.finetune_agent, run.config.agent, run.dynamics, run.packed)
    return _train(run, "agent", train, run.agent, "dynamics", resume=resume, overwrite=overwrite)


def train_scratch(run: Run, *, resume: bool = False, overwrite: bool = False) -> Report:
    """Clone an agent without a world model from the run's packed latents: the baseline."""
    train = partial(scratch_training.train_scratch, run.config.agent, run.config.dynamics, run.packed)
    return _train(run, "agent", train, run.scratch, "packed", resume=resume, overwrite=overwrite)


def train_imagination(run: Run, *, resume: bool = False, overwrite: bool = False) -> Report:
    """Train the run's agent in its dream, with a look at the real game now and then if `imagine.check` says so."""

    def train(folder: Path, runtime: Runtime, **options: Any) -> TrainResult:
        game = _real_game(run, runtime) if run.config.imagine.check.every else None
        section = run.config.imagine
        return imagination_training.train_imagination(
            section, run.agent, run.packed, folder, runtime, game=game, **options
        )

    return _train(run, "imagination", train, run.imagination, "agent", resume=resume, overwrite=overwrite)


def _real_game(run: Run, runtime: Runtime) -> RealGame:
    """The run's environment for checks during imagination training, with seeds that were never recorded."""
    store = EpisodeStore.open(run.episodes)
    data = played_environment(run, store, hint=f"set imagine.check.every = 0; {NO_GAME_HINT}")
    _tell_game(run, store)
    tokenizer, _ = load_tokenizer(run.tokenizer, runtime.device)
    taken = {record.seed for record in store.episodes}
    seeds = fresh_seeds(run.config.run.seed, Stream.CHECK, run.config.imagine.check.episodes, taken)
    return RealGame(data, runtime.serve(tokenizer), seeds)


def _train(
    run: Run, kind: Kind, train: Callable[..., TrainResult], weights: Path, parent: Kind | None = None, **options: bool
) -> Report:
    """Check the device, then that `parent` belongs to the run as it is, then train into the folder of `weights`.

    Training has the share of `run.minutes` that its kind has.
    """
    runtime = _runtime(run)
    if parent is not None:
        require_chain(run, getattr(run, parent), parent)
    budget = Budget(run.config.run.minutes).share(kind)
    return _trained(weights, train(weights.parent, runtime, seed=run.config.run.seed, budget=budget, **options))


def _trained(path: Path, result: TrainResult) -> Report:
    kind = result.header.kind
    shown = [(name, result.metrics[name]) for name in SHOWN_METRICS[kind] if name in result.metrics]
    learned = [
        ("steps", f"{result.steps}{ENDS.get(result.stopped, '')}"),
        *([("kept", f"the weights of step {kept}")] if (kept := result.header.info.get("kept_step")) else []),
        ("minutes", f"{result.seconds / 60:.1f}"),
        ("loss", f"{result.metrics.get('loss', float('nan')):.4g}"),
    ]
    rows = [
        *(learned if result.steps else [("trained", "nothing: the weights stay in your files, sha256 recorded")]),
        *((name, f"{value:.4g}") for name, value in shown),
        ("fingerprint", result.header.fingerprint),
        ("file", str(path)),
    ]
    data = {
        "kind": kind,
        "steps": result.steps,
        "stopped": result.stopped,
        "seconds": result.seconds,
        "metrics": result.metrics,
        "fingerprint": result.header.fingerprint,
        "file": str(path),
    }
    return Report(kind, ("what", "value"), rows, data)


# ---------------------------------------------------------------- evaluation


def evaluate_rollout(run: Run, checkpoint: Path | None = None, out: Path | None = None) -> Report:
    """Judge the run's dream, or that of another checkpoint; results go to `out`, or to a place of their own."""
    runtime = _runtime(run)
    source = checkpoint or run.dynamics
    return judge_dream(
        source,
        run.tokenizer,
        run.packed,
        run.episodes,
        out or run.evaluation / _rollout_name(run, source),
        run.config.eval,
        runtime,
        seed=run.config.run.seed,
    )


def _rollout_name(run: Run, source: Path) -> str:
    """Folder of a rollout: `rollout` of the run's dynamics, `rollout-KIND` of its agents, of others by fingerprint."""
    header = read_header(source, ("dynamics", "agent", "imagination"))
    own: Path = getattr(run, header.kind)
    name = "rollout" if header.kind == "dynamics" else f"rollout-{header.kind}"
    if own.is_file() and read_header(own, header.kind).fingerprint == header.fingerprint:
        return name
    return f"rollout-{header.kind}-{header.fingerprint}"


def evaluate_offline(run: Run) -> Report:
    """Judge the run's agents, as far as they are there, by held-out recordings and in a dream: no game is needed."""
    runtime = _runtime(run)
    places = {"scratch": run.scratch, "bc": run.agent, "imagination": run.imagination}
    agents = {name: path for name, path in places.items() if path.is_file()}
    for name, path in agents.items():
        require_chain(run, path, "imagination" if name == "imagination" else "agent")
    out = run.evaluation / "offline"
    return judge_offline(agents, run.packed, out, run.config.eval, runtime, seed=run.config.run.seed)


def evaluate_agent(
    run: Run,
    agents: list[str] | None = None,
    task: str | None = None,
    *,
    stream: Stream = Stream.TUNING,
    overwrite: bool = False,
) -> Report:
    """Play the run's agents in the real environment; the usual ones unless `agents` names some.

    Args:
        run: the run.
        agents: names or checkpoints, see `named_players`.
        task: the task that agents of several tasks play; the first one by default.
        stream: where the episodes come from; those of `Stream.TEST` are for results, not for choosing settings.
        overwrite: play again what was played before with the same settings.

    Returns:
        The comparison of those who have played; `require_all_played` says whether that is all.
    """
    runtime = _runtime(run)
    store = EpisodeStore.open(run.episodes)
    played_environment(run, store, task)  # where there is no game, that is what is to be said
    players = named_players(run, agents, store, runtime, task)
    return compare_players(run, store, players, task, stream=stream, overwrite=overwrite)


def compare_players(
    run: Run,
    store: EpisodeStore,
    players: Mapping[str, Player],
    task: str | None = None,
    *,
    stream: Stream = Stream.TUNING,
    overwrite: bool = False,
) -> Report:
    """Let players, baselines first, play the game of `store` on paired seeds that were never recorded.

    Results lie in the folder `agent` of the run's evaluation, or in `test` for the test stream.
    """
    out = run.evaluation / ("test" if stream is Stream.TEST else "agent")
    _tell_game(run, store)
    data = played_environment(run, store, task)
    with exclusive(out):
        return evaluate_agents(
            {name: player.policy for name, player in players.items()},
            data,
            out,
            run.config.eval,
            seed=run.config.run.seed,
            taken={record.seed for record in store.episodes},
            stream=stream,
            fingerprints={name: player.fingerprint for name, player in players.items() if player.fingerprint},
            machine=run.config.run.model_dump(mode="json", include={"device", "precision", "threads"}),
            seeded=_obeys_seed(data),
            overwrite=overwrite,
            tell=lambda line: print(line, file=sys.stderr),
        )


def _tell_game(run: Run, store: EpisodeStore) -> None:
    """Say where the game that is played is not the one that run.toml describes."""
    for note in game_notes(run, store):
        print(note, file=sys.stderr)


def _obeys_seed(data: DataSection) -> bool:
    """Whether two episodes of one seed are one episode, so that agents can be compared in pairs; says when not."""
    env = make_env(data)
    try:
        obeys = obeys_seed(env)
    finally:
        env.close()
    if not obeys:
        print(DISOBEDIENT.format(env=data.env), file=sys.stderr)
    return obeys
