"""Pitfalls 36, 39, 40: heads and worlds against guesses that look at nothing, by losses on held-out recordings.

Trainings measure these (`heldout` in the artifact's header), each beside its trivial guess on the same examples. A loss
that is not below that of a constant guess comes from a head that is blind, however smoothly it fell. Losses are in
nats, those of worlds mean squared errors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ahriuwu_cli.agent.relevance import AgentData, in_percent, unusual
from ahriuwu_cli.doctor.checks import Subject
from ahriuwu_cli.doctor.dreams import ACTIONS, LONGER
from ahriuwu_cli.doctor.evidence import is_trained
from ahriuwu_cli.doctor.findings import Area

MIN_GAIN = 0.02
"""Share of the trivial guess's loss that a head must be below it."""
SURE = 1e-3
"""A trivial guess with a smaller loss leaves nothing to predict: the outcome is all but always the same."""
WORSE = 1.12
"""How many times the error of the world it came from an agent's own may have (0.5 dB) before that is noted."""
HARMED = 1.58
"""From this many times on (2 dB) it is a problem: 1.37 on the built-in game, where imagination gained all the same."""
DEAF = 1.01
"""How many times as large an error with other windows' actions is at least, where a world listens."""


def examine_heldout(area: Area, subject: Subject) -> None:
    """Say where nothing was measured: then nothing shows that anything was learned."""
    if not _measured(subject):
        text = "no loss on held-out recordings is in its header: nothing shows here whether it learned"
        area.note("heldout", text, "train it again where it matters; older versions did not measure it")


def judge_relevant(area: Area, subject: Subject) -> None:
    """What was imitated is neither nearly all play nor next to none; older artifacts do not say."""
    shares: Mapping[str, float] = subject.header.info.get("relevant", {})
    for task, share in shares.items():
        remark = unusual(task, shares, AgentData.model_validate(subject.header.config["agent"]))
        if remark is None:
            area.ok("relevant", f"{in_percent(share)} of the training windows, for task {task}")
        else:
            area.note("relevant", remark.text, remark.hint)


def judge_policy(area: Area, subject: Subject) -> None:
    """The policy knows more than how often each action is taken."""
    found = _measured(subject)
    loss, marginal, uniform = (found.get(f"heldout_policy{which}") for which in ("", "_marginal", "_uniform"))
    if loss is None or marginal is None or uniform is None:
        return
    text = (
        f"-ln p of held-out actions {loss:.3g}, by their frequencies alone {marginal:.3g}, uniform {uniform:.3g} (nats)"
    )
    if marginal - loss >= MIN_GAIN * marginal:
        area.ok("policy", text)
    elif marginal >= (1 - MIN_GAIN) * uniform:
        hint = "record a player that acts by what it sees (data.policy, data.noise, data.random_episodes)"
        area.note("policy", f"nothing to imitate, recorded actions are nearly uniform: {text}", hint)
    else:
        hint = "change agent.train.learning_rate or agent.train.steps, or lower agent.reward_weight"
        _fault(area, subject, "policy", f"no better than the action frequencies: {text}", hint)
    right, repeated = found.get("heldout_accuracy"), found.get("heldout_accuracy_repeat_last")
    if right is not None and repeated is not None and right < repeated:
        text = f"right in {right:.0%} of held-out steps, repeating the last action in {repeated:.0%}"
        area.note("accuracy", text, "change agent.train.learning_rate or raise agent.train.steps")


def judge_reward(area: Area, subject: Subject) -> None:
    """The reward head is not blind."""
    hint = (
        "raise agent.reward_weight or agent.train.steps; where rewards are rare, agent.relevant_reach and "
        "agent.relevant_fraction bring more of them, agent.heads.bucket_limit fits its buckets to them"
    )
    _judge_head(area, subject, "reward", hint)


def judge_continue(area: Area, subject: Subject) -> None:
    """The continue head is not blind."""
    if _measured(subject).get("heldout_end_share") == 0:
        text = "no end of a game in the held-out windows: whether the head knows one cannot be said"
        area.note("continue head", text, "record more episodes that end (data.episodes, data.max_episode_steps)")
        return
    hint = (
        "raise agent.reward_weight or agent.train.steps, or record more episodes that end "
        "(data.episodes, data.max_episode_steps)"
    )
    _judge_head(area, subject, "continue", hint)


def _judge_head(area: Area, subject: Subject, name: str, hint: str) -> None:
    found = _measured(subject)
    loss, baseline = found.get(f"heldout_{name}"), found.get(f"heldout_{name}_baseline")
    if loss is None or baseline is None:
        return
    text = f"held-out loss {loss:.3g}, of the best constant guess {baseline:.3g} (nats)"
    if baseline < SURE:
        area.ok(f"{name} head", f"{text}: there is next to nothing to predict")
    elif baseline - loss < MIN_GAIN * baseline:
        _fault(area, subject, f"{name} head", f"blind: {text}", hint)
    else:
        area.ok(f"{name} head", text)


# ---------------------------------------------------------------- worlds


def judge_listening(area: Area, subject: Subject) -> None:
    """With the actions of other windows a world errs more: in the next frame, or in any, of older versions."""
    found = _measured(subject)
    name = "next" if "heldout_next" in found else "flow"
    error, shuffled = found.get(f"heldout_{name}"), found.get(f"heldout_shuffled_{name}")
    if not error or shuffled is None:
        return
    what = {"next": "held-out error of the next frame", "flow": "held-out error"}[name]
    text = f"{what} {error:.3g}, with the actions of other windows {shuffled:.3g}"
    if shuffled <= error:
        _fault(area, subject, "listens", f"it does not depend on the actions: {text}", ACTIONS)
    elif shuffled < DEAF * error:
        area.note("listens", f"it hardly depends on the actions: {text}", ACTIONS)
    else:
        area.ok("listens", text)


def judge_world(area: Area, subject: Subject) -> None:
    """Pitfall 39: finetuning has not harmed the world model that the agent came from."""
    found = _measured(subject)
    own, parent = found.get("heldout_flow"), found.get("heldout_flow_parent")
    if own is None or not parent:
        return
    change = 10 * math.log10(own / parent) if own > 0 else -math.inf
    text = f"held-out error {own:.3g}, of the dynamics it came from {parent:.3g} on the same windows"
    text = f"finetuning cost its world {change:.1f} dB: {text}" if own > WORSE * parent else text
    if own > HARMED * parent:
        _fault(area, subject, "world", text, LONGER["agent"])
    elif own > WORSE * parent:
        area.note("world", text, LONGER["agent"])
    else:
        area.ok("world", text)


def _measured(subject: Subject) -> Mapping[str, float]:
    """What the header says was measured on held-out recordings, finite numbers only."""
    found = subject.header.info.get("heldout")
    if not isinstance(found, Mapping):
        return {}
    return {name: float(value) for name, value in found.items() if _is_number(value)}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _fault(area: Area, subject: Subject, check: str, text: str, hint: str) -> None:
    """A problem of a training that came to its end after enough steps, else a note."""
    if is_trained(subject.header):
        area.problem(check, text, hint)
    else:
        area.note(check, f"{text}; it is hardly trained", hint)
