"""Who plays: the policies behind the names of `eval agent --agents` and behind a checkpoint's path."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ahriuwu_cli.agent.player import load_player
from ahriuwu_cli.core.artifact import MANIFEST_NAME, read_header
from ahriuwu_cli.core.device import Runtime
from ahriuwu_cli.core.errors import ArtifactError, InputError
from ahriuwu_cli.core.loading import reading
from ahriuwu_cli.core.specs import ActionSpec, FrameSpec
from ahriuwu_cli.episodes.config import DataSection
from ahriuwu_cli.episodes.store import EpisodeStore
from ahriuwu_cli.games.environment import make_env
from ahriuwu_cli.games.making import module_of
from ahriuwu_cli.games.policies import (
    EXPERT_ACTION,
    NoisyExpertPolicy,
    Policy,
    RandomPolicy,
    RepeatLastPolicy,
    built_in_policy,
)
from ahriuwu_cli.pipeline.config import Run
from ahriuwu_cli.sources import game

AGENTS = ("random", "repeat-last", "dataset", "expert", "scratch", "bc", "imagination")
"""Names that `eval agent --agents` knows, baselines first."""
UNASKED = ("random", "repeat-last", "dataset", "scratch", "bc", "imagination")
"""Those that play when none is named, where the run has them."""

NO_GAME_HINT = (
    "judge the dream by `ahriuwu eval rollout`, the agents by `ahriuwu eval offline`; where there is a game, name it: "
    "eval.game = { env = ... }"
)
"""What to do where recordings have no game."""

CHECKPOINT_SUFFIX = ".safetensors"


@dataclass(frozen=True)
class Player:
    """A policy, and the fingerprint of the checkpoint it comes from (None for one that is not learned)."""

    policy: Policy
    fingerprint: str | None = None


def is_checkpoint(policy: str) -> bool:
    """True when the name of a policy is the path of a checkpoint."""
    return Path(policy).suffix == CHECKPOINT_SUFFIX


def checkpoint_player(
    run: Run,
    path: Path,
    runtime: Runtime,
    action: ActionSpec,
    frame: FrameSpec,
    name: str = "",
    task: str | None = None,
) -> Player:
    """An agent or imagination checkpoint, ready to play an environment of these actions and frames.

    The tokenizer is that of the run the checkpoint lies in, or else that of `run`. Of an agent of several tasks
    `task` says which it plays; the first one by default.

    Raises:
        InputError: the checkpoint or its tokenizer is missing, or the agent knows no such task.
        ArtifactError: a file is damaged or of another kind, the tokenizer is another one, or the checkpoint
            was made for other actions or frames.
    """
    header = read_header(path, ("agent", "imagination"))
    with reading(path):
        size = FrameSpec.model_validate(header.specs["frame"])
    if (size.height, size.width) != (frame.height, frame.width):
        raise ArtifactError(
            f"{path} was made for {size.height}x{size.width} frames; the environment gives "
            f"{frame.height}x{frame.width}",
            hint=f"it needs what is recorded with data.height={size.height} and data.width={size.width}",
        )
    player = load_player(
        path,
        _tokenizer_of(run, path),
        runtime,
        temperature=run.config.eval.temperature,
        name=name or path.stem,
        task=task,
    )
    player.require_spec(action)
    return Player(player, header.fingerprint)


def _tokenizer_of(run: Run, checkpoint: Path) -> Path:
    beside = Run(run.config, checkpoint.resolve().parent.parent).tokenizer
    return beside if beside.is_file() else run.tokenizer


def named_players(
    run: Run, names: Sequence[str] | None, store: EpisodeStore, runtime: Runtime, task: str | None = None
) -> dict[str, Player]:
    """The players to compare, by a name of their own each; those of UNASKED that the run has unless `names` lists some.

    Raises:
        InputError: a name is not known, a checkpoint is missing, an agent does not know `task`, or `expert` is named
            and the environment offers none.
        ArtifactError: see `checkpoint_player`.
    """
    wanted = list(dict.fromkeys(names or [name for name in UNASKED if _exists(run, name, store)]))
    for name in wanted:
        if name not in AGENTS and not is_checkpoint(name):
            raise InputError(
                f"agent {name!r} is not known; expected some of {', '.join(AGENTS)} or the path of a checkpoint",
                hint=f"correct --agents; checkpoints end in {CHECKPOINT_SUFFIX}",
            )
    players: dict[str, Player] = {}
    for name in wanted:
        label = _free(name if name in AGENTS else Path(name).stem, {*players, *(set(AGENTS) & set(wanted))} - {name})
        players[label] = _player(run, name, label, store, runtime, task)
    return players


def recorded_game(run: Run, store: EpisodeStore) -> dict[str, Any]:
    """The keys of `[data]` that define the game, as the store has them, for use in the run.

    Decision: an id `module:Id` has Gymnasium import that module. A store may come from anywhere, so it may name only
    the one that the run's own config names too; what needs no import is looked up among what is registered.

    Raises:
        ArtifactError: the episodes name a module that the run's config does not.
    """
    if module_of(store.env) is not None and store.env != run.config.data.env:
        raise ArtifactError(
            f"{store.folder} was recorded in {store.env!r}, which has a module imported; data.env is "
            f"{run.config.data.env!r}",
            hint=f"if you know that module and trust it, set data.env = {json.dumps(store.env)} in run.toml",
        )
    return game.recorded_game(store)


def played_environment(
    run: Run, store: EpisodeStore, task: str | None = None, *, hint: str = NO_GAME_HINT
) -> DataSection:
    """The `[data]` section with all that defines the game as recorded (pitfall 43), and the task that is played.

    `eval.game` changes it on purpose.

    Raises:
        ArtifactError: see `recorded_game`.
        InputError: the episodes were imported and belong to no game.
    """
    settings = recorded_game(run, store) | run.config.eval.game
    if not settings["env"]:
        raise InputError(
            f"{store.folder} holds recordings of no game that could be played here",
            hint=hint,
        )
    return run.config.data.model_copy(update={**settings, "task": task or run.config.data.task})


def require_game(run: Run, *, recorded: bool = False) -> None:
    """Refuse work that ends in a game, before any of it is done, where the run has none.

    Args:
        run: whose episodes, or else whose config, name the game.
        recorded: it has to be the game of the recordings; that of `eval.game` is none to record in.

    Raises:
        InputError: the run's episodes were imported and belong to no game, or are to be.
        ArtifactError: see `recorded_game`.
    """
    if recorded:
        config = run.config
        settings = config.eval.model_copy(update={"game": {}})
        run = replace(run, config=config.model_copy(update={"eval": settings}))
    if (run.episodes / MANIFEST_NAME).is_file():
        played_environment(run, EpisodeStore.open(run.episodes))
    elif not (run.config.data.env or run.config.eval.game.get("env")):
        raise InputError("data.env is empty: there is no game that could be played", hint=NO_GAME_HINT)


def game_notes(run: Run, store: EpisodeStore) -> list[str]:
    """What is to be said of the game that is played: where it is not the one that run.toml describes."""
    notes = []
    differing = game.differences(store, run.config.data)
    if differing:
        keys = ", ".join(f"{key} = {there} (data.{key}: {asked})" for key, (there, asked) in differing.items())
        notes.append(f"the game is played as it was recorded, not as [data] says now: {keys}")
    recorded = game.recorded_game(store)
    changed = {key: value for key, value in run.config.eval.game.items() if recorded.get(key) != value}
    if changed:
        keys = ", ".join(f"{key} = {value} (recorded: {recorded.get(key)})" for key, value in changed.items())
        notes.append(f"another game than the recorded one is played, as eval.game says: {keys}")
    return notes


def _free(stem: str, used: set[str]) -> str:
    """`stem`, with a number where checkpoints of several runs have one file name."""
    names = (stem if count == 1 else f"{stem}-{count}" for count in range(1, len(used) + 2))
    return next(name for name in names if name not in used)


def _player(run: Run, name: str, label: str, store: EpisodeStore, runtime: Runtime, task: str | None) -> Player:
    spec = store.action_spec
    if name == "random":
        return Player(RandomPolicy(spec))
    if name == "repeat-last":
        return Player(RepeatLastPolicy(spec))
    if name == "expert":
        _require_expert(played_environment(run, store))
        return Player(NoisyExpertPolicy(spec, 0.0))
    recorded = _recorded_with(run, store)
    if name == "dataset" and not is_checkpoint(recorded.policy):
        return Player(built_in_policy(recorded, spec))
    path = _files(run, recorded).get(name, Path(name))
    return checkpoint_player(run, path, runtime, spec, store.frame_spec, label, task)


def _files(run: Run, recorded: DataSection) -> dict[str, Path]:
    """The checkpoints behind names."""
    return {
        "dataset": Path(recorded.policy), "scratch": run.scratch, "bc": run.agent, "imagination": run.imagination
    }  # fmt: skip


def offers_expert(data: DataSection) -> bool:
    """True when the environment says what an expert would do."""
    env = make_env(data)
    try:
        return EXPERT_ACTION in env.reset(0)[1]
    finally:
        env.close()


def _require_expert(data: DataSection) -> None:
    if not offers_expert(data):
        raise InputError(
            f"{data.env} offers no expert: its info has no {EXPERT_ACTION!r}",
            hint="leave expert out of --agents, or wrap the environment with an expert",
        )


def _recorded_with(run: Run, store: EpisodeStore) -> DataSection:
    """The `[data]` settings the store was begun with; those of the run when it does not say."""
    return game.recorded_settings(store) or run.config.data


def _exists(run: Run, name: str, store: EpisodeStore) -> bool:
    """True when the run has what it takes to let this agent play."""
    recorded = _recorded_with(run, store)
    if name in ("random", "repeat-last") or (name == "dataset" and not is_checkpoint(recorded.policy)):
        return True
    return _files(run, recorded)[name].is_file()
