"""Pitfall 40: a dream that is no better than a still picture, or the same whatever actions it is given.

Decision: what actions are worth is measured against what the dream knows at all, its lead over persistence, for a
dB means something else in every game: where little moves, little can be lost. On the built-in game shuffled actions
take 75 % of that lead.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ahriuwu_cli.core.artifact import Header, Kind
from ahriuwu_cli.doctor.evidence import MIN_CONTEXTS, is_trained
from ahriuwu_cli.doctor.findings import Area

LISTENS = 0.05
"""Share of the lead over persistence that shuffled actions must cost at least."""
LOST = 0.1
"""Share of that lead that finetuning may cost the agent's own dreams before that is noted."""
RUINED = 0.33
"""From this share on it is a problem: 0.17 on the built-in game, where imagination gained all the same."""
SAME = ("contexts", "context_length", "horizon", "sampling_steps", "heldout_episodes")
"""Facts that must be equal for two rollouts to be compared."""

LONGER = {
    "dynamics": "raise dynamics.train.steps or dynamics.model.dim",
    "agent": "lower agent.train.learning_rate or raise agent.dynamics_weight, then finetune anew",
    "imagination": "lower imagine.train.learning_rate, or keep imagine.transformer frozen",
}
"""What makes a world model of each kind better."""
ACTIONS = (
    "record a player whose actions vary more (data.policy, data.noise, data.random_episodes), show what it moves "
    "larger (data.height, data.width, data.crop), or raise dynamics.train.steps"
)


def judge_dream(area: Area, name: str, kind: Kind, facts: Mapping[str, Any], header: Header | None) -> None:
    """Judge the scores of one rollout; `header` is that of the world model that dreamed."""
    curves, hint = facts["curves"], LONGER[kind]
    scores = {source: float(curve["psnr_mean"]) for source, curve in curves.items()}
    lead = scores["dream"] - scores["persistence"]
    over = f"over {facts['contexts']} held-out contexts"
    check = name.replace("rollout", "dream")
    if scores["persistence"] >= scores["reconstruction"]:
        text = f"a still picture scores {scores['persistence']:.2f} dB, the tokenizer {scores['reconstruction']:.2f}"
        hint = "raise eval.horizon, so that more happens, or tokenizer.train.steps"
        area.note(check, f"{text} {over}: no dream can be told from a still picture", hint)
        return
    if lead <= 0:
        text = f"{scores['dream']:.2f} dB is no better than a still picture ({scores['persistence']:.2f} dB) {over}"
        _fault(area, check, text, hint, facts, header)
        return
    cost = scores["dream"] - scores["shuffled actions"]
    share = f"{cost:.2f} of the {lead:.2f} dB it is above a still picture ({cost / lead:.0%})"
    text = f"shuffled actions cost {share} {over}"
    if cost < LISTENS * lead:
        _fault(area, check, f"it hardly depends on the actions: {text}", ACTIONS, facts, header)
    else:
        area.ok(check, text)


def judge_worlds(area: Area, parent: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Pitfall 39: an agent dreams as well as the dynamics it came from, where both dreamed the same."""
    if any(parent[key] != own[key] for key in SAME):
        return
    scores = [float(facts["curves"]["dream"]["psnr_mean"]) for facts in (parent, own)]
    lead = scores[0] - float(parent["curves"]["persistence"]["psnr_mean"])
    text = f"the agent dreams {scores[1]:.2f} dB, the dynamics it came from {scores[0]:.2f}"
    lost = (scores[0] - scores[1]) / lead if lead > 0 else 0.0
    if lost <= LOST:
        area.ok("world", text)
        return
    text = f"{text}: finetuning cost {lost:.0%} of its lead over a still picture, over {parent['contexts']} contexts"
    if lost > RUINED and parent["contexts"] >= MIN_CONTEXTS:
        area.problem("world", text, LONGER["agent"])
    else:
        area.note("world", text, LONGER["agent"])


def _fault(area: Area, check: str, text: str, hint: str, facts: Mapping[str, Any], header: Header | None) -> None:
    """A problem where the result rests on enough, else a note."""
    if facts["contexts"] < MIN_CONTEXTS:
        area.note(check, f"{text}; fewer than {MIN_CONTEXTS} contexts prove nothing", f"raise eval.contexts; {hint}")
    elif not is_trained(header):
        area.note(check, f"{text}; the model is hardly trained", hint)
    else:
        area.problem(check, text, hint)
