"""The policy's temperature is that of the distribution that is sampled, scored and held to the prior."""

from __future__ import annotations

import pytest
import torch

from ahriuwu_cli.agent.distribution import ActionDistribution
from ahriuwu_cli.imagination.config import ImagineSection
from ahriuwu_cli.imagination.losses import imagination_terms
from ahriuwu_cli.imagination.rollout import Rollout


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_probabilities_and_the_prior_are_at_the_temperature_of_the_dream(arcade, temperature):
    """Pitfall 17: ln pi and entropy are those of the tempered policy, and a policy equal to its prior has no KL."""
    model = arcade().model
    with torch.no_grad():
        for head in (model.agent.policy, model.prior):
            head.net.out.bias[:2] = torch.tensor([2.0, 0.0])
            head.net.out.weight.zero_()
    rollout = Rollout(
        torch.zeros(1, 3, 16), torch.tensor([[[0.0], [1.0]]]), torch.tensor([[1.0, 1.0]]), torch.ones(1, 2)
    )
    train = {"steps": 1, "batch_size": 1, "learning_rate": 0.1}
    section = ImagineSection.model_validate({"temperature": temperature, "train": train})
    terms, metrics = imagination_terms(model, rollout, section)
    log_p = torch.tensor([2.0 / temperature, 0.0]).log_softmax(dim=0)
    assert metrics["kl_to_prior"].item() == pytest.approx(0, abs=1e-6)
    assert metrics["entropy"].item() == pytest.approx(-(log_p.exp() * log_p).sum().item(), rel=1e-4)
    assert terms.policy.item() == pytest.approx(-0.5 * log_p.mean().item(), rel=1e-4)  # both good, alpha = 0.5
    logits = model.agent.policy_now(torch.zeros(16))
    [(_, drawn_from)] = ActionDistribution(model.agent.choices, logits, temperature).log_p
    torch.testing.assert_close(drawn_from.detach()[0], log_p)
