"""Action rows: specs of action spaces, conversion both ways, random rows in range."""

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from ahriuwu_cli.core.errors import DataError, InputError
from ahriuwu_cli.core.specs import ActionSpec
from ahriuwu_cli.episodes.actions import ActionCodec, ActionRange, check_actions, random_row

SPACES = {
    "discrete": spaces.Discrete(5),
    "shifted": spaces.Discrete(3, start=-1),
    "multidiscrete": spaces.MultiDiscrete([2, 4, 3]),
    "multidiscrete2d": spaces.MultiDiscrete([[2, 4], [3, 5]], start=[[0, 1], [2, 3]]),
    "multibinary": spaces.MultiBinary([2, 2]),
    "box": spaces.Box(-2.0, 2.0, (2, 1), np.float32),
    "uneven box": spaces.Box(np.array([-1, 0], np.float32), np.array([1, 5], np.float32)),
    "integer box": spaces.Box(0, 9, (3,), np.int64),
    "dict": spaces.Dict(
        {
            "camera": spaces.Box(-1.0, 1.0, (2,), np.float32),
            "use item": spaces.Discrete(2),
            "inner": spaces.Dict({"keys": spaces.MultiBinary(3), "slot": spaces.Discrete(9)}),
        }
    ),
}


@pytest.mark.parametrize("name", SPACES)
def test_actions_come_back_as_they_were(name: str) -> None:
    space = SPACES[name]
    space.seed(0)
    codec = ActionCodec(space)
    for _ in range(20):
        action = space.sample()
        row = codec.to_row(action)
        assert row.shape == (codec.spec.dim,)
        assert row.dtype == np.float32
        check_actions(codec.spec, row[None], np.array([True]), where="here")
        back = codec.to_action(row)
        assert space.contains(back)
        assert np.array_equal(codec.to_row(back), row)


@pytest.mark.parametrize("name", SPACES)
def test_random_rows_are_actions_of_the_space(name: str) -> None:
    codec, rng = ActionCodec(SPACES[name]), np.random.default_rng(0)
    rows = np.stack([random_row(codec.spec, rng) for _ in range(200)])
    assert all(SPACES[name].contains(codec.to_action(row)) for row in rows)
    bounds = ActionRange(codec.spec)
    whole = bounds.integral
    assert (rows.min(0)[whole] == bounds.low[whole]).all()
    assert (rows.max(0)[whole] == bounds.high[whole]).all()


def test_specs_of_spaces() -> None:
    part = ActionCodec(spaces.Discrete(3), ["noop", "left", "right"]).spec.components[0]
    assert (part.name, part.type, part.num_classes, part.labels) == (
        "action",
        "categorical",
        3,
        ("noop", "left", "right"),
    )
    assert ActionCodec(spaces.Discrete(3), ["one"]).spec.components[0].labels == ()
    names = [part.name for part in ActionCodec(SPACES["dict"]).spec.components]
    assert sorted(names) == ["camera", "inner_keys", "inner_slot", "use_item"]
    uneven = ActionCodec(SPACES["uneven box"]).spec.components
    assert [(part.low, part.high) for part in uneven] == [(-1, 1), (0, 5)]
    assert ActionCodec(SPACES["multidiscrete"]).spec.dim == 3


@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(1),
        spaces.MultiDiscrete([3, 1]),
        spaces.Box(-np.inf, np.inf, (2,)),
        spaces.Tuple([spaces.Discrete(2)]),
        spaces.Text(5),
        spaces.Dict({"a": spaces.Discrete(2), "b": spaces.Text(3)}),
    ],
)
def test_other_spaces_are_refused(space: spaces.Space) -> None:
    with pytest.raises(InputError, match="cannot be used") as caught:
        ActionCodec(space)
    assert "wrap" in caught.value.hint


@pytest.mark.parametrize("value", [5, -1, 0.4, np.nan])
def test_rows_outside_the_space_are_refused(value: float) -> None:
    with pytest.raises(DataError, match="'action'"):
        ActionCodec(spaces.Discrete(5)).to_action(np.array([value], np.float32))


def test_rows_of_another_width_are_refused() -> None:
    with pytest.raises(DataError, match="shape"):
        ActionCodec(spaces.Discrete(5)).to_action(np.zeros(2, np.float32))


@settings(deadline=None)
@given(st.floats(-3, 3, width=32))
def test_bounds_belong_to_the_range(value: float) -> None:
    codec = ActionCodec(spaces.Box(-0.1, 0.7, (1,), np.float32))  # bounds that float32 rounds
    row = np.array([value], np.float32)
    low, high = np.float32(-0.1), np.float32(0.7)
    if low <= row[0] <= high:
        assert codec.to_action(row)[0] == row[0]
    else:
        with pytest.raises(DataError):
            codec.to_action(row)


def test_spec_survives_json() -> None:
    """Pitfall 12: the action spec goes into every artifact and is compared there."""
    spec = ActionCodec(SPACES["dict"]).spec
    assert ActionSpec.model_validate_json(spec.model_dump_json()) == spec
