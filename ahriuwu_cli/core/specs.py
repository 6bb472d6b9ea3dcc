"""What the data looks like: action, frame and latent specs, written into every artifact that depends on them."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from ahriuwu_cli.core.config import Section

LARGEST = 1 << 20
"""Of a number of classes, switches, tokens or channels: a spec from a file must not ask for all memory."""

WIDEST_BOUND = 1e10
"""Of a continuous component: 32-bit differences, squares and bins of it stay far from infinity."""
NARROWEST_RANGE = 1e-6
"""Of a continuous component, as a share of its larger bound: 32-bit numbers tell its ends apart."""


Aggregate = Literal["any", "mode", "last", "sum", "mean"]
RULES: dict[str, tuple[Aggregate, ...]] = {
    "binary": ("any", "mode", "last"),
    "categorical": ("mode", "last"),
    "continuous": ("sum", "mean", "last"),
}
"""Rules by type of component."""


class ActionComponent(Section):
    """One named part of an action.

    `categorical`: one integer in 0..num_classes-1 (dim is 1).
    `binary`: dim independent 0/1 switches.
    `continuous`: dim floats in [low, high].

    `aggregate` says how what was done between two kept frames of a recording became one action: `any` of it (binary),
    what held longest (`mode`), what held at the end (`last`), or the `sum` or `mean` (continuous). None where every
    action was taken at a frame.

    The name of a part of a nested action is the path of keys that leads to it (episodes/names.py).
    """

    name: str = Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")
    type: Literal["categorical", "binary", "continuous"]
    dim: int = Field(default=1, ge=1, le=LARGEST)
    num_classes: int | None = Field(default=None, ge=2, le=LARGEST)
    low: float | None = Field(default=None, ge=-WIDEST_BOUND, le=WIDEST_BOUND)
    high: float | None = Field(default=None, ge=-WIDEST_BOUND, le=WIDEST_BOUND)
    labels: tuple[str, ...] = ()
    aggregate: Aggregate | None = None

    @model_serializer(mode="wrap")
    def _without_rule(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without a rule, what it was before there were any: the fingerprint stays the same."""
        found: dict[str, Any] = dump(self)
        if self.aggregate is None:
            found.pop("aggregate", None)
        return found

    @model_validator(mode="after")
    def _complete(self) -> ActionComponent:
        if self.type == "categorical" and (self.num_classes is None or self.dim != 1):
            raise ValueError("a categorical component needs num_classes and dim 1")
        if self.type == "continuous" and (self.low is None or self.high is None or not are_apart(self.low, self.high)):
            raise ValueError(
                "a continuous component needs low < high, so far apart that 32-bit numbers tell them apart"
            )
        if self.aggregate is not None and self.aggregate not in RULES[self.type]:
            raise ValueError(f"aggregate of a {self.type} component is one of {', '.join(RULES[self.type])}")
        return self


def are_apart(low: float, high: float) -> bool:
    """Whether 32-bit numbers have a range between two bounds."""
    return high - low > max(NARROWEST_RANGE * max(abs(low), abs(high)), 1e-30)


class ActionSpec(Section):
    """The named, typed components of one action; stored as one float32 row of width `dim`."""

    version: int = 1
    components: tuple[ActionComponent, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _unique(self) -> ActionSpec:
        names = [component.name for component in self.components]
        if len(set(names)) != len(names):
            raise ValueError(f"action component names repeat: {names}")
        return self

    @property
    def dim(self) -> int:
        """Width of a stored action row: the sum of the components' dims."""
        return sum(component.dim for component in self.components)

    def slices(self) -> dict[str, slice]:
        """Columns of the action row that belong to each component, in order."""
        out, start = {}, 0
        for component in self.components:
            out[component.name] = slice(start, start + component.dim)
            start += component.dim
        return out

    def repeated(self, times: int) -> ActionSpec:
        """The spec of `times` actions side by side, the first one first; of one action: this spec itself.

        Components are named `<name>_0` ... `<name>_<times-1>`.
        """
        if times == 1:
            return self
        components = tuple(
            component.model_copy(update={"name": f"{component.name}_{index}"})
            for index in range(times)
            for component in self.components
        )
        return ActionSpec(version=self.version, components=components)


Region = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=4, max_length=4)]
"""Part of a picture: [top, left, height, width] in pixels."""


class FrameSpec(Section):
    """Size and rate of the frames: uint8 RGB of (height, width, 3) at `fps` frames per second."""

    height: int = Field(ge=8, le=2048)
    width: int = Field(ge=8, le=2048)
    fps: float = Field(gt=0)


class LatentSpec(Section):
    """Layout of one latent: `num_tokens` tokens of `dim_token` channels (N_z x D_z), for every `stride` frames.

    Latent 0 of an episode is frame 0 alone; latent i covers frames stride*(i-1)+1 .. stride*i (see
    episodes/alignment.py). With stride 1 every frame has its latent. `mean` and `std` are per channel, measured
    over the training split when latents are built; the dynamics work in the normalised space (z - mean) / std.
    Empty until measured.
    """

    num_tokens: int = Field(ge=1, le=LARGEST)
    dim_token: int = Field(ge=1, le=LARGEST)
    layout: str
    bound: float | None = None
    stride: int = Field(default=1, ge=1, le=1024)
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    @model_validator(mode="after")
    def _statistics(self) -> LatentSpec:
        for name in ("mean", "std"):
            values = getattr(self, name)
            if values and len(values) != self.dim_token:
                raise ValueError(f"{name} has {len(values)} entries for {self.dim_token} channels")
            if not all(math.isfinite(value) for value in values):
                raise ValueError(f"{name} is not finite")
        return self

    def same_layout(self, other: LatentSpec) -> bool:
        """True when both describe the same tokens (statistics aside)."""
        return all(
            getattr(self, name) == getattr(other, name) for name in ("num_tokens", "dim_token", "layout", "stride")
        )
