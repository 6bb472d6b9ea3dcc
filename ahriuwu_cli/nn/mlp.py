"""Small multi-layer perceptron used by every head."""

from __future__ import annotations

from torch import Tensor, nn

from ahriuwu_cli.nn.norm import RmsNorm


class Mlp(nn.Module):
    """`num_hidden` layers of (Linear, RMSNorm, SiLU) and a linear output that starts near zero.

    Args:
        dim_in: input width.
        dim_hidden: hidden width.
        num_hidden: hidden layers; 0 makes it linear.
        dim_out: output width.
    """

    def __init__(self, dim_in: int, dim_hidden: int, num_hidden: int, dim_out: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = dim_in
        for _ in range(num_hidden):
            layers += [nn.Linear(width, dim_hidden), RmsNorm(), nn.SiLU()]
            width = dim_hidden
        self.hidden = nn.Sequential(*layers)
        self.out = nn.Linear(width, dim_out)
        nn.init.normal_(self.out.weight, std=0.01)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor) -> Tensor:
        """x (..., dim_in) -> (..., dim_out)."""
        y: Tensor = self.out(self.hidden(x))
        return y
