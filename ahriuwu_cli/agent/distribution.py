"""Distributions over action rows: every component is a set of independent categorical choices.

Shapes: A action width, K logits in all. A categorical component is one choice among its classes, a binary one
`dim` choices between 0 and 1, a continuous one `dim` choices among equally spaced values, so that PMPO and KL
are exact sums.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from ahriuwu_cli.core.specs import ActionComponent, ActionSpec


class ActionChoices:
    """How logits and action rows correspond.

    Args:
        spec: the action spec.
        bins: values per continuous dimension.
    """

    def __init__(self, spec: ActionSpec, bins: int) -> None:
        self.spec, self.bins = spec, bins
        self.num_logits = sum(component.dim * self._count(component) for component in spec.components)

    def _count(self, component: ActionComponent) -> int:
        if component.type == "categorical":
            assert component.num_classes is not None
            return component.num_classes
        return 2 if component.type == "binary" else self.bins

    def split(self, logits: Tensor) -> Iterator[tuple[ActionComponent, Tensor]]:
        """Logits (..., K) by component: (..., dim, choices)."""
        sizes = [component.dim * self._count(component) for component in self.spec.components]
        for component, part in zip(self.spec.components, torch.split(logits, sizes, dim=-1), strict=True):
            yield component, part.reshape(*part.shape[:-1], component.dim, -1)

    def to_index(self, component: ActionComponent, values: Tensor) -> Tensor:
        """Values (..., dim) of a component to choice indices (..., dim)."""
        if component.type != "continuous":
            return values.round().long()
        assert component.low is not None
        assert component.high is not None
        scaled = (values - component.low) / (component.high - component.low) * (self.bins - 1)
        return scaled.round().long().clamp(0, self.bins - 1)

    def to_value(self, component: ActionComponent, index: Tensor) -> Tensor:
        """Choice indices (..., dim) to values (..., dim), never outside the component's range."""
        if component.type != "continuous":
            return index.float()
        assert component.low is not None
        assert component.high is not None
        value = component.low + index.float() / (self.bins - 1) * (component.high - component.low)
        return value.clamp(component.low, component.high)

    def quantise(self, action: Tensor) -> Tensor:
        """Action rows (..., A) with every value replaced by its nearest choice."""
        columns = self.spec.slices()
        parts = []
        for component in self.spec.components:
            index = self.to_index(component, action[..., columns[component.name]])
            parts.append(self.to_value(component, index))
        return torch.cat(parts, dim=-1)


class ActionDistribution:
    """A batch of independent action distributions from logits (..., K).

    Args:
        choices: the correspondence.
        logits: unnormalised log-probabilities.
        temperature: divides the logits.
    """

    def __init__(self, choices: ActionChoices, logits: Tensor, temperature: float = 1.0) -> None:
        self.choices = choices
        self.log_p = [
            (component, (part.float() / temperature).log_softmax(dim=-1)) for component, part in choices.split(logits)
        ]

    def log_prob(self, action: Tensor) -> Tensor:
        """Log-probability (...) of action rows (..., A)."""
        columns = self.choices.spec.slices()
        total = torch.zeros(action.shape[:-1], device=action.device)
        for component, log_p in self.log_p:
            index = self.choices.to_index(component, action[..., columns[component.name]])
            total = total + log_p.gather(-1, index[..., None])[..., 0].sum(dim=-1)
        return total

    def sample(self, uniform: Tensor) -> Tensor:
        """Draw action rows (..., A) from uniform numbers (..., K) in (0, 1) (Gumbel-max)."""
        gumbel = -torch.log(-torch.log(uniform.clamp(1e-7, 1 - 1e-7)))
        rows = []
        for (component, log_p), (_, noise) in zip(self.log_p, self.choices.split(gumbel), strict=True):
            rows.append(self.choices.to_value(component, (log_p + noise).argmax(dim=-1)))
        return torch.cat(rows, dim=-1)

    def mode(self) -> Tensor:
        """The most likely action rows (..., A)."""
        return torch.cat([self.choices.to_value(c, log_p.argmax(dim=-1)) for c, log_p in self.log_p], dim=-1)

    def entropy(self) -> Tensor:
        """Entropy (...) in nats."""
        parts = [-(log_p.exp() * log_p).sum(dim=(-1, -2)) for _, log_p in self.log_p]
        return torch.stack(parts).sum(dim=0)

    def kl(self, other: ActionDistribution) -> Tensor:
        """KL[self || other] (...) in nats."""
        parts = [(p.exp() * (p - q)).sum(dim=(-1, -2)) for (_, p), (_, q) in zip(self.log_p, other.log_p, strict=True)]
        return torch.stack(parts).sum(dim=0)


def binary_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy (...) of Bernoulli logits against targets in {0, 1}, in fp32."""
    return F.binary_cross_entropy_with_logits(logits.float(), target.float(), reduction="none")
