"""How actions enter the dynamics ([D4] Sec. 3.2): each component encoded apart, summed with a learned embedding.

Shapes: B batch, T time steps, A action width, S action tokens per step (S_a), D model width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ahriuwu_cli.core.specs import ActionComponent, ActionSpec

INIT_STD = 0.02


class ActionEmbedding(nn.Module):
    """Action rows to tokens. Masked actions give the learned embedding alone."""

    def __init__(self, spec: ActionSpec, num_tokens: int, dim: int) -> None:
        super().__init__()
        self.spec, self.num_tokens, self.dim = spec, num_tokens, dim
        self.learned = nn.Parameter(torch.randn(num_tokens, dim) * INIT_STD)
        self.components = nn.ModuleDict(
            {_key(component): _component(component, num_tokens * dim) for component in spec.components}
        )
        for parameter in self.components.parameters():
            nn.init.normal_(parameter, std=INIT_STD)

    def forward(self, action: Tensor, valid: Tensor) -> Tensor:
        """action (B, T, A), valid (B, T) bool -> (B, T, S, D)."""
        action = torch.where(valid[..., None], action, torch.zeros_like(action))
        total = torch.zeros(1, device=action.device)
        for component in self.spec.components:
            part = action[..., self.spec.slices()[component.name]]  # (B, T, dim)
            total = total + self._encode(component, part)  # (B, T, S*D)
        total = torch.where(valid[..., None], total, torch.zeros_like(total))
        return total.reshape(*valid.shape, self.num_tokens, self.dim) + self.learned  # (B, T, S, D)

    def _encode(self, component: ActionComponent, part: Tensor) -> Tensor:
        """part (B, T, dim) -> (B, T, S*D)."""
        layer = self.components[_key(component)]
        encoded: Tensor
        if component.type == "continuous":
            assert component.low is not None
            assert component.high is not None
            scaled = (part - component.low) / (component.high - component.low) * 2 - 1
            encoded = layer(scaled)
        elif component.type == "binary":
            switch = torch.arange(component.dim, device=part.device) * 2
            encoded = layer(part.round().long() + switch).sum(dim=-2)
        else:
            encoded = layer(part[..., 0].round().long())
        return encoded


def _key(component: ActionComponent) -> str:
    """Name of a component's tensors: no dots, which part modules; apart from a module's own (`forward`, `type`)."""
    return "action_" + component.name.replace("%", "%25").replace(".", "%2E")


def _component(component: ActionComponent, width: int) -> nn.Module:
    if component.type == "continuous":
        return nn.Linear(component.dim, width)
    if component.type == "binary":
        return nn.Embedding(2 * component.dim, width)
    assert component.num_classes is not None
    return nn.Embedding(component.num_classes, width)
