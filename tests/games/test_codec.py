"""Action rows: specs of action spaces, conversion both ways, random rows in range."""

import math

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from ahriuwu_cli.core.errors import DataError, InputError
from ahriuwu_cli.core.specs import ActionSpec, are_apart
from ahriuwu_cli.episodes.actions import ActionRange, check_actions, random_row
from ahriuwu_cli.episodes.names import part_keys
from ahriuwu_cli.games.codec import ActionCodec

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
    "tuple": spaces.Tuple([spaces.Discrete(3, start=5), spaces.Tuple([spaces.Box(0, 1, (2,)), spaces.MultiBinary(2)])]),
    "mixed": spaces.Dict({"a": spaces.Tuple([spaces.Discrete(2), spaces.Dict({"b": spaces.Discrete(3)})])}),
    "numbered keys": spaces.Dict({1: spaces.Discrete(2), 2: spaces.MultiDiscrete([2, 3])}),
    "scalar box": spaces.Box(-1.0, 1.0, (), np.float32),
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
    assert sorted(names) == ["camera", "inner/keys", "inner/slot", "use item"]
    uneven = ActionCodec(SPACES["uneven box"]).spec.components
    assert [(part.low, part.high) for part in uneven] == [(-1, 1), (0, 5)]
    assert ActionCodec(SPACES["multidiscrete"]).spec.dim == 3


@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(1),
        spaces.MultiDiscrete([3, 1]),
        spaces.Text(5),
        spaces.Sequence(spaces.Discrete(2)),
        spaces.Discrete(1 << 40),
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


# ---------------------------------------------------------------- bounds


DTYPES = ["float16", "float32", "float64", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]
WIDE = 1e9
"""Bounds of boxes in these tests: within what a spec allows, whatever the type."""


@st.composite
def boxes(draw: st.DrawFn) -> spaces.Box:
    """Boxes of every type, one to three columns with bounds of their own, often those of the type."""
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    info = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
    bottom, top = max(float(info.min), -WIDE), min(float(info.max), WIDE)
    special = [bottom, top, 0.8, 0.1, -0.7, 1 / 3, 0, 1, 255]
    number = st.one_of(
        st.sampled_from([n for n in special if bottom <= n <= top]),
        st.floats(max(bottom, -60000), min(top, 60000), width=32),
    )
    low, high = [], []
    for _ in range(draw(st.integers(1, 3))):
        pair = np.array(sorted((draw(number), draw(number)))).astype(dtype)
        if not are_apart(*map(float, pair)):
            pair = np.array([0, 1], dtype)
        low.append(pair[0])
        high.append(pair[1])
    return spaces.Box(np.array(low, dtype), np.array(high, dtype), dtype=dtype)


@settings(max_examples=100)
@given(boxes(), st.integers(0, 2**31))
def test_every_row_in_range_is_an_action_of_the_box(box: spaces.Box, seed: int) -> None:
    """Pitfall 46: for every type, at both bounds and between, what reaches the environment is in its space."""
    codec = ActionCodec(box)
    bounds = ActionRange(codec.spec)
    rows = [bounds.low, bounds.high, random_row(codec.spec, np.random.default_rng(seed))]
    for row in rows:
        action = codec.to_action(row)
        assert box.contains(action)
        back = codec.to_row(action)
        assert bounds.inside(back).all()
        np.testing.assert_allclose(back, row, rtol=2e-3, atol=0.5 if box.dtype.kind in "iu" else 1e-3)


def test_what_is_stored_is_the_whole_number_that_was_played() -> None:
    """A row of 2.4 is played as 2: a model must not learn that 2.4 did what 2 does."""
    codec = ActionCodec(spaces.Dict({"gear": spaces.Box(0, 5, (2,), np.int32), "wheel": spaces.Box(-1, 1, (1,))}))
    row = np.array([2.4, 4.6, 0.3], np.float32)
    np.testing.assert_array_equal(codec.taken(row), np.array([2, 5, 0.3], np.float32))
    np.testing.assert_array_equal(codec.taken(row), codec.to_row(codec.to_action(row)))
    bounded = ActionCodec(spaces.Box(0, 9, (1,), np.int32), bounds={"action": (0.5, 3.5)})
    assert (bounded.spec.components[0].low, bounded.spec.components[0].high) == (1, 3)


@pytest.mark.parametrize(
    ("box", "high"),
    [
        (spaces.Box(0, 0.8, (1,), np.float64), 0.8),
        (spaces.Box(0, 2**31 - 1, (1,), np.int32), 2**31 - 1),
        (spaces.Box(0, 2**32 - 1, (1,), np.uint32), 2**32 - 1),
        (spaces.Box(0, 255, (1,), np.uint8), 255),
        (spaces.Box(-100, 3, (1,), np.int8), 3),
    ],
)
def test_the_highest_row_is_the_highest_action(box: spaces.Box, high: float) -> None:
    """Pitfall 46: 0.8 is no float32, and 2**31 - 1 as a float32 is 2**31."""
    codec = ActionCodec(box)
    action = codec.to_action(ActionRange(codec.spec).high)
    assert action[0] == high
    assert box.contains(action)


FLOAT_MAX = float(np.finfo(np.float32).max)
UNBOUNDED = {
    "infinite": spaces.Box(-np.inf, np.inf, (2,), np.float32),
    "half": spaces.Box(0, np.inf, (2,), np.float64),
    "float32 max": spaces.Box(-FLOAT_MAX, FLOAT_MAX, (2,), np.float32),
    "float64 max": spaces.Box(-1e300, 1e300, (2,), np.float64),
    "int64 max": spaces.Box(np.iinfo(np.int64).min, np.iinfo(np.int64).max, (2,), np.int64),
    "uint64 max": spaces.Box(0, np.iinfo(np.uint64).max, (2,), np.uint64),
    "one point": spaces.Box(1.0, 1.0, (2,), np.float64),
    "no range for float32": spaces.Box(1.0, 1.0 + 1e-12, (2,), np.float64),
}


@pytest.mark.parametrize("ends", [(-math.inf, 3.0), (0.0, math.inf), (math.nan, 3.0)])
def test_given_bounds_without_an_end_are_refused(ends: tuple[float, float]) -> None:
    for box in (spaces.Box(0, 9, (1,), np.int32), spaces.Box(0, 9, (1,), np.float32)):
        with pytest.raises(InputError) as caught:
            ActionCodec(box, bounds={"action": ends})
        assert "action" in caught.value.message


@pytest.mark.parametrize("name", UNBOUNDED)
def test_bounds_that_say_nothing_are_refused_with_the_setting_that_helps(name: str) -> None:
    with pytest.raises(InputError, match="'action' goes from") as caught:
        ActionCodec(UNBOUNDED[name])
    assert "data.action_bounds" in caught.value.hint


@pytest.mark.parametrize("name", [name for name in UNBOUNDED if "max" in name or name in ("infinite", "half")])
def test_bounds_may_be_given(name: str) -> None:
    space = UNBOUNDED[name]
    codec = ActionCodec(space, bounds={"action": [0.0, 4.0], "action_1": [1.0, 2.0]})
    assert [(part.name, part.low, part.high) for part in codec.spec.components] == [
        ("action_0", 0.0, 4.0),
        ("action_1", 1.0, 2.0),
    ]
    for row in ([0.0, 1.0], [4.0, 2.0], [0.5, 1.5]):
        assert space.contains(codec.to_action(np.array(row, np.float32)))
    with pytest.raises(DataError, match="none of Box"):
        codec.to_row(np.array([5, 1], space.dtype))


def test_given_bounds_belong_to_a_component_and_stay_within_the_space() -> None:
    space = spaces.Dict({"aim": spaces.Box(-2.0, 2.0, (2,)), "fire": spaces.Discrete(2)})
    part = ActionCodec(space, bounds={"aim": [-1, 0.5]}).spec.components[0]
    assert (part.dim, part.low, part.high) == (2, -1.0, 0.5)
    with pytest.raises(InputError, match=r"-3..1; the environment takes -2..2"):
        ActionCodec(space, bounds={"aim": [-3, 1]})
    with pytest.raises(InputError, match="names 'aims', 'fire'; components with bounds are 'aim'"):
        ActionCodec(space, bounds={"aims": [0, 1], "fire": [0, 1]})


# ---------------------------------------------------------------- names


KEYS = st.text(min_size=0, max_size=4).filter(lambda key: key.isprintable())
NESTED = st.recursive(
    st.just(spaces.Discrete(2)), lambda inner: st.dictionaries(KEYS, inner, min_size=1, max_size=3).map(spaces.Dict)
)


@settings(max_examples=40)
@given(NESTED, st.integers(0, 1000))
def test_names_are_unique_and_lead_back(space: spaces.Space, seed: int) -> None:
    """Keys with dots, slashes, tildes or nothing in them: names are unique, and each leads to its part."""
    codec = ActionCodec(space)
    space.seed(seed)
    action = space.sample()
    row = codec.to_row(action)
    assert codec.to_action(row) == action
    for part, value in zip(codec.spec.components, row, strict=True):
        found = action
        if isinstance(space, spaces.Dict):
            for key in part_keys(part.name):
                found = found[key]
        assert found == value


def test_a_dot_in_a_key_is_not_a_step_inside() -> None:
    space = spaces.Dict(
        {"a.b": spaces.Discrete(2), "a": spaces.Dict({"b": spaces.Discrete(3)}), "a/b": spaces.Discrete(4)}
    )
    sizes = {part.name: part.num_classes for part in ActionCodec(space).spec.components}
    assert sizes == {"a.b": 2, "a/b": 3, "a~1b": 4}


def test_actions_that_are_none_are_refused() -> None:
    codec = ActionCodec(SPACES["dict"])
    for action in (3, {"camera": [0, 0]}, {**SPACES["dict"].sample(), "camera": [np.nan, 0]}, None):
        with pytest.raises(DataError, match="is none of"):
            codec.to_row(action)
