"""What imagination training adds to an agent: a value head, its slow copy, and the behavioural prior.

Shapes: D model width, K action logits.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from ahriuwu_cli.agent.checkpoint import agent_from_header
from ahriuwu_cli.agent.model import AgentModel, DistanceHead
from ahriuwu_cli.core.artifact import Header, read_weights
from ahriuwu_cli.core.loading import build_module
from ahriuwu_cli.nn.mlp import Mlp

TRAINED = ("agent.policy.", "value.")
"""What learns in imagination; prior, world, reward and continue are frozen and the slow value follows."""
TRAINED_WITH_TRANSFORMER = ("agent.", "value.", "prior.")
"""What learns when the transformer does: all but the slow value, which follows."""


class ImaginationModel(nn.Module):
    """The agent, a copy of its policy head as behavioural prior, and two value heads (the slow one lags)."""

    def __init__(self, agent: AgentModel) -> None:
        super().__init__()
        heads, dim = agent.heads_config, agent.world.config.dim
        self.agent = agent
        self.value = Mlp(dim, heads.dim_hidden, heads.num_hidden, heads.num_buckets)
        nn.init.zeros_(self.value.out.weight)  # all values start at zero
        self.slow_value = Mlp(dim, heads.dim_hidden, heads.num_hidden, heads.num_buckets)
        self.prior = DistanceHead(dim, heads, agent.choices.num_logits)
        self.slow_value.load_state_dict(self.value.state_dict())
        self.prior.load_state_dict(agent.policy.state_dict())

    def trained(self, *, transformer: bool = False) -> dict[str, nn.Parameter]:
        """The tensors that learn, by name: the policy's and the value's; with the transformer see above."""
        start = TRAINED_WITH_TRANSFORMER if transformer else TRAINED
        return {name: value for name, value in self.named_parameters() if name.startswith(start)}

    def prior_now(self, agent: Tensor) -> Tensor:
        """Logits (..., K) of the prior at agent (..., D)."""
        logits: Tensor = self.prior(agent)  # (..., L, K)
        return logits[..., 0, :]

    def value_now(self, agent: Tensor, *, slow: bool = False) -> Tensor:
        """Expected return (...) at agent (..., D)."""
        head = self.slow_value if slow else self.value
        return self.agent.twohot.mean(head(agent).float())

    @torch.no_grad()
    def follow(self, decay: float) -> None:
        """Move the slow value head towards the value head."""
        for slow, fast in zip(self.slow_value.parameters(), self.value.parameters(), strict=True):
            slow.lerp_(fast, 1 - decay)


def load_imagination(path: Path, device: torch.device) -> tuple[ImaginationModel, Header]:
    """An imagination file with all its heads, in eval mode on `device`, without gradients.

    Raises:
        InputError: the file is missing.
        ArtifactError: it is damaged, of another kind, or does not fit its own config.
    """
    header, tensors = read_weights(path, "imagination")
    model = build_module(path, lambda: ImaginationModel(agent_from_header(header)), tensors)
    return model.requires_grad_(False).eval().to(device), header
