"""Specs: actions side by side, and latents that cover several frames."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from ahriuwu_cli.core.specs import ActionComponent, ActionSpec, LatentSpec

SPEC = ActionSpec(
    components=(
        ActionComponent(name="move", type="categorical", num_classes=4),
        ActionComponent(name="aim", type="continuous", dim=2, low=-1, high=1),
    )
)


def test_actions_side_by_side() -> None:
    spec = SPEC.repeated(3)
    assert [part.name for part in spec.components] == ["move_0", "aim_0", "move_1", "aim_1", "move_2", "aim_2"]
    assert spec.dim == 3 * SPEC.dim
    for index in range(3):  # a row is the rows of the single actions, one after the other
        for name, place in SPEC.slices().items():
            start = index * SPEC.dim
            assert spec.slices()[f"{name}_{index}"] == slice(place.start + start, place.stop + start)
    assert spec.version == SPEC.version
    assert spec.components[2].num_classes == 4


def test_one_action_is_the_spec_itself() -> None:
    assert SPEC.repeated(1) is SPEC


def test_repeated_names_stay_apart() -> None:
    """A component may already bear a name that ends in a number."""
    names = ("a", "a_0", "a_0_1")
    spec = ActionSpec(components=tuple(ActionComponent(name=name, type="binary") for name in names)).repeated(3)
    assert len({part.name for part in spec.components}) == 9


def test_latents_without_a_stride_have_one_per_frame() -> None:
    """Artifacts from before there were strides still load."""
    old = {"num_tokens": 4, "dim_token": 2, "layout": "grid 2x2", "bound": 1.0, "mean": (), "std": ()}
    assert LatentSpec.model_validate(old).stride == 1
    with pytest.raises(ValidationError):
        LatentSpec.model_validate(old | {"stride": 0})


@pytest.mark.parametrize("change", [{"num_tokens": 8}, {"dim_token": 4}, {"layout": "grid 1x4"}, {"stride": 8}])
def test_another_layout_is_another_layout(change: dict[str, object]) -> None:
    """Pitfall 11: as many numbers per second are not the same latents."""
    spec = LatentSpec(num_tokens=4, dim_token=2, layout="grid 2x2")
    assert spec.same_layout(spec.model_copy(update={"mean": (0.0, 1.0), "std": (1.0, 2.0)}))
    assert not spec.same_layout(spec.model_copy(update=change))


FLOAT_MAX = 3.4028235e38


@pytest.mark.parametrize(
    ("low", "high"), [(-FLOAT_MAX, FLOAT_MAX), (0, 1e11), (1, 1), (1, 1 + 1e-9), (1e9, 1e9 + 1), (0, 1e-40), (None, 1)]
)
def test_bounds_that_32_bits_make_nothing_of_are_refused(low, high):
    with pytest.raises(ValidationError):
        ActionComponent(name="aim", type="continuous", low=low, high=high)


@pytest.mark.parametrize(("low", "high"), [(-1e10, 1e10), (0, 2**32 - 1), (0, 1e-6), (255, 256)])
def test_bounds_of_any_use_are_taken(low, high):
    assert ActionComponent(name="aim", type="continuous", low=low, high=high).high == high
