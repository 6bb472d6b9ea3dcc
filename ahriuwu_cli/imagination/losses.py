"""The two losses of imagination on a batch of rollouts: PMPO for the policy, lambda-returns for the value.

Shapes: B rollouts, H horizon, D model width, V two-hot buckets.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ahriuwu_cli.agent.distribution import ActionDistribution
from ahriuwu_cli.agent.occupancy import occupancy
from ahriuwu_cli.imagination.config import ImagineSection
from ahriuwu_cli.imagination.guard import Outside
from ahriuwu_cli.imagination.model import ImaginationModel
from ahriuwu_cli.imagination.objective import first_of, lambda_returns, pmpo, reach_weights
from ahriuwu_cli.imagination.rollout import Rollout


@dataclass(frozen=True)
class Terms:
    """Scalar losses, with gradient, and what PMPO weighs.

    Attributes:
        policy: PMPO.
        value: two-hot regression of the lambda-returns.
        weighed: mean size of the numbers that PMPO adds and subtracts, |ln pi| + beta KL, without gradient.
    """

    policy: Tensor
    value: Tensor
    weighed: Tensor


def imagination_loss(
    model: ImaginationModel,
    rollout: Rollout,
    settings: ImagineSection,
    outside: Outside | None = None,
    *,
    value_only: bool = False,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The sum of both losses, or the value's alone; see `imagination_terms`."""
    terms, metrics = imagination_terms(model, rollout, settings, outside)
    return terms.value if value_only else terms.policy + terms.value, metrics


def imagination_terms(
    model: ImaginationModel, rollout: Rollout, settings: ImagineSection, outside: Outside | None = None
) -> tuple[Terms, dict[str, Tensor]]:
    """Both losses and their metrics; gradients flow into `rollout.agent` where it has any.

    Decision: the policy is its distribution at `settings.temperature`: that is sampled in the dream, and of that are
    the log-probabilities, the entropy and the KL, to the prior at the same temperature. PMPO then weighs the actions by
    the distribution they were drawn from, and the KL starts at zero.

    Args:
        model: the heads.
        rollout: B dreams of H steps.
        settings: the `[imagine]` section.
        outside: steps outside the data. With `settings.guard.cut` decisions that lead there, and all after them, weigh
            nothing in returns, values, KL and metrics; the first of each row is in PMPO's negative set (see `pmpo`).
    """
    decisions = rollout.agent[:, :-1]  # (B, H, D)
    agent = model.agent
    slow = settings.value_ema > 0
    with torch.no_grad():
        reach = reach_weights(rollout.alive)
        cut = outside.cut() if outside is not None and settings.guard.cut else None  # (B, H)
        weight = reach if cut is None else reach * ~cut
        leaving = None if cut is None else reach * first_of(cut)
        next_value = model.value_now(rollout.agent[:, 1:], slow=slow)
        returns = lambda_returns(rollout.reward, rollout.alive, next_value, settings.gamma, settings.lambda_return, cut)
        value = model.value_now(decisions)
    policy = ActionDistribution(agent.choices, agent.policy_now(decisions), settings.temperature)
    prior = ActionDistribution(agent.choices, model.prior_now(decisions).detach(), settings.temperature)
    log_prob, kl = policy.log_prob(rollout.action), policy.kl(prior)
    policy_loss, metrics = pmpo(log_prob, returns - value, kl, weight, settings.alpha, settings.beta, leaving)
    value_logits = model.value(decisions)  # (B, H, V)
    total = weight.sum()
    some = total.clamp_min(1e-6)  # nothing at all may be left inside the data
    value_loss = (weight * agent.twohot.loss(value_logits, returns)).sum() / some
    weighed = ((log_prob.abs() + settings.beta * kl) * weight).sum().detach() / some
    metrics |= {
        "policy_loss": policy_loss.detach(),
        "value_loss": value_loss.detach(),
        "imagined_return": (rollout.reward * weight).sum(dim=1).mean(),
        "imagined_reward_per_step": (rollout.reward * weight).sum() / total,
        "imagined_end": 1 - (reach[:, -1] * rollout.alive[:, -1]).mean(),
        "value": value.mean(),
        "value_error": ((returns - value).abs() * weight).sum() / total,
        **occupancy("value", agent.twohot, value_logits, returns, weight > 0),
        "entropy": (policy.entropy().detach() * weight).sum() / total,
    }
    if outside is not None:
        metrics |= outside.shares(reach)
    if cut is not None:
        metrics["cut"] = 1 - total / reach.sum()
    return Terms(policy_loss, value_loss, weighed), metrics
