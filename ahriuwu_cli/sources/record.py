"""`ahriuwu data record`: episodes are played into a store, each of them on disk as soon as it has ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import numpy as np

from ahriuwu_cli.core.artifact import MANIFEST_NAME
from ahriuwu_cli.core.errors import AhriuwuError, DataError, InputError, StorageError, TrainingInterrupted
from ahriuwu_cli.core.files import REFUSALS
from ahriuwu_cli.core.lock import contents, exclusive
from ahriuwu_cli.core.report import Report
from ahriuwu_cli.episodes.config import DataSection
from ahriuwu_cli.episodes.episode import RECORD_HINT
from ahriuwu_cli.episodes.store import EpisodeStore
from ahriuwu_cli.games.environment import GameEnv, make_env
from ahriuwu_cli.games.obedience import DISOBEDIENT, obeys_seed
from ahriuwu_cli.games.pictures import PictureWatch
from ahriuwu_cli.games.policies import EXPERT_ACTION, Policy, built_in_policy
from ahriuwu_cli.games.runner import stream_episodes
from ahriuwu_cli.sources.game import require_same_game, settled_game
from ahriuwu_cli.sources.summary import describe
from ahriuwu_cli.sources.writer import RecordingWriter

HOPELESS = 16
"""So many episodes that cannot be stored, before one that can, end a recording."""
Progress = Callable[[int, int], None]  # (episodes ended, steps played)


def record(
    folder: Path,
    data: DataSection,
    seed: int,
    policy: Policy | None = None,
    append: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Play `data.episodes` episodes and add them to the store at `folder`, making it if need be.

    Every episode is on disk when it ends, whatever ends the recording. Seeds follow from `seed`; those already in the
    store are passed over, and each episode has its place in the store and its split beforehand: a recording that was
    stopped and gone on with is the store that an unbroken one would have made.

    An episode that breaks its own declaration (a reward that is not finite, say) is skipped and counted in the
    report's `skipped`. One that `data.step_limit` ends is stored, as truncated.

    Args:
        folder: the store.
        data: environment, size, number, policy.
        seed: seed of episodes, policy and split.
        policy: who plays; None takes the built-in policy that `data.policy` names.
        append: add to a store that is there; the split then goes on by the store's own fraction and seed.
        progress: called in every step of all environments.

    Raises:
        BusyError: another process is writing to the store.
        InputError: a store is there and `append` is False, or it is one of another environment; or
            the environment or policy cannot be used. Nothing on disk has changed then.
        DataError: no episode could be stored.
        StorageError: an episode cannot be written, or there is not enough memory; what ended before is stored.
        TrainingInterrupted: Ctrl-C or SIGTERM; what finished is stored.
    """
    with exclusive(folder):
        store = _opened(folder, append=append)
        first = make_env(data)
        spare = [first]  # a game of which only one may run is not made twice
        try:
            action_spec, frame_spec = first.action_spec, first.frame_spec
            if store is not None:
                require_same_game(store, data, first)
            data = settled_game(_with_player(data, first, seed), first)
            remarks = _remarks(first)
            player = policy or built_in_policy(data, action_spec)
            waiting = {item.seed for item in store.unfinished if item.policy == player.name} if store else set()
            seeds = episode_seeds(seed, data.episodes, _used(store) - waiting)
            writer = RecordingWriter(folder, store, data, seed, (action_spec, frame_spec), player.name, seeds)
            notes = _play(lambda: spare.pop() if spare else make_env(data), player, data, seed, seeds, writer, progress)
        finally:
            for env in spare:
                env.close()
        assert writer.store is not None
        notes = [*remarks, *notes]
        report = describe(writer.store, f"Recorded {writer.num_stored} episodes of {data.env}", notes)
    report.data["skipped"] = len(writer.skipped)
    return report


def _play(
    make: Callable[[], GameEnv],
    player: Policy,
    data: DataSection,
    seed: int,
    seeds: list[int],
    writer: RecordingWriter,
    progress: Progress | None,
) -> list[str]:
    """Play and store; returns what is to be said of it."""
    ended = cut = 0
    watch = PictureWatch()

    def skip(index: int, error: DataError) -> None:
        nonlocal ended
        ended += 1
        writer.skip(index, error)
        _require_hope(writer)

    stream = stream_episodes(
        make,
        player,
        seeds,
        policy_seed=seed,
        num_envs=data.num_envs,
        max_steps=data.step_limit,
        task=data.task,
        spill=writer.folder,
        on_bad=skip,
        on_step=None if progress is None else lambda steps: progress(ended, steps),
    )
    try:
        with closing(stream):
            for index, episode in stream:
                ended += 1
                watch.add(episode.frames)
                writer.add(index, episode)
                _require_hope(writer)
                cut += not data.max_episode_steps and episode.num_steps == data.step_limit
        writer.close()
        _require_hope(writer, at_end=True)
    except KeyboardInterrupt:
        raise _interrupted(writer) from None
    except (OSError, MemoryError) as error:
        refusal = _refusal(error)
        if refusal is None:
            _keep(writer, error)
            raise
        _keep(writer, refusal)
        raise refusal from error
    except Exception as error:
        _keep(writer, error)
        raise
    notes = watch.notes()
    if writer.skipped:
        notes.append(f"{len(writer.skipped)} of {len(seeds)} episodes could not be stored: {writer.skipped[0]}")
    if cut:
        limit = f"{data.step_limit:,} steps"
        notes.append(f"{cut} episodes were cut after {limit}: set data.max_episode_steps to how long the game may go")
    return notes


def _require_hope(writer: RecordingWriter, *, at_end: bool = False) -> None:
    """Raise DataError when nothing could be stored: of everything, or of so many episodes that more will not help."""
    if writer.num_stored == 0 and writer.skipped and (at_end or len(writer.skipped) >= HOPELESS):
        raise DataError(
            f"none of {len(writer.skipped)} episodes could be stored: {writer.skipped[0]}", hint=RECORD_HINT
        )


# ---------------------------------------------------------------- what ends a recording


def _interrupted(writer: RecordingWriter) -> TrainingInterrupted:
    """What Ctrl-C or SIGTERM leaves: also the episode that was on its way to the disk."""
    writer.close(finish=True)
    return TrainingInterrupted(f"recording stopped: {writer.kept()}", hint=writer.going_on())


def _refusal(error: OSError | MemoryError) -> StorageError | None:
    """What the machine has too little of, or does not allow; None for an error that is not of this kind."""
    if isinstance(error, MemoryError):
        return StorageError("out of memory while recording", hint="lower data.num_envs or data.max_episode_steps")
    if error.errno not in REFUSALS:
        return None
    return StorageError(f"{error.filename or 'while recording'}: {error.strerror}", hint=REFUSALS[error.errno])


def _keep(writer: RecordingWriter, error: Exception) -> None:
    """List what is stored, as far as that is still possible, and let the error say so."""
    with suppress(OSError, AhriuwuError):  # the journal has it; the next command lists it
        writer.close()
    if not writer.num_stored:
        return
    if isinstance(error, AhriuwuError):
        error.message, error.hint = f"{error.message}; {writer.kept()}", f"{error.hint}; then {writer.going_on()}"
    else:
        error.add_note(f"{writer.kept()}; {writer.going_on()}")


# ---------------------------------------------------------------- what may be recorded


def _opened(folder: Path, *, append: bool) -> EpisodeStore | None:
    """The store at `folder`; None where a new one may be made."""
    if not (folder / MANIFEST_NAME).exists():
        if contents(folder):
            raise InputError(
                f"{folder} is not empty and holds no episode store", hint="give another folder, or empty this one"
            )
        return None
    if not append:
        raise InputError(
            f"{folder} already holds an episode store",
            hint="add --append to record more into it, or give another run folder",
        )
    store = EpisodeStore.open(folder)
    store.settle()
    return store


def _with_player(data: DataSection, env: GameEnv, seed: int) -> DataSection:
    """The settings with a policy in place of `auto`: the environment's expert, as far as there is one."""
    if data.policy != "auto":
        return data
    offered = EXPERT_ACTION in env.reset(seed)[1]
    return data.model_copy(update={"policy": "noisy-expert" if offered else "random"})


def _remarks(env: GameEnv) -> list[str]:
    """What is to be said of an environment before it is played."""
    return [*env.notes, *([] if obeys_seed(env) else [DISOBEDIENT.format(env=env.env_id)])]


def _used(store: EpisodeStore | None) -> set[int]:
    """Seeds that have a place in the store."""
    if store is None:
        return set()
    return {record.seed for record in store.episodes} | {item.seed for item in (*store.skipped, *store.unfinished)}


def episode_seeds(seed: int, count: int, taken: set[int]) -> list[int]:
    """`count` different episode seeds (31 bits) of a run's seed, in a fixed order, without those `taken`."""
    return list(_take(_seed_stream(seed), count, taken))


def _seed_stream(seed: int) -> Iterator[int]:
    rng = np.random.default_rng([seed, 1])
    while True:
        yield int(rng.integers(2**31))


def _take(stream: Iterator[int], count: int, taken: set[int]) -> Iterator[int]:
    used = set(taken)
    while count > 0:
        candidate = next(stream)
        if candidate not in used:
            used.add(candidate)
            count -= 1
            yield candidate
