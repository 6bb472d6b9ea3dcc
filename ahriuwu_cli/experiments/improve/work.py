"""The work of a round: record with the policy before it, encode, pack, finetune, imagine, play; what is done is kept.

A round's data.json says which episodes and packed latents it is trained on. The store only grows, so a round can be
done anew as long as no later round has recorded; after that it is as it was.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from ahriuwu_cli.core.artifact import Kind, read_header
from ahriuwu_cli.core.config import Section
from ahriuwu_cli.core.errors import InputError
from ahriuwu_cli.core.files import write_json
from ahriuwu_cli.core.lineage import grown_from
from ahriuwu_cli.core.report import Report
from ahriuwu_cli.episodes.store import EpisodeStore
from ahriuwu_cli.experiments.improve.plan import Plan, Round
from ahriuwu_cli.experiments.plans import Training, read_json, say, tokenizer_training
from ahriuwu_cli.pipeline import stages
from ahriuwu_cli.pipeline.config import Run
from ahriuwu_cli.pipeline.players import recorded_game
from ahriuwu_cli.pipeline.unfinished import latents_left, recording_left


def work_on(plan: Plan, number: int) -> None:
    """Do what is left of a round; the rounds before it are done.

    Raises:
        InputError: it would have to be done anew, but later rounds have recorded with what it made.
        TrainingInterrupted: Ctrl-C or SIGTERM; what is done is kept.
    """
    this = plan.rounds[number]
    if number:
        _grow(plan, number)
    else:
        _start(this)
        _finish(this, "dynamics", {"": this.run.config.dynamics}, stages.train_dynamics)
    _finish(this, "agent", {"agent": this.run.config.agent}, stages.finetune_agent)
    _finish(this, "imagination", {"imagine": this.run.config.imagine}, stages.train_imagination)


# ---------------------------------------------------------------- data


def _start(first: Round) -> None:
    """Round 0: the base run's episodes, tokenizer and latents, as far as they are not there."""
    tokenizer = replace(tokenizer_training(first.run, f"{first}, tokenizer"), may_grow=True)
    if _is_outgrown(first):
        if not tokenizer.is_done():
            raise _settled(first, "its tokenizer")
        return
    for stage in recording_left(first.run):
        say(f"{first}, {stage().title}")
    tokenizer.finish()
    for stage in latents_left(first.run):
        say(f"{first}, {stage().title}")
    records = EpisodeStore.open(first.run.episodes).episodes
    _write_data(first, {"episodes": len(records)}, [record.total_reward for record in records])


def _grow(plan: Plan, number: int) -> None:
    """Record with the policy of the round before, encode and pack what is new."""
    this, run = plan.rounds[number], plan.rounds[number].run
    policy = plan.rounds[number - 1].run.imagination
    name = f"round-{number - 1} {read_header(policy, 'imagination').fingerprint[:8]}"
    start = read_data(plan.rounds[number - 1])["asked"]["episodes"]
    end = start + plan.settings.episodes
    asked = {"episodes": end, "policy": name, "temperature": plan.settings.temperature}
    saved = read_data(this)
    if saved and saved["asked"] != asked:
        raise _settled(this, f"its recording ({_in_words(saved['asked'])}; asked for is {_in_words(asked)})")
    if saved and _has_been_packed(this, saved["packed"]):
        return
    records = EpisodeStore.open(run.episodes).episodes[start:]
    strange = sorted({record.policy for record in records} - {name})
    if strange or len(records) > plan.settings.episodes:
        raise _settled(this, f"its recording ({len(records)} episodes are there, by {', '.join(strange) or name})")
    missing = plan.settings.episodes - len(records)
    if missing:
        say(f"{this}: recording {missing} episodes with {policy}")
        stages.record(_recording(plan, number, policy, missing), append=True, name=name)
    say(f"{this}: encoding and packing what is new")
    stages.build_latents(run)
    stages.pack_latents(run)
    records = EpisodeStore.open(run.episodes).episodes[start:]
    _write_data(this, asked, [record.total_reward for record in records])


def _recording(plan: Plan, number: int, policy: Path, episodes: int) -> Run:
    """The run with the settings of a round's recording: the game that is in the store."""
    run = plan.rounds[number].run
    game = recorded_game(run, EpisodeStore.open(run.episodes))
    data = run.config.data.model_copy(update={**game, "episodes": episodes, "policy": str(policy)})
    settings = run.config.eval.model_copy(update={"temperature": plan.settings.temperature})
    return replace(run, config=run.config.model_copy(update={"data": data, "eval": settings}))


def read_data(this: Round) -> dict[str, Any]:
    """What a round was trained on: `asked`, `packed` (fingerprint), `returns`; empty while it is not complete."""
    return read_json(this.data)


def _write_data(this: Round, asked: dict[str, Any], returns: list[float]) -> None:
    packed = read_header(this.run.packed, "packed").fingerprint
    facts = {"asked": asked, "packed": packed, "recorded": len(returns), "mean_return": fmean(returns)}
    if read_data(this) != facts:
        write_json(this.data, facts)


def _has_been_packed(this: Round, fingerprint: str) -> bool:
    """True when the packed latents are of that fingerprint, or have grown from it."""
    if not this.run.packed.is_dir():
        return False
    header = read_header(this.run.packed, "packed")
    return fingerprint in (*grown_from(header), header.fingerprint)


def _is_outgrown(this: Round) -> bool:
    """True when the store holds what later rounds have recorded."""
    data = read_data(this)
    return bool(data) and len(EpisodeStore.open(this.run.episodes).episodes) > data["asked"]["episodes"]


def _in_words(asked: dict[str, Any]) -> str:
    return f"up to episode {asked['episodes']}, by {asked['policy']} at temperature {asked['temperature']:g}"


def _settled(this: Round, what: str) -> InputError:
    return InputError(
        f"{this} would have to be done anew from {what}, but {this.run.episodes} already holds what came of it",
        hint="set the changed settings back, or give another folder with --dir",
    )


# ---------------------------------------------------------------- trainings


def _finish(this: Round, kind: Kind, sections: dict[str, Section], stage: Callable[..., Report]) -> None:
    """Train unless that is done on the data of this round."""
    weights: Path = getattr(this.run, kind)
    name, cost, outgrown = f"{this}, {kind}", weights.parent / "cost.json", _is_outgrown(this)
    may_grow = outgrown or not this.number  # a base run may have grown between its trainings
    training = Training(this.run, kind, weights, sections, stage, name, cost, may_grow)
    if not outgrown:
        training.finish()
    elif not training.is_done() or (this.number and _data_of(weights, kind) != read_data(this)["packed"]):
        raise _settled(this, f"its {kind}")


def _data_of(weights: Path, kind: Kind) -> str:
    return read_header(weights, kind).parents["packed"]
